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
