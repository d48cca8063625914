//! OCI images: names, content store, layers, registries and archives.
//!
//! This crate knows images and nothing about containers. It prints nothing and starts no asynchronous runtime. What
//! depends on the user, environment variables too, is passed in; only the system's certificates are looked for where
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` say, by the TLS library. Everything that comes out of a registry, an archive or a layer is treated as
//! hostile: it is bounded in size, verified against its digest, and touches files only through handles of the
//! directory it belongs to.
//!
//! Fetching an image and having its files:
//!
//! ```no_run
//! use dhow_images::{Matcher, NoProgress, Reference, Store, registry};
//!
//! # fn main() -> dhow_images::Result<()> {
//! let store = Store::open("/var/lib/dhow")?;
//! let name = Reference::parse("127.0.0.1:5000/hello:1")?;
//! let pulled = registry::pull(&store, &name, &registry::PullOptions::default(), &NoProgress)?;
//! let image = store.image(&pulled.descriptor, &Matcher::host())?;
//! let layers = store.unpack(&image, &NoProgress)?;
//! # Ok(())
//! # }
//! ```
//!
//! Making one and sending it somewhere, an index of a Wasm and a native variant:
//!
//! ```no_run
//! use dhow_images::compose::{ImageBuilder, LayerBuilder, wasm_artifact};
//! use dhow_images::{IndexBuilder, NoProgress, Platform, Reference, Store, registry};
//!
//! # fn main() -> dhow_images::Result<()> {
//! let store = Store::open("/var/lib/dhow")?;
//! let mut layer = LayerBuilder::new();
//! layer.file("bin/hello", 0o755, "#!/bin/sh\necho hello\n");
//! let mut native = ImageBuilder::new(&Platform::new("linux", "amd64", None));
//! native.layer(layer).config().cmd = vec!["/bin/hello".into()];
//! let mut index = IndexBuilder::new();
//! index.add(native.build(&store)?).add(wasm_artifact(&store, "wasip1", b"\0asm\x01\0\0\0")?);
//! let image = index.build(&store)?;
//! let name = Reference::parse("127.0.0.1:5000/hello:1")?;
//! store.tag(&name, &image)?;
//! registry::push(&store, &image, &name, &registry::PushOptions::default(), &NoProgress)?;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`Reference`], [`Digest`], [`Descriptor`], [`Store`], [`Image`], then [`registry`], [`archive`] and
//! [`compose`]. The crate's `examples/` are programs that do one thing each.

pub mod archive;
pub mod assemble;
pub mod compose;
pub mod convert;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod manifest_list;
pub mod media;
pub mod registry;
pub mod trust;

mod config;
mod descriptor;
mod digest;
#[cfg(target_os = "linux")]
pub mod erofs;
mod error;
mod export;
mod image;
mod index_builder;
mod layer;
mod platform;
mod progress;
mod reference;
mod store;
mod tree;

pub use config::Empty;
pub use config::History;
pub use config::ImageConfig;
pub use config::RootFs;
pub use config::RunConfig;
pub use descriptor::Descriptor;
pub use descriptor::Index;
pub use descriptor::MAX_MANIFEST;
pub use descriptor::Manifest;
pub use digest::Algorithm;
pub use digest::Digest;
pub use digest::Hasher;
pub use digest::HashingReader;
pub use digest::HashingWriter;
pub use error::CertificateFault;
pub use error::Error;
pub use error::Result;
pub use export::RootPart;
pub use export::copy_out;
pub use export::export;
pub use image::Image;
pub use image::Variant;
pub use index_builder::IndexBuilder;
#[cfg(target_os = "linux")]
pub use layer::commit::NewImage;
pub use layer::commit::NewLayer;
#[cfg(target_os = "linux")]
pub use layer::diff::DiffOptions;
#[cfg(target_os = "linux")]
pub use layer::diff::DiffSummary;
#[cfg(target_os = "linux")]
pub use layer::diff::Marks;
#[cfg(target_os = "linux")]
pub use layer::diff::write_diff;
pub use platform::Matcher;
pub use platform::Platform;
pub use progress::BlobKind;
pub use progress::Event;
pub use progress::JsonProgress;
pub use progress::NoProgress;
pub use progress::Progress;
pub use progress::State;
pub use reference::DEFAULT_REGISTRY;
pub use reference::DEFAULT_TAG;
pub use reference::Reference;
pub use store::Candidate;
pub use store::CheckOptions;
pub use store::Collected;
pub use store::DiskUsage;
pub use store::Hold;
pub use store::ImageUsage;
pub use store::IndexedImage;
pub use store::Keep;
pub use store::LayerForm;
pub use store::LeaseOwner;
pub use store::Part;
pub use store::Policy;
pub use store::Problem;
pub use store::Prune;
pub use store::Pruned;
pub use store::Sizes;
pub use store::Snapshot;
pub use store::SnapshotInfo;
pub use store::SnapshotKind;
pub use store::SnapshotLayer;
pub use store::SnapshotMounts;
pub use store::SnapshotParent;
pub use store::Snapshots;
pub use store::Store;
pub use store::Summary;
pub use store::Swept;
pub use store::UnpackedLayer;
pub use store::Usage;
pub use store::VariantSummary;
pub use store::disk_usage;
pub use store::remove_tree;
#[cfg(target_os = "linux")]
pub use store::unmount_all;
pub use tree::Aspect;
pub use tree::Change;
pub use tree::ChangeKind;
pub use tree::ImageTree;
pub use tree::LargeFile;
pub use tree::LayerReport;
pub use tree::NodeInfo;
