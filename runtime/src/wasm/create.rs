//! A bundle becomes a task: the root file system is opened, the program found, compiled or taken from the cache, and
//! linked. What is wrong with any of it is said here, before anything runs.

use std::io::Read as _;
use std::sync::Arc;

use super::engine::{self, Flavor};
use super::invoke::{self, Entry};
use super::limits::Bounds;
use super::module::{Code, SIZE_MAX, invalid};
use super::network::{self, Policy, Publish};
use super::parts::Source;
use super::stdio::Streams;
use super::task::{Prepared, Task};
use super::union::mount::{describe, layer_of};
use super::union::{Errno, Kind, Listing, Node, Open, Opened, Program, Union};
use super::wall::Wall;
use super::{Executor, aot, http, p1, p2};
use crate::bundle::{Bundle, Layer, Module, Root};
use crate::error::{Error, Result};
use crate::spec::{LinuxNamespaceType, PosixRlimitType, Process};
use crate::stdio::Stdio;

/// Descriptors of a program that has no limit of its own. Each costs memory that is not the guest's.
const DESCRIPTORS: usize = 1 << 16;
/// The most a limit can allow, as Docker's daemon.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// What a guest is given, whichever WASI version it speaks.
pub(super) struct Guest {
    pub(super) args: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) union: Arc<Union>,
    /// The working directory and its path.
    pub(super) cwd: Arc<Node>,
    pub(super) cwd_path: String,
    pub(super) streams: Streams,
    /// What it may use of the network.
    pub(super) policy: Arc<Policy>,
    /// What of it is run.
    pub(super) entry: Entry,
    /// How much it may use.
    pub(super) bounds: Bounds,
    /// Ports it may listen on.
    pub(super) publish: Vec<Publish>,
    /// How many descriptors it may have open.
    pub(super) descriptors: usize,
}

impl Guest {
    /// The directories a guest starts with, by name.
    ///
    /// WASI has no working directory: libraries take the preopened directory whose name is the longest prefix of a
    /// path, and to wasi-libc `.` and `/` are the same name, empty, of which the last one wins. So with `/` as
    /// working directory there is `/` alone. With another, the directories in `/` are preopened, too, and the last
    /// one is `.`, the working directory: absolute paths find the first, relative ones the second. What remains
    /// different from a process then: a relative path that begins with the name of a directory in `/` means that one,
    /// and wasi-libc cannot reach `/` itself.
    pub(super) fn preopens(&self) -> Vec<(String, Arc<Node>)> {
        let root = self.union.root();
        let mut all = vec![("/".to_owned(), Arc::clone(root))];
        if self.cwd_path != "/" {
            let entries = root.list().ok();
            let entries = entries.iter().flat_map(Listing::iter);
            for entry in entries.filter(|entry| matches!(entry.kind, Kind::Dir | Kind::Symlink)) {
                if let Ok(node) = self.union.directory(root, entry.name) {
                    all.push((format!("/{}", entry.name), node));
                }
            }
            all.push((".".to_owned(), Arc::clone(&self.cwd)));
        }
        all
    }
}

