//! The list of containers, and which of them are asked for: Docker's `GET /containers/json` with its filters.

use std::collections::BTreeMap;

use dhow_images::{Reference, disk_usage};
use regex_lite::Regex;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::many;
use crate::mounts::MountKind;
use crate::prune::readable;
use crate::record::{Container, State, is_supervised};

/// Which containers are listed.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Those that do not run, too.
    pub all: bool,
    /// At most this many, the newest, in any state.
    pub limit: Option<usize>,
    /// What must be so, as key and value: of several values of a key one must fit, but every label.
    pub filters: Vec<(String, String)>,
}

/// The keys of filters.
pub const FILTERS: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network",
    "publish", "since", "status", "volume",
];

/// Docker's states; there are none here that are being removed.
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// A container in a list.
#[derive(Debug)]
pub struct Listed {
    /// What was asked for.
    pub container: Container,
    /// What became of it.
    pub state: State,
}

/// What a container takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the files that it wrote: Docker's `SizeRw`.
    pub own: u64,
    /// With those of its image: `SizeRootFs`.
    pub all: u64,
}

impl Engine {
    /// The containers that are asked for, newest first.
    ///
    /// # Errors
    /// When a filter is not known or has no such value, in Docker's words; when one names a container that is not there.
    pub fn list(&self, query: &Query) -> Result<Vec<Listed>> {
        let filters = Filters::new(self, query)?;
        let all = query.all || query.limit.is_some() || filters.of("status").is_some();
        let mut listed = Vec::new();
        // Of a few only those are looked at that are wanted.
        let states = match query.limit {
            Some(_) => self.containers()?.into_iter().map(|container| (container, None)).collect(),
            None => self.with_states(all)?,
        };
        for (container, state) in states {
            if query.limit.is_some_and(|limit| listed.len() >= limit) {
                break;
            }
            let state = match state {
                Some(state) => state?,
                None => container.state()?,
            };
            if (all || state.status.is_running()) && filters.let_through(&container, &state) {
                listed.push(Listed { container, state });
            }
        }
        Ok(listed)
    }

