//! What people see of a build: steps with times on a terminal, a log of them elsewhere.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use dhow_engine::build::Event;

use crate::ui::Ui;

/// Most lines of a failed step's output that are repeated.
const LAST: usize = 20;
/// Most bytes that are remembered for that.
const MEMORY: usize = 16 << 10;

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Steps,
    Log,
    Nothing,
}

pub(super) struct Report {
    ui: Ui,
    kind: Kind,
    step: String,
    begun: Instant,
    cached: bool,
    tail: Vec<u8>,
    drawn: Instant,
    is_open_line: bool,
}

impl Report {
    pub(super) fn new(ui: Ui, kind: Kind) -> Self {
        Self {
            ui,
            kind,
            step: String::new(),
            begun: Instant::now(),
            cached: false,
            tail: Vec::new(),
            drawn: Instant::now(),
            is_open_line: false,
        }
    }

    pub(super) fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step { number, total, stage, text } => {
                self.cached = false;
                self.tail.clear();
                self.begun = Instant::now();
                let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                match self.kind {
                    Kind::Log => self.ui.note(&format!("Step {number}/{total} : [{stage}] {text}")),
                    Kind::Steps => {
                        let short: String = text.chars().take(90).collect();
                        self.step = format!("[{stage} {number}/{total}] {short}");
                        self.ui.status(&format!(" => {}", self.step));
                    }
                    Kind::Nothing => {}
                }
            }
            Event::Cached => {
                self.cached = true;
                if self.kind == Kind::Log {
                    self.ui.note(" ---> Using cache");
                }
            }
            Event::Output(bytes) => self.output(bytes),
            Event::Done(took) => self.done(took),
            Event::Warning(text) if self.kind != Kind::Nothing => self.ui.warn(&text),
            _ => {}
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > MEMORY {
            self.tail.drain(..self.tail.len() - MEMORY);
        }
        match self.kind {
            Kind::Log => {
                // Nobody can be told when standard error is gone.
                std::io::stderr().write_all(bytes).ok();
                self.is_open_line = bytes.last() != Some(&b'\n');
            }
            Kind::Steps if self.drawn.elapsed() > Duration::from_millis(80) => {
                self.drawn = Instant::now();
                let text = String::from_utf8_lossy(&self.tail);
                let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
                let line: String = line.chars().filter(|c| !c.is_control()).take(60).collect();
                let took = self.begun.elapsed().as_secs_f64();
                self.ui.status(&format!(" => {} {took:.1}s | {line}", self.step));
            }
            _ => {}
        }
    }

    fn done(&mut self, took: Duration) {
        match self.kind {
            Kind::Log => self.close_line(),
            Kind::Steps => {
                let state =
                    if self.cached { "CACHED".to_owned() } else { format!("{:.1}s", took.as_secs_f64()) };
                self.ui.status(&format!(" => {} {state}\n", self.step));
            }
            Kind::Nothing => {}
        }
    }

    fn close_line(&mut self) {
        if std::mem::take(&mut self.is_open_line) {
            self.ui.note("");
        }
    }

    /// Before the message of a failure: what the step has written, if that was not shown.
    pub(super) fn failed(&mut self) {
        match self.kind {
            Kind::Log => self.close_line(),
            Kind::Steps | Kind::Nothing => {
                if self.kind == Kind::Steps {
                    self.ui.status(&format!(" => ERROR {}\n", self.step));
                }
                let text = String::from_utf8_lossy(&self.tail);
                let lines: Vec<&str> = text.lines().collect();
                let mut shown = String::new();
                for line in &lines[lines.len().saturating_sub(LAST)..] {
                    // Writing to a text cannot fail.
                    let _ = writeln!(shown, "{line}");
                }
                if !shown.is_empty() {
                    self.ui.note(shown.trim_end());
                }
            }
        }
    }
}
