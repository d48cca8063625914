//! Making images from files, without running anything.
use crate::*;
/// A layer in the making: a deterministic tar.
#[derive(Debug, Default, Clone)]
pub struct LayerBuilder {}
impl LayerBuilder {
    /// An empty layer.
    pub fn new() -> Self { Self::default() }
    /// A directory.
    pub fn dir(&mut self, _path: &str, _mode: u32) -> &mut Self { self }
    /// A regular file. Parents are made.
    pub fn file(&mut self, _path: &str, _mode: u32, _content: impl Into<Vec<u8>>) -> &mut Self { self }
    /// A symbolic link.
    pub fn symlink(&mut self, _path: &str, _target: &str) -> &mut Self { self }
}
/// One variant of an image in the making.
#[derive(Debug, Clone)]
pub struct ImageBuilder { config: ImageConfig }
impl ImageBuilder {
    /// An image without layers for this platform.
    pub fn new(platform: &Platform) -> Self { Self { config: ImageConfig { os: platform.os.clone(), architecture: platform.architecture.clone(), ..ImageConfig::default() } } }
    /// The defaults for containers.
    pub fn config(&mut self) -> &mut RunConfig { &mut self.config.config }
    /// Adds a layer on top.
    pub fn layer(&mut self, _layer: LayerBuilder) -> &mut Self { self }
    /// Writes layers, configuration and manifest. The descriptor carries the platform.
    pub fn build(&self, _store: &Store) -> Result<Descriptor> { Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported))) }
}
/// Writes a CNCF Wasm artifact: one module or component, no file system.
pub fn wasm_artifact(_store: &Store, _os: &str, _code: &[u8]) -> Result<Descriptor> { Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported))) }
/// Writes an index over variants.
pub fn index(_store: &Store, _variants: &[Descriptor]) -> Result<Descriptor> { Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported))) }
