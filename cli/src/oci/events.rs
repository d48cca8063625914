//! `events`: what a container uses, now and then, as lines of JSON.

use std::time::Duration;

use dhow_engine::runtime::oci::{Container, Status};

use super::args::{Given, switch, value};
use super::{Global, Outcome, failed};
use crate::ui::Ui;

/// `events`
pub(super) fn events(ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&[value("interval", ""), switch("stats", "")], words, None)?;
    let id = given.id("events")?;
    let interval = dhow_engine::duration::parse(given.text("interval").unwrap_or("5s"));
    let interval = interval.filter(|interval| *interval > Duration::ZERO);
    let interval = interval.ok_or_else(|| failed("duration interval must be greater than 0"))?;
    let container = Container::open(&global.root, id)?;
    if container.status() == Status::Stopped {
        return Err(failed(format!("container with id {id} is not running")));
    }
    let show = |container: &Container| {
        let data = container.stats();
        ui.line(&serde_json::json!({ "type": "stats", "id": id, "data": data }).to_string());
    };
    if given.has("stats") {
        show(&container);
        return Ok(0);
    }
    while container.status() != Status::Stopped {
        show(&container);
        std::thread::sleep(interval);
    }
    Ok(0)
}