impl Executor {
    /// See [`crate::Executor::create`].
    ///
    /// # Errors
    /// [`Error::CommandNotFound`], [`Error::CommandNotExecutable`] and [`Error::InvalidModule`] for the program,
    /// [`Error::InvalidSpec`] and [`Error::Io`] for the rest of the bundle.
    pub fn create(&self, bundle: &Bundle, stdio: Stdio) -> Result<Task> {
        let process = bundle.spec.process().as_ref().ok_or_else(|| missing("process"))?;
        let mut args = process.args().clone().unwrap_or_default();
        let mut env = process.env().clone().unwrap_or_default();
        if let Some(bad) = args.iter().chain(&env).find(|text| text.contains('\0')) {
            let reason = format!("{bad:?} contains a NUL character");
            return Err(Error::InvalidSpec { field: "process.args and process.env", reason });
        }
        let bounds = Bounds::of(&bundle.spec, &bundle.wasm.limits)?;
        let flavor = bounds.flavor();
        let union = Arc::new(Union::of_bundle(bundle)?);
        // A read-only root gets its mount points and working directory all the same, as with other runtimes.
        let (cwd, cwd_path) = working_directory(&union, process.cwd())?;
        if bundle.spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
            union.set_readonly();
        }
        // Libraries that know a working directory ask for this; without it, it is `/`.
        if cwd_path != "/" && !env.iter().any(|variable| variable.starts_with("PWD=")) {
            env.push(format!("PWD={cwd_path}"));
        }
        let mut function = bundle.wasm.invoke.clone();
        let program = match &bundle.module {
            Some(_) => None,
            None => {
                let command = args.first_mut().ok_or_else(|| missing("process.args"))?;
                let program = match (find(&union, &cwd, &env, command), invoke::split(command)) {
                    // No file has that name, so the part after `#` is a function's.
                    (Err(Error::CommandNotFound { .. }), Some((path, name))) => {
                        function.get_or_insert_with(|| name.to_owned());
                        *command = path.to_owned();
                        find(&union, &cwd, &env, command)?
                    }
                    (found, _) => found?,
                };
                Some((command.clone(), program))
            }
        };
        let program = program.as_ref();
        let (code, flavor) = match self.code(bundle, &union, program, flavor)? {
            // One of its functions is wanted, and its code can always be interrupted.
            Code::Service if function.is_some() => {
                let flavor = Flavor { epoch: true, ..flavor };
                (self.code(bundle, &union, program, flavor)?, flavor)
            }
            code => (code, flavor),
        };
        let shown = match (&bundle.module, args.first()) {
            (Some(module), _) => module.path.display().to_string(),
            (None, command) => command.cloned().unwrap_or_default(),
        };
        if args.is_empty() {
            args.push(shown.clone());
        }
        let policy = policy(bundle, &union)?;
        let is_program = function.is_none();
        let guest = Guest {
            args,
            env,
            union: Arc::clone(&union),
            cwd,
            cwd_path,
            streams: Streams::new(stdio),
            policy: Arc::clone(&policy),
            bounds,
            entry: Entry::new(function),
            publish: bundle.wasm.network.publish.clone(),
            descriptors: descriptors(process),
        };
        let (stderr, bounds) = (guest.streams.stderr.clone(), guest.bounds.clone());
        let engine = self.engine(flavor)?;
        let wall = bundle
            .wasm
            .wall
            .clone()
            .map(|wall| Wall { network: wall.network || policy.needs_sockets(), ..wall })
            .map(|wall| (wall, Arc::clone(&union)));
        let prepared = match &code {
            Code::Module(module) => Prepared::P1(p1::prepare(engine, module, &shown, guest)?),
            Code::Service => Prepared::Http(self.service(bundle, &union, program, &shown, guest)?),
            // Compiled for a limit of time, and so not known as a service yet.
            Code::Component(component) if is_program && http::is_service(engine, component) => {
                Prepared::Http(self.service(bundle, &union, program, &shown, guest)?)
            }
            Code::Component(component) => {
                policy.reserve()?;
                Prepared::P2(p2::prepare(engine, component, &shown, &guest)?)
            }
        };
        Ok(Task::new(bundle.id.clone(), shown, stderr, policy, bounds, wall, prepared))
    }

    /// A bundle's code; `program` is what its first argument means, and where that was found.
    fn code(
        &self,
        bundle: &Bundle,
        union: &Union,
        program: Option<&(String, Program)>,
        flavor: Flavor,
    ) -> Result<Code> {
        let linked = !bundle.wasm.parts.is_empty();
        match (&bundle.module, program) {
            (Some(module), _) if linked => self.linked_code(bundle, union, Source::File(module), flavor),
            (Some(module), _) => self.bare_code(module, flavor),
            (None, Some((command, program))) if linked => {
                self.linked_code(bundle, union, Source::InRoot(command, Box::new(program.clone())), flavor)
            }
            (None, Some((command, program))) => self.root_code(command, program, &bundle.root, flavor),
            (None, None) => Err(missing("process.args")),
        }
    }

    /// A component that answers HTTP, in an engine of its own.
    fn service(
        &self,
        bundle: &Bundle,
        union: &Union,
        program: Option<&(String, Program)>,
        shown: &str,
        guest: Guest,
    ) -> Result<http::Program> {
        guest.policy.reserve()?;
        // Every program of a service can be interrupted: it shares its thread with others.
        let flavor = Flavor { fuel: guest.bounds.limits().fuel.is_some(), epoch: true };
        let engine = engine::pooled(flavor, http::settings())?;
        let pooled = Self::over(self.cache.clone(), flavor, engine.clone());
        match pooled.code(bundle, union, program, flavor)? {
            Code::Component(component) => http::prepare(engine, component, shown, guest),
            Code::Module(_) | Code::Service => Err(invalid(shown, "it has changed meanwhile")),
        }
    }

    /// Code from outside the root file system.
    pub(super) fn bare_code(&self, module: &Module, flavor: Flavor) -> Result<Code> {
        let shown = module.path.display().to_string();
        let read = || read_module(module);
        let name = module.id.as_deref().map(aot::name_of_id);
        self.cache.code(self.engine(flavor)?, aot::Wanted { name, path: &shown, text: true, flavor, read })
    }

    /// Code that is a file of the root file system.
    fn root_code(&self, command: &str, program: &Program, root: &Root, flavor: Flavor) -> Result<Code> {
        let layer = program.layer.and_then(|number| layer_of(root, number));
        let id = layer.and_then(|layer| layer.id.as_deref());
        let read = || {
            let file = program.open().map_err(|errno| not_executable(command, describe(errno)))?;
            read_all(command, file)
        };
        let name = id.map(|id| aot::name_in_layer(id, &program.path));
        self.cache.code(self.engine(flavor)?, aot::Wanted { name, path: command, text: false, flavor, read })
    }

    /// Compiles a file of a layer into the cache.
    pub(super) fn layer_code(&self, layer: &Layer, path: &str) -> Result<()> {
        let Some(id) = &layer.id else { return Ok(()) };
        let union = Union::plain(&layer.path)?;
        let relative = path.trim_start_matches('/');
        let program = union.program(union.root(), relative).map_err(|errno| not_found(path, errno))?;
        let read = || read_all(path, program.open().map_err(|errno| not_executable(path, describe(errno)))?);
        let name = Some(aot::name_in_layer(id, &program.path));
        let flavor = Flavor::default();
        self.cache.code(self.engine(flavor)?, aot::Wanted { name, path, text: false, flavor, read }).map(drop)
    }
}

