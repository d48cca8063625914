//! How registries are reached: who the user is, which certificates, proxies and mirrors there are, how patient to be.
//!
//! Plain data that the caller fills in; nothing here looks at the environment.

use std::fmt;
use std::time::Duration;

use super::proxy::Proxies;
use super::tls::Tls;

/// Who the user is to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password, or an access token as password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token of the registry's token service.
    IdentityToken(String),
    /// A token that the registry takes as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    /// Says nothing: debug output ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// How to reach one registry.
#[derive(Debug, Clone)]
pub struct Access {
    /// For private repositories. They go to the registry itself and its token service, never to a mirror.
    pub credentials: Option<Credentials>,
    /// Accept any certificate, and plain HTTP where there is no HTTPS. A registry on a loopback address may speak
    /// plain HTTP without this.
    pub insecure: bool,
    /// Certificates beyond the system's.
    pub tls: Tls,
    /// Where requests go through a proxy.
    pub proxies: Proxies,
    /// Asked before the registry itself, in this order, for reading only.
    pub mirrors: Vec<Mirror>,
    /// How often a request or a broken download is tried in all.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from one attempt to the next, up to 10 s.
    pub backoff: Duration,
    /// How long a registry may stay silent.
    pub timeout: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            credentials: None,
            insecure: false,
            tls: Tls::default(),
            proxies: Proxies::default(),
            mirrors: Vec::new(),
            attempts: 5,
            backoff: Duration::from_millis(250),
            timeout: Duration::from_secs(60),
        }
    }
}

/// Another registry that holds the same images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    /// `http://host[:port][/prefix]` or `https://…`. A prefix comes before the repository, as proxy projects of
    /// registries want it.
    pub url: String,
    /// The mirror's own credentials.
    pub credentials: Option<Credentials>,
    /// Accept any certificate.
    pub insecure: bool,
    /// Certificates beyond the system's.
    pub tls: Tls,
}

/// What a client may do with a repository: the scope of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Read.
    Pull,
    /// Read and write, and mount blobs of these other repositories of the same registry.
    Push {
        /// Repositories that are read from.
        from: Vec<String>,
    },
    /// Read, write and delete.
    Delete,
    /// Nothing of a repository: log in, search, list.
    Registry,
}

impl Scope {
    /// In the words of the token specification, one element for each repository.
    pub(super) fn words(&self, repository: &str) -> Vec<String> {
        let own = |actions: &str| vec![format!("repository:{repository}:{actions}")];
        match self {
            Self::Pull => own("pull"),
            Self::Push { from } => {
                let others = from.iter().filter(|other| *other != repository);
                let others = others.map(|other| format!("repository:{other}:pull"));
                own("pull,push").into_iter().chain(others).collect()
            }
            Self::Delete => own("pull,push,delete"),
            Self::Registry => Vec::new(),
        }
    }

    /// What is denied when access is denied.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push { .. } => "push",
            Self::Delete => "delete",
            Self::Registry => "registry",
        }
    }
}
