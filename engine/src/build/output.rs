//! Where the result of a build goes besides the store.

use std::fs::File;
use std::path::{Path, PathBuf};

use dhow_images::archive::{SaveOptions, Saved};
use dhow_images::assemble::export_to;
use dhow_images::{Descriptor, Matcher, Reference, RootPart};

use crate::engine::Engine;
use crate::error::Result;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The image, in the store only.
    Image,
    /// An archive that `load` of this and other engines takes; OCI's layout or Docker's form.
    Archive {
        /// The form of OCI.
        oci: bool,
        /// The file; standard output if none.
        to: Option<PathBuf>,
    },
    /// The files of the result as an archive.
    Tar(Option<PathBuf>),
    /// The files of the result in a directory.
    Local(PathBuf),
}

/// Writes a built image.
///
/// # Errors
/// Those of the disk; more than one platform where only files are asked for.
pub fn write_output(
    engine: &Engine,
    output: &Output,
    image: &Descriptor,
    names: &[Reference],
    stdout: &mut File,
) -> Result<()> {
    let store = engine.store();
    let open = |to: &Option<PathBuf>| -> Result<Option<File>> {
        Ok(match to {
            Some(path) => Some(fs_err::File::create(path)?.into_parts().0),
            None => None,
        })
    };
    match output {
        Output::Image => Ok(()),
        Output::Archive { oci, to } => {
            let format = if *oci {
                dhow_images::archive::SaveFormat::Oci
            } else {
                dhow_images::archive::SaveFormat::Docker
            };
            let options = SaveOptions { format, ..SaveOptions::default() };
            let saved = [Saved { image: image.clone(), names: names.to_vec() }];
            let mut file = open(to)?;
            Ok(dhow_images::archive::save(store, &saved, &options, file.as_mut().unwrap_or(stdout))?)
        }
        Output::Tar(to) => {
            let image = store.image(image, &Matcher::native_first())?;
            let mut file = open(to)?;
            let out = file.as_mut().unwrap_or(stdout);
            Ok(dhow_images::export(store, &[RootPart::Image(&image)], out)?)
        }
        Output::Local(to) => {
            let image = store.image(image, &Matcher::native_first())?;
            Ok(export_to(store, &[RootPart::Image(&image)], Path::new(to))?)
        }
    }
}
