//! The sandbox service: a pod whose sandbox is this process and a network namespace that containerd has made, without a
//! pause container (containerd 2, `sandboxer = "shim"`).

use std::collections::HashMap;

use super::{now, read};
use crate::clock;
use crate::error::{Code, Failure};
use crate::messages::sandbox::{
    CreateSandbox, Metric, Platform, PlatformAnswer, SandboxMetrics, SandboxStarted, SandboxStatus,
};
use crate::messages::{Empty, Id, Request, Timestamp, Waited};
use crate::pod::Call;
use crate::server::{Answer, Server};

/// How far it has come.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    id: String,
    network: String,
    created: Option<Timestamp>,
    is_ready: bool,
    ended: Option<Waited>,
    waiters: Vec<Call>,
}

impl Sandbox {
    /// There is one, so the server stays when it has no containers.
    pub(crate) fn is_there(&self) -> bool {
        self.created.is_some()
    }
}

pub(crate) fn answer(server: &mut Server, request: &Request, call: Call) -> Result<Answer, Failure> {
    match request.method.as_str() {
        "CreateSandbox" => {
            let asked: CreateSandbox = read(request)?;
            if server.sandbox.is_there() {
                let text = format!("sandbox {} already exists", server.sandbox.id);
                return Err(Failure::new(Code::AlreadyExists, text));
            }
            server.sandbox = Sandbox {
                id: asked.sandbox_id,
                network: asked.netns_path,
                created: Some(clock::now()),
                ..Sandbox::default()
            };
            return now(&Empty {});
        }
        "Platform" => {
            let platform = Platform { os: "linux".to_owned(), architecture: architecture().to_owned() };
            return now(&PlatformAnswer { platform: Some(platform) });
        }
        _ => {}
    }
    let asked: Id = read(request)?;
    let Some(created) = server.sandbox.created.filter(|_| server.sandbox.id == asked.id) else {
        return Err(Failure::new(Code::NotFound, format!("sandbox {} not found", asked.id)));
    };
    match request.method.as_str() {
        "StartSandbox" => {
            server.sandbox.is_ready = true;
            now(&SandboxStarted { pid: std::process::id(), created_at: Some(created) })
        }
        "StopSandbox" => {
            stop(server);
            now(&Empty {})
        }
        "WaitSandbox" => match server.sandbox.ended {
            Some(end) => now(&end),
            None => {
                server.sandbox.waiters.push(call);
                Ok(Answer::Later)
            }
        },
        "SandboxStatus" => {
            let sandbox = &server.sandbox;
            let state = if sandbox.is_ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" };
            let info = HashMap::from([("netns".to_owned(), sandbox.network.clone())]);
            now(&SandboxStatus {
                sandbox_id: sandbox.id.clone(),
                pid: std::process::id(),
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
        "ShutdownSandbox" => {
            stop(server);
            server.sandbox = Sandbox::default();
            server.leave();
            now(&Empty {})
        }
        other => Err(Failure::new(Code::Unimplemented, format!("method {other} is not here"))),
    }
}

fn stop(server: &mut Server) {
    server.sandbox.is_ready = false;
    let end = Waited { exit_status: 0, exited_at: Some(clock::now()) };
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
