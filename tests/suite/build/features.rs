//! What a build takes in and how it goes about it: stages at the same time, caches of others, git repositories, agents,
//! addresses, names in networks.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::{context, inspect};
use crate::network::networked;
use crate::support::{Host, Registry, is_root, tool, until};

/// Serves the files of a folder at an address, as any web server does. It ends with the test.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, folder) = (stream.unwrap(), folder.clone());
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(count) => request.extend_from_slice(&buffer[..count]),
                    }
                }
                let line = String::from_utf8_lossy(&request);
                let path = line.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/");
                let answer = match fs_err::read(folder.join(path.trim_start_matches('/'))) {
                    Ok(body) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                            body.len()
                        );
                        [head.into_bytes(), body].concat()
                    }
                    Err(_) => {
                        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                    }
                };
                stream.write_all(&answer).ok();
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn stages_that_do_not_need_each_other_run_together() {
    if !is_root() {
        return;
    }
    let host = Host::with_busybox();
    // Each waits for the other; one after the other, neither would end well.
    let meet = |own: &str, other: &str| {
        format!(
            "FROM busybox:1 AS {own}\nRUN --mount=type=cache,target=/m touch /m/{own}; n=0; \
             while [ ! -e /m/{other} ]; do n=$((n + 1)); [ $n -lt 3000 ] || exit 3; sleep 0.02; done; echo {own} > /{own}\n\
             LABEL {own}=1\nARG USED_{own}\n"
        )
    };
    let dockerfile = format!(
        "{}{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=busybox:1 /bin/busybox /c\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let path = context(&host, "c", &[("Dockerfile", &dockerfile)]);
    let options = ["--build-arg", "USED_a=1", "--build-arg", "USED_b=1"];
    let outcome = host
        .dhow(["build", "--progress=plain", "-o", "out"])
        .args(options)
        .args([&path])
        .patiently()
        .fails(0);
    assert!(!outcome.stderr.contains("were not consumed"), "{outcome:#?}");
    for name in ["a", "b"] {
        assert_eq!(fs_err::read_to_string(host.path("out").join(name)).unwrap(), format!("{name}\n"));
    }
    // What they made is in the cache like everything else.
    let outcome = host.dhow(["build", "--progress=plain"]).args(options).args([&path]).fails(0);
    assert_eq!(outcome.stderr.matches("Using cache").count(), 5, "{outcome:#?}");
    // One that fails takes the others along, and its words are shown.
    let dockerfile = "FROM busybox:1 AS a\nRUN sleep 600\nFROM busybox:1 AS b\nRUN echo to be seen; exit 7\n\
        FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    let outcome = host.dhow(["build", "-f", "-", &path]).stdin(dockerfile).fails(7);
    assert!(outcome.stderr.contains("   4 | >>> RUN echo to be seen; exit 7"), "{outcome:#?}");
    assert!(outcome.stderr.contains("to be seen\n"), "{outcome:#?}");
    host.has_no_container();
}

#[test]
fn killed_in_the_middle_of_two_stages() {
    let host = Host::with_busybox();
    let dockerfile = "FROM busybox:1 AS a\nRUN echo one; sleep 600\nFROM busybox:1 AS b\nRUN echo two; sleep 600\n\
        FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    let path = context(&host, "c", &[("Dockerfile", dockerfile)]);
    let mut running = host.dhow(["build", "--progress=plain", &path]).spawn();
    running.until_error("one\n");
    running.signal(Signal::KILL);
    drop(running);
    until("everything of it has ended", || {
        let mut left = fs_err::read_dir(host.root().join("build/work")).unwrap().flatten();
        left.all(|entry| {
            let Ok(lock) = fs_err::File::open(entry.path().join("lock")) else { return true };
            lock.file().try_lock_shared().is_ok()
        })
        .then_some(())
    });
    host.check();
    assert_eq!(fs_err::read_dir(host.root().join("build/work")).unwrap().count(), 0);
}

#[test]
fn caches_of_others() {
    let dockerfile = "FROM busybox:1 AS tool\nRUN head -c 8 /dev/urandom | od -x > /tool\nFROM busybox:1\n\
        COPY f /f\nRUN head -c 8 /dev/urandom | od -x > /random\nCOPY --from=tool /tool /t\n";
    let registry = Registry::start();
    let one = Host::with_busybox();
    let path = context(&one, "c", &[("Dockerfile", dockerfile), ("f", "f")]);
    let layers = |host: &Host| inspect(host, "x:1", "{{json .RootFS.Layers}}");
    let name = registry.name("cache:1");
    let to_registry = format!("type=registry,ref={name},mode=max");
    let folder = one.text("shared");
    let to_folder = format!("type=local,dest={folder}");
    let options = ["--cache-to", &to_registry, "--cache-to", &to_folder];
    one.dhow(["build", "-q", "-t", "x:1"]).args(options).args([&path]).ok();
    for (from, all) in [
        (format!("type=registry,ref={name}"), true),
        (name.clone(), true),
        (format!("type=local,src={folder}"), false),
    ] {
        let two = Host::with_busybox();
        let outcome =
            two.dhow(["build", "--progress=plain", "-t", "x:1", "--cache-from", &from, &path]).fails(0);
        // Without `mode=max` the other stage's step is not there, and with another tool the last layer is another.
        assert_eq!(outcome.stderr.matches("Using cache").count(), if all { 4 } else { 2 }, "{outcome:#?}");
        assert_eq!(layers(&two) == layers(&one), all);
        // It is this one's own from now on.
        let outcome = two.dhow(["build", "--progress=plain", &path]).fails(0);
        assert_eq!(outcome.stderr.matches("Using cache").count(), 4, "{outcome:#?}");
    }
    // One that is not there, or is none, only makes the build slower.
    let two = Host::with_busybox();
    two.file("none/index.json", "{}");
    let none = format!("type=local,src={}", two.text("none"));
    let outcome =
        two.dhow(["build", "--cache-from", &none, "--cache-from", "type=local,src=/nowhere", &path]).fails(0);
    assert_eq!(outcome.stderr.matches("cannot use the cache at").count(), 2, "{outcome:#?}");
    // A layer that was changed is found out, and made anew.
    for entry in fs_err::read_dir(one.path("shared/blobs/sha256")).unwrap().flatten() {
        let mut bytes = fs_err::read(entry.path()).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs_err::write(entry.path(), bytes).unwrap();
        }
    }
    let from = format!("type=local,src={folder}");
    let outcome = two.dhow(["build", "--no-cache", "--cache-from", &from, &path]).fails(0);
    assert!(!outcome.stderr.contains("Using cache"), "{outcome:#?}");
    let three = Host::with_busybox();
    let outcome = three.dhow(["build", "--cache-from", &from, &path]).fails(0);
    assert!(outcome.stderr.contains("a layer of the cache cannot be fetched"), "{outcome:#?}");
}

