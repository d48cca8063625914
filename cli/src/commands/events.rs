//! `events`: what happens to containers, images, volumes and networks.

use anyhow::Result;
use clap::Args;
use dhow_engine::events::{Event, Filters, Wanted};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::args::Global;
use crate::context;
use crate::filter;
use crate::template::{Missing, Template, unescape};
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dhow events                                         what happens from now on, until Ctrl-C
  dhow events --since 10m --until 0s                  what happened in the last ten minutes
  dhow events --filter type=container --filter event=die --format '{{.Actor.Attributes.name}}'

There is no daemon: every dhow process of this root writes down what it does, in one order for all.
The last megabyte of it is kept.")]
pub(crate) struct EventsArgs {
    /// Begin with those since a time, or for so long
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only what fits: container, event, image, label, network, type, volume and Docker's other keys
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter::parse)]
    filters: Vec<filter::Filter>,
    /// `json`, or a Go template such as `{{.Action}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &EventsArgs) -> Result<u8> {
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| filter::time(text, now)).transpose();
    let wanted = Wanted { since: time(&args.since)?, until: time(&args.until)? };
    let filters = Filters::new(&args.filters)?;
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    // A mistake in it is told before anything happens.
    let template = match format {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(&unescape(format))?.missing(Missing::NoValue)),
    };
    let engine = context::engine(global)?;
    let mut failed = Ok(());
    engine.events(&wanted, &mut |event| {
        if !filters.let_through(event) {
            return true;
        }
        match &template {
            None if format.is_none() => ui.line(&line(event)),
            None => ui.line(&json!(event).to_string()),
            Some(_) if format == Some("{{json .}}") => ui.line(&json!(event).to_string()),
            Some(template) => match template.render(&fields(event)) {
                Ok(text) => ui.line(&text),
                Err(error) => {
                    failed = Err(error);
                    return false;
                }
            },
        }
        true
    })?;
    failed?;
    Ok(0)
}

/// As Docker prints it.
fn line(event: &Event) -> String {
    let zoned = event.when().to_zoned(TimeZone::system());
    let offset = zoned.offset().seconds();
    let zone = if offset == 0 { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    let time = zoned.strftime("%Y-%m-%dT%H:%M:%S%.9f");
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    let text = format!("{time}{zone} {} {} {}{attributes}", event.kind, event.action, event.actor.id);
    // Labels and commands are anybody's; a line stays a line.
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The fields of a template, by Docker's names.
fn fields(event: &Event) -> serde_json::Value {
    json!({
        "Status": event.status,
        "ID": event.id,
        "From": event.from,
        "Type": event.kind,
        "Action": event.action,
        "Actor": event.actor,
        "Scope": event.scope,
        "Time": event.time,
        "TimeNano": event.time_nano,
    })
}
