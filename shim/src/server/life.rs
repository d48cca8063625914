//! Making, starting and removing processes: what jobs do, and what becomes of their answers.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use dhow_runtime::oci::create::{self, Request};
use dhow_runtime::oci::exec::{self, ExecRequest};
use dhow_runtime::oci::{self, checkpoint, container, restore};
use dhow_runtime::process;

use super::{Answer, Server, Task};
use crate::artifact::{self, Artifact, Store};
use crate::clock;
use crate::error::{Code, Failure};
use crate::flags::is_name;
use crate::job::Job;
use crate::logger::Logger;
use crate::messages::events::{TaskCheckpointed, TaskCreate, TaskDelete, TaskExec, TaskIo, TaskStart};
use crate::messages::{CheckpointTask, CreateTask, Deleted, Empty, ExecProcess, Pid};
use crate::pod::{Call, Container, Key, Phase, Process};
use crate::pump::Pump;
use crate::streams::{self, Named, Streams};
use crate::{options, rootfs, sandbox, service};

use std::collections::BTreeMap;
use std::path::PathBuf;

impl Server {
    pub(crate) fn create(&mut self, asked: CreateTask, call: Call) -> Result<Answer, Failure> {
        let id = asked.id.clone();
        if !is_name(&id) {
            return Err(Failure::new(Code::InvalidArgument, format!("invalid container id {id:?}")));
        }
        if self.pod.containers.contains_key(&id) {
            return Err(Failure::new(Code::AlreadyExists, format!("container {id} already exists")));
        }
        let options = options::read(asked.options.as_ref())?;
        let named = Named {
            stdin: asked.stdin.clone(),
            stdout: asked.stdout.clone(),
            stderr: asked.stderr.clone(),
            terminal: asked.terminal,
        };
        let bundle = PathBuf::from(&asked.bundle);
        let (given, streams) = streams::make(&named)?;
        let mut process = Process::new(&id, "", named);
        let request = Request {
            root: self.root.clone(),
            id: id.clone(),
            bundle: bundle.clone(),
            systemd: options.systemd_cgroup,
            systemd_by_path: true,
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            aot: Some(self.aot.clone()),
            ..Request::default()
        };
        let store = self.store.clone();
        let mut streams = streams;
        let logger = streams.logger.take();
        let logger = logger.as_ref();
        let kept = logger.map(Logger::handles).unwrap_or_default();
        let mounts = asked.rootfs.clone();
        let terminal = asked.terminal;
        let place = bundle.clone();
        let pod = self.sandbox.files();
        let image = (!asked.checkpoint.is_empty()).then(|| PathBuf::from(&asked.checkpoint));
        let restored = image.is_some();
        let job = Job::start(&given, &kept, move |channel| {
            let mut request = request;
            if terminal {
                request.console_channel = Some(std::sync::Arc::clone(channel));
            }
            if let Some(logger) = logger {
                logger.start(&request.id, &store.namespace)?;
                // What it reads is its own: a reader that lives on in the container would never let a writer fail.
                process::keep_only(&[channel.as_fd()]);
            }
            if let Some(pod) = pod {
                sandbox::complete(&pod, &place)?;
            }
            rootfs::make(&place, &mounts)?;
            let made: Result<(), Failure> = match image {
                None => make(&mut request, &store),
                // It goes on at once; the start that follows has nothing to do.
                Some(images) => {
                    let wishes = checkpoint::Wishes { criu: CRIU.into(), images, ..Default::default() };
                    let container = request.clone();
                    let back = restore::Request { container, wishes, detach: true, ..Default::default() };
                    restore::restore(&back).map(drop).map_err(Failure::from)
                }
            };
            let made = made
                .and_then(|()| oci::Container::open(&request.root, &request.id).map_err(Failure::from))
                .map(|made| made.saved().pid);
            made.inspect_err(|_| {
                if !mounts.is_empty() {
                    rootfs::remove(&place);
                }
            })
        })?;
        drop(given);
        self.keep(&mut process, streams);
        let first = self.pod.add(process);
        self.pod.containers.insert(
            id.clone(),
            Container {
                bundle,
                first,
                execs: BTreeMap::new(),
                paused: false,
                shares_processes: false,
                memory: None,
                untold: false,
                restored,
            },
        );
        // What is told when it is there.
        self.created.insert(first, asked);
        self.add_job(job, Task::Create(first), call);
        Ok(Answer::Later)
    }