    /// All containers, or those that somebody supervises, as only they can run; newest first, with their states.
    fn with_states(&self, all: bool) -> Result<Vec<(Container, Option<Result<State>>)>> {
        let looked_at = many::map(self.container_folders()?, |folder| {
            if !all && matches!(is_supervised(&folder), Ok(false)) {
                return None;
            }
            Some(Container::load(folder).map(|container| {
                let state = if all { container.state() } else { container.state_of_supervised() };
                (container, Some(state))
            }))
        });
        let mut containers = Vec::new();
        for loaded in looked_at.into_iter().flatten() {
            match loaded {
                Ok(container) => containers.push(container),
                Err(Error::Damaged { .. }) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        containers.sort_by_key(|(container, _)| std::cmp::Reverse(container.record.created));
        Ok(containers)
    }

    /// What each of these containers takes.
    ///
    /// # Errors
    /// When the store or a folder cannot be read.
    pub fn sizes(&self, listed: &[Listed]) -> Result<Vec<Size>> {
        let images = self.store().summaries()?;
        let variants = || images.iter().flat_map(|image| &image.variants);
        listed
            .iter()
            .map(|Listed { container, .. }| {
                let own = readable(disk_usage(self.data_folder(container).join("upper")))?.content;
                let image = container.record.image.as_ref().and_then(|origin| {
                    variants().find(|variant| variant.manifest.digest.to_string() == origin.manifest)
                });
                Ok(Size { own, all: own.saturating_add(image.map_or(0, |variant| variant.size)) })
            })
            .collect()
    }
}

/// Filters that were understood.
struct Filters {
    by_key: BTreeMap<String, Vec<String>>,
    /// Only those made before and after these.
    before: Option<jiff::Timestamp>,
    since: Option<jiff::Timestamp>,
    /// Digests that `ancestor` stands for.
    ancestors: Vec<String>,
}

impl Filters {
    fn new(engine: &Engine, query: &Query) -> Result<Self> {
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in &query.filters {
            if !FILTERS.contains(&key.as_str()) {
                return Err(Error::Invalid(format!("invalid filter '{key}'")));
            }
            let wrong = || Error::Invalid(format!("invalid filter '{key}={value}'"));
            match key.as_str() {
                "status" if !STATES.contains(&value.as_str()) => return Err(wrong()),
                "exited" if value.parse::<i64>().is_err() => return Err(wrong()),
                "health" if !["none", "starting", "healthy", "unhealthy"].contains(&value.as_str()) => {
                    return Err(wrong());
                }
                "is-task" if !["true", "false", "1", "0"].contains(&value.as_str()) => return Err(wrong()),
                "publish" | "expose" if ports(value).is_none() => return Err(wrong()),
                _ => {}
            }
            by_key.entry(key.clone()).or_default().push(value.clone());
        }
        let made = |key: &str| -> Result<Option<jiff::Timestamp>> {
            let wanted = by_key.get(key).and_then(|values| values.last());
            wanted.map(|wanted| Ok(engine.container(wanted)?.record.created)).transpose()
        };
        let (before, since) = (made("before")?, made("since")?);
        // A name that is not there is nobody's ancestor.
        let ancestors = by_key.get("ancestor").into_iter().flatten();
        let ancestors = ancestors.filter_map(|name| Some(engine.store().find(name).ok()?.digest.to_string()));
        let ancestors = ancestors.collect();
        Ok(Self { by_key, before, since, ancestors })
    }

    fn of(&self, key: &str) -> Option<&[String]> {
        self.by_key.get(key).map(Vec::as_slice)
    }

    /// Whether one of the key's values fits, or there are none.
    fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.of(key).is_none_or(|values| values.iter().any(|value| fits(value)))
    }

    fn let_through(&self, container: &Container, state: &State) -> bool {
        let record = &container.record;
        let host = &record.host_config;
        let labels = &record.config.labels;
        let has_label = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        let network = if host.network_mode.is_empty() { "default" } else { host.network_mode.as_str() };
        let has_ended = !state.status.is_running() && state.started_at.is_some();
        self.any("id", |value| record.id.starts_with(value))
            && self.any("name", |value| fits_name(value, &record.name))
            && self.of("label").is_none_or(|labels| labels.iter().all(has_label))
            && self.any("status", |value| state.status.as_str() == value)
            && self.any("exited", |value| has_ended && value.parse() == Ok(i64::from(state.exit_code)))
            && self.before.is_none_or(|limit| record.created < limit)
            && self.since.is_none_or(|limit| record.created > limit)
            && self.any("ancestor", |value| self.descends(container, value))
            && self.any("network", |value| {
                network == value
                    || record.memberships().iter().any(|one| one.network == value)
                    || state.networks.values().any(|endpoint| endpoint.network_id.starts_with(value))
            })
            && self.any("volume", |value| {
                record.mounts.iter().any(|point| {
                    point.destination == value
                        || (point.kind == MountKind::Volume && point.name == value)
                        || (point.kind == MountKind::Bind && point.source == value)
                })
            })
            && self.any("publish", |value| {
                let bound = host.port_bindings.iter().chain(&state.ports).filter(|(_, at)| !at.is_empty());
                bound.into_iter().any(|(port, _)| is_among(port, value))
            })
            && self.any("expose", |value| {
                let exposed = record.config.exposed_ports.keys().chain(host.port_bindings.keys());
                exposed.into_iter().any(|port| is_among(port, value))
            })
            && self.any("health", |value| container.health_status(state) == value)
            // Nothing belongs to a swarm.
            && self.any("is-task", |value| matches!(value, "false" | "0"))
    }

    /// Whether it was made of this image, by name or id, or of one that was made of it.
    fn descends(&self, container: &Container, wanted: &str) -> bool {
        let Some(image) = &container.record.image else { return container.record.config.image == wanted };
        let named = Reference::parse(wanted).ok();
        let is_name = named.is_some() && named == Reference::parse(&container.record.config.image).ok();
        let is_id = [&image.id, &image.manifest].into_iter().any(|id| self.ancestors.contains(id));
        is_name || is_id
    }
}

/// Docker reads a regular expression here, or just a part of the name. Names begin with a slash for this, or do not.
fn fits_name(pattern: &str, name: &str) -> bool {
    let Ok(regex) = Regex::new(pattern) else { return name.contains(pattern) };
    regex.is_match(name) || regex.is_match(&format!("/{name}"))
}

/// `80`, `80/udp`, `80-90/tcp`: the first and last port, and the protocol.
fn ports(text: &str) -> Option<(u16, u16, &str)> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last, protocol))
}

/// Whether `80/tcp` is within what a filter says.
fn is_among(port: &str, wanted: &str) -> bool {
    let (Some((port, _, protocol)), Some((first, last, of))) = (ports(port), ports(wanted)) else {
        return false;
    };
    (first..=last).contains(&port) && protocol == of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, fits) in [
            ("", "web", true),
            ("e", "web", true),
            ("^e", "web", false),
            ("^w", "web", true),
            ("^/web$", "web", true),
            ("/web", "web", true),
            ("/eb", "web", false),
            ("web$", "web1", false),
            ("w.*1$", "web1", true),
            ("^w.*b.*1$", "web1", true),
            ("^web.*web$", "web", false),
            ("x.*", "web", false),
            ("web-1", "web_1", false),
            ("^(web|db)[0-9]+$", "db12", true),
            ("^(web|db)[0-9]+$", "dbx", false),
            ("web(", "web(", true),
        ] {
            assert_eq!(fits_name(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn port_ranges() {
        assert!(is_among("80/tcp", "80") && is_among("80/tcp", "70-80/tcp") && is_among("5/udp", "5/udp"));
        assert!(!is_among("80/udp", "80") && !is_among("81/tcp", "70-80"));
        for bad in ["", "x", "80-", "90-80", "70000", "-1"] {
            assert!(ports(bad).is_none(), "{bad}");
        }
    }
}
