//! Progress of pulls and loads, in Docker's words: bars on a terminal, one line per finished step elsewhere.
//!
//! Bars go to standard error, in the terminal's own colour. Lines go through `ui`. How blobs are fetched and what is
//! printed before and after is not decided here.

mod push;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use dhow_engine::images::{BlobKind, Digest, Event, Progress, State};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

pub(crate) use push::PushProgress;

use crate::ui::Ui;
use crate::units::progress_size;

/// Characters between the brackets of a bar; a whole line then fits into 80 columns.
const BAR: usize = 30;

/// Receives the events of one pull or load.
pub(crate) struct PullProgress {
    output: Output,
}

enum Output {
    Nothing,
    Lines { print: Box<dyn Fn(&str) + Sync>, stages: Mutex<HashMap<Digest, Stage>> },
    Bars { multi: MultiProgress, steps: Mutex<HashMap<Digest, Step>> },
}

/// What a blob's line says. Later stages are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waiting,
    Downloading,
    Downloaded,
    Extracting,
    Done,
}

/// A blob's line on the terminal.
#[derive(Debug)]
struct Step {
    stage: Stage,
    /// The message is about a broken connection and no longer about the stage.
    retrying: bool,
    bar: ProgressBar,
}

impl PullProgress {
    /// Bars if standard error is a terminal, otherwise lines, on standard output or standard error.
    pub(crate) fn new(ui: Ui, quiet: bool, to_stdout: bool) -> Self {
        let output = match () {
            () if quiet => Output::Nothing,
            () if ui.interactive => bars(ProgressDrawTarget::stderr()),
            () if to_stdout => lines(move |text| ui.line(text)),
            () => lines(move |text| ui.note(text)),
        };
        Self { output }
    }

    /// Leaves the bars on the screen as they are. What is printed afterwards begins below them.
    pub(crate) fn finish(&self) {
        if let Output::Bars { steps, .. } = &self.output {
            for step in steps.lock().unwrap_or_else(PoisonError::into_inner).values() {
                step.bar.abandon();
            }
        }
    }

    /// A line about the whole image.
    fn headline(&self, text: &str) {
        match &self.output {
            Output::Nothing => {}
            Output::Lines { print, .. } => print(text),
            // A terminal that went away is no reason to stop the pull.
            Output::Bars { multi, .. } => multi.println(text).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for PullProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = match self.output {
            Output::Nothing => "nothing",
            Output::Lines { .. } => "lines",
            Output::Bars { .. } => "bars",
        };
        f.debug_struct("PullProgress").field("output", &output).finish()
    }
}

impl Progress for PullProgress {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Resolving { reference } => {
                let what = match (reference.tag(), reference.digest()) {
                    (Some(tag), _) => tag.to_owned(),
                    (None, Some(digest)) => digest.to_string(),
                    (None, None) => return,
                };
                self.headline(&format!("{what}: Pulling from {}", reference.repository()));
            }
            Event::MirrorFailed { mirror, reason } => {
                let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                self.headline(&format!("Mirror {mirror} passed over: {reason}"));
            }
            // As Docker, no word about the small blobs that only describe the image.
            Event::Blob { kind: BlobKind::Manifest | BlobKind::Config, .. } => {}
            Event::Blob { digest, kind, state } => match &self.output {
                Output::Nothing => {}
                Output::Lines { print, stages } => line(print, stages, digest, *kind, *state),
                Output::Bars { multi, steps } => bar(multi, steps, digest, *kind, *state),
            },
            // The command prints the digest at the end.
            _ => {}
        }
    }
}

fn lines(print: impl Fn(&str) + Sync + 'static) -> Output {
    Output::Lines { print: Box::new(print), stages: Mutex::default() }
}

fn bars(target: ProgressDrawTarget) -> Output {
    Output::Bars { multi: MultiProgress::with_draw_target(target), steps: Mutex::default() }
}

/// The stage that `state` brings about.
fn stage_of(state: State<'_>) -> Option<Stage> {
    match state {
        State::Waiting { .. } => Some(Stage::Waiting),
        State::Fetching { .. } => Some(Stage::Downloading),
        State::Fetched => Some(Stage::Downloaded),
        State::Unpacking { .. } => Some(Stage::Extracting),
        State::Exists | State::Complete => Some(Stage::Done),
        _ => None,
    }
}

