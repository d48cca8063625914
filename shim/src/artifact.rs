//! Wasm code that is a layer of an image by itself, as CNCF's Wasm artifacts and runwasi's images have it.
//!
//! containerd pulls such layers and unpacks nothing: the container's root file system is empty. The shim asks containerd
//! for the container's image, reads index, manifest and layers from its store of content, each checked by its digest, and
//! gives the code to the Wasm executor as a file beside the root file system. The file lasts until the container is made:
//! what is compiled from it is kept under its digest, the same name that Dhow's other faces use.
//!
//! Only asked for when the root file system has nothing in it, or not the program: other containers pay nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_runtime::Module;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Code, Failure};
use crate::grpc::Server;
use crate::messages::Id;
use crate::messages::artifact::{
    ContainerAnswer, ContentPart, ContentRequest, Described, ImageAnswer, ImageName,
};

/// How long containerd may be silent: it waits for an answer itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest index or manifest.
const DOCUMENT: u64 = 4 << 20;
/// The largest code, as the executor has it.
const CODE: u64 = 1 << 30;
/// The most layers of code.
const LAYERS: usize = 64;
/// What names the image where containerd's record of the container does not: the CRI plugin sets it.
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// The folder in the bundle that the code is in.
const FOLDER: &str = "wasm";

/// containerd's store, as a container sees it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// containerd's socket.
    pub(crate) address: PathBuf,
    pub(crate) namespace: String,
}

/// Code for a container, on disk as long as this lives: the program, then components that it may be linked with.
#[derive(Debug)]
pub(crate) struct Artifact {
    pub(crate) modules: Vec<Module>,
    folder: PathBuf,
}

impl Drop for Artifact {
    fn drop(&mut self) {
        // What is left is in the bundle, which containerd removes.
        fs_err::remove_dir_all(&self.folder).ok();
    }
}

/// An index or a manifest, whichever it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    manifests: Vec<Listed>,
    layers: Vec<Listed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Listed {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
}

impl Listed {
    /// Whether it is Wasm code, under any of the names that it has had.
    fn is_code(&self) -> bool {
        matches!(
            self.media_type.as_str(),
            "application/wasm"
                | "application/vnd.wasm.content.layer.v1+wasm"
                | "application/vnd.module.wasm.content.layer.v1+wasm"
                | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
                | "application/vnd.bytecodealliance.component.layer.v0+wasm"
                | "application/vnd.w3c.wasm.module.v1+wasm"
                | "application/vnd.w3c.wasm.component.v1+wasm"
        )
    }
}

impl Document {
    /// The manifest of an index that is meant: the one for Wasm, the only one, or one that says nothing of a platform.
    fn chosen(&self) -> Option<&Listed> {
        let architecture = |one: &Listed| one.platform.as_ref().map(|platform| platform.architecture.clone());
        let is =
            |wanted: Option<&str>| self.manifests.iter().find(|one| architecture(one).as_deref() == wanted);
        let only = self.manifests.first().filter(|_| self.manifests.len() == 1);
        is(Some("wasm")).or(only).or_else(|| is(None))
    }
}

impl Store {
    /// The code of a container's image; `None` when the container has no image, or that has no such layers.
    ///
    /// # Errors
    /// When containerd does not give what the image names, or gives something else.
    pub(crate) fn find(&self, id: &str, bundle: &Path) -> Result<Option<Artifact>, Failure> {
        let Some(image) = self.image_of(id, bundle)? else { return Ok(None) };
        let failed = |why: String| {
            Failure::new(Code::FailedPrecondition, format!("cannot read the Wasm code of {image}: {why}"))
        };
        self.read(&image, &bundle.join(FOLDER)).map_err(failed)
    }

    /// The name of a container's image.
    fn image_of(&self, id: &str, bundle: &Path) -> Result<Option<String>, Failure> {
        let asked = Id { id: id.to_owned() };
        let answer: ContainerAnswer = self
            .server()
            .call("containerd.services.containers.v1.Containers/Get", &asked)
            .map_err(|why| Failure::new(Code::Unknown, format!("cannot ask containerd: {why}")))?;
        let image = answer.container.unwrap_or_default().image;
        Ok(Some(image)
            .filter(|image| !image.is_empty())
            .or_else(|| crate::start::annotation(bundle, IMAGE_NAME)))
    }