/// A repository with a tag, served as files.
fn repository(host: &Host) -> (String, String) {
    let script = "set -e; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q -b main work; cd work; \
        git config user.name t; git config user.email t@t; mkdir -p sub/in; echo one > sub/f; echo 'FROM scratch' > sub/Dockerfile; \
        echo 'COPY . /all/' >> sub/Dockerfile; ln -s /etc/passwd sub/out; ln -s ../../.. sub/in/up; cp sub/Dockerfile .; \
        git add -A; git commit -qm one; git tag v1; echo two > sub/f; git commit -qam two; cd ..; \
        git clone -q --bare work served/r.git; git -C served/r.git update-server-info; git -C work rev-parse v1";
    let commit = tool(Command::new("sh").args(["-c", script]).current_dir(host.path("")));
    let address = serve(host.path("served"));
    (format!("{address}/r.git"), commit.trim().to_owned())
}

#[test]
fn git_repositories() {
    let host = Host::with_busybox();
    let (url, commit) = repository(&host);
    for (reference, content) in [
        ("#:sub", "two\n"),
        ("#v1:sub", "one\n"),
        ("#main:sub", "two\n"),
        (&format!("#{commit}:sub"), "one\n"),
    ] {
        host.dhow(["build", "-q", "-o", "out", &format!("{url}{reference}")]).ok();
        assert_eq!(fs_err::read_to_string(host.path("out/all/f")).unwrap(), content, "{reference}");
        assert!(!host.path("out/all/.git").exists());
        // A link of the repository is a link of the result, and nothing else.
        assert_eq!(fs_err::read_link(host.path("out/all/out")).unwrap(), PathBuf::from("/etc/passwd"));
        fs_err::remove_dir_all(host.path("out")).unwrap();
    }
    for (reference, message) in [
        ("#none", "failed to fetch the git repository"),
        ("#:none", "has no directory none"),
        ("#:sub/in/up", "has no directory sub/in/up"),
        ("#:sub/out", "has no directory sub/out"),
        ("#--upload-pack=touch", "invalid git reference"),
    ] {
        let outcome = host.dhow(["build", "-q", &format!("{url}{reference}")]).fails(1);
        assert!(outcome.stderr.contains(message), "{reference}: {outcome:#?}");
    }
    let build = |dockerfile: &str| host.dhow(["build", "-q", "-o", "out", "-"]).stdin(dockerfile).outcome();
    assert_eq!(
        build(&format!(
            "FROM scratch\nADD {url}#v1:sub /s\nADD --keep-git-dir=true --checksum={commit} {url}#v1 /r/\n"
        ))
        .code,
        0
    );
    assert_eq!(fs_err::read_to_string(host.path("out/s/f")).unwrap(), "one\n");
    assert!(host.path("out/r/.git/HEAD").is_file() && host.path("out/r/sub/f").is_file());
    let other = build(&format!("FROM scratch\nADD --checksum={} {url} /r/\n", "0".repeat(40)));
    assert!(other.code == 1 && other.stderr.contains("expected checksum to match"), "{other:#?}");
    for bad in ["ext::sh -c touch% /tmp/x", "--upload-pack=x@h:p"] {
        assert_ne!(build(&format!("FROM scratch\nADD [\"{bad}\", \"/r/\"]\n")).code, 0, "{bad}");
    }
    let named = format!("other={url}#v1:sub");
    host.dhow(["build", "-q", "--build-context", &named, "-o", "out3", "-"])
        .stdin("FROM scratch\nCOPY --from=other f /\n")
        .ok();
    assert_eq!(fs_err::read_to_string(host.path("out3/f")).unwrap(), "one\n");
}