/// The content of a file outside the root file system.
pub(super) fn read_module(module: &Module) -> Result<Vec<u8>> {
    let shown = module.path.display().to_string();
    let file = fs_err::File::open(&module.path).and_then(|file| {
        let kind = file.metadata()?;
        Ok((file, kind.is_dir()))
    });
    match file {
        Ok((_, true)) => Err(not_executable(&shown, "is a directory")),
        Ok((file, false)) => read_all(&shown, file.into_file()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::NotFound => Error::CommandNotFound { command: shown },
            std::io::ErrorKind::PermissionDenied => not_executable(&shown, "permission denied"),
            _ => Error::Io { path: module.path.clone(), source: error },
        }),
    }
}

/// The content of the program that `command` means.
pub(super) fn read_program(union: &Union, cwd: &str, env: &[String], command: &str) -> Result<Vec<u8>> {
    let relative = cwd.trim_start_matches('/');
    let cwd = match relative {
        "" => Arc::clone(union.root()),
        // One that is missing is made when the container runs, and is empty then.
        _ => union.directory(union.root(), relative).unwrap_or_else(|_| Arc::clone(union.root())),
    };
    let program = find(union, &cwd, env, command)?;
    read_all(command, program.open().map_err(|errno| not_executable(command, describe(errno)))?)
}

