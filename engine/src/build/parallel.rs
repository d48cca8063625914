//! Stages that do not need each other, at the same time: each in a process of its own, forked from the builder's.
//!
//! A thread will not do, because steps are forked and what forks has one thread. The process tells what is going on and
//! what the stage has become through a pipe; the builder takes the layers over before the process lets go of them. It is
//! killed when the builder dies, and its steps with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use dhow_images::{Digest, Image, ImageConfig, Platform};
use dhow_runtime::process;
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::attest::Material;
use super::builder::Builder;
use super::cache::Made;
use super::dockerfile::Lines;
use super::stage::{Own, Stage};
use super::work::Work;
use super::{Event, Failure};
use crate::error::{Error, Result};

/// The most processes at once.
const MOST: usize = 8;
/// The largest message: what a stage has become, with its whole history.
const MAX_MESSAGE: usize = 64 << 20;

/// What a stage has become, on its way to the builder.
#[derive(Serialize, Deserialize)]
pub(super) struct Sent {
    platform: Platform,
    base: Option<Image>,
    layers: Vec<(Made, Option<PathBuf>)>,
    config: ImageConfig,
    args: Vec<(String, Option<String>)>,
    has_cmd: bool,
    escape: char,
    used_args: BTreeSet<String>,
    keys: BTreeSet<Digest>,
    materials: BTreeSet<Material>,
}

/// What a process says.
#[derive(Serialize, Deserialize)]
enum Word {
    Step(String, String),
    Cached,
    Output(Vec<u8>),
    Done(Duration),
    Warning(String),
    Stage(Box<Sent>),
    Failed {
        message: String,
        hint: Option<String>,
        lines: Option<(usize, usize)>,
        word: Option<String>,
        code: u8,
    },
}

/// A process that builds a stage.
struct Running {
    at: usize,
    pid: u32,
    from: std::io::PipeReader,
    /// Told when the layers are taken over.
    ack: std::io::PipeWriter,
    bytes: Vec<u8>,
    words: VecDeque<Word>,
    ended: bool,
}

impl Builder<'_, '_> {
    /// Builds stages, each as soon as those that it needs are there.
    pub(super) fn stages(&mut self, needs: &BTreeMap<usize, BTreeSet<usize>>) -> Result<()> {
        let mut left: BTreeSet<usize> = needs.keys().copied().collect();
        let mut running: Vec<Running> = Vec::new();
        let outcome = loop {
            let ready: Vec<usize> = left
                .iter()
                .copied()
                .filter(|at| needs[at].iter().all(|needed| self.done.contains_key(needed)))
                .collect();
            if running.is_empty() {
                match ready.as_slice() {
                    [] => break Ok(()),
                    // A process would only cost time.
                    [at] => {
                        left.remove(at);
                        let stage = self.stage(*at)?;
                        self.done.insert(*at, stage);
                        continue;
                    }
                    _ => {}
                }
            }
            for at in ready.into_iter().take(MOST.saturating_sub(running.len())) {
                left.remove(&at);
                running.push(self.start(at)?);
            }
            if let Err(error) = self.listen(&mut running) {
                break Err(error);
            }
        };
        for lost in &running {
            if let Some(pid) = i32::try_from(lost.pid).ok().and_then(Pid::from_raw) {
                // Not reaped yet, so nobody else has its number.
                rustix::process::kill_process(pid, Signal::KILL).ok();
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok();
            }
        }
        if !running.is_empty() {
            // Their steps end with them, some moments later; what stays then is for the next build.
            for _ in 0..20 {
                self.engine.sweep_builds()?;
                if self.engine.other_builds(&self.work.id)? == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            self.engine.store().sweep_sessions_if_idle()?;
        }
        outcome
    }

    fn start(&mut self, at: usize) -> Result<Running> {
        let (from, mut to) = std::io::pipe()?;
        let (mut wait, ack) = std::io::pipe()?;
        let builder = rustix::process::getpid();
        // What was said to be shown must not be shown twice.
        let child = process::fork(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
            if rustix::process::getppid() != Some(builder) {
                return 1;
            }
            let word = match self.alone(at, &mut to) {
                Ok(sent) => Word::Stage(Box::new(sent)),
                Err(error) => failed(error),
            };
            if say(&mut to, &word).is_ok() {
                // Until the builder has the layers. Other processes have copies of the pipe, so its end says nothing.
                wait.read_exact(&mut [0]).ok();
            }
            // Removes the folder and the lease.
            drop(std::mem::replace(&mut self.work, Work::nothing(self.engine)));
            0
        })?;
        Ok(Running {
            at,
            pid: child.pid(),
            from,
            ack,
            bytes: Vec::new(),
            words: VecDeque::new(),
            ended: false,
        })
    }