/// A context that is being fetched goes with the build, however that ends, and so do the programs that fetch it.
#[test]
fn a_fetch_that_is_ended_leaves_nothing() {
    let host = Host::with_busybox();
    // It takes calls and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", listener.local_addr().unwrap());
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let running = host.dhow(["build", &url]).spawn();
        let (mut stream, _) = listener.accept().unwrap();
        running.signal(signal);
        drop(running);
        // The end of the call is the end of the program that made it.
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let mut buffer = [0; 4096];
        let end = loop {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => {}
                other => break other,
            }
        };
        let is_gone = end.map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
        assert!(is_gone, "{signal:?}");
        host.check();
        assert_eq!(fs_err::read_dir(host.root().join("build/work")).unwrap().count(), 0);
    }
}

#[test]
fn addresses() {
    let host = Host::with_busybox();
    host.file("served/f.txt", "from afar");
    let url = serve(host.path("served"));
    let digest = format!("sha256:{}", crate::support::digest_of(b"from afar").trim_start_matches("sha256:"));
    let build = |dockerfile: String| host.dhow(["build", "-q", "-o", "out", "-"]).stdin(dockerfile).outcome();
    let outcome = build(format!(
        "FROM scratch\nADD {url}/f.txt /d/\nADD --chmod=640 --chown=3:4 --checksum={digest} {url}/f.txt /g\n"
    ));
    assert_eq!(outcome.code, 0, "{outcome:#?}");
    assert_eq!(fs_err::read_to_string(host.path("out/d/f.txt")).unwrap(), "from afar");
    assert_eq!(fs_err::read_to_string(host.path("out/g")).unwrap(), "from afar");
    for (dockerfile, message) in [
        (format!("ADD --checksum=sha256:{} {url}/f.txt /d/", "0".repeat(64)), "digest mismatch"),
        (format!("ADD {url}/none /d/"), "404"),
        (format!("ADD {url}/ /d/"), "cannot determine filename"),
        ("ADD --checksum=nonsense http://127.0.0.1:1/x /d/".to_owned(), "nonsense"),
    ] {
        let outcome = build(format!("FROM scratch\n{dockerfile}\n"));
        assert!(outcome.code == 1 && outcome.stderr.contains(message), "{dockerfile}: {outcome:#?}");
    }
}

