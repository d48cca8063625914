//! Signatures of an image at its registry and beside it: what [`crate::trust`] asks of a [`Remote`].

use fs_err as fs;
use std::io;
use std::io::Read as _;
use ureq::http::Request;
use ureq::http::StatusCode;

use super::agent::Agents;
use super::http::read_limited;
use super::http::refused;
use super::remote::Remote;
use super::reply::authority_of;
use super::reply::host_of;
use super::reply::no_answer;
use super::tls::Tls;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::error::Result;
use crate::trust::SignatureSource;

impl SignatureSource for Remote<'_> {
    fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>> {
        match Self::manifest(self, reference) {
            Ok((_, bytes)) => Ok(Some(bytes)),
            // What is there but is no manifest holds no signature either.
            Err(Error::ManifestUnknown { .. } | Error::InvalidManifest { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>> {
        self.each(|client| super::referrers::of(client, digest))
    }

    fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        Self::blob(self, blob)
    }

    fn file(&self, url: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        if let Some(path) = url.strip_prefix("file://") {
            let mut bytes = Vec::new();
            match fs::File::open(path) {
                Ok(file) => file.take(limit as u64 + 1).read_to_end(&mut bytes)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            if bytes.len() > limit {
                return Err(refused(url, "the signature is too large"));
            }
            return Ok(Some(bytes));
        }
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(refused(url, "not an address of signatures: expected `file:`, `http:` or `https:`"));
        }
        // The user chose this host; it gets nobody's credentials, and leads nowhere else.
        let agents = Agents::new(host_of(&authority_of(url)), &Tls::default(), false, self.access());
        let request = Request::get(url).header("Accept-Encoding", "identity").body(());
        let request = request.map_err(|e| refused(url, &e.to_string()))?;
        let response = agents.for_url(url)?.run(request).map_err(|e| no_answer(url, &e))?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => read_limited(response, limit as u64)
                .map(Some)
                .ok_or_else(|| refused(url, "the signature was cut off or is too large")),
            other => Err(refused(url, &format!("the server of signatures answered {other}"))),
        }
    }
}
