//! The examples do what their pages say.

use std::path::Path;
use std::process::Command;

use crate::support::{Host, Registry, repository, tool};

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