#[test]
fn an_agent_for_ssh() {
    if !is_root() {
        return;
    }
    let Some(debian) = crate::support::debian() else { return };
    let host = Host::with(&[("busybox:1", crate::support::busybox()), ("debian:1", debian)]);
    // Any two who talk will do for an agent.
    let socket = host.path("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut word = [0; 5];
            if stream.read_exact(&mut word).is_ok() {
                stream.write_all(&word.map(|byte| byte.to_ascii_uppercase())).ok();
            }
        }
    });
    let talk = "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ENV{SSH_AUTH_SOCK})) or die $!; \
        syswrite S, qq(hello); sysread S, $x, 9; print $x' > /said";
    let dockerfile = format!(
        "FROM debian:1 AS a\nRUN --mount=type=ssh {talk}\n\
         RUN --mount=type=ssh,id=other,target=/a/b.sock,mode=0666,uid=7 stat -c '%a %u %F' /a/b.sock > /stat\n\
         RUN --mount=type=ssh,id=none [ -z \"$SSH_AUTH_SOCK\" ]\nRUN ls -A /run > /left; ls -d /a >> /left || true\n\
         FROM scratch\nCOPY --from=a /said /stat /left /\n"
    );
    let other = format!("other={}", socket.display());
    host.dhow(["build", "-q", "--ssh", "default", "--ssh", &other, "-o", "out", "-"])
        .env("SSH_AUTH_SOCK", &socket)
        .stdin(dockerfile)
        .ok();
    let read = |name: &str| fs_err::read_to_string(host.path("out").join(name)).unwrap();
    assert_eq!((read("said").as_str(), read("stat").as_str()), ("HELLO", "666 7 socket\n"));
    assert!(!read("left").contains("buildkit") && !read("left").contains("/a"), "{}", read("left"));
}

#[test]
fn names_in_networks() {
    let Some(networked) = networked() else { return };
    let host = &networked.0;
    host.dhow(["network", "create", "back"]).ok();
    host.dhow(["run", "-d", "--name", "db", "--network", "back", "busybox:1", "sleep", "1000"]).ok();
    let dockerfile =
        "FROM busybox:1\nRUN ping -c 1 -W 5 db > /out && cat /etc/resolv.conf >> /out\nRUN nslookup db\n";
    host.dhow(["build", "-q", "--network", "back", "-o", "out", "-"]).stdin(dockerfile).ok();
    let out = fs_err::read_to_string(host.path("out/out")).unwrap();
    assert!(out.contains("1 packets received") && out.contains("nameserver 127.0.0.11"), "{out}");
}

/// Keys of files are in an agent of the build's own, which is gone afterwards.
#[test]
fn keys_for_ssh() {
    if !is_root() {
        return;
    }
    let Some(debian) = crate::support::debian() else { return };
    let host = Host::with(&[("debian:1", debian)]);
    for (kind, name) in [("ed25519", "one"), ("rsa", "two")] {
        let path = host.text(name);
        crate::support::tool(
            std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", kind, "-N", "", "-C", name, "-f", &path]),
        );
    }
    let path = host.text("locked");
    crate::support::tool(std::process::Command::new("ssh-keygen").args(["-q", "-N", "hush", "-f", &path]));
    host.file("loose", fs_err::read(host.path("one")).unwrap());
    // SSH_AGENTC_REQUEST_IDENTITIES; the answer has how many there are, and their comments.
    let ask = "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ENV{SSH_AUTH_SOCK})) or die $!; \
        syswrite S, pack(qq(NC), 1, 11); sysread S, $x, 9000; print unpack(qq(N), substr($x, 5)), q( ), join q(,), $x =~ /(one|two)/g' > /said";
    let dockerfile =
        format!("FROM debian:1 AS a\nRUN --mount=type=ssh {ask}\nFROM scratch\nCOPY --from=a /said /\n");
    let keys = format!("default={},{}", host.text("one"), host.text("two"));
    host.dhow(["build", "-q", "--network", "none", "--ssh", &keys, "-o", "out", "-"]).stdin(dockerfile).ok();
    assert_eq!(fs_err::read_to_string(host.path("out/said")).unwrap(), "2 one,two");
    for (text, message) in [
        ("default=nothing".to_owned(), "is neither a socket of an agent nor a key"),
        (format!("default={}", host.text("locked")), "cannot be used"),
        (format!("default={}", host.text("loose")), "too open"),
        (format!("default={}", host.text("one.pub")), "cannot be used"),
    ] {
        let outcome =
            host.dhow(["build", "-q", "--ssh", &text, "-"]).stdin("FROM scratch\nLABEL a=b\n").outcome();
        assert!(outcome.code != 0 && outcome.stderr.contains(message), "{text}: {outcome:#?}");
    }
}