/// Finds the program: a path as it is, a bare name in the working directory, in `/`, then along `PATH`.
fn find(union: &Union, cwd: &Arc<Node>, env: &[String], command: &str) -> Result<Program> {
    let root = union.root();
    if let Some(absolute) = command.strip_prefix('/') {
        let relative = absolute.trim_start_matches('/');
        return union.program(root, relative).map_err(|errno| not_found(command, errno));
    }
    let mut failure = match union.program(cwd, command) {
        Ok(program) => return Ok(program),
        Err(errno) => errno,
    };
    if !command.contains('/') {
        let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
        for dir in std::iter::once("").chain(path.split(':')) {
            let candidate = format!("{}/{command}", dir.trim_matches('/'));
            match union.program(root, candidate.trim_start_matches('/')) {
                Ok(program) => return Ok(program),
                Err(Errno::NotFound | Errno::NotDir) => {}
                Err(errno) => failure = errno,
            }
        }
    }
    Err(not_found(command, failure))
}

pub(super) fn not_found(command: &str, errno: Errno) -> Error {
    match errno {
        Errno::NotFound | Errno::NotDir => Error::CommandNotFound { command: command.to_owned() },
        errno => not_executable(command, describe(errno)),
    }
}

pub(super) fn not_executable(command: &str, reason: &str) -> Error {
    Error::CommandNotExecutable { command: command.to_owned(), reason: reason.to_owned() }
}

fn missing(field: &'static str) -> Error {
    Error::InvalidSpec { field, reason: "it is missing".to_owned() }
}

pub(super) fn read_all(shown: &str, file: std::fs::File) -> Result<Vec<u8>> {
    let failed = |source| Error::Io { path: shown.into(), source };
    let size = file.metadata().map_err(failed)?.len().min(SIZE_MAX);
    // One byte more, so that the end is seen by the first read.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(invalid(shown, "larger than 1 GiB"));
    }
    Ok(bytes)
}

/// The working directory, made where it is missing.
fn working_directory(union: &Union, cwd: &std::path::Path) -> Result<(Arc<Node>, String)> {
    let wrong = |reason: &str| Error::InvalidSpec {
        field: "process.cwd",
        reason: format!("{}: {reason}", cwd.display()),
    };
    let path = cwd.to_str().ok_or_else(|| wrong("not UTF-8"))?;
    let relative = path.strip_prefix('/').ok_or_else(|| wrong("not an absolute path"))?;
    let mut node = Arc::clone(union.root());
    for name in relative.split('/').filter(|name| !name.is_empty()) {
        node = match union.directory(&node, name) {
            Err(Errno::NotFound) => union.mkdir(&node, name).and_then(|()| union.directory(&node, name)),
            found => found,
        }
        .map_err(|errno| wrong(describe(errno)))?;
    }
    let path = node.path();
    Ok((node, path))
}

/// How many descriptors a program may have open: what its limits say, up to Docker's usual number.
fn descriptors(process: &Process) -> usize {
    let limits = process.rlimits().iter().flatten();
    let soft =
        limits.filter(|limit| limit.typ() == PosixRlimitType::RlimitNofile).map(|limit| limit.soft()).min();
    soft.and_then(|soft| usize::try_from(soft).ok()).map_or(DESCRIPTORS, |soft| soft.min(DESCRIPTORS_MAX))
}

/// What the program may use of the network.
///
/// A specification without a network namespace shares the host's network. One that names a namespace to join has what
/// is in there, all of it; this thread goes there, and those it starts follow.
fn policy(bundle: &Bundle, union: &Arc<Union>) -> Result<Arc<Policy>> {
    let namespaces = bundle.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut all = namespaces.into_iter().flatten();
    let own = all.find(|namespace| namespace.typ() == LinuxNamespaceType::Network);
    let mut network = bundle.wasm.network.clone();
    match own.map(|namespace| namespace.path().as_ref()) {
        None => network.host = true,
        Some(None) => {}
        Some(Some(path)) => {
            network::namespace::enter(path)?;
            network.host = true;
        }
    }
    let files = Arc::clone(union);
    Ok(Arc::new(Policy::new(network, Box::new(move || hosts_file(&files)))))
}

/// The container's own `/etc/hosts`.
fn hosts_file(union: &Arc<Union>) -> Option<Vec<u8>> {
    let how = Open { read: true, follow: true, ..Open::default() };
    let Ok(Opened::File(opened)) = union.open(union.root(), "etc/hosts", &how) else { return None };
    let mut bytes = Vec::new();
    opened.file.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
