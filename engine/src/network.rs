//! Networks: bridges that native containers are connected to, with an address each.
//!
//! ```text
//! networks/.lock                         held by who makes or removes a network
//! networks/<name>/network.json           what it is; written once
//! networks/<name>/endpoints/<address>    whose address that is, and its names: see `endpoint`
//! ```
//! In the kernel there is, as long as something is connected, a bridge for each network and one table of the packet
//! filter for all. They are made when they are needed, after a reboot too; nothing is promised about what others do to
//! them. `none` and `host` are networks by name only.
//!
//! Names of containers are served by each one's monitor from those records: see `directory` and `dns`.
//!
//! Not here: what Wasm programs without a network may reach, which is [`crate::ports`].

pub mod address;
pub mod address6;
#[cfg(target_os = "linux")]
mod anchor;
#[cfg(target_os = "linux")]
mod change;
#[cfg(target_os = "linux")]
mod check;
mod create;
#[cfg(target_os = "linux")]
mod directory;
#[cfg(target_os = "linux")]
pub(crate) mod dns;
#[cfg(target_os = "linux")]
mod endpoint;
#[cfg(target_os = "linux")]
pub(crate) mod files;
#[cfg(target_os = "linux")]
mod firewall;
#[cfg(target_os = "linux")]
mod inside;
#[cfg(target_os = "linux")]
mod link;
pub mod links;
mod member;
mod options;
#[cfg(target_os = "linux")]
mod publish;
#[cfg(target_os = "linux")]
mod realm;
mod remove;
#[cfg(target_os = "linux")]
pub(crate) mod rootless;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::record;
use address::Subnet;
use address6::Subnet6;

#[cfg(target_os = "linux")]
pub(crate) use check::sweep;
pub use create::CreateNetwork;
#[cfg(target_os = "linux")]
pub(crate) use directory::{Directory, Found};
#[cfg(target_os = "linux")]
pub(crate) use endpoint::Attached;
pub use endpoint_record::Endpoint;
#[cfg(target_os = "linux")]
pub(crate) use inside::Sockets;
pub use member::Membership;
#[cfg(target_os = "linux")]
pub(crate) use publish::{Door, Mailbox};
#[cfg(target_os = "linux")]
pub(crate) use realm::{Realm, is_there, reaches_networks};
pub use remove::PrunedNetworks;

/// The network of containers that ask for none.
pub const DEFAULT: &str = "bridge";

/// The only driver with a record.
pub const BRIDGE: &str = "bridge";

const FOLDER: &str = "networks";
const RECORD: &str = "network.json";
const ENDPOINTS: &str = "endpoints";
const LOCK: &str = ".lock";
const GONE: &str = ".gone.";

/// Network modes that are no networks of ours: who has them is connected by a program of that name.
pub(crate) const COPIED: [&str; 2] = ["pasta", "slirp4netns"];

/// Names that are networks without a record.
pub const BUILT_IN: [&str; 2] = ["host", "none"];

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique on this root.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// The interface on this host.
    pub bridge: String,
    /// Its addresses, as `10.210.16.0/24`.
    pub subnet: String,
    /// This host's address in it.
    pub gateway: Ipv4Addr,
    /// Its addresses of IPv6, as `fd00:1::/64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<String>,
    /// This host's address of IPv6 in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// The part of the subnet that containers get addresses of which ask for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    /// Addresses that nobody gets, by what they are for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// It leads nowhere.
    #[serde(default)]
    pub internal: bool,
    /// Docker's note that services may use it; it changes nothing here.
    #[serde(default)]
    pub attachable: bool,
    /// Whether its subnet was asked for.
    #[serde(default)]
    pub chosen: bool,
    /// What the driver was told.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// What who chooses addresses was told; it means nothing here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipam_options: BTreeMap<String, String>,
    /// Free-form notes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// Its addresses.
    ///
    /// # Errors
    /// A damaged record.
    pub fn addresses(&self) -> Result<Subnet> {
        self.subnet.parse()
    }

    /// Its addresses of IPv6, if it has any.
    ///
    /// # Errors
    /// A damaged record.
    pub fn addresses6(&self) -> Result<Option<Subnet6>> {
        self.subnet6.as_deref().map(str::parse).transpose()
    }
}