#[test]
fn a_layout_as_a_context() {
    let host = Host::with_busybox();
    host.dhow(["build", "-q", "-t", "named:1", "-"]).stdin("FROM busybox:1\nCOPY <<E /mark\nhere\nE\n").ok();
    host.dhow(["save", "-o", "layout.tar", "named:1"]).ok();
    fs_err::create_dir(host.path("layout")).unwrap();
    crate::support::tool(std::process::Command::new("tar").args([
        "-xf",
        &host.text("layout.tar"),
        "-C",
        &host.text("layout"),
    ]));
    host.dhow(["rmi", "named:1"]).ok();
    let index: serde_json::Value =
        serde_json::from_slice(&fs_err::read(host.path("layout/index.json")).unwrap()).unwrap();
    let entry = &index["manifests"][0];
    let digest = entry["digest"].as_str().unwrap().to_owned();
    let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("1").to_owned();
    let folder = host.text("layout");
    for (more, works) in [
        (String::new(), true),
        (format!("@{digest}"), true),
        (format!(":{tag}"), true),
        (":none".to_owned(), false),
    ] {
        let context = format!("base=oci-layout://{folder}{more}");
        let outcome = host
            .dhow(["build", "-q", "--build-context", &context, "-o", "out", "-"])
            .stdin("FROM base AS one\nFROM scratch\nCOPY --from=base /mark /a\nCOPY --from=one /mark /b\n")
            .outcome();
        assert_eq!(outcome.code == 0, works, "{more}: {outcome:#?}");
        assert!(works || outcome.stderr.contains("has no image none"), "{outcome:#?}");
    }
    assert_eq!(fs_err::read_to_string(host.path("out/b")).unwrap(), "here\n");
    assert!(!host.dhow(["images"]).ok().contains("named"), "it was given a name");
}

/// Steps of every kind for a user without rights; the corpus compares what comes of them.
#[test]
fn without_rights() {
    let Some(host) = Host::unprivileged() else { return };
    host.load(&[("busybox:1", crate::support::busybox())]);
    host.file("c/x", "x");
    host.file("secret", "hush");
    let dockerfile = "FROM busybox:1 AS one\nRUN mkdir -p /a/b && echo hi > /a/b/f && chown -R 1000:50 /a && chmod 2750 /a\n\
        FROM busybox:1 AS two\nRUN id -u > /two; test -c /dev/null && ! touch /proc/sysrq-trigger\n\
        FROM busybox:1\nCOPY --from=one /a /a\nCOPY --from=two /two /\nCOPY --chown=7:8 x /x\nUSER 5:6\nWORKDIR /mine\n\
        RUN touch t\nUSER 0\nRUN --mount=type=cache,target=/cache,uid=3 --mount=type=tmpfs,target=/t \
        --mount=type=bind,source=x,target=/bx --mount=type=secret,id=s stat -c '%u:%g %a %n' /cache /bx /run/secrets/s > /stat; touch /cache/kept\n\
        RUN rm /etc/group; chown 33:34 /x\n";
    host.file("c/Dockerfile", dockerfile);
    let path = host.text("c");
    let line = ["build", "--network", "none", "--secret", "id=s,src=secret", "-t", "made:1"];
    let first = host.dhow(line).args([&path]).outcome();
    assert_eq!(first.code, 0, "{first:#?}");
    let again = host.dhow(line).args([&path]).outcome();
    assert_eq!(again.stderr.matches("Using cache").count(), 9, "{again:#?}");
    let script = "cat /two /stat; stat -c '%u:%g %a %n' /a /a/b /a/b/f /x /mine /mine/t; ls /etc/group";
    let shown =
        host.dhow(["run", "--rm", "--network", "none", "made:1", "sh", "-c", script]).outcome().stdout;
    assert_eq!(
        shown,
        "0\n3:0 755 /cache\n0:0 644 /bx\n0:0 400 /run/secrets/s\n0:0 755 /a\n1000:50 755 /a/b\n1000:50 644 /a/b/f\n\
         33:34 644 /x\n5:6 755 /mine\n5:6 644 /mine/t\n"
    );
    // Files of a result are the user's own, and a step that fails gives its code.
    host.dhow(line).args(["-q", "-o", "out", &path]).outcome();
    assert_eq!(fs_err::read_to_string(host.path("out/mine/t")).unwrap(), "");
    let failed =
        host.dhow(["build", "-q", "--network", "none", "-"]).stdin("FROM busybox:1\nRUN exit 42\n").outcome();
    assert!(failed.code == 42 && failed.stderr.contains(">>> RUN exit 42"), "{failed:#?}");
    host.dhow(["builder", "prune", "-af"]).ok();
    host.check();
}