    /// Keeps what was opened for a process.
    fn keep(&mut self, process: &mut Process, streams: Streams) {
        process.kept = streams.kept;
        process.input = streams.input;
        process.terminal = streams.terminal;
        for pump in streams.pumps {
            let number = self.number();
            self.pumps.insert(number, pump);
            process.pumps.push(number);
        }
    }

    /// Connects the terminal that was made for a process.
    fn connect(&mut self, key: Key, master: OwnedFd) {
        let number = self.number();
        let Some(process) = self.pod.processes.get_mut(&key) else { return };
        let (input, output) = process.terminal.take().unwrap_or_default();
        match Pump::terminal(master, input, output) {
            Ok(pump) => {
                self.pumps.insert(number, pump);
                process.pumps.push(number);
            }
            Err(errno) => self.log.error(&format!("terminal of {}: {errno}", process.name())),
        }
    }

    /// Writes down a process that is started later.
    pub(crate) fn exec(&mut self, asked: ExecProcess) -> Result<Vec<u8>, Failure> {
        if !is_name(&asked.exec_id) {
            let text = format!("invalid exec id {:?}", asked.exec_id);
            return Err(Failure::new(Code::InvalidArgument, text));
        }
        let first = self.pod.process(&asked.id, "")?.phase;
        let container = self.pod.container(&asked.id)?;
        if container.execs.contains_key(&asked.exec_id) {
            let text = format!("process {} of container {} already exists", asked.exec_id, asked.id);
            return Err(Failure::new(Code::AlreadyExists, text));
        }
        if matches!(first, Phase::Creating | Phase::Ended | Phase::Deleting) {
            let text = format!("container {} is not running", asked.id);
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        let Some(spec) = asked.spec else {
            return Err(Failure::new(Code::InvalidArgument, "a process needs a specification"));
        };
        let named = Named {
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
            terminal: asked.terminal,
        };
        let mut process = Process::new(&asked.id, &asked.exec_id, named);
        process.spec = spec.value;
        let key = self.pod.add(process);
        self.pod.container(&asked.id)?.execs.insert(asked.exec_id.clone(), key);
        let event = TaskExec { container_id: asked.id, exec_id: asked.exec_id, pid: 0 };
        self.publisher.publish("/tasks/exec-added", "TaskExecAdded", &event);
        Ok(crate::wire::Message::encode_to_vec(&Empty {}))
    }

    pub(crate) fn start(&mut self, id: &str, exec_id: &str, call: Call) -> Result<Answer, Failure> {
        let key = self.pod.key(id, exec_id)?;
        let process = self.pod.process(id, exec_id)?;
        if process.phase != Phase::Created {
            let text = format!("process {} cannot be started: it is {:?}", process.name(), process.phase);
            return Err(Failure::new(Code::FailedPrecondition, text.to_lowercase()));
        }
        let root = self.root.clone();
        let job = if exec_id.is_empty() {
            let id = id.to_owned();
            let restored = std::mem::take(&mut self.pod.container(&id)?.restored);
            let null = || {
                use rustix::fs::{Mode, OFlags};
                rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                    .map_err(Failure::of("open /dev/null"))
            };
            Job::start(&[null()?, null()?, null()?], &[], move |_| {
                let mut container = oci::Container::open(&root, &id)?;
                if !restored {
                    container.start()?;
                }
                Ok(container.saved().pid)
            })?
        } else {
            self.start_exec(key, id, exec_id)?
        };
        if let Some(process) = self.pod.processes.get_mut(&key) {
            process.phase = Phase::Starting;
        }
        self.add_job(job, Task::Start(key), call);
        Ok(Answer::Later)
    }

    fn start_exec(&mut self, key: Key, id: &str, exec_id: &str) -> Result<Job, Failure> {
        let process = self.pod.process(id, exec_id)?;
        let wrong = Failure::of::<serde_json::Error>(format!("read the specification of process {exec_id}"));
        let mut spec: dhow_runtime::spec::Process = serde_json::from_slice(&process.spec).map_err(wrong)?;
        let terminal = process.named.terminal;
        spec.set_terminal(Some(terminal));
        let (given, mut streams) = streams::make(&process.named.clone())?;
        let logger = streams.logger.take();
        let logger = logger.as_ref();
        let kept = logger.map(Logger::handles).unwrap_or_default();
        let (root, id, store) = (self.root.clone(), id.to_owned(), self.store.clone());
        let aot = self.aot.clone();
        let job = Job::start(&given, &kept, move |channel| {
            if let Some(logger) = logger {
                logger.start(&id, &store.namespace)?;
                process::keep_only(&[channel.as_fd()]);
            }
            let container = oci::Container::open(&root, &id)?;
            // The container's program once more: it is where it was when the container was made.
            let again = container.saved().bare
                && spec.args().iter().flatten().next() == Some(&container.saved().command);
            let artifact = if again { store.find(&id, &container.saved().bundle)? } else { None };
            let request = ExecRequest {
                modules: artifact.as_ref().map(|artifact| artifact.modules.clone()).unwrap_or_default(),
                process: Some(spec),
                detach: true,
                console_channel: terminal.then(|| std::sync::Arc::clone(channel)),
                aot: Some(aot),
                ..ExecRequest::default()
            };
            Ok(exec::exec(&container, &request, None)?.pid())
        })?;
        drop(given);
        if let Some(mut process) = self.pod.processes.remove(&key) {
            self.keep(&mut process, streams);
            self.pod.processes.insert(key, process);
        }
        Ok(job)
    }

    pub(crate) fn delete(&mut self, id: &str, exec_id: &str, call: Call) -> Result<Answer, Failure> {
        let key = self.pod.key(id, exec_id)?;
        let process = self.pod.process(id, exec_id)?;
        let may = match process.phase {
            Phase::Ended => true,
            // One that was never started.
            Phase::Created => true,
            _ => false,
        };
        if !may {
            let text = format!("process {} cannot be deleted: it is {:?}", process.name(), process.phase);
            return Err(Failure::new(Code::FailedPrecondition, text.to_lowercase()));
        }
        if !exec_id.is_empty() {
            let answer = self.deleted(key);
            return Ok(Answer::Now(Ok(crate::wire::Message::encode_to_vec(&answer))));
        }
        process.phase = Phase::Deleting;
        let (root, name) = (self.root.clone(), id.to_owned());
        let bundle = self.pod.container(id)?.bundle.clone();
        let streams = || streams::make(&Named::default());
        let job = Job::start(&streams()?.0, &[], move |_| {
            remove(&root, &name, &bundle)?;
            Ok(0)
        })?;
        self.add_job(job, Task::Delete(key), call);
        Ok(Answer::Later)
    }

    /// Writes a container's processes into a folder. Its end, where it ends, is learned as any other.
    pub(crate) fn checkpoint(&mut self, asked: CheckpointTask, call: Call) -> Result<Answer, Failure> {
        self.pod.container(&asked.id)?;
        let options = options::of_checkpoint(asked.options.as_ref())?;
        let given = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
        let images = given(&options.image_path).or_else(|| given(&asked.path));
        let images =
            images.ok_or_else(|| Failure::new(Code::InvalidArgument, "a checkpoint needs a place"))?;
        let path = images.to_string_lossy().into_owned();
        let request = checkpoint::Request {
            wishes: checkpoint::Wishes {
                criu: CRIU.into(),
                images,
                work: given(&options.work_path),
                tcp_established: options.open_tcp,
                external_sockets: options.external_unix_sockets,
                shell_job: options.terminal,
                file_locks: options.file_locks,
                empty_network: options.empty_namespaces.iter().any(|name| name == "network"),
                ..Default::default()
            },
            leave_running: !options.exit,
            ..Default::default()
        };
        let (root, id) = (self.root.clone(), asked.id.clone());
        let job = Job::start(&streams::make(&Named::default())?.0, &[], move |_| {
            oci::Container::open(&root, &id)?.checkpoint(&request)?;
            Ok(0)
        })?;
        self.add_job(job, Task::Checkpoint(asked.id, path), call);
        Ok(Answer::Later)
    }

    /// Forgets a process, and its container when it was the first one.
    fn deleted(&mut self, key: Key) -> Deleted {
        let Some(process) = self.pod.processes.remove(&key) else { return Deleted::default() };
        let end = process.end(clock::now());
        let (id, exec) = (process.container.clone(), process.exec.clone());
        for waiter in &process.waiters {
            self.reply_with(*waiter, &end);
        }
        self.end_pumps(&process.pumps);
        if exec.is_empty() {
            if let Some(container) = self.pod.containers.remove(&id) {
                for key in container.execs.values() {
                    if let Some(process) = self.pod.processes.remove(key) {
                        let end = process.end(clock::now());
                        process.waiters.iter().for_each(|waiter| self.reply_with(*waiter, &end));
                        self.end_pumps(&process.pumps);
                    }
                }
            }
            let event = TaskDelete {
                container_id: id,
                pid: process.pid,
                exit_status: end.exit_status,
                exited_at: end.exited_at,
                id: String::new(),
            };
            self.publisher.publish("/tasks/delete", "TaskDelete", &event);
        } else if let Some(container) = self.pod.containers.get_mut(&id) {
            container.execs.remove(&exec);
        }
        Deleted { pid: process.pid, exit_status: end.exit_status, exited_at: end.exited_at }
    }

    pub(super) fn end_pumps(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(pump) = self.pumps.get_mut(number) {
                pump.end();
                if !pump.run() {
                    self.pumps.remove(number);
                }
            }
        }
    }

