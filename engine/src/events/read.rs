//! Reading events: those that are there, and those that come.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use fs_err as fs;
use jiff::Timestamp;

use super::{Event, LONGEST};
use crate::error::Result;
use crate::until::Until;

/// Which events are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Those since then; none of before when neither this nor `until` is given.
    pub since: Option<Timestamp>,
    /// Those until then, and no longer; without it there is no end.
    pub until: Option<Timestamp>,
}

/// See [`crate::Engine::events`].
pub(super) fn read(
    file: fs::File,
    path: &Path,
    wanted: &Wanted,
    each: &mut dyn FnMut(&Event) -> bool,
) -> Result<()> {
    let watch = Watch::new(path)?;
    let mut file = BufReader::with_capacity(64 << 10, file);
    if wanted.since.is_none() && wanted.until.is_none() {
        file.seek(SeekFrom::End(0))?;
    } else {
        skip_hole(&mut file)?;
    }
    let until = Until::new(wanted.until);
    let mut line = Vec::new();
    loop {
        // Asked before the last look, so that nothing that was told before is missed.
        let over = until.is_over();
        while next(&mut file, &mut line)? {
            let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
            if wanted.since.is_some_and(|since| event.when() < since)
                || wanted.until.is_some_and(|until| event.when() > until)
            {
                continue;
            }
            if !each(&event) {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        watch.wait(until.left())?;
        if file.get_ref().metadata()?.len() < file.stream_position()? {
            // Emptied, where the file system knows no holes.
            file.seek(SeekFrom::Start(0))?;
        }
    }
}

/// The next whole line, without empty ones and what a hole gives. `false` where there is none yet.
fn next(file: &mut BufReader<fs::File>, line: &mut Vec<u8>) -> Result<bool> {
    // Hostile only to memory: lines of ours are shorter.
    let most = 4 * LONGEST as u64;
    loop {
        let begun = file.stream_position()?;
        line.clear();
        (&mut *file).take(most).read_until(b'\n', line)?;
        if line.ends_with(b"\n") {
            line.pop();
        } else if (line.len() as u64) < most {
            // It is being written.
            file.seek(SeekFrom::Start(begun))?;
            return Ok(false);
        }
        let text = line.iter().position(|byte| *byte != 0).unwrap_or(line.len());
        line.drain(..text);
        if !line.is_empty() {
            return Ok(true);
        }
    }
}

/// To the first thing that is still there.
fn skip_hole(file: &mut BufReader<fs::File>) -> Result<()> {
    #[cfg(target_os = "linux")]
    if let Ok(data) = rustix::fs::seek(file.get_ref().file(), rustix::fs::SeekFrom::Data(0)) {
        file.seek(SeekFrom::Start(data))?;
    }
    #[cfg(not(target_os = "linux"))]
    file.seek(SeekFrom::Start(0))?;
    Ok(())
}

#[cfg(target_os = "linux")]
use linux::Watch;

#[cfg(target_os = "linux")]
mod linux {
    //! Waiting for the file to grow by inotify.

    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
    use rustix::io::Errno;

    use crate::error::Result;

    /// Something that tells when a file has changed.
    pub(super) struct Watch(OwnedFd);

    impl Watch {
        pub(super) fn new(path: &Path) -> Result<Self> {
            let watch =
                inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(std::io::Error::from)?;
            inotify::add_watch(&watch, path, WatchFlags::MODIFY).map_err(std::io::Error::from)?;
            Ok(Self(watch))
        }

        /// Waits for a change, or so long.
        pub(super) fn wait(&self, limit: Option<Duration>) -> Result<()> {
            let limit = limit.map(|limit| Timespec {
                tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: limit.subsec_nanos().into(),
            });
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
            let mut space = [MaybeUninit::uninit(); 4096];
            let mut events = Reader::new(&self.0, &mut space);
            while events.next().is_ok() {}
            Ok(())
        }
    }
}

/// Waits for the file to grow by looking now and then.
#[cfg(not(target_os = "linux"))]
struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn new(_path: &Path) -> Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn wait(&self, limit: Option<std::time::Duration>) -> Result<()> {
        let often = std::time::Duration::from_millis(100);
        std::thread::sleep(limit.map_or(often, |limit| limit.min(often)));
        Ok(())
    }
}
