//! Health checks: the monitor runs a program in its container now and then, as an exec session, and remembers how that
//! went. There is no thread: the monitor's loop asks how long it may wait, and hands on what the session says.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use dhow_runtime::Kind;
use jiff::Timestamp;

use super::client::{Client, News};
use crate::attach::Inbox;
use crate::config::{Health, HealthConfig, Probe};
use crate::container::ExecConfig;
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Container;

/// So much of a probe's output is remembered, as Docker does.
const MOST_OUTPUT: usize = 4096;

/// What watches over a container's health.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    engine: &'a Engine,
    container: &'a Container,
    config: &'a HealthConfig,
    health: Health,
    begun: Instant,
    /// When something is to be done: the next probe, or the end of patience with this one.
    due: Instant,
    running: Option<Running>,
    /// The signals that were blocked before the monitor blocked more.
    before: nix::sys::signal::SigSet,
}

/// A probe that runs.
#[derive(Debug)]
struct Running {
    client: Client,
    inbox: Inbox,
    output: Vec<u8>,
    start: Timestamp,
    code: Option<i32>,
}

impl<'a> Watch<'a> {
    /// Begins with a container that has just been started; `None` when it has no health check.
    pub(super) fn begin(
        engine: &'a Engine,
        container: &'a Container,
        before: nix::sys::signal::SigSet,
    ) -> Result<Option<Self>> {
        let Some(config) = container.record.config.healthcheck.as_ref().filter(|config| config.is_active())
        else {
            return Ok(None);
        };
        let health = Health::starting();
        container.set_health(&health)?;
        let begun = Instant::now();
        let due = begun + config.pause(Duration::ZERO, false);
        Ok(Some(Self { engine, container, config, health, begun, due, running: None, before }))
    }

    /// How long nothing is to be done.
    pub(super) fn patience(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Readable when a probe has something to say.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.client.fd())
    }

    /// Does what is due. `leave` is called in a child of this process, to give up what is the monitor's.
    pub(super) fn step(&mut self, leave: &mut dyn FnMut()) {
        if let Some(running) = &mut self.running {
            let over = running.listen();
            let too_long = Instant::now() >= self.due;
            if !over && !too_long {
                return;
            }
            if let Some(running) = self.running.take() {
                self.end(running, !over);
            }
        } else if Instant::now() >= self.due {
            self.probe(leave);
        }
    }

    fn probe(&mut self, leave: &mut dyn FnMut()) {
        let start = Timestamp::now();
        let config = ExecConfig { cmd: command(self.container, &self.config.test), ..ExecConfig::default() };
        match self.engine.probe(self.container, &config, self.before, leave) {
            Ok(client) => {
                self.due = Instant::now() + self.config.patience();
                let inbox = Inbox::default();
                self.running = Some(Running { client, inbox, output: Vec::new(), start, code: None });
            }
            Err(error) => self.learn(Probe {
                start,
                end: Timestamp::now(),
                exit_code: -1,
                output: error.to_string().chars().take(MOST_OUTPUT).collect(),
            }),
        }
    }

    fn end(&mut self, running: Running, too_long: bool) {
        let Running { client, output, start, code, .. } = running;
        if too_long {
            client.end();
        } else {
            client.reap();
        }
        let (exit_code, output) = if too_long {
            (-1, format!("Health check exceeded timeout ({})", shown(self.config.patience())))
        } else {
            (code.unwrap_or(-1), String::from_utf8_lossy(&output).into_owned())
        };
        self.learn(Probe { start, end: Timestamp::now(), exit_code, output });
    }

    fn learn(&mut self, probe: Probe) {
        let running = self.begun.elapsed();
        let changed = self.health.learn(self.config, probe, running);
        // A disk that is full costs the memory of it, not the container's life.
        self.container.set_health(&self.health).ok();
        if changed {
            let action = format!("health_status: {}", self.health.status);
            self.engine.tell_of(&self.container.record, &action, &[]);
        }
        self.due = Instant::now() + self.config.pause(running, self.health.status != "starting");
    }

    /// The container has ended: for Docker it is not well then.
    pub(super) fn over(mut self) {
        if let Some(running) = self.running.take() {
            running.client.end();
        }
        "unhealthy".clone_into(&mut self.health.status);
        self.container.set_health(&self.health).ok();
    }
}

impl Running {
    /// Takes what the session says; `true` when that was all.
    fn listen(&mut self) -> bool {
        loop {
            match self.client.listen(&mut self.inbox) {
                Ok(News::Output(bytes)) => {
                    let room = MOST_OUTPUT.saturating_sub(self.output.len());
                    self.output.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Ok(News::Ended(code)) => {
                    self.code.get_or_insert(code.into());
                    return true;
                }
                Ok(News::Failed(message)) => {
                    self.output = message.into_bytes();
                    self.code = Some(-1);
                }
                Ok(News::None) => return false,
                Ok(News::Over) | Err(_) => return true,
            }
        }
    }
}

/// What is run. A Wasm image has no shell, so its line is cut into words; and what begins with `#` is a function of the
/// container's own program.
fn command(container: &Container, test: &[String]) -> Vec<String> {
    let record = &container.record;
    let rest = test.get(1..).unwrap_or_default();
    let shell = test.first().is_some_and(|word| word == "CMD-SHELL");
    let mut words = match (record.kind, shell) {
        (_, false) => rest.to_vec(),
        (Kind::Native, true) => {
            ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(rest.first().cloned()).collect()
        }
        (Kind::Wasm, true) => {
            let line = rest.first().map_or("", String::as_str);
            line.split_whitespace().map(str::to_owned).collect()
        }
    };
    if record.kind == Kind::Wasm
        && let (Some(first), Some(own)) = (words.first_mut(), record.args.first())
        && first.starts_with('#')
    {
        *first = format!("{own}{first}");
    }
    words
}

/// A time in Go's words, as far as round ones go.
fn shown(time: Duration) -> String {
    let (seconds, nanoseconds) = (time.as_secs(), time.subsec_nanos());
    if seconds == 0 {
        return match nanoseconds {
            0 => "0s".to_owned(),
            1_000_000.. => format!("{}ms", f64::from(nanoseconds) / 1e6),
            _ => format!("{}µs", f64::from(nanoseconds) / 1e3),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = seconds % 60;
    let fraction = f64::from(u32::try_from(rest).unwrap_or(0)) + f64::from(nanoseconds) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{fraction}s"),
        (0, minutes) => format!("{minutes}m{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_go_s_words() {
        for (time, text) in [
            (Duration::from_millis(500), "500ms"),
            (Duration::from_micros(1500), "1.5ms"),
            (Duration::from_secs(30), "30s"),
            (Duration::from_millis(1500), "1.5s"),
            (Duration::from_secs(90), "1m30s"),
            (Duration::from_secs(3600), "1h0m0s"),
        ] {
            assert_eq!(shown(time), text);
        }
    }
}
