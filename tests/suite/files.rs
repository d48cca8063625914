//! House rules that no compiler checks: headers, sizes, unsafe code, names, and the promises of the README.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{repository, tool};

/// The only modules that may contain unsafe code; each says why in its first lines.
const UNSAFE: [&str; 10] = [
    "cli/src/begin.rs",
    "engine/libdhow/src/buffer.rs",
    "engine/libdhow/src/loader.rs",
    "engine/libdhow/src/pointer.rs",
    "runtime/examples/plugin_cost/extism.rs",
    "runtime/src/cgroup/sys.rs",
    "runtime/src/native/sys.rs",
    "runtime/src/native/sys/tune.rs",
    "runtime/src/process.rs",
    "runtime/src/wasm/aot.rs",
];

/// Every file of the repository that git knows or would add.
fn files() -> Vec<PathBuf> {
    let listed = tool(Command::new("git").arg("-C").arg(repository()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]));
    listed.lines().map(PathBuf::from).filter(|path| repository().join(path).exists()).collect()
}

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.clone(), fs_err::read_to_string(repository().join(path)).expect("source")))
}

fn read(path: &str) -> String {
    fs_err::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn no_test_file_is_forgotten() {
    for (folder, list) in [
        ("tests/suite", "tests/suite/main.rs"),
        ("tests/support", "tests/support/support.rs"),
        ("tests/support/made", "tests/support/made/made.rs"),
    ] {
        let text = read(list);
        for entry in fs_err::read_dir(repository().join(folder)).expect("folder") {
            let path = entry.expect("entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
            if path.extension().is_some_and(|extension| extension == "rs")
                && !list.ends_with(&format!("{name}.rs"))
            {
                assert!(text.contains(&format!("mod {name};")), "{name} is not part of {list}");
            }
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let bare: Vec<_> = sources().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(bare.is_empty(), "no //! header: {bare:?}");
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<_> =
        sources().filter(|(_, text)| text.lines().count() > 600).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "over 600 lines: {long:?}");
}

#[test]
fn modules_are_files_beside_their_folder() {
    let old: Vec<_> = files().into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(old.is_empty(), "{old:?}");
}

#[test]
fn unsafe_code_stays_where_it_is_expected() {
    for (path, text) in sources() {
        let path = path.to_str().expect("UTF-8");
        let has = text.lines().map(str::trim_start).any(|line| {
            !line.starts_with("//")
                && ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "]
                    .iter()
                    .any(|word| line.contains(word))
        });
        if path.starts_with("tests/") || !has {
            continue;
        }
        let listed = UNSAFE.contains(&path);
        assert!(listed, "{path} has unsafe code and is not on the list in tests/suite/files.rs");
        assert!(
            text.contains("#![expect(unsafe_code, reason"),
            "{path} does not say why it needs unsafe code"
        );
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let this = Path::new("tests/suite/files.rs");
    for path in files().into_iter().filter(|path| path != this) {
        let Ok(text) = fs_err::read_to_string(repository().join(&path)) else { continue };
        for word in ["/work/main", "/work/shared", "/work/notes", "shared/reference", "/home/user"] {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
    }
}

#[test]
fn the_readme_names_the_test_command_and_ci_runs_it() {
    let readme = read("README.md");
    let command = "./tests/run";
    assert!(
        readme.lines().any(|line| line.split('#').next().unwrap_or_default().trim() == command),
        "README.md"
    );
    assert!(read(".ci/run").lines().any(|line| line.trim_end().ends_with(command)), ".ci/run");
}

#[test]
fn the_readme_names_every_folder() {
    let readme = read("README.md");
    for folder in ["images/", "runtime/", "engine/", "cli/", "examples/", "tests/", "bench/", "docs/"] {
        assert!(readme.contains(&format!("`{folder}`")), "README.md does not explain {folder}");
    }
}
