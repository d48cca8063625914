//! The examples do what their pages say.

use std::process::Command;

use crate::support::{Host, repository};

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
