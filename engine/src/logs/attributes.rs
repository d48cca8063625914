//! What of a container is written beside each line of its log: labels and variables that `--log-opt` names, and a tag.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::LogConfig;
use crate::error::{Error, Result, short};
use crate::record::Record;

/// Log options that say what is written.
pub(super) const OPTIONS: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];

/// Checks the options that need more than a look at their names.
pub(super) fn validate(config: &LogConfig) -> Result<()> {
    for name in ["labels-regex", "env-regex"] {
        pattern(config, name)?;
    }
    if let Some(tag) = config.config.get("tag") {
        expand(tag, |_| Some(String::new()))?;
    }
    Ok(())
}

/// The attributes of a container's log as a JSON object; empty for none.
pub(super) fn of(record: &Record) -> Result<String> {
    let config = &record.host_config.log_config;
    let mut attributes = BTreeMap::new();
    let variables = record.config.env.iter().filter_map(|entry| entry.split_once('='));
    let labels = record.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (option, regex, pairs) in [
        ("labels", "labels-regex", labels.collect::<Vec<_>>()),
        ("env", "env-regex", variables.collect::<Vec<_>>()),
    ] {
        let named = config.config.get(option).map(String::as_str).unwrap_or_default();
        let named: Vec<&str> = named.split(',').filter(|name| !name.is_empty()).collect();
        let pattern = pattern(config, regex)?;
        for (name, value) in pairs {
            if named.contains(&name) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(name)) {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    if let Some(template) = config.config.get("tag").filter(|template| !template.is_empty()) {
        attributes.insert("tag".to_owned(), expand(template, |field| value(record, field))?);
    }
    if attributes.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(&attributes).map_err(|error| Error::Invalid(error.to_string()))
}

/// A regular expression, as far as one is given.
fn pattern(config: &LogConfig, option: &str) -> Result<Option<Regex>> {
    let text = config.config.get(option).filter(|text| !text.is_empty());
    text.map(|text| {
        let wrong = |error| Error::Invalid(format!("invalid value for {option}: '{text}': {error}"));
        Regex::new(text).map_err(wrong)
    })
    .transpose()
}

/// Replaces `{{.Field}}`: of Go's templates only that means something in a tag.
fn expand(template: &str, value: impl Fn(&str) -> Option<String>) -> Result<String> {
    const FIELDS: [&str; 9] =
        ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName", "Command", "Hostname"];
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let field = after.split_once("}}").and_then(|(inside, after)| {
            rest = after;
            inside.trim().strip_prefix('.').filter(|field| FIELDS.contains(field))
        });
        let known = field.and_then(&value).ok_or_else(|| {
            Error::Invalid(format!(
                "invalid value for tag: '{template}': fields are {{{{.{}}}}}",
                FIELDS.join("}}, {{.")
            ))
        })?;
        text.push_str(&known);
    }
    text.push_str(rest);
    Ok(text)
}

fn value(record: &Record, field: &str) -> Option<String> {
    let image = record.image.as_ref().map_or("", |image| image.id.as_str());
    let hex = image.split_once(':').map_or(image, |(_, hex)| hex);
    Some(match field {
        "ID" => short(&record.id).to_owned(),
        "FullID" => record.id.clone(),
        "Name" => record.name.clone(),
        "ImageID" => short(hex).to_owned(),
        "ImageFullID" => image.to_owned(),
        "ImageName" => record.config.image.clone(),
        "DaemonName" => "dhow".to_owned(),
        "Command" => record.args.join(" "),
        "Hostname" => record.config.hostname.clone(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let of = |text: &str| expand(text, |field| Some(field.to_lowercase()));
        assert_eq!(of("a{{.ID}}/{{ .Name }}b").unwrap(), "aid/nameb");
        assert_eq!(of("plain").unwrap(), "plain");
        assert_eq!(of("").unwrap(), "");
        for bad in ["{{", "{{.ID", "{{.Nope}}", "{{ID}}", "{{if .ID}}x{{end}}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