    /// A job has something to say.
    pub(super) fn hear(&mut self, number: u64) {
        let Some((job, ..)) = self.jobs.get_mut(&number) else { return };
        let Some(outcome) = job.hear() else { return };
        let Some((job, task, call)) = self.jobs.remove(&number) else { return };
        match task {
            Task::Create(key) => self.was_created(key, job.console, outcome, call),
            Task::Start(key) => self.was_started(key, job.console, outcome, call),
            Task::StartSandbox => {
                let pid = outcome.as_ref().ok().copied();
                service::sandbox::was_started(self, outcome, call);
                if let Some(status) = pid.and_then(|pid| self.strangers.remove(&pid)) {
                    service::sandbox::ended(self, status);
                }
            }
            Task::StopSandbox => service::sandbox::was_stopped(self, outcome),
            Task::Checkpoint(container_id, path) => {
                if outcome.is_ok() {
                    let event = TaskCheckpointed { container_id, checkpoint: path };
                    self.publisher.publish("/tasks/checkpointed", "TaskCheckpointed", &event);
                }
                self.reply(call, outcome.map(|_| crate::wire::Message::encode_to_vec(&Empty {})));
            }
            Task::Delete(key) => match outcome {
                Ok(_) => {
                    let answer = self.deleted(key);
                    self.reply_with(call, &answer);
                }
                Err(failure) => {
                    if let Some(process) = self.pod.processes.get_mut(&key) {
                        process.phase = Phase::Ended;
                    }
                    self.reply(call, Err(failure));
                }
            },
        }
        if self.jobs.is_empty() {
            self.strangers.clear();
        }
    }

