//! A native plugin that stays loaded for others (Linux): this process starts its container, and a child of it answers calls. The
//! child has threads and this one has not, so it can start the next one: when the program has ended, after a pause that
//! becomes longer, and when the image's tag has moved. Calls that come meanwhile wait at the socket.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dhow_runtime::{ExitStatus, process};

use super::native::Native;
use super::request::Request;
use super::running::{Reserved, wake};
use super::{CallOptions, Callee, Error as CallError, Function, Limits, RemotePlugin, Stats};
use crate::attach;
use crate::engine::Engine;
use crate::error::Result;

/// How a child says why it has ended.
const REMOVED: u8 = 0;
const MOVED: u8 = 10;
const ENDED: u8 = 11;

/// How long it is left alone after its end, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A program that has lived so long is none that ends at once.
const LONG: Duration = Duration::from_secs(10);
/// How often it is looked whether the program lives, and whether the tag has moved.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_AT_TAG: Duration = Duration::from_secs(1);
/// Who has said nothing for so long says nothing more to this process.
const SILENCE: Duration = Duration::from_secs(2);
/// How long calls have that are under way when the tag moves.
const DRAIN: Duration = Duration::from_secs(30);

impl Reserved {
    /// Runs the native variant of a plugin and answers calls until somebody removes it. `ready` is told when the first can
    /// come. The calling process must have one thread.
    ///
    /// # Errors
    /// As [`Engine::native_plugin`], of the first start.
    pub fn serve_native(
        mut self,
        engine: &Engine,
        reference: &str,
        limits: &Limits,
        grants: &Request,
        ready: impl FnOnce(),
    ) -> Result<()> {
        let mut ready = Some(ready);
        let listener = attach::listen(self.folder())?;
        listener.set_nonblocking(false)?;
        let mut pause = PAUSE.0;
        loop {
            let digest = engine.find_image(reference)?.digest.to_string();
            let mut native = match engine.native_plugin(reference, limits, grants) {
                Err(error) if ready.is_some() => return Err(error),
                Err(_) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE.1);
                    continue;
                }
                Ok(native) => native,
            };
            self.begin(digest.clone(), native.container_name())?;
            let since = Instant::now();
            let child = process::fork(|| {
                // With its parent nobody would remove the container.
                let killed = Some(rustix::process::Signal::KILL);
                rustix::process::set_parent_process_death_signal(killed).ok();
                self.answer(engine, &mut native, limits, &listener, &digest).unwrap_or(ENDED)
            })?;
            if let Some(ready) = ready.take() {
                ready();
            }
            let ended = child.wait()?;
            // What it has said is kept; the container is not.
            self.log()?(&native.end());
            drop(native);
            match ended {
                ExitStatus::Code(REMOVED) => break,
                ExitStatus::Code(MOVED) => {}
                _ => {
                    if since.elapsed() > LONG {
                        pause = PAUSE.0;
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
        self.leave();
        Ok(())
    }

    /// The child's part.
    fn answer(
        &self,
        engine: &Engine,
        native: &mut Native<'_>,
        limits: &Limits,
        listener: &UnixListener,
        digest: &str,
    ) -> Result<u8> {
        let over = Arc::new(AtomicBool::new(false));
        let plugin = Arc::new(Watched {
            plugin: native.plugin(limits)?,
            folder: self.folder().to_owned(),
            over: Arc::clone(&over),
            busy: Mutex::new((0, Instant::now())),
        });
        let code = std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let code = self.watch(engine, &plugin, &over, digest);
                over.store(true, Ordering::SeqCst);
                wake(self.folder());
                code
            });
            self.accept(listener, &plugin, &over);
            watching.join().unwrap_or(ENDED)
        });
        // Whoever has connected is answered yet, but for those that stay connected and say nothing.
        let since = Instant::now();
        let answers = || Arc::strong_count(&plugin) > 1 && !plugin.is_idle();
        while code == MOVED && answers() && since.elapsed() < DRAIN {
            std::thread::sleep(LOOK / 10);
        }
        Ok(code)
    }

    /// Looks until something is over; says what.
    fn watch(&self, engine: &Engine, plugin: &Watched, over: &AtomicBool, digest: &str) -> u8 {
        let mut looked = Instant::now();
        loop {
            std::thread::sleep(LOOK);
            if plugin.plugin.is_over() {
                return ENDED;
            }
            if over.load(Ordering::SeqCst) {
                return REMOVED;
            }
            if looked.elapsed() > LOOK_AT_TAG {
                looked = Instant::now();
                // One that was removed stays as it is.
                let now = engine.find_image(self.reference());
                if now.is_ok_and(|now| now.digest.to_string() != digest) {
                    return MOVED;
                }
            }
        }
    }
}

/// A plugin of which is known whether somebody calls it.
struct Watched {
    plugin: RemotePlugin,
    folder: PathBuf,
    over: Arc<AtomicBool>,
    /// How many calls are under way, and when the last one began or ended.
    busy: Mutex<(usize, Instant)>,
}

impl Watched {
    /// Nobody has called for a while.
    fn is_idle(&self) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.0 == 0 && busy.1.elapsed() > SILENCE
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = (change(busy.0), Instant::now());
    }
}

impl Callee for Watched {
    fn call_json(
        &self,
        options: &CallOptions,
        name: &str,
        args: &str,
    ) -> std::result::Result<String, CallError> {
        self.count(|calls| calls + 1);
        let called = self.plugin.call_json(options, name, args);
        self.count(|calls| calls - 1);
        // Before the answer: who calls next finds the next process.
        if self.plugin.is_over() && !self.over.swap(true, Ordering::SeqCst) {
            wake(&self.folder);
        }
        called
    }

    fn functions(&self) -> Vec<Function> {
        self.plugin.functions()
    }

    fn stats(&self) -> Stats {
        self.plugin.stats()
    }
}
