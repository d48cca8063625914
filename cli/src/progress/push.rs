//! Progress of pushes, in Docker's words: bars on a terminal, one line per finished step elsewhere.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use dhow_engine::images::{BlobKind, Digest, Event, Progress, State};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};

use super::{retrying, style};
use crate::ui::Ui;

/// Receives the events of one push.
pub(crate) struct PushProgress {
    output: Output,
}

enum Output {
    Nothing,
    Lines { print: Box<dyn Fn(&str) + Sync>, said: Mutex<HashMap<Digest, String>> },
    Bars { multi: MultiProgress, bars: Mutex<HashMap<Digest, ProgressBar>> },
}

impl PushProgress {
    /// Bars if standard error is a terminal, otherwise lines on standard output.
    pub(crate) fn new(ui: Ui, quiet: bool) -> Self {
        let output = match () {
            () if quiet => Output::Nothing,
            () if ui.interactive => bars(ProgressDrawTarget::stderr()),
            () => lines(move |text| ui.line(text)),
        };
        Self { output }
    }

    /// Leaves the bars on the screen as they are. What is printed afterwards begins below them.
    pub(crate) fn finish(&self) {
        if let Output::Bars { bars, .. } = &self.output {
            for bar in bars.lock().unwrap_or_else(PoisonError::into_inner).values() {
                bar.abandon();
            }
        }
    }
}

impl fmt::Debug for PushProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushProgress").finish_non_exhaustive()
    }
}

impl Progress for PushProgress {
    fn event(&self, event: &Event<'_>) {
        // As Docker, no word about the small blobs that only describe the image.
        let Event::Blob { digest, kind: BlobKind::Layer | BlobKind::Wasm | BlobKind::Other, state } = event
        else {
            return;
        };
        match &self.output {
            Output::Nothing => {}
            Output::Lines { print, said } => line(print, said, digest, *state),
            Output::Bars { multi, bars } => bar(multi, bars, digest, *state),
        }
    }
}

fn lines(print: impl Fn(&str) + Sync + 'static) -> Output {
    Output::Lines { print: Box::new(print), said: Mutex::default() }
}

fn bars(target: ProgressDrawTarget) -> Output {
    Output::Bars { multi: MultiProgress::with_draw_target(target), bars: Mutex::default() }
}

fn words(state: State<'_>) -> Option<String> {
    Some(match state {
        State::Preparing => "Preparing".to_owned(),
        State::Exists => "Layer already exists".to_owned(),
        State::Mounted { from } => format!("Mounted from {from}"),
        State::Pushing { .. } => "Pushing".to_owned(),
        State::Pushed => "Pushed".to_owned(),
        State::Retrying { attempt, reason } => retrying(attempt, reason),
        _ => return None,
    })
}

/// Docker's output to a pipe: no bytes, and every step once.
fn line(print: &dyn Fn(&str), said: &Mutex<HashMap<Digest, String>>, digest: &Digest, state: State<'_>) {
    if matches!(state, State::Pushing { .. }) {
        return;
    }
    let Some(words) = words(state) else { return };
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get(digest).is_some_and(|last| *last == words || state == State::Preparing) {
        return;
    }
    // Under the lock, so that the lines of one blob keep their order.
    print(&format!("{}: {words}", digest.short()));
    said.insert(digest.clone(), words);
}

/// One bar for each blob, in the order in which the blobs appear.
fn bar(multi: &MultiProgress, bars: &Mutex<HashMap<Digest, ProgressBar>>, digest: &Digest, state: State<'_>) {
    let Some(words) = words(state) else { return };
    let mut bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
    let bar = bars.entry(digest.clone()).or_insert_with(|| {
        let bar = multi.add(ProgressBar::no_length());
        bar.set_prefix(digest.short().to_owned());
        bar
    });
    if bar.is_finished() {
        return;
    }
    match state {
        State::Pushing { done, total } => {
            if bar.message() != words || bar.length() != Some(total) {
                bar.set_length(total);
                bar.set_style(style("{prefix}: {msg} {transfer}"));
                bar.set_message(words);
            }
            bar.set_position(done);
        }
        State::Pushed | State::Exists | State::Mounted { .. } => {
            bar.set_style(style("{prefix}: {msg}"));
            bar.abandon_with_message(words);
        }
        _ => {
            bar.set_style(style("{prefix}: {msg}"));
            bar.set_message(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use dhow_engine::images::{BlobKind, Digest, Event, Progress, State};
    use indicatif::ProgressDrawTarget;

    use super::{Output, PushProgress, bars, lines};

    fn blob<'a>(digest: &'a Digest, state: State<'a>) -> Event<'a> {
        Event::Blob { digest, kind: BlobKind::Layer, state }
    }

    #[test]
    fn lines_are_dockers() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let progress = PushProgress { output: lines(move |text| sink.lock().unwrap().push(text.to_owned())) };
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        for event in [
            blob(&a, State::Preparing),
            blob(&b, State::Preparing),
            blob(&c, State::Preparing),
            blob(&a, State::Preparing),
            Event::Blob { digest: &c, kind: BlobKind::Config, state: State::Pushed },
            blob(&a, State::Pushing { done: 1, total: 9 }),
            blob(&a, State::Retrying { attempt: 1, reason: "cut\n\u{1b}[2J" }),
            blob(&a, State::Pushed),
            blob(&b, State::Mounted { from: "team/app" }),
            blob(&c, State::Exists),
        ] {
            progress.event(&event);
        }
        progress.finish();
        let (a, b, c) = (a.short(), b.short(), c.short());
        assert_eq!(
            *seen.lock().unwrap(),
            [
                format!("{a}: Preparing"),
                format!("{b}: Preparing"),
                format!("{c}: Preparing"),
                format!("{a}: Retrying (1): cut  [2J"),
                format!("{a}: Pushed"),
                format!("{b}: Mounted from team/app"),
                format!("{c}: Layer already exists"),
            ]
        );
    }

    #[test]
    fn bars_follow_their_blob() {
        let progress = PushProgress { output: bars(ProgressDrawTarget::hidden()) };
        let Output::Bars { bars, .. } = &progress.output else { panic!("bars") };
        let digest = Digest::of(b"a");
        for (state, message, position) in [
            (State::Preparing, "Preparing", 0),
            (State::Pushing { done: 3, total: 9 }, "Pushing", 3),
            (State::Retrying { attempt: 2, reason: "cut" }, "Retrying (2): cut", 3),
            (State::Pushing { done: 2, total: 9 }, "Pushing", 2),
            (State::Pushed, "Pushed", 2),
            (State::Pushing { done: 3, total: 9 }, "Pushed", 2),
        ] {
            progress.event(&blob(&digest, state));
            let bars = bars.lock().unwrap();
            let bar = bars.get(&digest).expect("the blob has a bar");
            assert_eq!((bar.message().as_str(), bar.position()), (message, position), "{state:?}");
        }
        progress.finish();
    }
}
