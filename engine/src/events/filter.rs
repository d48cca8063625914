//! Docker's `--filter` of `events`.

use std::collections::BTreeMap;

use super::Event;
use crate::error::{Error, Result};

/// The keys.
pub const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Filters that were understood: of several values of a key one must fit, but every label.
#[derive(Debug, Clone, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Takes `KEY=VALUE` pairs.
    ///
    /// # Errors
    /// An unknown key, in Docker's words.
    pub fn new(pairs: &[(String, String)]) -> Result<Self> {
        let mut filters = Self::default();
        for (key, value) in pairs {
            if !FILTERS.contains(&key.as_str()) {
                return Err(Error::Invalid(format!("invalid filter '{key}'")));
            }
            filters.0.entry(key.clone()).or_default().push(value.clone());
        }
        Ok(filters)
    }

    /// Whether it is asked for.
    pub fn let_through(&self, event: &Event) -> bool {
        let attribute = |name: &str| event.actor.attributes.get(name).map_or("", String::as_str);
        let begins = |key: &str| {
            self.any(key, |value| event.actor.id.starts_with(value) || attribute("name").starts_with(value))
        };
        let names_nothing_of = ["config", "node", "plugin", "secret", "service"].into_iter().all(begins);
        self.any("type", |value| event.kind == value)
            && self.any("scope", |value| event.scope == value)
            && self.any("event", |value| is_action(&event.action, value))
            && names_nothing_of
            && begins("container")
            && begins("volume")
            && begins("network")
            && self.any("daemon", |_| false)
            && self.any("image", |value| is_image(event, value))
            && self.0.get("label").is_none_or(|labels| labels.iter().all(|label| has_label(event, label)))
    }

    fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|value| fits(value)))
    }
}

/// What is run, or how well it is, stands behind a colon and need not be said.
fn is_action(action: &str, wanted: &str) -> bool {
    let has_more = ["health_status", "exec_create", "exec_start"].contains(&wanted);
    if has_more { action.starts_with(wanted) } else { action == wanted }
}

fn is_image(event: &Event, wanted: &str) -> bool {
    let name = event.actor.attributes.get(if event.kind == "image" { "name" } else { "image" });
    let name = name.map_or("", String::as_str);
    let without_tag = |text: &str| {
        let end = text.rfind(':').filter(|at| !text[*at..].contains('/')).unwrap_or(text.len());
        text[..end].to_owned()
    };
    [event.actor.id.as_str(), name].into_iter().any(|known| known == wanted || without_tag(known) == wanted)
}

fn has_label(event: &Event, label: &str) -> bool {
    match label.split_once('=') {
        Some((name, value)) => event.actor.attributes.get(name).is_some_and(|found| found == value),
        None => event.actor.attributes.contains_key(label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_rules() {
        let event = Event::new(
            "container",
            "exec_create: sh -c x",
            "abcdef",
            &[("name", "web"), ("image", "host:5000/busybox:1"), ("tier", "db")],
        );
        let fits = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Filters::new(&pairs).unwrap().let_through(&event)
        };
        for pairs in [
            &[][..],
            &[("type", "container")],
            &[("type", "image"), ("type", "container")],
            &[("event", "exec_create")],
            &[("event", "exec_create: sh -c x")],
            &[("container", "web")],
            &[("container", "abc")],
            &[("image", "host:5000/busybox")],
            &[("image", "host:5000/busybox:1")],
            &[("label", "tier"), ("label", "tier=db")],
            &[("scope", "local")],
        ] {
            assert!(fits(pairs), "{pairs:?}");
        }
        for pairs in [
            &[("type", "image")][..],
            &[("event", "exec")],
            &[("container", "bcd")],
            &[("image", "host")],
            &[("label", "tier=web")],
            &[("label", "tier"), ("label", "nosuch")],
            &[("volume", "x")],
            &[("scope", "swarm")],
            &[("daemon", "x")],
        ] {
            assert!(!fits(pairs), "{pairs:?}");
        }
        assert!(Filters::new(&[("foo".to_owned(), String::new())]).is_err());
    }
}