    fn server(&self) -> Server<'_> {
        Server { socket: &self.address, namespace: &self.namespace, patience: PATIENCE }
    }

    fn read(&self, image: &str, folder: &Path) -> Result<Option<Artifact>, String> {
        let asked = ImageName { name: image.to_owned() };
        let answer: ImageAnswer = self.server().call("containerd.services.images.v1.Images/Get", &asked)?;
        let Described { digest, .. } =
            answer.image.and_then(|image| image.target).ok_or("it has no content")?;
        let mut document = self.document(&digest)?;
        // An index of indexes is none that anybody makes.
        if !document.manifests.is_empty() {
            let Some(chosen) = document.chosen() else { return Ok(None) };
            document = self.document(&chosen.digest)?;
        }
        let code: Vec<&Listed> = document.layers.iter().filter(|layer| layer.is_code()).collect();
        if code.is_empty() {
            return Ok(None);
        }
        if code.len() > LAYERS {
            return Err(format!("{} layers of code, which is more than {LAYERS}", code.len()));
        }
        fs_err::create_dir_all(folder).map_err(|error| error.to_string())?;
        let mut artifact = Artifact { modules: Vec::new(), folder: folder.to_owned() };
        for (number, layer) in code.into_iter().enumerate() {
            let path = folder.join(format!("{number}.wasm"));
            let mut file = fs_err::File::create(&path).map_err(|error| error.to_string())?;
            self.content(&layer.digest, layer.size.min(CODE), |part| file.write_all(part))?;
            artifact.modules.push(Module { path, id: Some(layer.digest.clone()) });
        }
        Ok(Some(artifact))
    }

    fn document(&self, digest: &str) -> Result<Document, String> {
        let mut text = Vec::new();
        self.content(digest, DOCUMENT, |part| {
            text.extend_from_slice(part);
            Ok(())
        })?;
        serde_json::from_slice(&text).map_err(|error| format!("{digest}: {error}"))
    }

    /// Reads what has this digest, piece by piece, and no more than `most` bytes of it.
    fn content(
        &self,
        digest: &str,
        most: u64,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), String> {
        let hex = digest.strip_prefix("sha256:").ok_or_else(|| format!("{digest} is no SHA-256 digest"))?;
        let (mut hash, mut left) = (Sha256::new(), most);
        let asked = ContentRequest { digest: digest.to_owned() };
        self.server().stream(
            "containerd.services.content.v1.Content/Read",
            &asked,
            |part: ContentPart| {
                let too_long = || std::io::Error::other(format!("{digest} has more than {most} bytes"));
                left = left.checked_sub(part.data.len() as u64).ok_or_else(too_long)?;
                hash.update(&part.data);
                take(&part.data)
            },
        )?;
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == hex { Ok(()) } else { Err(format!("{digest} has other content than it says")) }
    }
}

/// Whether a folder has nothing in it.
pub(crate) fn is_empty(folder: &Path) -> bool {
    fs_err::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_leads_to_the_wasm_manifest() {
        let document = |text: &str| serde_json::from_str::<Document>(text).unwrap();
        let many = document(
            r#"{"manifests": [{"digest": "a", "platform": {"architecture": "amd64", "os": "linux"}},
                {"digest": "b", "platform": {"architecture": "wasm", "os": "wasip1"}}]}"#,
        );
        assert_eq!(many.chosen().map(|one| one.digest.as_str()), Some("b"));
        let bare = document(
            r#"{"manifests": [{"digest": "a", "platform": {"architecture": "amd64"}}, {"digest": "b"}]}"#,
        );
        assert_eq!(bare.chosen().map(|one| one.digest.as_str()), Some("b"));
        let native = r#"{"manifests": [{"digest": "a", "platform": {"architecture": "amd64"}},
            {"digest": "b", "platform": {"architecture": "arm64"}}]}"#;
        assert!(document(native).chosen().is_none());
        assert!(document("{}").chosen().is_none());
        assert!(serde_json::from_str::<Document>(r#"{"layers": 3}"#).is_err());
    }

    #[test]
    fn code_is_known_by_its_type() {
        let layer = |kind: &str| Listed { media_type: kind.to_owned(), ..Listed::default() };
        assert!(layer("application/wasm").is_code());
        assert!(layer("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm").is_code());
        assert!(!layer("application/vnd.oci.image.layer.v1.tar+gzip").is_code());
        assert!(!layer("").is_code());
    }
}
