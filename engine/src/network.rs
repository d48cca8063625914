//! Networks: bridges that native containers are connected to, with an address each.
//!
//! ```text
//! networks/.lock                         held by who makes or removes a network
//! networks/<name>/network.json           what it is; written once
//! networks/<name>/endpoints/<address>    whose address that is: see `endpoint`
//! ```
//! In the kernel there is, as long as something is connected, a bridge for each network and one table of the packet
//! filter for all. They are made when they are needed, after a reboot too; nothing is promised about what others do to
//! them. `none` and `host` are networks by name only.
//!
//! Not here: what Wasm programs may reach, which is [`crate::ports`]; names of other containers.

pub mod address;
#[cfg(target_os = "linux")]
mod endpoint;
#[cfg(target_os = "linux")]
pub(crate) mod files;
#[cfg(target_os = "linux")]
mod firewall;
#[cfg(target_os = "linux")]
mod link;
mod remove;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::record;
use address::Subnet;

#[cfg(target_os = "linux")]
pub(crate) use endpoint::{Attached, sweep};
pub use endpoint_record::Endpoint;
pub use remove::PrunedNetworks;

/// The network of containers that ask for none.
pub const DEFAULT: &str = "bridge";

/// The only driver with a record.
pub const BRIDGE: &str = "bridge";

/// Docker's option for the name of a network's interface.
pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

const FOLDER: &str = "networks";
const RECORD: &str = "network.json";
const ENDPOINTS: &str = "endpoints";
const LOCK: &str = ".lock";
const GONE: &str = ".gone.";

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
    /// It leads nowhere.
    #[serde(default)]
    pub internal: bool,
    /// Whether its subnet was asked for.
    #[serde(default)]
    pub chosen: bool,
    /// What the driver was told.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
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
}

/// How a network is to be made.
#[derive(Debug, Clone, Default)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// `bridge`, or empty for it.
    pub driver: String,
    /// Its addresses; a free subnet when `None`.
    pub subnet: Option<Subnet>,
    /// This host's address; the first one of the subnet when `None`.
    pub gateway: Option<Ipv4Addr>,
    /// It leads nowhere.
    pub internal: bool,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
    /// Free-form notes.
    pub labels: BTreeMap<String, String>,
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

    /// Makes a network. Nothing of it is in the kernel before something is connected to it.
    ///
    /// # Errors
    /// Docker's messages for what cannot be: a name that is taken, a driver that is not there, a subnet that overlaps.
    pub fn create_network(&self, wanted: CreateNetwork) -> Result<Network> {
        validate(&wanted.name)?;
        if BUILT_IN.contains(&wanted.name.as_str()) || wanted.name == DEFAULT {
            let words = format!("operation is not permitted on predefined {} network", wanted.name);
            return Err(Error::Invalid(words));
        }
        self.make_network(wanted)
    }

    fn make_network(&self, wanted: CreateNetwork) -> Result<Network> {
        if !wanted.driver.is_empty() && wanted.driver != BRIDGE {
            return Err(Error::Invalid(format!(
                "could not find plugin {0} in v1 plugin registry: plugin \"{0}\" not found",
                wanted.driver
            )));
        }
        let lock = self.networks_lock()?;
        lock.file().lock()?;
        let others = self.networks()?;
        if others.iter().any(|other| other.name == wanted.name) {
            return Err(Error::Invalid(format!("network with name {} already exists", wanted.name)));
        }
        let id = crate::container::create::random_id()?.0;
        let subnet = free_subnet(&wanted, &others)?;
        let gateway =
            wanted.gateway.or_else(|| subnet.hosts().next()).filter(|gateway| subnet.contains(*gateway));
        let Some(gateway) = gateway else {
            return Err(Error::Invalid(format!(
                "no matching subnet for gateway {}",
                wanted.gateway.unwrap_or(subnet.first)
            )));
        };
        let bridge = match wanted.options.get(BRIDGE_NAME) {
            Some(name) => interface_name(name)?,
            None => format!("br-{}", &id[..12]),
        };
        if others.iter().any(|other| other.bridge == bridge) {
            return Err(Error::Invalid(format!("the interface {bridge} belongs to another network")));
        }
        let network = Network {
            id,
            name: wanted.name,
            created: Timestamp::now(),
            bridge,
            subnet: subnet.to_string(),
            gateway,
            internal: wanted.internal,
            chosen: wanted.subnet.is_some(),
            options: wanted.options,
            labels: wanted.labels,
        };
        let folder = self.network_folder(&network.name);
        make_folder(&folder)?;
        make_folder(&folder.join(ENDPOINTS))?;
        record::write(&folder.join(RECORD), &network, true)?;
        let about = [("name", network.name.as_str()), ("type", BRIDGE)];
        self.tell_later(&Event::new("network", "create", &network.id, &about));
        Ok(network)
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

/// A subnet that no other network and no route of this host has.
fn free_subnet(wanted: &CreateNetwork, others: &[Network]) -> Result<Subnet> {
    let mut taken = Vec::new();
    for other in others {
        taken.push(other.addresses()?);
    }
    if let Some(subnet) = wanted.subnet {
        if taken.iter().any(|other| other.overlaps(subnet)) {
            return Err(Error::Invalid("Pool overlaps with other one on this address space".to_owned()));
        }
        return Ok(subnet);
    }
    #[cfg(target_os = "linux")]
    taken.extend(link::routes()?);
    address::candidates(wanted.name == DEFAULT)
        .find(|candidate| !taken.iter().any(|other| other.overlaps(*candidate)))
        .ok_or_else(|| Error::Invalid("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network".to_owned()))
}

/// What an interface may be called; the kernel takes more, tools do not.
fn interface_name(name: &str) -> Result<String> {
    let fits = (1..16).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !name.starts_with('.');
    if fits {
        return Ok(name.to_owned());
    }
    Err(Error::Invalid(format!(
        "invalid interface name {name}: at most 15 letters, digits, `_`, `.` and `-`"
    )))
}

mod endpoint_record {
    //! What the disk says about a connected container.

    use super::{Deserialize, Ipv4Addr, Serialize};
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
        /// As `02:42:0a:d2:00:02`.
        pub mac_address: String,
        /// Published through it.
        #[serde(default)]
        pub ports: PortMap,
        /// Other names it is known by.
        #[serde(default)]
        pub aliases: Vec<String>,
    }
}
