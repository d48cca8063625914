//! Certificates that are wrong in one way, and proxies: what is said, and what goes through.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::{Host, Registry, busybox, tool};

/// Signs a certificate for this name and time with a new authority's key: `openssl req` knows no beginning in the past.
fn sign(dir: &Path, name: &str, from: &str, to: &str) {
    let script = r#"
        export OPENSSL_CONF=/dev/null
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=authority" \
            -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout server.key -out csr
        : > index; echo 01 > serial
        cat > config <<END
[ca]
default_ca = it
[it]
database = index
serial = serial
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[server]
subjectAltName = $2
basicConstraints = critical,CA:FALSE
extendedKeyUsage = serverAuth
END
        openssl ca -batch -notext -config config -startdate "$3" -enddate "$4" -in csr -out server.crt
    "#;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).arg(name.rsplit(':').next().unwrap());
    tool(command.arg(name).arg(from).arg(to).current_dir(dir));
}

/// A TLS server that ends with its value.
struct Server(Child, SocketAddr);

impl Server {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "openssl", "s_server", "-accept", "127.0.0.1:0", "-www"])
            .args(["-cert", "server.crt", "-key", "server.key"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(|at| at.parse().unwrap()))
            .expect("the server says where it listens");
        // Nobody reads on, and it must not be stopped by that.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn certificates_that_do_not_hold() {
    let over = ("20200101000000Z", "20210101000000Z");
    let now = ("20200101000000Z", "20990101000000Z");
    let later = ("20980101000000Z", "20990101000000Z");
    for (name, (from, to), words, advice) in [
        ("IP:127.0.0.1", over, "its certificate has expired", "clock"),
        ("IP:127.0.0.1", later, "its certificate is not valid yet", "clock"),
        ("DNS:a.example", now, "its certificate is for a.example", "a name of the registry"),
        ("IP:10.1.2.3", now, "its certificate is for 10.1.2.3", "a name of the registry"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        sign(dir.path(), name, from, to);
        let server = Server::start(dir.path());
        let host = Host::new();
        let registries = json!({ server.1.to_string(): { "ca": dir.path().join("ca.crt") } });
        let file = host.file("settings/config.json", json!({ "registries": registries }).to_string());
        let pull =
            |host: &Host| host.dhow(["pull", &format!("{}/it:1", server.1)]).env("DHOW_SETTINGS", &file);
        let outcome = pull(&host).refused_by_pull(words);
        assert!(outcome.stderr.contains(advice) && !outcome.stderr.contains("ca.crt"), "{outcome:#?}");
        let login = host.dhow(["login", "-u", "u", "--password-stdin", &server.1.to_string()]).stdin("p");
        let outcome = login.env("DHOW_SETTINGS", &file).fails(1);
        assert!(outcome.stderr.contains(words), "{outcome:#?}");
    }
}

/// What a SOCKS client asked for: user and password, and the destination.
type Asked = Arc<Mutex<Vec<(Option<(String, String)>, String)>>>;

/// A SOCKS 5 server (RFC 1928, 1929) that leads every name to one address.
fn socks(to: SocketAddr, login: bool) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Asked = Asked::default();
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || serve(client, to, login, &noted));
        }
    });
    (address, asked)
}

fn serve(mut client: TcpStream, to: SocketAddr, login: bool, asked: &Asked) -> Option<()> {
    let bytes = |client: &mut TcpStream, count: usize| {
        let mut buffer = vec![0; count];
        client.read_exact(&mut buffer).ok().map(|()| buffer)
    };
    let text = |client: &mut TcpStream| {
        let length = bytes(client, 1)?[0];
        Some(String::from_utf8_lossy(&bytes(client, length.into())?).into_owned())
    };
    let head = bytes(&mut client, 2)?;
    let methods = bytes(&mut client, head[1].into())?;
    let wanted = if login { 2 } else { 0 };
    if !methods.contains(&wanted) {
        client.write_all(&[5, 0xff]).ok()?;
        return None;
    }
    client.write_all(&[5, wanted]).ok()?;
    let who = if login {
        bytes(&mut client, 1)?;
        let who = (text(&mut client)?, text(&mut client)?);
        let good = who.1 == "secret";
        client.write_all(&[1, u8::from(!good)]).ok()?;
        if !good {
            return None;
        }
        Some(who)
    } else {
        None
    };
    let request = bytes(&mut client, 4)?;
    let name = match request[3] {
        3 => text(&mut client)?,
        kind => bytes(&mut client, if kind == 1 { 4 } else { 16 })?.escape_ascii().to_string(),
    };
    let port = bytes(&mut client, 2)?;
    asked.lock().unwrap().push((who, format!("{name}:{}", u16::from_be_bytes([port[0], port[1]]))));
    let server = TcpStream::connect(to).ok()?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        std::io::copy(&mut from_client, &mut to_server).ok();
        to_server.shutdown(std::net::Shutdown::Write).ok();
    });
    std::io::copy(&mut &server, &mut client).ok();
    client.shutdown(std::net::Shutdown::Both).ok();
    Some(())
}

#[test]
fn a_socks_proxy_leads_to_a_registry() {
    let registry = Registry::start();
    registry.push("it:1", &busybox().cmd(&["echo", "by proxy"]));
    // A name that only the proxy can look up.
    let name = "registry.invalid:5000/it:1";
    for (user, login) in [("", false), ("somebody:secret@", true)] {
        let (proxy, asked) = socks(registry.address(), login);
        let host = Host::new();
        let proxy = format!("socks5h://{user}{proxy}");
        let registries = json!({ "registry.invalid:5000": { "insecure": true, "proxy": proxy } });
        let file = host.file("settings/config.json", json!({ "registries": registries }).to_string());
        host.dhow(["pull", "-q", name]).env("DHOW_SETTINGS", &file).ok();
        assert_eq!(host.dhow(["run", "--rm", name]).ok(), "by proxy\n");
        let asked = asked.lock().unwrap();
        let who = login.then(|| ("somebody".to_owned(), "secret".to_owned()));
        assert!(!asked.is_empty());
        assert!(
            asked.iter().all(|one| *one == (who.clone(), "registry.invalid:5000".to_owned())),
            "{asked:?}"
        );
    }
    // From the environment, and with a password that is wrong: it must not be shown.
    let (proxy, asked) = socks(registry.address(), true);
    let host = Host::new();
    let registries = json!({ "registry.invalid:5000": { "insecure": true } });
    let file = host.file("settings/config.json", json!({ "registries": registries }).to_string());
    let pull = host.dhow(["pull", name]).env("DHOW_SETTINGS", file);
    let refused = pull.env("ALL_PROXY", format!("socks5h://somebody:hidden@{proxy}"));
    let outcome = refused.refused_by_pull("cannot reach registry registry.invalid:5000");
    assert!(!outcome.stderr.contains("hidden"), "{outcome:#?}");
    assert!(asked.lock().unwrap().is_empty());
}
