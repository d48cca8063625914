//! `--squash`: all layers of a build as one, with the removals that it still needs.
//!
//! Everything comes from the layers' archives, as with an export. Names of one file stay names of one file.

use std::rc::Rc;

use dhow_images::media::Compression;
use dhow_images::{Digest, History};

use super::builder::Builder;
use super::cache::{Cached, Made};
use super::layer::Print;
use super::stage::{Own, Stage};
use super::sum::{self, Sum};
use crate::error::Result;

impl Builder<'_, '_> {
    /// Makes one layer of all that this build has put onto its base.
    pub(super) fn squash(&mut self, stage: &mut Stage) -> Result<()> {
        let own = stage.layers.len();
        if own == 0 {
            return Ok(());
        }
        let kept = stage.config.rootfs.diff_ids.len() - own;
        let mut key = Print::new("squash");
        key.text(stage.chain().to_string().as_bytes()).text(&(kept as u64).to_le_bytes());
        let key = key.finish();
        let cached = self.look_up(&key)?.and_then(|cached| cached.layer);
        let made = if let Some(made) = cached {
            made
        } else {
            let mut sum = Sum::default();
            let spool = Rc::new(self.work.spool()?);
            let mut offset = 0;
            for layer in &stage.layers {
                sum.add(sum::read(self.engine, &layer.made.blob.digest, &spool, &mut offset)?);
            }
            let layer = sum.layer();
            let new = self.engine.store().new_layer(Compression::Gzip, |out| layer.write(out, None))?;
            self.work.keep([&new.blob.digest, &new.diff_id])?;
            let made = Made { blob: new.blob, diff_id: new.diff_id };
            let record = Cached { layer: Some(made.clone()), text: "SQUASH".to_owned() };
            self.remember(&key, &record)?;
            made
        };
        let last: Option<Digest> = stage.config.rootfs.diff_ids.last().cloned();
        stage.config.rootfs.diff_ids.truncate(kept);
        let mut entries = stage.config.history.iter_mut().rev();
        let mut left = own;
        while left > 0
            && let Some(entry) = entries.next()
        {
            if !entry.empty_layer {
                entry.empty_layer = true;
                left -= 1;
            }
        }
        stage.layers.clear();
        let below = stage.config.rootfs.diff_ids.last().map(Digest::to_string).unwrap_or_default();
        let merged = last.map(|last| last.to_string()).unwrap_or_default();
        let comment = Some(format!("merge {merged} to {below}").trim_end_matches(" to ").to_owned());
        let created = Some(self.now.to_string());
        stage.add(Own { made, files: None }, History { created, comment, ..History::default() });
        Ok(())
    }
}
