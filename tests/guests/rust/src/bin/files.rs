//! A guest that does little but work on files: `files FOLDER COUNT` makes COUNT files in folders of 100 below FOLDER,
//! then looks at each, rewrites, renames, copies and removes some, and says what is left.
//!
//! What it prints depends on nothing but COUNT. Ends with 1 and the reason at the first thing that is not as it should be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count] = arguments.as_slice() else {
        eprintln!("usage: files FOLDER COUNT");
        return ExitCode::from(2);
    };
    match work(Path::new(folder), count.parse().unwrap_or(0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("files: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(folder: &Path, count: usize) -> io::Result<()> {
    let path = |n: usize| folder.join(format!("{:03}", n / 100)).join(format!("file-{n}"));
    for n in 0..count {
        if n % 100 == 0 {
            fs::create_dir_all(folder.join(format!("{:03}", n / 100)))?;
        }
        fs::write(path(n), text(n))?;
    }
    let listed = list(folder)?;
    println!("made {count}, listed {}", listed.len());
    expect(listed.len() == count, "every file is listed once")?;

    let mut bytes = 0;
    for n in 0..count {
        let found = fs::metadata(path(n))?;
        bytes += found.len();
        expect(found.is_file() && fs::read_to_string(path(n))? == text(n), "a file holds what was written")?;
    }
    println!("read {bytes} bytes");

    for n in (0..count).step_by(3) {
        change_in_place(&path(n))?;
    }
    for n in (1..count).step_by(3) {
        fs::rename(path(n), path(n).with_extension("moved"))?;
        expect(!path(n).exists(), "what was renamed is not there any more")?;
    }
    for n in (2..count).step_by(3) {
        fs::copy(path(n), path(n).with_extension("copied"))?;
        fs::remove_file(path(n))?;
    }
    let listed = list(folder)?;
    let ending = |end: &str| listed.iter().filter(|path| path.extension().is_some_and(|found| found == end)).count();
    println!("left {}, moved {}, copied {}", listed.len(), ending("moved"), ending("copied"));
    expect(listed.len() == count, "no file is lost")?;

    for path in list(folder)?.into_iter().skip(count / 2) {
        fs::remove_file(path)?;
    }
    println!("kept {}", list(folder)?.len());
    Ok(())
}

fn text(n: usize) -> String {
    format!("file {n}\n").repeat(1 + n % 7)
}

/// Overwrites the beginning, appends, and cuts off again.
fn change_in_place(path: &Path) -> io::Result<()> {
    let before = fs::metadata(path)?.len();
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.write_all(b"FILE")?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(b"more")?;
    file.set_len(before)?;
    file.seek(SeekFrom::Start(0))?;
    let mut start = [0; 4];
    file.read_exact(&mut start)?;
    expect(&start == b"FILE" && File::open(path)?.metadata()?.len() == before, "a file changes in its place")
}

/// Every file below a folder.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(list(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn expect(holds: bool, what: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(format!("it is not true that {what}"))) }
}