    fn was_created(&mut self, key: Key, console: Option<OwnedFd>, outcome: Result<u32, Failure>, call: Call) {
        let asked = self.created.remove(&key).unwrap_or_default();
        let pid = match outcome {
            Ok(pid) => pid,
            Err(failure) => {
                self.log.error(&format!("create {}: {}", asked.id, failure.text));
                if let Some(process) = self.pod.processes.remove(&key) {
                    self.end_pumps(&process.pumps);
                    process.waiters.iter().for_each(|waiter| self.reply(*waiter, Err(failure.clone())));
                }
                self.pod.containers.remove(&asked.id);
                return self.reply(call, Err(failure));
            }
        };
        if let Some(process) = self.pod.processes.get_mut(&key) {
            process.pid = pid;
            process.phase = Phase::Created;
        }
        if let Some(master) = console {
            self.connect(key, master);
        }
        if let Some(container) = self.pod.containers.get_mut(&asked.id)
            && let Ok(made) = oci::Container::open(&self.root, &asked.id)
        {
            container.shares_processes = !made.saved().own_processes;
            container.memory = made.watch_memory().ok().map(|memory| {
                let before = memory.acknowledge().unwrap_or(0);
                (memory, before)
            });
        }
        let io = TaskIo {
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
            terminal: asked.terminal,
        };
        let event = TaskCreate {
            container_id: asked.id,
            bundle: asked.bundle,
            rootfs: asked.rootfs,
            io: Some(io),
            pid,
        };
        self.publisher.publish("/tasks/create", "TaskCreate", &event);
        self.reply_with(call, &Pid { pid });
        self.tell_early(key);
    }

