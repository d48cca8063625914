//! The verbs: `start` leaves a server behind and says where it is, `delete` removes what one that died has left.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::wire::Message as _;
use dhow_runtime::{oci, process};
use rustix::fs::{Mode, OFlags};
use rustix::process::{getpid, set_child_subreaper, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use sha2::{Digest as _, Sha256};

use crate::artifact::Store;
use crate::flags::{Flags, is_name};
use crate::log::Log;
use crate::messages::BootstrapParams;
use crate::publisher::Publisher;
use crate::server::{Server, Setup, life};
use crate::{bootstrap, sandbox, service};

/// Annotations whose value is the group that a container belongs to: all containers of one have one server.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// Where sockets are, as those of other shims.
const SOCKETS: &str = "/run/containerd/s";
/// The folder of the containers' states; one below it for each of containerd's namespaces, and each containerd.
const STATES: &str = "/run/dhow/shim";
/// Compiled code of Wasm programs, shared with `dhow oci`.
const COMPILED: &str = "/run/dhow/oci-aot";
/// The most that is read of what containerd says, and of a bundle's specification.
const LARGEST: u64 = 16 << 20;

fn check(flags: &Flags) -> Result<(), String> {
    for (what, word) in [("namespace", &flags.namespace), ("id", &flags.id)] {
        if !is_name(word) {
            return Err(format!("invalid {what} {word:?}"));
        }
    }
    Ok(())
}

/// `start`: finds the pod's server, or makes one; gives what containerd is told.
pub(crate) fn start(flags: &Flags) -> Result<Vec<u8>, String> {
    check(flags)?;
    // The server would keep what containerd has got from its own caller. Nothing else can be missing.
    process::keep_descriptors(0).ok();
    let bundle = std::env::current_dir().map_err(|error| format!("cannot find the bundle: {error}"))?;
    let mut asked = Vec::new();
    // Not from a terminal, nor for ever: containerd closes it.
    std::io::stdin().take(LARGEST).read_to_end(&mut asked).ok();
    let params = bootstrap::params(&asked, flags);
    let group = group(&bundle).unwrap_or_else(|| flags.id.clone());
    let socket = socket(flags, &group, params.as_ref());
    let address = format!("unix://{}", socket.display());
    let answer = bootstrap::answer(&address, params.as_ref());
    let Some(listener) = listen(&socket)? else {
        write_address(&bundle, &address)?;
        return Ok(answer);
    };
    let ttrpc = match params.as_ref().map(|params| params.containerd_ttrpc_address.clone()) {
        Some(address) if !address.is_empty() => address,
        _ => std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{}.ttrpc", flags.address)),
    };
    adjust_score();
    let mut listener = Some(listener);
    let server = process::fork(|| match listener.take() {
        Some(listener) => serve(flags, &bundle, &socket, listener, ttrpc),
        None => 1,
    });
    let server = server.map_err(|error| error.to_string())?;
    let told = write_address(&bundle, &address).and_then(|()| {
        // Here and not by the caller: when nobody hears it, nobody would ever end the server.
        let mut stdout = std::io::stdout();
        stdout.write_all(&answer).and_then(|()| stdout.flush()).map_err(|error| error.to_string())
    });
    if let Err(error) = told {
        let pid = i32::try_from(server.pid()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        fs_err::remove_file(&socket).ok();
        return Err(error);
    }
    Ok(Vec::new())
}

/// The server's whole life.
fn serve(flags: &Flags, bundle: &Path, socket: &Path, listener: UnixListener, ttrpc: String) -> u8 {
    let log = Log::open(bundle, flags.debug);
    let detached = || -> rustix::io::Result<()> {
        setsid()?;
        // What ends before those it has made leaves them to this process.
        set_child_subreaper(Some(getpid()))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        rustix::process::chdir("/")
    };
    if let Err(errno) = detached() {
        log.error(&format!("cannot leave the caller: {errno}"));
        return 1;
    }
    process::default_child_signal().ok();
    let setup = Setup {
        listener,
        socket: socket.to_owned(),
        publisher: Publisher::new(ttrpc, flags.namespace.clone()),
        log,
        store: Store {
            address: flags.address.strip_prefix("unix://").unwrap_or(&flags.address).into(),
            namespace: flags.namespace.clone(),
        },
        root: states(flags),
        aot: PathBuf::from(COMPILED),
    };
    match Server::new(setup) {
        Ok(mut server) => {
            server.run();
            server.hide();
            // Not while another pod of this containerd has something in it.
            rustix::fs::unlinkat(rustix::fs::CWD, states(flags), rustix::fs::AtFlags::REMOVEDIR).ok();
            0
        }
        Err(_) => 1,
    }
}

/// `delete`: containerd calls it when the server is gone.
pub(crate) fn delete(flags: &Flags) -> Result<Vec<u8>, String> {
    check(flags)?;
    let bundle = if flags.bundle.is_empty() {
        std::env::current_dir().map_err(|error| format!("cannot find the bundle: {error}"))?
    } else {
        PathBuf::from(&flags.bundle)
    };
    let root = states(flags);
    let pid = oci::Container::open(&root, &flags.id).map_or(0, |container| container.saved().pid);
    sandbox::remove(&root, &flags.id, &bundle).map_err(|failure| failure.to_string())?;
    if !is_served(&bundle) {
        remove_pod(&root, &flags.id);
    }
    rustix::fs::unlinkat(rustix::fs::CWD, root, rustix::fs::AtFlags::REMOVEDIR).ok();
    Ok(service::killed(pid).encode_to_vec())
}

/// Whether the server of this bundle is there still.
fn is_served(bundle: &Path) -> bool {
    let address = fs_err::read_to_string(bundle.join("address")).unwrap_or_default();
    UnixStream::connect(address.trim().trim_start_matches("unix://")).is_ok()
}

/// Removes the containers of a pod whose server is gone. From 2.3 on containerd calls this program for the pod alone then, and
/// before that for each of them, too.
fn remove_pod(root: &Path, id: &str) {
    for entry in fs_err::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(other) = name.to_str().filter(|name| *name != id && is_name(name)) else { continue };
        let Ok(container) = oci::Container::open(root, other) else { continue };
        let saved = container.saved();
        let annotations = saved.annotations.as_ref();
        let pod = annotations.and_then(|annotations| annotations.get("io.kubernetes.cri.sandbox-id"));
        if pod.is_some_and(|pod| pod == id) {
            // One that cannot be removed does not keep the others.
            life::remove(root, other, &saved.bundle.clone()).ok();
        }
    }
}

/// The pod that a bundle belongs to.
fn group(bundle: &Path) -> Option<String> {
    annotated(bundle, &GROUPS)
}

/// What a bundle's annotation says.
pub(crate) fn annotation(bundle: &Path, name: &str) -> Option<String> {
    annotated(bundle, &[name])
}

/// The first of these annotations that a bundle has.
fn annotated(bundle: &Path, names: &[&str]) -> Option<String> {
    /// All that is looked at.
    #[derive(serde::Deserialize)]
    struct Spec {
        #[serde(default)]
        annotations: std::collections::HashMap<String, serde_json::Value>,
    }
    let mut text = Vec::new();
    fs_err::File::open(bundle.join("config.json")).ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
    let spec: Spec = serde_json::from_slice(&text).ok()?;
    let found = names.iter().find_map(|name| spec.annotations.get(*name)?.as_str());
    found.filter(|found| !found.is_empty()).map(str::to_owned)
}

/// Where the states are: two containerds may have containers of the same name.
fn states(flags: &Flags) -> PathBuf {
    let digest = Sha256::digest(&flags.address);
    let caller: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Path::new(STATES).join(format!("{}-{caller}", flags.namespace))
}

/// Where the server of a group listens. The name is a digest: it is as short as paths of sockets have to be, and what a
/// group is called cannot lead anywhere.
fn socket(flags: &Flags, group: &str, params: Option<&BootstrapParams>) -> PathBuf {
    let folder = params.and_then(|params| params.socket_dir.as_deref()).filter(|folder| !folder.is_empty());
    let digest = Sha256::digest(format!("dhow\0{}\0{}\0{group}", flags.address, flags.namespace));
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(folder.unwrap_or(SOCKETS)).join(name)
}

/// Listens there, unless somebody does already.
fn listen(socket: &Path) -> Result<Option<UnixListener>, String> {
    let shown = |error: std::io::Error| format!("cannot listen at {}: {error}", socket.display());
    if let Some(folder) = socket.parent() {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(folder).map_err(shown)?;
    }
    // The second time what a dead server has left is away.
    for _ in 0..2 {
        match UnixListener::bind(socket) {
            Ok(listener) => {
                use std::os::unix::fs::PermissionsExt as _;
                fs_err::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(shown)?;
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                if UnixStream::connect(socket).is_ok() {
                    return Ok(None);
                }
                fs_err::remove_file(socket).ok();
            }
            Err(error) => return Err(shown(error)),
        }
    }
    Err(format!("cannot listen at {}: somebody else does and does not answer", socket.display()))
}

/// For containerd 1.6, which looks there when it comes back.
fn write_address(bundle: &Path, address: &str) -> Result<(), String> {
    let draft = bundle.join(".address");
    fs_err::write(&draft, address)
        .and_then(|()| fs_err::rename(&draft, bundle.join("address")))
        .map_err(|error| error.to_string())
}

/// When there is no memory left, containerd's shims go after containerd and before everything else.
fn adjust_score() {
    let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let score = fs_err::read_to_string(format!("/proc/{parent}/oom_score_adj"));
    let Some(score) = score.ok().and_then(|text| text.trim().parse::<i32>().ok()) else { return };
    fs_err::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string()).ok();
}
