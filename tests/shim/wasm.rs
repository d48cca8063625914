//! Wasm programs behind the same calls.

use crate::made::{Image, Layout, Tree, until};
use crate::support::{PROGRAM, WASM, World, said};

#[test]
fn a_wasm_program_is_a_container() {
    let Some(world) = World::new() else { return };
    for _ in 0..3 {
        let output = world.run(&["--rm", WASM, "one"]);
        assert_eq!(
            (said(&output).as_str(), output.status.code()),
            ("hello from Wasm\n", Some(0)),
            "{output:?}"
        );
    }
    let output = world.run(&["--rm", WASM, "one", "/hello.wasm", "more"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    world.is_clean();
}

#[test]
fn a_wasm_container_s_life_is_any_other_s() {
    let Some(world) = World::new() else { return };
    world.detached(WASM, "it", &["/hello.wasm", "run", "on"]);
    assert_eq!(world.status("it"), "RUNNING");
    let joined = world.attempt(&["tasks", "exec", "--exec-id", "a", "it", "/hello.wasm"]);
    assert_eq!(said(&joined), "hello from Wasm\n", "{joined:?}");
    let joined = world.attempt(&["tasks", "exec", "--exec-id", "b", "it", "/bin/true"]);
    assert!(!joined.status.success(), "{joined:?}");
    world.call(&["tasks", "pause", "it"]);
    assert_eq!(world.status("it"), "PAUSED");
    world.call(&["tasks", "resume", "it"]);
    assert!(world.call(&["tasks", "metrics", "it"]).contains("memory"));
    assert!(world.call(&["tasks", "ps", "it"]).contains(&world.pid("it").to_string()));
    world.call(&["tasks", "kill", "-s", "TERM", "it"]);
    until("it has ended", || (world.status("it") == "STOPPED").then_some(()));
    let said = world.delete("it");
    assert!(said.contains("exit code 143"), "{said}");
    world.call(&["containers", "delete", "it"]);
    world.is_clean();
}

/// An image for `wasi/wasm`, which containerd takes when it is told to.
#[test]
fn images_for_wasm_run() {
    let Some(world) = World::new() else { return };
    let program = wat::parse_str(PROGRAM).unwrap();
    let image = Image::wasm().layer(Tree::new().file("app", 0o644, program)).entrypoint(&["/app"]);
    let name = "example.org/only-wasm:1";
    let layout = Layout::new();
    layout.tag(&layout.image(&image), name);
    let archive = world.path().join("wasm.tar");
    layout.archive(&archive);
    let archive = archive.to_str().unwrap();
    world.bring(&["--platform", "wasi/wasm", "--snapshotter", "native", archive]);
    let output = world.run(&["--rm", "--platform", "wasi/wasm", name, "one"]);
    assert_eq!(said(&output), "hello from Wasm\n", "{output:?}");
    world.is_clean();
}