    fn was_started(&mut self, key: Key, console: Option<OwnedFd>, outcome: Result<u32, Failure>, call: Call) {
        let Some(process) = self.pod.processes.get_mut(&key) else { return };
        match outcome {
            Ok(pid) => {
                process.pid = pid;
                process.phase = Phase::Running;
                let (container_id, exec_id) = (process.container.clone(), process.exec.clone());
                if exec_id.is_empty() {
                    self.publisher.publish("/tasks/start", "TaskStart", &TaskStart { container_id, pid });
                } else {
                    let event = TaskExec { container_id, exec_id, pid };
                    self.publisher.publish("/tasks/exec-started", "TaskExecStarted", &event);
                }
                if let Some(master) = console {
                    self.connect(key, master);
                }
                self.reply_with(call, &Pid { pid });
                self.tell_early(key);
            }
            Err(failure) => {
                self.log.error(&format!("start {}: {}", process.name(), failure.text));
                let end = process.early.take().unwrap_or(NEVER_RAN);
                self.ended(key, end, false);
                self.reply(call, Err(failure));
            }
        }
    }

    /// Tells of an end that came while a job was at it.
    fn tell_early(&mut self, key: Key) {
        let Some(process) = self.pod.processes.get_mut(&key) else { return };
        let stranger = self.strangers.remove(&process.pid);
        if let Some(status) = process.early.take().or(stranger) {
            self.ended(key, status, true);
        }
    }
}

/// Who makes checkpoints, found in `PATH` as by runc's shim.
const CRIU: &str = "criu";
/// What a shell says of a program that cannot be executed.
const NEVER_RAN: u32 = 127;

/// Makes a container; where its root file system does not have its program, with the Wasm code of its image.
fn make(request: &mut Request, store: &Store) -> Result<(), Failure> {
    let bare = artifact::is_empty(&rootfs::place(&request.bundle));
    if !bare {
        let Err(error) = create::create(request) else { return Ok(()) };
        // An image may have layers of files beside its code.
        let found = matches!(error, oci::Error::Start(_)).then(|| store.find(&request.id, &request.bundle));
        let Some(Ok(Some(artifact))) = found else { return Err(error.into()) };
        return with(request, &artifact);
    }
    match store.find(&request.id, &request.bundle) {
        Ok(Some(artifact)) => with(request, &artifact),
        Ok(None) => create::create(request).map_err(Failure::from),
        // An empty root file system can have its program in a volume: what fails is the better answer only if that does.
        Err(failure) => create::create(request).map_err(|_| failure),
    }
}

fn with(request: &mut Request, artifact: &Artifact) -> Result<(), Failure> {
    request.modules.clone_from(&artifact.modules);
    create::create(request).map_err(Failure::from)
}

/// Removes a container and what is mounted for it, however far it has come.
pub(crate) fn remove(root: &Path, id: &str, bundle: &Path) -> Result<(), Failure> {
    match oci::Container::open(root, id).and_then(|container| container.delete(true)) {
        Ok(_) => {}
        Err(oci::Error::NotExist(_)) => container::remove_remains(root, id)?,
        Err(error) => return Err(error.into()),
    }
    rootfs::remove(bundle);
    Ok(())
}
