//! How an image came to be: the steps of its configuration, each with the layer it made.

use dhow_images::{Image, Matcher};

use crate::engine::Engine;
use crate::error::Result;

/// One step, newest first in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The image's id for its last step; Docker shows `<missing>` for all others.
    pub id: Option<String>,
    /// RFC 3339, if it says so.
    pub created: Option<String>,
    /// The command.
    pub created_by: String,
    /// Bytes of its layer's files; 0 for a step that made none.
    pub size: u64,
    /// A remark.
    pub comment: String,
}

impl Engine {
    /// The steps of one variant of an image, newest first.
    ///
    /// # Errors
    /// Unknown image, or no such variant in the store.
    pub fn history(&self, wanted: &str, platforms: &Matcher) -> Result<Vec<Step>> {
        let target = self.find_image(wanted)?;
        let image = self.store().image(&target, platforms)?;
        let mut steps = self.steps(&image);
        if let Some(last) = steps.first_mut() {
            last.id = Some(target.digest.to_string());
        }
        Ok(steps)
    }

    fn steps(&self, image: &Image) -> Vec<Step> {
        // Until a layer is unpacked, only what was fetched is known of its size.
        let size = |at: usize| {
            let unpacked = image.diff_ids.get(at).and_then(|diff_id| self.store().unpacked_size(diff_id));
            unpacked.or_else(|| image.layers.get(at).map(|layer| layer.size)).unwrap_or(0)
        };
        let mut steps = Vec::new();
        let mut layer = 0;
        for entry in &image.config.history {
            let size = if entry.empty_layer {
                0
            } else {
                layer += 1;
                size(layer - 1)
            };
            steps.push(Step {
                id: None,
                created: entry.created.clone(),
                created_by: entry.created_by.clone().unwrap_or_default(),
                size,
                comment: entry.comment.clone().unwrap_or_default(),
            });
        }
        // Builders may say less than they did: every layer is shown all the same, and the module of an artifact.
        let plain = |size| Step {
            id: None,
            created: image.config.created.clone(),
            created_by: String::new(),
            size,
            comment: String::new(),
        };
        steps.extend((layer..image.layers.len()).map(|at| plain(size(at))));
        if steps.is_empty() {
            steps.extend(image.wasm.iter().map(|wasm| plain(wasm.size)));
        }
        steps.reverse();
        steps
    }
}