    /// In the process: builds one stage.
    fn alone(&mut self, at: usize, to: &mut std::io::PipeWriter) -> Result<Sent> {
        let work = Work::begin_beside(self.engine)?;
        // The builder's own goes on.
        std::mem::forget(std::mem::replace(&mut self.work, work));
        (self.used_args, self.keys) = Default::default();
        self.materials = BTreeSet::new();
        let mut tell = |event: Event<'_>| {
            let word = match event {
                Event::Step { stage, text, .. } => Word::Step(stage.to_owned(), text.to_owned()),
                Event::Cached => Word::Cached,
                Event::Output(bytes) => Word::Output(bytes.to_vec()),
                Event::Done(took) => Word::Done(took),
                Event::Warning(text) => Word::Warning(text),
            };
            // A builder that is gone takes this process with it.
            say(to, &word).ok();
        };
        let mut inner = Builder {
            engine: self.engine,
            build: self.build,
            work: Work::nothing(self.engine),
            progress: &mut tell,
            helper: &mut *self.helper,
            wanted: self.wanted.clone(),
            several: self.several,
            done: std::mem::take(&mut self.done),
            globals: self.globals.clone(),
            used_args: BTreeSet::new(),
            keys: BTreeSet::new(),
            materials: BTreeSet::new(),
            imported: std::rc::Rc::clone(&self.imported),
            number: 0,
            total: 0,
            context: self.context.clone(),
            images: std::mem::take(&mut self.images),
            now: self.now,
            fresh: false,
        };
        std::mem::swap(&mut inner.work, &mut self.work);
        let stage = inner.stage(at);
        std::mem::swap(&mut inner.work, &mut self.work);
        let stage = stage?;
        let layers = stage.layers.iter().map(|own| (own.made.clone(), own.files.clone())).collect();
        Ok(Sent {
            platform: stage.platform.clone(),
            base: stage.base.as_deref().cloned(),
            layers,
            config: stage.config.clone(),
            args: stage.args.clone(),
            has_cmd: stage.has_cmd,
            escape: stage.escape,
            used_args: inner.used_args,
            keys: inner.keys,
            materials: inner.materials,
        })
    }

    /// Waits for something to be said, and shows what one process after the other says.
    fn listen(&mut self, running: &mut Vec<Running>) -> Result<()> {
        let mut fds: Vec<PollFd<'_>> = running
            .iter()
            .map(|one| PollFd::new(&one.from, if one.ended { PollFlags::empty() } else { PollFlags::IN }))
            .collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for (one, ready) in running.iter_mut().zip(ready) {
            if ready && !one.ended {
                one.hear()?;
            }
        }
        // One that has failed is shown at once, and is the last that is.
        let is_failure = |one: &Running| one.words.iter().any(|word| matches!(word, Word::Failed { .. }));
        if let Some(index) = running.iter().position(is_failure) {
            return self.show(running, index);
        }
        let has_ended = |one: &Running| one.words.iter().any(|word| matches!(word, Word::Stage(_)));
        if running.iter().any(|one| one.ended && !has_ended(one)) {
            return Err(Error::Invalid("a process that built a stage was killed".to_owned()));
        }
        while let Some(first) = running.first() {
            let ends = has_ended(first);
            self.show(running, 0)?;
            if !ends {
                break;
            }
        }
        // Behind the one that is shown, stages that are there can be used.
        for index in (0..running.len()).rev() {
            if running[index].words.iter().any(|word| matches!(word, Word::Stage(_))) {
                self.show(running, index)?;
            }
        }
        Ok(())
    }

    /// Shows all that one has said.
    fn show(&mut self, running: &mut Vec<Running>, index: usize) -> Result<()> {
        while let Some(word) = running[index].words.pop_front() {
            match word {
                Word::Step(stage, text) => {
                    self.begin(&stage, &text);
                }
                Word::Cached => (self.progress)(Event::Cached),
                Word::Output(bytes) => (self.progress)(Event::Output(&bytes)),
                Word::Done(took) => (self.progress)(Event::Done(took)),
                Word::Warning(text) => (self.progress)(Event::Warning(text)),
                Word::Stage(sent) => {
                    let one = running.remove(index);
                    return self.take_over(one, *sent);
                }
                Word::Failed { message, hint, lines, word, code } => {
                    let lines = lines.map(|(first, last)| Lines { first, last });
                    return Err(Error::Build(Box::new(Failure { message, hint, lines, word, code })));
                }
            }
        }
        Ok(())
    }

    /// Makes a stage the builder's own.
    fn take_over(&mut self, mut one: Running, sent: Sent) -> Result<()> {
        let kept = sent.layers.iter().flat_map(|(made, _)| [&made.blob.digest, &made.diff_id]);
        self.work.keep(kept.chain(sent.base.iter().map(|base| &base.manifest.digest)))?;
        let mut stage = Stage::scratch(&sent.platform);
        for (made, files) in sent.layers {
            let is_theirs = |path: &PathBuf| path.starts_with(self.engine.builds_folder());
            let files = match files.filter(|path| !path.starts_with(&self.work.folder)) {
                Some(path) if is_theirs(&path) => {
                    let own = self.work.path("stage");
                    fs::rename(path, &own)?;
                    Some(own)
                }
                // It was here before, or lies in the store.
                other => other,
            };
            stage.layers.push(Own { made, files });
        }
        stage.base = sent.base.map(std::rc::Rc::new);
        (stage.config, stage.args) = (sent.config, sent.args);
        (stage.has_cmd, stage.escape) = (sent.has_cmd, sent.escape);
        self.used_args.extend(sent.used_args);
        self.keys.extend(sent.keys);
        self.materials.extend(sent.materials);
        self.done.insert(one.at, stage);
        one.ack.write_all(&[1])?;
        if let Some(pid) = i32::try_from(one.pid).ok().and_then(Pid::from_raw) {
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok();
        }
        Ok(())
    }
}

impl Running {
    /// Reads what there is; whole words are taken.
    fn hear(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        match self.from.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        while let Some((length, rest)) = self.bytes.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > MAX_MESSAGE {
                return Err(Error::Invalid("a process that builds a stage said too much".to_owned()));
            }
            let Some(word) = rest.get(..length) else { break };
            self.words.push_back(serde_json::from_slice(word).map_err(std::io::Error::other)?);
            self.bytes.drain(..4 + length);
        }
        Ok(())
    }
}

fn say(to: &mut std::io::PipeWriter, word: &Word) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(word)?;
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)
}

fn failed(error: Error) -> Word {
    match super::builder::failed(error, None) {
        Error::Build(failure) => Word::Failed {
            message: failure.message,
            hint: failure.hint,
            lines: failure.lines.map(|lines| (lines.first, lines.last)),
            word: failure.word,
            code: failure.code,
        },
        other => Word::Failed { message: other.to_string(), hint: None, lines: None, word: None, code: 1 },
    }
}
