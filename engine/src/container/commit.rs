//! `commit`: an image of what a container has become: the image it was made from, one more layer, and its settings.

use dhow_images::media::Compression;
use dhow_images::{Descriptor, Empty, History, NewImage, Reference, RunConfig};
use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::change;
use crate::record::{Container, Record};

/// What a commit is asked for.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The image's name; without one it is known by its id.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// A remark for the history.
    pub message: String,
    /// Dockerfile instructions, see [`change::apply`].
    pub changes: Vec<String>,
}

impl Engine {
    /// Makes an image of a container. Of one that runs, files may change meanwhile: a file that becomes shorter while it
    /// is read is an error.
    ///
    /// # Errors
    /// A change that is none, a container without an image, and those of the disk.
    pub fn commit(&self, container: &Container, commit: &Commit) -> Result<Descriptor> {
        let record = &container.record;
        let mut config = settings(record);
        for instruction in &commit.changes {
            change::apply(&mut config, instruction)?;
        }
        if commit.name.as_ref().is_some_and(|name| name.digest().is_some()) {
            return Err(Error::Invalid("refusing to create a tag with a digest reference".to_owned()));
        }
        let Some(origin) = &record.image else {
            return Err(Error::NotYet {
                what: "an image of a container that was made of a file".to_owned(),
                hint: "`dhow image convert` makes an image of a Wasm file".to_owned(),
            });
        };
        let image = self.image_of(origin)?;
        if !image.wasm.is_empty() {
            return Err(Error::NotYet {
                what: "an image of a container whose image is an artifact without files".to_owned(),
                hint: "make an image with files of it first, with `dhow image convert`".to_owned(),
            });
        }
        let mut whole = image.config.clone();
        // What the record has no words for stays as the image has it.
        config.healthcheck.clone_from(&whole.config.healthcheck);
        config.shell.clone_from(&whole.config.shell);
        config.on_build.extend(whole.config.on_build.iter().cloned());
        let now = Timestamp::now().to_string();
        whole.created = Some(now.clone());
        whole.author = Some(commit.author.clone()).filter(|author| !author.is_empty());
        whole.config = config;
        let history = History {
            created: Some(now),
            created_by: Some(record.args.join(" ")),
            author: whole.author.clone(),
            comment: Some(commit.message.clone()).filter(|message| !message.is_empty()),
            empty_layer: false,
        };
        let upper = self.data_folder(container).join("upper");
        let options = super::export::writable(record)?;
        let new = NewImage { below: &image, config: whole, history };
        let upper = Some(upper.as_path()).filter(|upper| upper.is_dir());
        let made = self.store().commit_image(new, upper, &options, Compression::Gzip)?;
        match &commit.name {
            Some(name) => self.store().tag(name, &made)?,
            None => self.store().keep_untagged(&made)?,
        }
        Ok(made)
    }
}

/// The container's settings as an image has them.
fn settings(record: &Record) -> RunConfig {
    let config = &record.config;
    RunConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        volumes: config.volumes.keys().map(|place| (place.clone(), Empty {})).collect(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        ..RunConfig::default()
    }
}
