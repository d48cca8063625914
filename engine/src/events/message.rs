//! One event, in the shape of Docker's Engine API (`GET /events`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The action, of containers and images; Docker's older field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The id, likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The image of a container, likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume` or `network`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What has happened, as `start`.
    #[serde(rename = "Action")]
    pub action: String,
    /// What it has happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// When, in seconds.
    pub time: i64,
    /// The same in nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its id or name.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// What else is to be known.
    #[serde(rename = "Attributes", default)]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// Something that happens now.
    pub(crate) fn new(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Self {
        let now = Timestamp::now();
        let is_old = matches!(kind, "container" | "image") && !id.is_empty();
        let old = |text: &str| if is_old { text.to_owned() } else { String::new() };
        Self {
            status: old(action),
            id: old(id),
            from: String::new(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }

    /// Something that happens to a container now. Its labels are told, too.
    pub(crate) fn of_container(record: &Record, action: &str, more: &[(&str, &str)]) -> Self {
        let image = record.config.image.as_str();
        let mut event = Self::new("container", action, &record.id, more);
        image.clone_into(&mut event.from);
        let attributes = &mut event.actor.attributes;
        for (name, value) in &record.config.labels {
            attributes.entry(name.clone()).or_insert_with(|| value.clone());
        }
        attributes.insert("image".to_owned(), image.to_owned());
        attributes.insert("name".to_owned(), record.name.clone());
        event
    }

    /// When it happened.
    pub fn when(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.time_nano.into()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Appends it as JSON; without what makes it longer than `most`.
    pub(super) fn append_to(&self, to: &mut Vec<u8>, most: usize) {
        let begun = to.len();
        // Strings and numbers cannot fail to be written.
        serde_json::to_writer(&mut *to, self).ok();
        if to.len() - begun > most {
            to.truncate(begun);
            let short = |text: &String| text.chars().take(256).collect::<String>();
            let keys = ["image", "name", "exitCode", "execID", "signal", "container", "driver", "type"];
            let known = self.actor.attributes.iter().filter(|(key, _)| keys.contains(&key.as_str()));
            let attributes = known.map(|(key, value)| (key.clone(), short(value))).collect();
            let actor = Actor { id: short(&self.actor.id), attributes };
            let cut = Self {
                status: short(&self.status),
                action: short(&self.action),
                from: short(&self.from),
                actor,
                ..self.clone()
            };
            serde_json::to_writer(&mut *to, &cut).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_json() {
        let event = Event {
            time: 1,
            time_nano: 1_000_000_002,
            ..Event::new("image", "tag", "sha256:x", &[("name", "a:1")])
        };
        let mut text = Vec::new();
        event.append_to(&mut text, 1000);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"status":"tag","id":"sha256:x","Type":"image","Action":"tag","Actor":{"ID":"sha256:x","Attributes":{"name":"a:1"}},"scope":"local","time":1,"timeNano":1000000002}"#
        );
        let event = Event::new("volume", "create", "v", &[("driver", "local")]);
        assert!(event.status.is_empty() && event.id.is_empty());
    }

    #[test]
    fn none_is_endless() {
        let long = "x".repeat(100_000);
        let event = Event::new("container", &long, "id", &[("name", "n"), ("label", &long)]);
        let mut text = Vec::new();
        event.append_to(&mut text, 4096);
        assert!(text.len() < 4096);
        let read: Event = serde_json::from_slice(&text).unwrap();
        assert_eq!(read.actor.attributes.len(), 1);
    }
}
