//! The sandbox service: a pod without a pause container (containerd 2, `sandboxer = "shim"`). What it consists of is
//! `crate::sandbox`'s; here it is asked for, and told about.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{now, read};
use crate::clock;
use crate::error::{Code, Failure};
use crate::flags::is_name;
use crate::job::Job;
use crate::messages::sandbox::{
    CreateSandbox, Metric, Platform, PlatformAnswer, SandboxMetrics, SandboxStarted, SandboxStatus,
};
use crate::messages::{Empty, Id, Request, Timestamp, Waited};
use crate::pod::Call;
use crate::sandbox::{self, Pod};
use crate::server::{Answer, Server, Task};
use crate::streams::{self, Named};

/// How far it has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It was described.
    #[default]
    Made,
    /// A job makes what it consists of.
    Starting,
    Ready,
    /// A job removes that.
    Stopping,
    Gone,
}

/// The pod's.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    pod: Pod,
    /// The process that holds it together; 0 as long as there is none.
    pid: u32,
    phase: Phase,
    created: Option<Timestamp>,
    ended: Option<Waited>,
    waiters: Vec<Call>,
    /// Who wants it to be gone, and whether the server is to go then, too.
    stoppers: Vec<(Call, bool)>,
}

impl Sandbox {
    /// There is one, so the server stays when it has no containers.
    pub(crate) fn is_there(&self) -> bool {
        self.created.is_some()
    }

    /// Where the files of its containers are, while there are any.
    pub(crate) fn files(&self) -> Option<PathBuf> {
        (self.phase == Phase::Ready).then(|| self.pod.bundle.clone())
    }

    /// This process holds it together.
    pub(crate) fn is_held_by(&self, pid: u32) -> bool {
        self.pid == pid && self.ended.is_none()
    }
}

pub(crate) fn answer(server: &mut Server, request: &Request, call: Call) -> Result<Answer, Failure> {
    match request.method.as_str() {
        "CreateSandbox" => {
            create(server, read(request)?)?;
            return now(&Empty {});
        }
        "Platform" => {
            let platform = Platform { os: "linux".to_owned(), architecture: architecture().to_owned() };
            return now(&PlatformAnswer { platform: Some(platform) });
        }
        _ => {}
    }
    let asked: Id = read(request)?;
    let Some(created) = server.sandbox.created.filter(|_| server.sandbox.pod.id == asked.id) else {
        return Err(Failure::new(Code::NotFound, format!("sandbox {} not found", asked.id)));
    };
    match request.method.as_str() {
        "StartSandbox" => start(server, call),
        "StopSandbox" => stop(server, call, false),
        "WaitSandbox" => match server.sandbox.ended {
            Some(end) => now(&end),
            None => {
                server.sandbox.waiters.push(call);
                Ok(Answer::Later)
            }
        },
        "SandboxStatus" => {
            let sandbox = &server.sandbox;
            let is_ready = sandbox.phase == Phase::Ready && sandbox.ended.is_none();
            let state = if is_ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" };
            let info = HashMap::from([("netns".to_owned(), sandbox.pod.network.clone())]);
            now(&SandboxStatus {
                sandbox_id: asked.id,
                pid: sandbox.pid,
                state: state.to_owned(),
                info,
                created_at: Some(created),
                exited_at: sandbox.ended.and_then(|end| end.exited_at),
            })
        }
        "PingSandbox" => now(&Empty {}),
        "SandboxMetrics" => {
            let metric = Metric { timestamp: Some(clock::now()), id: asked.id, data: None };
            now(&SandboxMetrics { metrics: Some(metric) })
        }
        "ShutdownSandbox" => stop(server, call, true),
        other => Err(Failure::new(Code::Unimplemented, format!("method {other} is not here"))),
    }
}

