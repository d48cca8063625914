//! Fetching git repositories, by the `git` program: it knows every protocol, and how this user's keys are had.
//!
//! What is fetched is anybody's. So no configuration of the system or the user is in force, no hooks run, only protocols
//! that fetch from elsewhere are allowed, for submodules too, and nobody is asked for anything. Links of the repository
//! lead nowhere: the files are a context like others.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use dhow_engine::build::git::Remote;
use dhow_engine::build::program;

use crate::error::hinted;

/// Puts the files of a repository into `to`, which is made. Gives the commit.
pub(super) fn clone(remote: &Remote, keep_git_dir: bool, to: &Path) -> Result<String> {
    fs_err::create_dir(to)?;
    call(to, &["init", "-q", "."])?;
    let wanted = remote.reference.as_deref().unwrap_or("HEAD");
    let fetch = |depth: &[&str], what: &str| {
        let mut words = vec!["fetch", "-q", "--no-tags", "--no-recurse-submodules"];
        words.extend(depth);
        words.extend(["--", &remote.address, what]);
        call(to, &words)
    };
    let is_commit =
        wanted.len() >= 7 && wanted.len() <= 64 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut target = "FETCH_HEAD".to_owned();
    // Not every server knows how to give a part, or commits by their names.
    if fetch(&["--depth=1"], wanted).is_err()
        && let Err(error) = fetch(&[], wanted)
    {
        if !is_commit {
            return Err(error);
        }
        fetch(&[], "+refs/*:refs/fetched/*")?;
        target = wanted.to_ascii_lowercase();
    }
    call(to, &["checkout", "-q", "--detach", "--force", &target])?;
    let commit = call(to, &["rev-parse", "HEAD"])?.trim().to_owned();
    if to.join(".gitmodules").symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        call(to, &["submodule", "-q", "update", "--init", "--recursive", "--depth=1"])?;
    }
    if !keep_git_dir {
        dhow_engine::images::remove_tree(to.join(".git"))?;
    }
    Ok(commit)
}

fn call(folder: &Path, words: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    for setting in [
        if cfg!(windows) { "core.hooksPath=NUL" } else { "core.hooksPath=/dev/null" },
        "core.fsmonitor=false",
        "core.autocrlf=false",
        "protocol.allow=never",
        "protocol.http.allow=always",
        "protocol.https.allow=always",
        "protocol.git.allow=always",
        "protocol.ssh.allow=always",
        "fetch.fsckObjects=true",
        "init.defaultBranch=main",
        "advice.detachedHead=false",
    ] {
        command.args(["-c", setting]);
    }
    command.args(words).current_dir(folder);
    // Neither these nor a repository around the folder are meant.
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_CONFIG",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_PARAMETERS",
    ] {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", if cfg!(windows) { "NUL" } else { "/dev/null" })
        .env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder));
    command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes").env("LC_ALL", "C");
    let said = match program::call(command) {
        Ok(said) => said,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(hinted("there is no `git` program here", "install git, or give a folder"));
        }
        Err(error) => return Err(error.into()),
    };
    if !said.success {
        let line = said.stderr.lines().rev().find(|line| line.contains("fatal:") || line.contains("error:"));
        let line: String =
            line.unwrap_or("it failed").chars().filter(|c| !c.is_control()).take(300).collect();
        bail!("failed to fetch the git repository: {line}");
    }
    Ok(said.stdout)
}
