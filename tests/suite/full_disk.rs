//! A store on a file system that fills up: an error that says so, and a sound store that works again with space.

use std::process::Command;

use crate::support::{Host, Image, Layout, Tree, busybox, guest, is_root, noise};

/// Runs a script whose `$DHOW_ROOT` is a tmpfs of this size, private to it. Skipped without root.
fn on_small_disk(host: &Host, size: &str, script: &str) -> Option<String> {
    if !is_root() {
        println!("skipped: mounting needs root");
        return None;
    }
    let call = host.dhow([""; 0]).into_command();
    let dhow = call.get_program().to_str().unwrap();
    let script = format!("mount -t tmpfs -o size={size} tmpfs $DHOW_ROOT && alias dhow={dhow}\n{script}");
    let mut shell = Command::new("unshare");
    shell.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    shell.env_clear().envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.current_dir(call.get_current_dir().unwrap()).output().unwrap();
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_load_that_does_not_fit() {
    let host = Host::new();
    let noise = noise(8_000_000);
    for (name, image) in [
        ("big", Image::native().layer(Tree::new().file("noise", 0o644, noise))),
        ("small", busybox().cmd(&["echo", "fits"])),
    ] {
        let layout = Layout::new();
        layout.tag(&layout.image(&image), &format!("{name}:1"));
        layout.archive(&host.path(&format!("{name}.tar")));
    }
    let script = "dhow load -i big.tar; echo load $?
        dhow system check >/dev/null; echo check $?
        dhow images -q
        dhow load -i small.tar; echo load $?
        dhow run --rm small:1; echo run $?
        dhow system check >/dev/null; echo check $?";
    let Some(out) = on_small_disk(&host, "6m", script) else { return };
    assert!(out.contains("No space left on device") && out.contains("hint: "), "{out}");
    assert!(out.contains("load 1\ncheck 0\nLoaded image: small:1\nload 0\nfits\nrun 0\ncheck 0\n"), "{out}");
}

#[test]
fn a_container_and_compiled_code_that_do_not_fit() {
    let host = Host::new();
    host.file("probe.wasm", guest("probe.wasm"));
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox()), "busybox:1");
    layout.archive(&host.path("busybox.tar"));
    let script = "dhow load -i busybox.tar; echo load $?
        dhow run --rm busybox:1 dd if=/dev/zero of=/big bs=1M count=20 2>&1 | grep -c 'No space'
        dhow run --rm busybox:1 echo again; echo run $?
        dd if=/dev/zero of=$DHOW_ROOT/filler bs=1k 2>/dev/null
        dhow run --rm ./probe.wasm args still; echo wasm $?
        dhow run --rm busybox:1 true; echo native $?
        rm $DHOW_ROOT/filler
        dhow run --rm ./probe.wasm args still; echo wasm $?
        dhow run --rm busybox:1 echo again; echo run $?
        dhow system check; echo check $?";
    let Some(out) = on_small_disk(&host, "8m", script) else { return };
    assert!(out.contains("load 0\n1\nagain\nrun 0\n"), "{out}");
    assert!(out.contains("still\nwasm 0\nagain\nrun 0\ncheck 0\n") || out.ends_with("check 0\n"), "{out}");
    assert!(out.contains("wasm 0\nagain\nrun 0\n") && out.contains("check 0"), "{out}");
    assert!(!out.contains("panicked"), "{out}");
}