/// The words of a state.
fn words(kind: BlobKind, state: State<'_>) -> String {
    match state {
        State::Waiting { .. } => match kind {
            BlobKind::Layer => "Pulling fs layer".to_owned(),
            BlobKind::Wasm => "Pulling wasm module".to_owned(),
            _ => "Pulling".to_owned(),
        },
        State::Exists => "Already exists".to_owned(),
        State::Fetching { .. } => "Downloading".to_owned(),
        State::Retrying { attempt, reason } => retrying(attempt, reason),
        State::Fetched => "Download complete".to_owned(),
        State::Unpacking { .. } => "Extracting".to_owned(),
        State::Complete => "Pull complete".to_owned(),
        _ => String::new(),
    }
}

/// The reason may quote a server: no control characters, no more than a line.
fn retrying(attempt: u32, reason: &str) -> String {
    let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    format!("Retrying ({attempt}): {reason}")
}

/// Docker's output to a pipe: no bytes, and every stage once.
fn line(
    print: &dyn Fn(&str),
    stages: &Mutex<HashMap<Digest, Stage>>,
    digest: &Digest,
    kind: BlobKind,
    state: State<'_>,
) {
    if matches!(state, State::Fetching { .. } | State::Unpacking { .. }) {
        return;
    }
    let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stage) = stage_of(state) {
        if stages.get(digest).is_some_and(|known| *known >= stage) {
            return;
        }
        stages.insert(digest.clone(), stage);
    }
    // Under the lock, so that the lines of one blob keep their order.
    print(&format!("{}: {}", digest.short(), words(kind, state)));
}

/// One bar for each blob, in the order in which the blobs appear.
fn bar(
    multi: &MultiProgress,
    steps: &Mutex<HashMap<Digest, Step>>,
    digest: &Digest,
    kind: BlobKind,
    state: State<'_>,
) {
    let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
    let mut fresh = false;
    let step = steps.entry(digest.clone()).or_insert_with(|| {
        fresh = true;
        let bar = multi.add(ProgressBar::no_length());
        bar.set_prefix(digest.short().to_owned());
        Step { stage: Stage::Waiting, retrying: false, bar }
    });
    // Unpacking may begin before the last byte is here; the line shows the download until that is done.
    let stage = match stage_of(state) {
        Some(Stage::Extracting) if step.stage == Stage::Downloading => return,
        Some(stage) if stage < step.stage => return,
        Some(stage) => stage,
        None => step.stage,
    };
    let retrying = matches!(state, State::Retrying { .. });
    let changed = fresh || stage != step.stage || retrying || step.retrying;
    step.stage = stage;
    step.retrying = retrying;
    match state {
        State::Fetching { done, total } | State::Unpacking { done, total } => {
            if changed || step.bar.length() != Some(total) {
                step.bar.set_length(total);
                step.bar.set_style(style("{prefix}: {msg} {transfer}"));
                step.bar.set_message(words(kind, state));
            }
            step.bar.set_position(done);
        }
        _ if changed => {
            step.bar.set_style(style("{prefix}: {msg}"));
            let words = words(kind, state);
            match stage {
                Stage::Done => step.bar.abandon_with_message(words),
                _ => step.bar.set_message(words),
            }
        }
        _ => {}
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are the two above; should one be wrong, indicatif's own bar appears.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("transfer", |state: &ProgressState, out: &mut dyn fmt::Write| {
        // An error here can only come from the terminal's buffer.
        _ = out.write_str(&transfer(state.pos(), state.len().unwrap_or(0)));
    })
}

