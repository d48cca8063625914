//! What a crash, or somebody else, has made of networks that containers are in: found, and mended.

use std::io::ErrorKind;

use fs_err as fs;

use super::endpoint::{failed, read};
use super::firewall::Table;
use super::{ENDPOINTS, Network, link};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::system::Problem;

impl Engine {
    /// Finds a table that somebody has flushed while containers run.
    pub(super) fn check_table(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let mut needed = false;
        for network in self.networks()? {
            needed |= !self.endpoints(&network.name)?.is_empty();
        }
        if !needed {
            return Ok(());
        }
        if self.has_lost_anchor()? {
            if repair {
                self.realm()?;
            }
            let what = "this user's networks lead nowhere: their processes were ended".to_owned();
            problems.push(Problem::new("networks/.realm".to_owned(), what, repair));
        }
        let owner = self.network_owner()?;
        let is_there = self.there(|| {
            let mut table = Table::open(&owner).map_err(failed("connect to the packet filter"))?;
            if table.exists().map_err(failed("look at the packet filter"))? {
                return Ok(true);
            }
            if repair {
                table.install().map_err(failed("make the table of the packet filter"))?;
                self.refill(&mut table)?;
            }
            Ok(false)
        })?;
        if is_there != Some(false) {
            return Ok(());
        }
        let what = "the table of the packet filter is gone, and containers run".to_owned();
        problems.push(Problem::new(format!("table inet {owner}"), what, repair));
        Ok(())
    }

    /// Finds endpoints whose containers are gone.
    pub(super) fn check_endpoints(
        &self,
        network: &Network,
        repair: bool,
        problems: &mut Vec<Problem>,
    ) -> Result<()> {
        let folder = self.network_folder(&network.name).join(ENDPOINTS);
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let what = match read(&entry.path()) {
                Ok(None) => continue,
                Ok(Some(endpoint)) if self.is_supervised_id(&endpoint.container)? => continue,
                Ok(Some(endpoint)) => {
                    if repair {
                        self.free(&endpoint)?;
                    }
                    format!("address of container {}, which does not run", endpoint.container)
                }
                Err(Error::Damaged { reason, .. }) => format!("damaged record: {reason}"),
                Err(error) => return Err(error),
            };
            if repair {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            problems.push(Problem::new(
                format!("networks/{}/{ENDPOINTS}/{name}", network.name),
                what,
                repair,
            ));
        }
        Ok(())
    }
}

/// Takes everything out of the kernel that belongs to a root folder which does not exist any more.
pub(crate) fn sweep(identity: &str) -> std::io::Result<()> {
    if !crate::spec::may_make_networks() {
        // What there was of a user's own has gone with its processes.
        return Ok(());
    }
    let owner = format!("dhow-{identity}");
    for (name, alias) in link::aliases()? {
        if alias.split_once(' ').is_some_and(|(whose, _)| whose == owner) {
            link::remove(&name)?;
        }
    }
    Table::open(&owner)?.uninstall()
}
