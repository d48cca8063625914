//! Images between Dhow and the tools that others use: docker, podman, buildah, containerd, skopeo, umoci.
//!
//! The tools have private stores and daemons (`tests/support/made/peers.rs`), so this needs root.

use crate::support::{
    Containerd, Docker, Layout, Options, Podman, Registry, Tree, busybox, is_root, skopeo, tool, umoci,
};

/// Without root there are no daemons of our own.
fn root() -> bool {
    if !is_root() {
        println!("skipped: the peers need root");
    }
    is_root()
}

#[test]
fn the_peers_of_these_tests_work() {
    if !root() {
        return;
    }
    let (user, password) = ("someone", "secret");
    let plain = Registry::start();
    let locked = Registry::with(Options { tls: true, login: Some((user, password)), ..Options::default() });
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox().layer(Tree::new().file("mark", 0o640, "it"))), "it");
    let source = format!("oci:{}:it", layout.path().display());
    let name = plain.name("peer:1");
    tool(&mut skopeo(["copy", &source, &format!("docker://{name}")]));
    let secret = locked.name("peer:1");
    let target = format!("docker://{secret}");
    tool(skopeo(["copy", &source]).args(["--dest-creds", &format!("{user}:{password}"), &target]));
    assert!(
        !skopeo(["inspect", &target]).output().unwrap().status.success(),
        "no answer without the password"
    );

    let bundle = layout.path().join("bundle");
    tool(umoci(["unpack", "--image", &format!("{}:it", layout.path().display())]).arg(&bundle));
    assert_eq!(fs_err::read_to_string(bundle.join("rootfs/mark")).unwrap(), "it");

    if let Some(docker) = Docker::start() {
        tool(&mut docker.call(["pull", "-q", &name]));
        assert_eq!(docker.layers(&name).len(), 2);
        let address = locked.address().to_string();
        tool(&mut docker.call(["login", "-u", user, "-p", password, &address]));
        tool(&mut docker.call(["pull", "-q", &secret]));
        assert_eq!(tool(&mut docker.call(["run", "--rm", "--network=none", &name, "cat", "/mark"])), "it");
    }
    let podman = Podman::new();
    tool(&mut podman.call(["pull", "-q", &name]));
    tool(&mut podman.call(["pull", "-q", "--creds", &format!("{user}:{password}"), &secret]));
    assert_eq!(tool(&mut podman.call(["run", "--rm", "--network=none", &name, "cat", "/mark"])), "it");
    assert!(tool(&mut podman.buildah(["images"])).contains("peer"));

    let containerd = Containerd::start();
    tool(&mut containerd.ctr(["images", "pull", "--plain-http", &name]));
    assert!(
        plain.served().iter().any(|(method, path, _)| method == "GET" && path.contains("/v2/peer/blobs/"))
    );
}