/// `[===>   ]  12.3MB/63.1MB`, or only the bytes so far if the size is unknown.
fn transfer(done: u64, total: u64) -> String {
    if total == 0 {
        return progress_size(done);
    }
    let done = done.min(total);
    let filled = u128::from(done) * BAR as u128 / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or(BAR);
    let (tip, empty) = if filled < BAR { (">", BAR - filled - 1) } else { ("", 0) };
    let bar = "=".repeat(filled) + tip + &" ".repeat(empty);
    format!("[{bar}] {:>8}/{}", progress_size(done), progress_size(total))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use dhow_engine::images::{BlobKind, Digest, Event, Progress, Reference, State};
    use indicatif::ProgressDrawTarget;

    use super::{Output, PullProgress, bars, lines, transfer};

    fn blob<'a>(digest: &'a Digest, state: State<'a>) -> Event<'a> {
        Event::Blob { digest, kind: BlobKind::Layer, state }
    }

    #[test]
    fn lines_are_dockers() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let progress = PullProgress { output: lines(move |text| sink.lock().unwrap().push(text.to_owned())) };
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let reference = Reference::parse("127.0.0.1:5000/some/hello:1").unwrap();
        let config = Event::Blob { digest: &b, kind: BlobKind::Config, state: State::Waiting { total: 9 } };
        for event in [
            Event::Resolving { reference: &reference },
            Event::Resolved { digest: &a },
            config,
            blob(&a, State::Waiting { total: 9 }),
            blob(&a, State::Waiting { total: 9 }),
            blob(&b, State::Exists),
            blob(&a, State::Fetching { done: 1, total: 9 }),
            blob(&a, State::Retrying { attempt: 1, reason: "cut\n\u{1b}[2J" }),
            blob(&a, State::Unpacking { done: 1, total: 9 }),
            blob(&a, State::Fetched),
            blob(&a, State::Unpacking { done: 9, total: 9 }),
            blob(&a, State::Complete),
            blob(&b, State::Complete),
        ] {
            progress.event(&event);
        }
        progress.finish();
        let (a, b) = (a.short(), b.short());
        assert_eq!(
            *seen.lock().unwrap(),
            [
                "1: Pulling from some/hello".to_owned(),
                format!("{a}: Pulling fs layer"),
                format!("{b}: Already exists"),
                format!("{a}: Retrying (1): cut  [2J"),
                format!("{a}: Download complete"),
                format!("{a}: Pull complete"),
            ]
        );
    }

    #[test]
    fn bars_follow_their_blob() {
        let progress = PullProgress { output: bars(ProgressDrawTarget::hidden()) };
        let Output::Bars { steps, .. } = &progress.output else { panic!("bars") };
        let digest = Digest::of(b"a");
        for (state, message, position) in [
            (State::Waiting { total: 9 }, "Pulling fs layer", 0),
            (State::Fetching { done: 3, total: 9 }, "Downloading", 3),
            (State::Unpacking { done: 1, total: 9 }, "Downloading", 3),
            (State::Retrying { attempt: 2, reason: "cut" }, "Retrying (2): cut", 3),
            (State::Fetching { done: 4, total: 9 }, "Downloading", 4),
            (State::Fetched, "Download complete", 4),
            (State::Fetching { done: 5, total: 9 }, "Download complete", 4),
            (State::Unpacking { done: 2, total: 9 }, "Extracting", 2),
            (State::Complete, "Pull complete", 2),
            (State::Unpacking { done: 3, total: 9 }, "Pull complete", 2),
        ] {
            progress.event(&blob(&digest, state));
            let steps = steps.lock().unwrap();
            let bar = &steps.get(&digest).expect("the blob has a bar").bar;
            assert_eq!((bar.message().as_str(), bar.position()), (message, position), "{state:?}");
        }
        progress.finish();
    }

    #[test]
    fn transfers() {
        assert_eq!(transfer(0, 1000), format!("[>{}]       0B/1kB", " ".repeat(29)));
        assert_eq!(
            transfer(12_300_000, 24_600_000),
            format!("[{}>{}]   12.3MB/24.6MB", "=".repeat(15), " ".repeat(14))
        );
        assert_eq!(transfer(9, 9), format!("[{}]       9B/9B", "=".repeat(30)));
        assert_eq!(transfer(u64::MAX, 9), transfer(9, 9));
        assert_eq!(transfer(u64::MAX, u64::MAX).len(), 30 + 2 + 1 + 8 + 1 + 7);
        assert_eq!(transfer(12_300, 0), "12.3kB");
    }

    #[test]
    fn quiet_says_nothing() {
        let progress = PullProgress { output: Output::Nothing };
        progress.event(&blob(&Digest::of(b"a"), State::Exists));
        progress.finish();
    }
}
