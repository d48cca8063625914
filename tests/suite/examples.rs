//! The examples do what their pages say.

use std::path::Path;
use std::process::Command;

use crate::support::{Host, Registry, guest, repository, tool};

#[test]
fn hello_runs_both_kinds_from_one_image() {
    let host = Host::new();
    let call = host.dhow([""; 0]).into_command();
    let mut example = Command::new(repository().join("examples/hello/run"));
    example.env("DHOW", call.get_program()).env("DHOW_ROOT", host.root());
    let output = example.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Hello from Wasm: a b c\n"), "{text}");
    assert!(text.contains("Hello from Linux: a b c\n"), "{text}");
}

/// What the script of an example prints, commands and standard error included; and that it ends well.
fn printed(name: &str) -> String {
    let host = Host::new();
    let call = host.dhow([""; 0]).into_command();
    let run = repository().join("examples").join(name).join("run");
    let mut example = Command::new("bash");
    example.args(["-c", "exec \"$0\" 2>&1"]).arg(run);
    example.env("DHOW", call.get_program()).env("DHOW_ROOT", host.root());
    example.env("EXAMPLES_WORK", host.path("work")).env("DHOW_NETWORK", "none").env("SMALL", "1");
    if name == "http-service" {
        let guests = host.path("guests");
        fs_err::create_dir(&guests).unwrap();
        fs_err::write(guests.join("http.wasm"), guest("http.wasm")).unwrap();
        example.env("GUESTS", guests);
    }
    let output = example.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text}");
    host.dhow(["ps", "-a"]).ok();
    text
}

/// That these lines are there, in this order.
fn has_lines(text: &str, wanted: &[&str]) {
    let mut lines = text.lines();
    for wanted in wanted {
        assert!(lines.any(|line| line == *wanted), "{wanted:?} is missing or not in its place: {text}");
    }
}

#[test]
fn one_source_becomes_both_kinds() {
    // Its steps have the rights of root in an image of their own.
    if crate::support::is_root() {
        has_lines(
            &printed("from-source"),
            &["hello from Linux a b", "hello from WASI a b", "ENTRYPOINT [\"/hello\"]"],
        );
    }
}

#[test]
fn a_tool_reads_the_files_it_is_given() {
    let text = printed("count-words");
    assert!(text.lines().any(|line| line.ends_with(" words: /texts/count.c")), "{text}");
    let wanted =
        ["1 lines, 3 words: standard input", "/etc/passwd: No such file or directory", "ended with 1"];
    has_lines(&text, &wanted);
}

#[test]
fn a_thousand_files_are_seen_copied_and_committed() {
    has_lines(&printed("many-files"), &["950 files", "961", "3", "151", "999", "many", "again"]);
}

#[test]
fn a_server_of_tcp_answers() {
    has_lines(&printed("echo-server"), &["heard: hello, echo", "echo", "ready"]);
}

#[test]
fn a_service_of_http_answers_and_ends() {
    has_lines(&printed("http-service"), &["200", "200", "200", "service", "ended with 0"]);
}

#[test]
fn who_wants_too_much_is_ended() {
    let wanted = ["ended with 137", "out of memory: true", "ended with 124", "ended with 152"];
    has_lines(&printed("limits"), &wanted);
}

#[test]
fn both_kinds_share_a_volume() {
    let both = ["written by Wasm", "written by Linux"];
    let wanted = [&both[..], &both, &["/notes/all: Read-only file system", "ended with 1", "notes"]].concat();
    has_lines(&printed("shared-volume"), &wanted);
}

#[test]
fn a_program_of_two_parts_is_linked() {
    let text = printed("composition");
    assert!(text.contains("an import that nothing here provides: example:sums/sums@1.0.0"), "{text}");
    has_lines(&text, &["ended with 126", "40 and 2 are 42: 0", "42"]);
}

#[test]
fn every_example_is_listed_and_can_be_started() {
    let folder = repository().join("examples");
    let page = fs_err::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs_err::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().into_string().unwrap();
        assert!(page.contains(&format!("[`{name}`]({name})")), "{name} is not in examples/README.md");
        assert!(entry.path().join("run").is_file(), "{name} has no `run`");
    }
}

/// An example of a library, which cargo builds beside the command.
fn example(name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_dhow")).with_file_name("examples").join(name);
    assert!(built.exists(), "{} is missing: build with --workspace", built.display());
    Command::new(built)
}

#[test]
fn the_library_of_images_builds_pushes_pulls_and_inspects() {
    let registry = Registry::start();
    let name = registry.name("team/hello:1");
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let built = tool(example("build").arg(&one).arg(&name));
    let pushed = tool(example("push").arg(&one).arg(&name));
    let again = tool(example("push").arg(&one).arg(&name));
    let pulled = tool(example("pull").arg(&two).arg(&name));
    let said = built.trim_end();
    assert!(said.starts_with(&format!("{name} is sha256:")), "{said}");
    assert!(pushed.starts_with(said) && !pushed.contains("(0 bytes"), "{pushed}");
    assert_eq!(again, format!("{said} (0 bytes were sent)\n"));
    assert!(pulled.contains(said) && pulled.contains("wasip1/wasm: "), "{pulled}");
    let module = pulled.lines().last().unwrap().split_once(": ").unwrap().1;
    assert_eq!(fs_err::read(module).unwrap(), b"\0asm\x01\0\0\0");
    let (here, there) = (tool(example("inspect").arg(&one)), tool(example("inspect").arg(&two).arg(&name)));
    assert!(here.contains("linux/amd64  entrypoint [] command [\"/bin/hello\"]"), "{here}");
    assert!(there.contains("wasip1/wasm") && there.lines().next() == here.lines().next(), "{there}");
}
