//! The monitor's side of a log: lines in, files out. Nothing here fails loudly: a disk that is full costs a container
//! its log and not its life.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;

use super::entry::{Source, append};
use super::{Bounds, LogConfig, numbered, packed};
use crate::error::Result;
use crate::record::Record;

/// A longer line is cut into entries of this size, as Docker cuts them.
const LONGEST: usize = 16 << 10;

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Option<fs::File>,
    size: u64,
    bounds: Bounds,
    /// Beginnings of lines, of each stream.
    begun: [Vec<u8>; 2],
    /// What goes to the file next.
    batch: Vec<u8>,
    clock: Clock,
    /// What stands beside each line.
    attributes: String,
}

/// Gives each entry a time of its own: readers know by it where they are, and `--since` the last one they saw.
#[derive(Debug, Default)]
struct Clock {
    last: Timestamp,
    /// The time as it is written; all but the fraction stays for a second.
    text: String,
    whole: usize,
}

impl Clock {
    fn tick(&mut self, now: Timestamp) -> &str {
        let least = self.last.checked_add(jiff::SignedDuration::from_nanos(1)).unwrap_or(now);
        let time = now.max(least);
        if self.whole == 0 || time.as_second() != self.last.as_second() {
            self.text = format!("{time:.0}");
            self.text.pop();
            self.whole = self.text.len();
        }
        self.last = time;
        self.text.truncate(self.whole);
        if time.subsec_nanosecond() > 0 {
            self.text += &format!(".{:09}", time.subsec_nanosecond());
            // As Docker has it.
            self.text.truncate(self.text.trim_end_matches('0').len());
        }
        self.text.push('Z');
        &self.text
    }
}

