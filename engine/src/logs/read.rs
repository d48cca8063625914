//! Reading a log: from its files as they are, from near the end, and on as it grows.

use std::hash::Hasher as _;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use fs_err as fs;
use jiff::Timestamp;

use super::entry::Entry;
use super::{numbered, packed};
use crate::error::Result;
use crate::record::Container;
use crate::until::Until;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
    /// Only this many entries from the end.
    pub tail: Option<u64>,
    /// Go on until the container has ended.
    pub follow: bool,
}

/// The most that one line of a file may have; ours have less.
const LONGEST: u64 = 1 << 20;

/// Blocks in which a file is searched from its end.
const BLOCK: u64 = 64 << 10;

/// One file of a log that is being read.
#[derive(Debug)]
pub(super) struct Part {
    file: BufReader<fs::File>,
    /// Which file it is, by whatever name, as long as it is open; `None` for one that was packed.
    identity: Option<Identity>,
    /// Its first line, hashed, once that has been asked for.
    first: Option<u64>,
}

/// Two files that are open at once have different ones.
type Identity = (u64, u64);

impl Part {
    fn open(path: &Path) -> Result<Option<Self>> {
        let plain = || match fs::File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        let mut identity_of = None;
        let mut file = plain()?;
        if file.is_none()
            && let Some(unpacked) = packed::unpack(&packed::name(path))?
        {
            return Ok(Some(Self::new(unpacked, None)));
        }
        if file.is_none() {
            // It may have come to its plain name, or lost it, between the two looks.
            file = plain()?;
        }
        if let Some(file) = &file {
            identity_of = Some(identity(file)?);
        }
        Ok(file.map(|file| Self::new(file, identity_of)))
    }

    fn new(file: fs::File, identity: Option<Identity>) -> Self {
        Self { file: BufReader::with_capacity(64 << 10, file), identity, first: None }
    }

    /// Whether both are one file of the log. A packed one is known by its first line: no two entries of a log have the
    /// same time. (Its number on the disk would not do, that of a file that was packed is given to the next new one.)
    fn is(&mut self, other: &mut Self) -> Result<bool> {
        if let (Some(one), Some(other)) = (self.identity, other.identity) {
            return Ok(one == other);
        }
        Ok(self.first()?.is_some_and(|first| matches!(other.first(), Ok(Some(other)) if other == first)))
    }

    /// The hash of the first line; `None` until that is there in whole.
    fn first(&mut self) -> Result<Option<u64>> {
        if self.first.is_none() {
            let at = self.file.stream_position()?;
            self.file.seek(SeekFrom::Start(0))?;
            let mut line = Vec::new();
            (&mut self.file).take(LONGEST).read_until(b'\n', &mut line)?;
            self.file.seek(SeekFrom::Start(at))?;
            if line.ends_with(b"\n") {
                let mut hasher = std::hash::DefaultHasher::new();
                hasher.write(&line);
                self.first = Some(hasher.finish());
            }
        }
        Ok(self.first)
    }

    /// The next whole line, with its end; `None` where there is none yet. An overlong one is skipped.
    fn line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        let begun = self.file.stream_position()?;
        line.clear();
        (&mut self.file).take(LONGEST).read_until(b'\n', line)?;
        if line.ends_with(b"\n") || line.len() as u64 == LONGEST {
            return Ok(true);
        }
        // It is being written.
        self.file.seek(SeekFrom::Start(begun))?;
        Ok(false)
    }

    /// Goes to where the last `count` whole lines begin; gives how many are missing.
    fn go_back(&mut self, count: u64) -> Result<u64> {
        let file = self.file.get_mut();
        let mut at = file.seek(SeekFrom::End(0))?;
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
        // The last of them is the end of the line before.
        let mut ends = count.saturating_add(1);
        while at > 0 {
            let length = at.min(BLOCK);
            at -= length;
            file.seek(SeekFrom::Start(at))?;
            let block = &mut block[..usize::try_from(length).unwrap_or(0)];
            file.read_exact(block)?;
            for (offset, byte) in block.iter().enumerate().rev() {
                ends -= u64::from(*byte == b'\n');
                if ends == 0 {
                    self.file.seek(SeekFrom::Start(at + offset as u64 + 1))?;
                    return Ok(0);
                }
            }
        }
        self.file.seek(SeekFrom::Start(0))?;
        Ok(ends - 1)
    }
}

#[cfg(unix)]
fn identity(file: &fs::File) -> Result<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Files have no such number here; the time they were made tells them apart.
#[cfg(not(unix))]
fn identity(file: &fs::File) -> Result<Identity> {
    let made = file.metadata()?.created()?;
    let since = made.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok((since.as_secs(), u64::from(since.subsec_nanos())))
}

/// The files of a log, newest first. One that is renamed while this looks is taken once all the same, and none is left
/// out: they are opened in the order in which they move. In the middle of a rotation a number is missing.
///
/// With `tail` only as many as have so many entries from the end, each at the first of them.
fn parts(path: &Path, files: u32, mut tail: Option<u64>) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for number in 0..=files {
        let Some(mut part) = Part::open(&numbered(path, number))? else { continue };
        // Files move by one at a time: it can only be the one that was opened last.
        if let Some(last) = parts.last_mut()
            && part.is(last)?
        {
            continue;
        }
        let missing = tail.map(|count| part.go_back(count)).transpose()?;
        parts.push(part);
        if missing == Some(0) {
            break;
        }
        tail = missing;
    }
    Ok(parts)
}

