//! WASI 0.1 end to end: what modules find when `dhow run` starts them, beyond streams and files.

use crate::support::{Host, Image, Tree, source};

fn reactor() -> Vec<u8> {
    fs_err::read(source("reactor.wat")).unwrap()
}

#[test]
fn one_function_can_be_called() {
    let host = Host::new();
    host.file("reactor.wat", reactor());
    assert_eq!(host.dhow(["run", "--rm", "--invoke", "add", "./reactor.wat", "2", "0x20"]).ok(), "134\n");
    let run = host.dhow(["run", "--rm", "--invoke", "sub", "./reactor.wat"]);
    run.refused(126, "cannot call sub: it exports no such function, but _initialize, add");
    host.dhow(["run", "--rm", "--invoke", "add", "./reactor.wat", "1"]).refused(126, "it takes (i32, i32)");
    host.dhow(["run", "--rm", "./reactor.wat"]).refused(126, "exports no function _start");
}

#[test]
fn an_image_s_entry_point_may_name_a_function() {
    for platform in ["wasi/wasm", "linux/amd64"] {
        let image = Image::new(platform)
            .layer(Tree::new().file("reactor.wasm", 0o644, &*wat::parse_bytes(&reactor()).unwrap()))
            .entrypoint(&["/reactor.wasm#add"])
            .cmd(&["1", "2"]);
        let host = Host::with(&[("reactor:1", image)]);
        assert_eq!(host.dhow(["run", "--rm", "reactor:1"]).ok(), "103\n", "{platform}");
        assert_eq!(host.dhow(["run", "--rm", "reactor:1", "-1", "1"]).ok(), "100\n", "{platform}");
        let run = host.dhow(["run", "--rm", "--invoke", "none", "reactor:1"]);
        run.refused(126, "cannot call none: it exports no such function");
        host.dhow(["run", "--rm", "--entrypoint", "/none.wasm#add", "reactor:1"]).refused(127, "/none.wasm");
    }
}