impl Log {
    /// Opens the log of a container, going on where an earlier run has ended.
    pub(crate) fn open(path: &Path, config: &LogConfig) -> Result<Self> {
        let mut file = open(path)?;
        let size = file.metadata()?.len();
        let mut last = [b'\n'];
        if size > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != *b"\n" {
            // The line of a monitor that was killed: the next one must not be lost with it.
            file.write_all(b"\n")?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            size,
            bounds: config.bounds()?,
            begun: Default::default(),
            batch: Vec::new(),
            clock: Clock::default(),
            attributes: String::new(),
        })
    }

    /// With what the container's options want beside each line.
    pub(crate) fn with_attributes(self, record: &Record) -> Result<Self> {
        Ok(Self { attributes: super::attributes::of(record)?, ..self })
    }

    /// Takes what a container has written. What is no whole line yet waits for the rest.
    pub(crate) fn write(&mut self, source: Source, bytes: &[u8]) {
        let now = Timestamp::now();
        let begun = &mut self.begun[source as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while begun.len() + piece.len() > LONGEST {
                let (whole, rest) = piece.split_at(LONGEST - begun.len());
                begun.extend_from_slice(whole);
                append(&mut self.batch, begun, source, &self.attributes, self.clock.tick(now));
                begun.clear();
                piece = rest;
            }
            if !piece.ends_with(b"\n") {
                begun.extend_from_slice(piece);
            } else if begun.is_empty() {
                append(&mut self.batch, piece, source, &self.attributes, self.clock.tick(now));
            } else {
                begun.extend_from_slice(piece);
                append(&mut self.batch, begun, source, &self.attributes, self.clock.tick(now));
                begun.clear();
            }
        }
        self.flush();
    }

    /// At the end: what was begun is a line, too.
    pub(crate) fn finish(&mut self) {
        let now = Timestamp::now();
        for source in [Source::Stdout, Source::Stderr] {
            let begun = &mut self.begun[source as usize];
            if !begun.is_empty() {
                append(&mut self.batch, begun, source, &self.attributes, self.clock.tick(now));
                begun.clear();
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let room = self.bounds.size.saturating_sub(self.size);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            // As many lines as there is room for; a file has one at least.
            let fits = rest[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if fits == 0 && self.size > 0 {
                self.rotate();
                continue;
            }
            let first = || rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
            let (now, later) = rest.split_at(if fits > 0 { fits } else { first() });
            self.append(now);
            rest = later;
        }
        self.batch = batch;
        self.batch.clear();
        self.batch.shrink_to(LONGEST);
    }

    fn append(&mut self, lines: &[u8]) {
        self.size += lines.len() as u64;
        if let Some(file) = &mut self.file
            && file.write_all(lines).is_err()
        {
            // What was written of it may be torn; readers skip such a line, and this ends it.
            drop(file.write_all(b"\n"));
        }
    }

    fn rotate(&mut self) {
        let old = |number| numbered(&self.path, number);
        // The oldest goes, whichever form it has. A rename that fails costs an old file, not the log.
        if self.bounds.compress {
            fs::remove_file(old(self.bounds.files - 1)).ok();
            fs::remove_file(packed::name(&old(self.bounds.files - 1))).ok();
        }
        for number in (1..self.bounds.files).rev() {
            fs::rename(old(number - 1), old(number)).ok();
            if self.bounds.compress && number > 1 {
                fs::rename(packed::name(&old(number - 1)), packed::name(&old(number))).ok();
            }
        }
        if self.bounds.files == 1 {
            fs::remove_file(&self.path).ok();
        }
        self.file = open(&self.path).ok();
        self.size = 0;
        if self.bounds.compress && self.bounds.files > 1 {
            // One that cannot be packed stays as it is.
            packed::pack(&old(1)).ok();
        }
    }
}

fn open(path: &Path) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    fs::OpenOptions::from_options(options).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::entry::Entry;

    fn entries(path: &Path) -> Vec<String> {
        let text = fs::read(path).unwrap();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.filter_map(|line| Some(Entry::parse(line)?.text)).collect()
    }

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, &LogConfig::default()).unwrap();
        log.write(Source::Stdout, b"one\ntw");
        log.write(Source::Stderr, b"between\n");
        log.write(Source::Stdout, b"o\n\nrest");
        assert_eq!(entries(&path), ["one\n", "between\n", "two\n", "\n"]);
        log.finish();
        let long = vec![b'x'; 2 * LONGEST + 5];
        log.write(Source::Stdout, &long);
        log.write(Source::Stdout, b"\n");
        let sizes: Vec<usize> = entries(&path)[5..].iter().map(String::len).collect();
        assert_eq!(sizes, [LONGEST, LONGEST, 6]);
        assert_eq!(entries(&path)[4], "rest");
    }

    #[test]
    fn each_entry_has_a_time_of_its_own() {
        let mut clock = Clock::default();
        for (now, text) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000001Z"),
            ("2026-01-02T03:04:05.12Z", "2026-01-02T03:04:05.12Z"),
            ("2026-01-02T03:04:05.12Z", "2026-01-02T03:04:05.120000001Z"),
            // Back in time it does not go.
            ("2025-01-02T03:04:05Z", "2026-01-02T03:04:05.120000002Z"),
            ("2026-01-02T03:04:05.999999999Z", "2026-01-02T03:04:05.999999999Z"),
            ("2026-01-02T03:04:05.9Z", "2026-01-02T03:04:06Z"),
        ] {
            let now: Timestamp = now.parse().unwrap();
            assert_eq!(clock.tick(now), text);
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn files_go_round_and_a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "{\"log\":\"to").unwrap();
        let config = [("max-size", "2k"), ("max-file", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let config = LogConfig { config: config.into_iter().collect(), ..LogConfig::default() };
        let mut log = Log::open(&path, &config).unwrap();
        for number in 0..1000 {
            log.write(Source::Stdout, format!("{number}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(entries(&path).last().map(String::as_str), Some("999\n"));
        let all: Vec<String> = [&numbered(&path, 2), &numbered(&path, 1), &path]
            .into_iter()
            .flat_map(|path| entries(path))
            .collect();
        let first: usize = all[0].trim().parse().unwrap();
        assert!(all.iter().enumerate().all(|(at, text)| *text == format!("{}\n", first + at)));
        for file in fs::read_dir(dir.path()).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() <= 2048);
        }
    }
}
