//! Image archives and layouts.
use crate::*;
/// Where an archive comes from.
pub enum Source<'a> {
    /// A file, or an OCI layout directory.
    Path(&'a std::path::Path),
    /// A stream, for example standard input.
    Reader(&'a mut dyn std::io::Read),
}
impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}
/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name, if the archive gives one. Without, the image is kept untagged.
    pub reference: Option<Reference>,
    /// The image.
    pub descriptor: Descriptor,
}
/// Reads every image of an archive into the store and tags those that have names.
pub fn load(_store: &Store, _source: Source<'_>, _progress: &dyn Progress) -> Result<Vec<Loaded>> {
    Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported)))
}
/// Writes an image and everything of it that is in the store as an OCI image layout. `dir` is made.
pub fn save_layout(
    _store: &Store,
    _image: &Descriptor,
    _name: Option<&Reference>,
    _dir: &std::path::Path,
) -> Result<()> {
    Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported)))
}