/// Each command fails in the one way, gives its space back, and works as soon as there is some.
#[test]
fn every_command_that_stores_something() {
    let host = Host::new();
    let tree = Tree::new().file("noise", 0o644, noise(4_000_000));
    host.file("tree.tar", tree.finish());
    for (name, image) in [
        ("big", Image::native().layer(Tree::new().file("noise", 0o644, noise(4_000_000)))),
        ("small", busybox().cmd(&["echo", "fits"])),
    ] {
        let layout = Layout::new();
        layout.tag(&layout.image(&image), &format!("{name}:1"));
        layout.archive(&host.path(&format!("{name}.tar")));
    }
    // `try` says the code, how many errors and hints there were, and whether space is missing after.
    let script = "mkdir out && mount -t tmpfs -o size=512k tmpfs out
        used() { df -k --output=used $DHOW_ROOT | tail -1; }
        try() {
            before=$(used)
            dhow \"$@\" >/dev/null 2>said; code=$?
            errors=$(grep -c '^error: .*No space left on device' said); hints=$(grep -c '^hint: ' said)
            lost=$(( $(used) > before + 16 ))
            echo \"$1 $code $errors $hints $(wc -l <said) $lost\"
        }
        dhow load -qi small.tar
        try save -o out/x.tar small:1
        ls -A out
        fallocate -l $(( $(df -k --output=avail $DHOW_ROOT | tail -1) - 3000 ))k $DHOW_ROOT/filler
        try load -i big.tar
        try import tree.tar imported:1
        dd if=/dev/zero of=$DHOW_ROOT/rest bs=1k 2>/dev/null
        try tag small:1 tagged:1
        try run --rm small:1
        dhow images --format '{{.Repository}}'
        rm $DHOW_ROOT/rest
        dhow tag small:1 tagged:1; echo tag $?
        dhow run --rm small:1; echo run $?
        rm $DHOW_ROOT/filler
        dhow load -qi big.tar; echo load $?
        dhow rmi big:1 >/dev/null; dhow image prune -f >/dev/null
        dhow import tree.tar imported:1 >/dev/null; echo import $?
        dhow save -o saved.tar small:1; echo save $?
        dhow system check; echo check $?";
    let Some(out) = on_small_disk(&host, "20m", script) else { return };
    println!("{out}");
    for command in ["save 1", "load 1", "import 1", "tag 1"] {
        assert!(out.contains(&format!("\n{command} 1 1 2 0\n")), "{command}: {out}");
    }
    assert!(out.contains("\nsmall\ntag 0\nfits\nrun 0\n"), "{out}");
    assert!(out.contains("load 0\nimport 0\nsave 0\n") && out.contains("check 0\n"), "{out}");
}

/// How a container ended is known although there is no room for it, and it can be started again.
#[test]
fn an_end_on_a_full_disk() {
    let host = Host::new();
    host.file("probe.wasm", guest("probe.wasm"));
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox()), "busybox:1");
    layout.archive(&host.path("busybox.tar"));
    let script = "dhow load -qi busybox.tar
        dhow run --rm ./probe.wasm args compiled
        mkfifo go input
        dhow run -d --name linux --network none -v $PWD:/go busybox:1 sh -c 'read x </go/go; exit 7' >/dev/null
        dhow run -i --name wasm ./probe.wasm cat exit 3 <input >/dev/null &
        exec 3>input
        until dhow inspect -f '{{.State.Status}}' wasm 2>&1 | grep -q running; do sleep .01; done
        dd if=/dev/zero of=$DHOW_ROOT/filler bs=1k 2>/dev/null
        echo >go; exec 3>&-
        wait $!; echo run $?
        echo wait $(dhow wait linux wasm)
        dhow inspect -f '{{.Name}} {{.State.Status}} {{.State.ExitCode}} {{.State.Error}}' linux wasm
        rm $DHOW_ROOT/filler
        echo ran $(dhow ps -a --filter status=exited --format '{{.Names}}' | sort)
        dhow start linux >/dev/null; echo start $?; echo >go; dhow wait linux
        dhow rm linux wasm >/dev/null; dhow system check; echo check $?";
    let Some(out) = on_small_disk(&host, "8m", script) else { return };
    let expected =
        "compiled\nrun 3\nwait 7 3\n/linux exited 7 \n/wasm exited 3 \nran linux wasm\nstart 0\n7\ncheck 0\n";
    assert!(out.contains(expected), "{out}");
}

#[test]
fn a_build_that_does_not_fit() {
    let host = Host::new();
    host.file("c/noise", noise(8_000_000));
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox()), "busybox:1");
    layout.archive(&host.path("busybox.tar"));
    let script = "dhow load -i busybox.tar; echo load $?
        printf 'FROM busybox:1\\nCOPY noise /n\\n' > c/Dockerfile
        dhow build -q -t big:1 c >out 2>&1; echo copy $?; grep -c 'No space left' out
        printf 'FROM busybox:1\\nRUN dd if=/dev/zero of=/big bs=1M count=20\\n' > c/Dockerfile
        dhow build -q -t big:1 c >out 2>&1; echo run $?; grep -c 'No space left' out
        dhow images -q big; ls $DHOW_ROOT/build/work; dhow system check >/dev/null; echo check $?
        printf 'FROM busybox:1\\nRUN echo fits > /f\\n' > c/Dockerfile
        dhow build -q -t fits:1 c >/dev/null; echo fits $?
        dhow run --rm fits:1 cat /f; dhow system check >/dev/null; echo check $?";
    let Some(out) = on_small_disk(&host, "8m", script) else { return };
    assert!(out.contains("copy 1\n1\nrun 1\n1\ncheck 0\nfits 0\nfits\ncheck 0\n"), "{out}");
}