/// Checks a name.
///
/// # Errors
/// Docker's messages.
pub fn validate(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && name.bytes().all(allowed) && name.len() <= 255 {
        return Ok(());
    }
    Err(Error::Invalid(format!("invalid network name: {name}")))
}

impl Engine {
    fn networks_folder(&self) -> PathBuf {
        self.root().join(FOLDER)
    }

    fn network_folder(&self, name: &str) -> PathBuf {
        self.networks_folder().join(name)
    }

    /// Finds a network by name or by id, in part.
    ///
    /// # Errors
    /// [`Error::NoSuchNetwork`], or a damaged record.
    pub fn network(&self, wanted: &str) -> Result<Network> {
        let missing = || Error::NoSuchNetwork(wanted.to_owned());
        validate(wanted).map_err(|_| missing())?;
        let path = self.network_folder(wanted).join(RECORD);
        match record::read::<Network>(&path) {
            Err(Error::Io(error))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Ok(network) if network.name != wanted => {
                return Err(Error::Damaged { path, reason: "names another network".to_owned() });
            }
            found => return found,
        }
        let mut fitting = self.networks()?.into_iter().filter(|network| network.id.starts_with(wanted));
        match (fitting.next(), fitting.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(Error::Invalid(format!(
                "network {wanted} is ambiguous ({} matches found based on ID prefix)",
                2 + fitting.count()
            ))),
            (None, _) => Err(missing()),
        }
    }

    /// The network of containers that ask for none; made with the first use.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn default_network(&self) -> Result<Network> {
        match self.network(DEFAULT) {
            Err(Error::NoSuchNetwork(_)) => {}
            found => return found,
        }
        let made = self.make_network(CreateNetwork { name: DEFAULT.to_owned(), ..CreateNetwork::default() });
        // Somebody may have been faster.
        made.or_else(|error| self.network(DEFAULT).map_err(|_| error))
    }

    /// Every network with a record, by name. One whose record is damaged is missing.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn networks(&self) -> Result<Vec<Network>> {
        let entries = match fs::read_dir(self.networks_folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut networks = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match record::read::<Network>(&entry.path().join(RECORD)) {
                Ok(network) => networks.push(network),
                // In the making or damaged.
                Err(Error::Damaged { .. }) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(networks)
    }

    fn networks_lock(&self) -> Result<fs::File> {
        make_folder(&self.networks_folder())?;
        let path = self.networks_folder().join(LOCK);
        Ok(fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?)
    }
}

mod endpoint_record {
    //! What the disk says about a connected container.

    use super::{Deserialize, Ipv4Addr, Ipv6Addr, Serialize};
    use crate::ports::PortMap;

    /// A container in a network.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    pub struct Endpoint {
        /// 64 hexadecimal digits.
        pub id: String,
        /// The network's name.
        pub network: String,
        /// The network's id.
        pub network_id: String,
        /// The container's id.
        pub container: String,
        /// Name of the interface inside.
        pub interface: String,
        /// Its address.
        pub address: Ipv4Addr,
        /// Leading bits of it that are the network's.
        pub prefix: u8,
        /// Where everything else goes.
        pub gateway: Option<Ipv4Addr>,
        /// Its address of IPv6.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub address6: Option<Ipv6Addr>,
        /// Leading bits of that which are the network's.
        #[serde(default)]
        pub prefix6: u8,
        /// Where everything else of IPv6 goes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub gateway6: Option<Ipv6Addr>,
        /// As `02:42:0a:d2:00:02`.
        pub mac_address: String,
        /// Published through it.
        #[serde(default)]
        pub ports: PortMap,
        /// Other names it is known by, as they were asked for.
        #[serde(default)]
        pub aliases: Vec<String>,
        /// Every name that others in the network find it by, in lower case: the container's first.
        #[serde(default)]
        pub names: Vec<String>,
        /// Names that only this container has of others: alias and name, in lower case.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub links: Vec<(String, String)>,
    }
}
