//! `export`: the root of a container, running or not, as one archive.

use std::io::Write;

use dhow_images::{
    Descriptor, DiffOptions, Digest, Image, Marks, Matcher, Platform, RootPart, media, write_diff,
};
use dhow_runtime::Kind;
use dhow_runtime::wasm::Backing;
use fs_err as fs;

use crate::engine::Engine;
use crate::error::Result;
use crate::record::{Container, ImageOrigin, Record};

/// How a container's writable directory is read as a layer.
pub(super) fn writable(record: &Record) -> Result<DiffOptions> {
    Ok(match record.kind {
        Kind::Native => DiffOptions { marks: Marks::Kernel, ..DiffOptions::default() },
        Kind::Wasm => {
            let marks = match record.host_config.files()? {
                Backing::Union => Marks::Portable,
                Backing::Kernel => Marks::Kernel,
            };
            // A Wasm program has no users.
            DiffOptions { marks, owner: Some((0, 0)), ..DiffOptions::default() }
        }
    })
}

impl Engine {
    /// Writes what a container sees as its root, without mounts and volumes, as a plain tar. Of a container that runs,
    /// files may change meanwhile.
    ///
    /// # Errors
    /// A file that cannot be read, a damaged layer, and those of `out`.
    pub fn export(&self, container: &Container, out: &mut dyn Write) -> Result<()> {
        let record = &container.record;
        let mut archives = Vec::new();
        if record.kind == Kind::Native {
            archives.push(self.archive(&self.root().join("skeleton"), Marks::None, Some((0, 0)))?);
        }
        let below = archives.len();
        let upper = self.data_folder(container).join("upper");
        if upper.is_dir() {
            let options = writable(record)?;
            archives.push(self.archive(&upper, options.marks, options.owner)?);
        }
        let image = record.image.as_ref().map(|origin| self.image_of(origin)).transpose()?;
        let mut parts: Vec<RootPart<'_>> = archives[..below].iter().map(RootPart::Tar).collect();
        parts.extend(image.as_ref().map(RootPart::Image));
        parts.extend(archives[below..].iter().map(RootPart::Tar));
        dhow_images::export(self.store(), &parts, out)?;
        self.tell_of(record, "export", &[]);
        Ok(())
    }

    /// The image a container was made from.
    pub(crate) fn image_of(&self, origin: &ImageOrigin) -> Result<Image> {
        let digest: Digest = origin.manifest.parse()?;
        let size = fs::metadata(self.store().blob_path(&digest))?.len();
        let platform: Platform = origin.platform.parse()?;
        let manifest =
            Descriptor { platform: Some(platform.clone()), ..Descriptor::new(media::MANIFEST, digest, size) };
        Ok(self.store().image(&manifest, &Matcher::only(&platform))?)
    }

    /// A folder as a layer, in a file without a name.
    fn archive(&self, folder: &std::path::Path, marks: Marks, owner: Option<(u32, u32)>) -> Result<fs::File> {
        let path = self.scratch_folder().join(format!(".export-{}", std::process::id()));
        let mut file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        // Open it stays; nobody else needs it, and nothing is left when this process is killed from here on.
        fs::remove_file(&path)?;
        if folder.is_dir() {
            let options = DiffOptions { marks, owner, ..DiffOptions::default() };
            let mut buffered = std::io::BufWriter::with_capacity(256 << 10, &mut file);
            write_diff(folder, &options, &mut buffered)?;
            buffered.flush()?;
        }
        Ok(file)
    }
}