/// See [`crate::Engine::logs`].
pub(super) fn read(
    path: &Path,
    container: &Container,
    wanted: &Wanted,
    each: &mut dyn FnMut(&Entry) -> bool,
) -> Result<()> {
    let files = container.record.host_config.log_config.bounds()?.files;
    let mut parts = parts(path, files, wanted.tail)?;
    let mut line = Vec::new();
    let mut give = |part: &mut Part| -> Result<bool> {
        while part.line(&mut line)? {
            let Some(entry) = Entry::parse(&line) else { continue };
            if wanted.until.is_some_and(|until| entry.time > until) {
                return Ok(false);
            }
            if wanted.since.is_none_or(|since| entry.time >= since) && !each(&entry) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    // Oldest first; an old file is closed when it has been read.
    while parts.len() > 1 {
        if let Some(mut part) = parts.pop()
            && !give(&mut part)?
        {
            return Ok(());
        }
    }
    let mut newest = parts.pop();
    if let Some(part) = &mut newest
        && !give(part)?
    {
        return Ok(());
    }
    if !wanted.follow {
        return Ok(());
    }
    let watch = Watch::new(path)?;
    let until = Until::new(wanted.until);
    loop {
        // Asked before the last look, so that nothing that was written before the end is missed.
        let lives = container.is_supervised()?;
        loop {
            if let Some(part) = &mut newest
                && !give(part)?
            {
                return Ok(());
            }
            let Some(newer) = next(path, files, newest.as_mut())? else { break };
            // Something may have been written between the last look and the rotation; nothing is any more.
            if let Some(part) = &mut newest
                && !give(part)?
            {
                return Ok(());
            }
            newest = Some(newer);
        }
        if !lives || until.is_over() {
            return Ok(());
        }
        watch.wait()?;
    }
}

/// The file that came after `current`, once that has been rotated away.
fn next(path: &Path, files: u32, mut current: Option<&mut Part>) -> Result<Option<Part>> {
    let mut newer = None;
    for number in 0..=files {
        let Some(mut part) = Part::open(&numbered(path, number))? else { continue };
        if let Some(current) = &mut current
            && part.is(current)?
        {
            return Ok(newer);
        }
        newer = Some(part);
    }
    // The one we had is gone: on with the oldest.
    Ok(newer)
}

#[cfg(target_os = "linux")]
use super::follow::Watch;

/// Waits for a log to grow by asking now and then.
#[cfg(not(target_os = "linux"))]
struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn new(_path: &Path) -> Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn wait(&self) -> Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(100));
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::logs::{Log, LogConfig, Source};

    #[test]
    fn the_end_is_found_from_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (text, count, missing, rest) in [
            ("", 0, 0, ""),
            ("", 3, 3, ""),
            ("a\nb\nc\n", 0, 0, ""),
            ("a\nb\nc\n", 1, 0, "c\n"),
            ("a\nb\nc\n", 3, 0, "a\nb\nc\n"),
            ("a\nb\nc\n", 5, 2, "a\nb\nc\n"),
            ("a\nb\nbegun", 1, 0, "b\nbegun"),
            ("\n\n\n", 2, 0, "\n\n"),
        ] {
            fs::write(&path, text).unwrap();
            let mut part = Part::open(&path).unwrap().unwrap();
            assert_eq!(part.go_back(count).unwrap(), missing, "{text:?} {count}");
            let mut read = String::new();
            part.file.read_to_string(&mut read).unwrap();
            assert_eq!(read, rest, "{text:?} {count}");
        }
    }

    #[test]
    fn many_rotations_between_two_looks_lose_only_what_is_gone() {
        // Packed or not: a file that is packed meanwhile is not a new one.
        for more in [&[][..], &[("compress", "true")]] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let options = [&[("max-size", "1k"), ("max-file", "4")], more].concat();
            let options = options.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
            let config = LogConfig { config: options.collect(), ..LogConfig::default() };
            let mut log = Log::open(&path, &config).unwrap();
            let mut part = Part::open(&path).unwrap();
            let (mut number, mut seen) = (0, Vec::new());
            for burst in [1, 5, 20, 3, 200, 7, 1] {
                for _ in 0..burst {
                    log.write(Source::Stdout, format!("{number}\n").as_bytes());
                    number += 1;
                }
                loop {
                    let mut line = Vec::new();
                    while part.as_mut().is_some_and(|part| part.line(&mut line).unwrap()) {
                        seen.push(Entry::parse(&line).unwrap().text.trim().parse::<u32>().unwrap());
                    }
                    match next(&path, 4, part.as_mut()).unwrap() {
                        Some(newer) => part = Some(newer),
                        None => break,
                    }
                }
                assert_eq!(seen.last(), Some(&(number - 1)));
            }
            assert!(seen.is_sorted_by(|a, b| a < b), "nothing twice, nothing out of order");
            assert!(seen.len() > 60 && seen.contains(&28), "{seen:?}");
        }
    }
}
