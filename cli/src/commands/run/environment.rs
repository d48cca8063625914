//! Variables of `-e` and `--env-file`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use crate::error::reason;

/// A bare name takes its value from this environment; unset ones stay bare, which removes the image's.
fn from_environment(entry: &str) -> String {
    if entry.contains('=') {
        return entry.to_owned();
    }
    std::env::var(entry).map_or_else(|_| entry.to_owned(), |value| format!("{entry}={value}"))
}

/// The variables of files, then those given one by one.
pub(crate) fn environment(files: &[PathBuf], entries: &[String]) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for file in files {
        env.extend(read_env_file(file)?);
    }
    for entry in entries {
        if entry.is_empty() || entry.starts_with('=') {
            bail!("invalid environment variable: {entry:?}");
        }
        env.push(from_environment(entry));
    }
    Ok(env)
}

fn read_env_file(file: &Path) -> Result<Vec<String>> {
    Ok(lines(file)?.iter().map(|line| from_environment(line)).collect())
}

/// The lines of a file of `NAME=VALUE`, without comments.
pub(super) fn lines(file: &Path) -> Result<Vec<String>> {
    let text = fs_err::read_to_string(file)
        .map_err(|error| anyhow!("open {}: {}", file.display(), reason(&error)))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split('=').next().unwrap_or(line);
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("invalid env file {}: variable '{name}' contains whitespace or is empty", file.display());
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}