/// Who is short of room can still look, stop and remove; what cannot be stored gives its room back and works later.
#[test]
fn a_container_s_life_on_a_full_disk() {
    let host = Host::new();
    host.file("noise", noise(8_000_000));
    let seeds = Tree::new().dir("data", 0o755).file("data/seed", 0o644, noise(6_000_000));
    for (name, image) in [("busybox", busybox()), ("seeds", busybox().layer(seeds))] {
        let layout = Layout::new();
        layout.tag(&layout.image(&image), &format!("{name}:1"));
        layout.archive(&host.path(&format!("{name}.tar")));
    }
    let script = "used() { df -k --output=used $DHOW_ROOT | tail -1; }
        try() {
            before=$(used)
            dhow \"$@\" >/dev/null 2>said; code=$?
            errors=$(grep -c '^error: .*No space left on device' said); hints=$(grep -c '^hint: ' said)
            lost=$(( $(used) > before + 64 ))
            echo \"$1 $code $errors $hints $(wc -l <said) $lost\"; cat said >>all
        }
        mkdir go; dhow load -qi busybox.tar; dhow load -qi seeds.tar; echo begun
        dhow run --name wrote busybox:1 dd if=/dev/urandom of=/noise bs=1k count=4000 2>/dev/null
        dhow run -d --name lives --restart always busybox:1 sleep 1000 >/dev/null
        dhow run -d --name unless --restart unless-stopped busybox:1 sleep 1000 >/dev/null
        dhow run -d --name talks -v $PWD/go:/go busybox:1 \
            sh -c 'until [ -e /go/talk ]; do sleep .1; done; while [ ! -e /go/stop ]; do echo line; done; exit 5' \\
            >/dev/null
        dhow run -d --name listens -v $PWD/go:/go busybox:1 sh -c 'until [ -e /go/stop ]; do sleep 1; done' >/dev/null
        fallocate -l $(( $(df -k --output=avail $DHOW_ROOT | tail -1) - 2000 ))k $DHOW_ROOT/filler
        try cp noise listens:/big
        tar c noise | dhow cp - listens:/ 2>&1 | grep -c 'No space left'
        dhow exec listens ls /big /noise >/dev/null 2>&1; echo half $?
        try commit wrote wrote:1
        try run --rm -v filled:/data seeds:1 true
        dd if=/dev/zero of=$DHOW_ROOT/rest bs=1k 2>/dev/null; dd if=/dev/zero of=$DHOW_ROOT/last bs=1 2>/dev/null
        for command in 'create busybox:1' 'rename lives other' 'update --memory 64m lives' 'volume create more' \
            'network create more'; do try $command; done
        touch go/talk; dhow exec lives true; echo exec $?
        dhow stop -t 0 lives unless; echo stop $?
        touch go/stop; echo talked $(dhow wait talks)
        dhow ps -q | wc -l
        dhow rm -f wrote lives talks; echo rm $?
        rm $DHOW_ROOT/rest $DHOW_ROOT/last $DHOW_ROOT/filler
        dhow system start; dhow inspect -f '{{.State.Status}}' unless
        dhow run --rm -v filled:/data seeds:1 sh -c 'wc -c </data/seed'
        dhow rm -f unless listens >/dev/null
        dhow volume ls -q; dhow network ls -q -f type=custom
        dhow system check; echo check $?";
    let Some(out) = on_small_disk(&host, "80m", script) else { return };
    println!("{out}");
    println!("{}", fs_err::read_to_string(host.path("all")).unwrap_or_default());
    for command in
        ["cp 1", "commit 1", "run 125", "create 1", "rename 1", "update 1", "volume 1", "network 1"]
    {
        assert!(out.contains(&format!("\n{command} 1 1 2 0\n")), "{command}: {out}");
    }
    assert!(out.contains("\n1\nhalf 1\n"), "half a file is nowhere: {out}");
    assert!(out.contains("exec 0\nlives\nunless\nstop 0\ntalked 5\n"), "{out}");
    assert!(out.contains("wrote\nlives\ntalks\nrm 0\nexited\n6000000\nfilled\ncheck 0\n"), "{out}");
}
