//! `events`: what a container uses, now and then, as lines of JSON.

use std::time::{Duration, Instant};

use dhow_engine::runtime::cgroup::oom::OutOfMemory;
use dhow_engine::runtime::oci::{Container, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::args::{Given, switch, value};
use super::{Global, Outcome, failed};
use crate::ui::Ui;

/// The longest time without a look whether the container still runs.
const LOOK: Duration = Duration::from_millis(500);

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
    // One without a control of memory has nothing to tell of it.
    let mut memory = container.watch_memory().ok();
    let mut killed = memory.as_ref().and_then(OutOfMemory::acknowledge).unwrap_or(0);
    show(&container);
    let mut next = Instant::now() + interval;
    while container.status() != Status::Stopped {
        // Also looks now and then whether it still runs.
        let wait = next.saturating_duration_since(Instant::now()).min(LOOK);
        await_word(memory.as_ref(), wait);
        match memory.as_ref().map(OutOfMemory::acknowledge) {
            Some(Some(count)) if count > killed => {
                killed = count;
                ui.line(&serde_json::json!({ "type": "oom", "id": id }).to_string());
            }
            // Its group is gone.
            Some(None) => memory = None,
            _ => {}
        }
        if Instant::now() >= next {
            show(&container);
            next += interval;
        }
    }
    // What it died of may have been told of after the last look.
    if memory.as_ref().and_then(OutOfMemory::acknowledge).is_some_and(|count| count > killed) {
        ui.line(&serde_json::json!({ "type": "oom", "id": id }).to_string());
    }
    Ok(0)
}

/// Waits for a word of the kernel's about memory, or until the time is over.
fn await_word(memory: Option<&OutOfMemory>, wait: Duration) {
    let Some(memory) = memory else {
        std::thread::sleep(wait);
        return;
    };
    let flags = if memory.is_exceptional() { PollFlags::PRI } else { PollFlags::IN };
    let wait = Timespec {
        tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    };
    // Whatever it says, the counter is looked at.
    poll(&mut [PollFd::new(memory, flags)], Some(&wait)).ok();
}