fn create(server: &mut Server, asked: CreateSandbox) -> Result<(), Failure> {
    if server.sandbox.is_there() {
        let text = format!("sandbox {} already exists", server.sandbox.pod.id);
        return Err(Failure::new(Code::AlreadyExists, text));
    }
    if !is_name(&asked.sandbox_id) {
        let text = format!("invalid sandbox id {:?}", asked.sandbox_id);
        return Err(Failure::new(Code::InvalidArgument, text));
    }
    let config = sandbox::config(asked.options.as_ref())?;
    let bundle = PathBuf::from(asked.bundle_path);
    let pod = Pod { id: asked.sandbox_id, bundle, network: asked.netns_path, config };
    server.sandbox = Sandbox { pod, created: Some(clock::now()), ..Sandbox::default() };
    Ok(())
}

fn start(server: &mut Server, call: Call) -> Result<Answer, Failure> {
    if server.sandbox.phase != Phase::Made {
        let text = format!("sandbox {} was started before", server.sandbox.pod.id);
        return Err(Failure::new(Code::FailedPrecondition, text));
    }
    let (pod, root, aot) = (server.sandbox.pod.clone(), server.root.clone(), server.aot.clone());
    let streams = streams::make(&Named::default())?.0;
    let job = Job::start(&streams, &[], move |_| pod.make(&root, &aot))?;
    server.sandbox.phase = Phase::Starting;
    server.add_job(job, Task::StartSandbox, call);
    Ok(Answer::Later)
}

/// Its job has something to say.
pub(crate) fn was_started(server: &mut Server, outcome: Result<u32, Failure>, call: Call) {
    match outcome {
        Ok(pid) => {
            server.sandbox.pid = pid;
            server.sandbox.phase = Phase::Ready;
            server.reply_with(call, &SandboxStarted { pid, created_at: server.sandbox.created });
        }
        Err(failure) => {
            server.log.error(&format!("start sandbox {}: {}", server.sandbox.pod.id, failure.text));
            // Nothing is left of it.
            server.sandbox.phase = Phase::Gone;
            server.reply(call, Err(failure));
        }
    }
}

fn stop(server: &mut Server, call: Call, leaves: bool) -> Result<Answer, Failure> {
    match server.sandbox.phase {
        Phase::Starting => {
            let text = format!("sandbox {} is being started", server.sandbox.pod.id);
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        Phase::Made | Phase::Gone => {
            server.sandbox.stoppers.push((call, leaves));
            was_stopped(server, Ok(0));
            return Ok(Answer::Later);
        }
        Phase::Stopping => {}
        Phase::Ready => {
            let (id, bundle) = (server.sandbox.pod.id.clone(), server.sandbox.pod.bundle.clone());
            let root = server.root.clone();
            let streams = streams::make(&Named::default())?.0;
            let job = Job::start(&streams, &[], move |_| sandbox::remove(&root, &id, &bundle).map(|()| 0))?;
            server.sandbox.phase = Phase::Stopping;
            server.add_job(job, Task::StopSandbox, call);
        }
    }
    server.sandbox.stoppers.push((call, leaves));
    Ok(Answer::Later)
}

/// It is gone, or could not be removed.
pub(crate) fn was_stopped(server: &mut Server, outcome: Result<u32, Failure>) {
    let stoppers = std::mem::take(&mut server.sandbox.stoppers);
    if let Err(failure) = outcome {
        server.sandbox.phase = Phase::Ready;
        stoppers.into_iter().for_each(|(call, _)| server.reply(call, Err(failure.clone())));
        return;
    }
    server.sandbox.phase = Phase::Gone;
    ended(server, 0);
    if let Some((call, _)) = stoppers.iter().find(|(_, leaves)| *leaves) {
        server.sandbox = Sandbox::default();
        server.leave_after(*call);
    }
    stoppers.into_iter().for_each(|(call, _)| server.reply_with(call, &Empty {}));
}

/// What held it together is no more. By itself, that is no reason to remove the rest: who asked for it will.
pub(crate) fn ended(server: &mut Server, exit_status: u32) {
    let end = Waited { exit_status, exited_at: Some(clock::now()) };
    let end = *server.sandbox.ended.get_or_insert(end);
    let waiters = std::mem::take(&mut server.sandbox.waiters);
    waiters.into_iter().for_each(|waiter| server.reply_with(waiter, &end));
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
