//! The task service: what is asked, and what is answered. `containerd.task.v2.Task` and `v3` are the same.

pub(crate) mod sandbox;

use crate::wire::Message;
use dhow_runtime::spec::LinuxResources;
use dhow_runtime::{Signal, oci, process};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd as _;

use crate::error::{Code, Failure};
use crate::messages::events::TaskWord;
use crate::messages::{
    Any, CloseIo, Connected, CreateTask, Deleted, Empty, ExecProcess, Id, Kill, Pids, ProcessDetails,
    ProcessInfo, Request, ResizePty, State, Stats, Target, UpdateTask, Waited,
};
use crate::metrics;
use crate::pod::{Call, Phase};
use crate::server::{Answer, Server};

/// Answers a request, or sees to it that it is answered.
pub(crate) fn answer(server: &mut Server, request: &Request, call: Call) -> Answer {
    let done = match request.service.as_str() {
        "containerd.task.v2.Task" | "containerd.task.v3.Task" => task(server, request, call),
        "containerd.runtime.sandbox.v1.Sandbox" => sandbox::answer(server, request, call),
        other => Err(Failure::new(Code::Unimplemented, format!("service {other} is not here"))),
    };
    done.unwrap_or_else(|failure| Answer::Now(Err(failure)))
}

/// A request's message.
pub(crate) fn read<M: Message + Default>(request: &Request) -> Result<M, Failure> {
    M::decode(&request.payload).map_err(|error| {
        Failure::new(Code::InvalidArgument, format!("cannot read the request {}: {error}", request.method))
    })
}

/// An answer that is there.
pub(crate) fn now(message: &impl Message) -> Result<Answer, Failure> {
    Ok(Answer::Now(Ok(message.encode_to_vec())))
}

fn task(server: &mut Server, request: &Request, call: Call) -> Result<Answer, Failure> {
    match request.method.as_str() {
        "Create" => server.create(read::<CreateTask>(request)?, call),
        "Start" => {
            let asked: Target = read(request)?;
            server.start(&asked.id, &asked.exec_id, call)
        }
        "Delete" => {
            let asked: Target = read(request)?;
            server.delete(&asked.id, &asked.exec_id, call)
        }
        "Exec" => server.exec(read::<ExecProcess>(request)?).map(|answer| Answer::Now(Ok(answer))),
        "State" => state(server, &read(request)?),
        "Wait" => wait(server, &read(request)?, call),
        "Kill" => kill(server, &read(request)?),
        "Pids" => pids(server, &read(request)?),
        "Pause" => pause(server, &read(request)?, true),
        "Resume" => pause(server, &read(request)?, false),
        "ResizePty" => resize(server, &read(request)?),
        "CloseIO" => close(server, &read(request)?),
        "Update" => update(server, &read(request)?),
        "Stats" => stats(server, &read(request)?),
        "Connect" => connect(server, &read(request)?),
        "Shutdown" => {
            // Asked after every container; it is meant when there is none left.
            if server.pod.containers.is_empty() && !server.sandbox.is_there() {
                server.leave();
            }
            now(&Empty {})
        }
        "Checkpoint" => server.checkpoint(read(request)?, call),
        other => Err(Failure::new(Code::Unimplemented, format!("method {other} is not here"))),
    }
}

fn state(server: &mut Server, asked: &Target) -> Result<Answer, Failure> {
    let container = server.pod.container(&asked.id)?;
    let (bundle, paused) = (container.bundle.to_string_lossy().into_owned(), container.paused);
    let process = server.pod.process(&asked.id, &asked.exec_id)?;
    let status = match process.phase {
        Phase::Creating => 0,
        Phase::Created | Phase::Starting => 1,
        Phase::Running if paused => 4,
        Phase::Running => 2,
        // An end that is not told yet is none.
        Phase::Ended | Phase::Deleting => 3,
    };
    let end = process.ended.unwrap_or_default();
    now(&State {
        id: asked.id.clone(),
        bundle,
        pid: process.pid,
        status,
        stdin: process.named.stdin.clone(),
        stdout: process.named.stdout.clone(),
        stderr: process.named.stderr.clone(),
        terminal: process.named.terminal,
        exit_status: end.exit_status,
        exited_at: end.exited_at,
        exec_id: asked.exec_id.clone(),
    })
}

fn wait(server: &mut Server, asked: &Target, call: Call) -> Result<Answer, Failure> {
    let untold = server.pod.container(&asked.id)?.untold && asked.exec_id.is_empty();
    let process = server.pod.process(&asked.id, &asked.exec_id)?;
    match process.ended {
        Some(end) if !untold => now(&end),
        _ => {
            process.waiters.push(call);
            Ok(Answer::Later)
        }
    }
}

fn kill(server: &mut Server, asked: &Kill) -> Result<Answer, Failure> {
    let number = u8::try_from(asked.signal).ok().and_then(Signal::from_number);
    let wrong = || Failure::new(Code::InvalidArgument, format!("unknown signal {}", asked.signal));
    let signal = number.ok_or_else(wrong)?;
    let root = server.root.clone();
    let process = server.pod.process(&asked.id, &asked.exec_id)?;
    let gone = || Failure::new(Code::NotFound, "process already finished");
    if asked.exec_id.is_empty() {
        if process.ended.is_some() && !asked.all {
            return Err(gone());
        }
        if process.phase == Phase::Creating {
            return Err(Failure::new(
                Code::FailedPrecondition,
                format!("container {} is being made", asked.id),
            ));
        }
        match oci::Container::open(&root, &asked.id).and_then(|container| container.kill(signal, asked.all)) {
            Ok(()) => {}
            Err(oci::Error::NotRunning(_) | oci::Error::NotExist(_)) => return Err(gone()),
            Err(error) => return Err(error.into()),
        }
        return now(&Empty {});
    }
    if process.ended.is_some() {
        return Err(gone());
    }
    // Not buried, so the number is nobody else's.
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid.filter(|_| process.phase == Phase::Running) else {
        let text = format!("process {} is not started", asked.exec_id);
        return Err(Failure::new(Code::FailedPrecondition, text));
    };
    let held = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    process::send(held.as_fd(), signal).map_err(|_| gone())?;
    now(&Empty {})
}

fn pids(server: &mut Server, asked: &Id) -> Result<Answer, Failure> {
    server.pod.container(&asked.id)?;
    let all = oci::Container::open(&server.root, &asked.id)?.pids()?;
    let info = |pid: u32| {
        let key = server.pod.by_pid(pid)?;
        let exec = &server.pod.processes.get(&key)?.exec;
        let details = ProcessDetails { exec_id: exec.clone() };
        (!exec.is_empty()).then(|| Any::of("containerd.runc.v1.ProcessDetails", &details))
    };
    let mut processes: Vec<ProcessInfo> =
        all.into_iter().map(|pid| ProcessInfo { pid, info: info(pid) }).collect();
    // From 1.7 on, a containerd that comes back takes one without processes for one that was never made, and has it removed with
    // its exit code. One that has ended is there until it is deleted, with the number that `State` tells.
    if processes.is_empty() {
        let pid = server.pod.process(&asked.id, "")?.pid;
        processes.push(ProcessInfo { pid, info: None });
    }
    now(&Pids { processes })
}

fn pause(server: &mut Server, asked: &Id, pauses: bool) -> Result<Answer, Failure> {
    server.pod.container(&asked.id)?;
    let mut container = oci::Container::open(&server.root, &asked.id)?;
    if pauses {
        container.pause()?;
    } else {
        container.resume()?;
    }
    server.pod.container(&asked.id)?.paused = pauses;
    let word = TaskWord { container_id: asked.id.clone() };
    if pauses {
        server.publisher.publish("/tasks/paused", "TaskPaused", &word);
    } else {
        server.publisher.publish("/tasks/resumed", "TaskResumed", &word);
    }
    now(&Empty {})
}

fn resize(server: &mut Server, asked: &ResizePty) -> Result<Answer, Failure> {
    let number = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let process = server.pod.process(&asked.id, &asked.exec_id)?;
    let pumps = process.pumps.clone();
    server.resize(&pumps, number(asked.width), number(asked.height))?;
    now(&Empty {})
}

fn close(server: &mut Server, asked: &CloseIo) -> Result<Answer, Failure> {
    let process = server.pod.process(&asked.id, &asked.exec_id)?;
    if asked.stdin {
        process.input = None;
    }
    now(&Empty {})
}

fn update(server: &mut Server, asked: &UpdateTask) -> Result<Answer, Failure> {
    server.pod.container(&asked.id)?;
    let Some(any) = &asked.resources else {
        return Err(Failure::new(Code::InvalidArgument, "no resources"));
    };
    let wrong = |error: serde_json::Error| {
        Failure::new(Code::InvalidArgument, format!("cannot read the resources: {error}"))
    };
    let resources: LinuxResources = serde_json::from_slice(&any.value).map_err(wrong)?;
    oci::Container::open(&server.root, &asked.id)?.update(&resources)?;
    now(&Empty {})
}

fn stats(server: &mut Server, asked: &Id) -> Result<Answer, Failure> {
    let kills = server.pod.container(&asked.id)?.memory.as_ref().map_or(0, |(_, kills)| *kills);
    let container = oci::Container::open(&server.root, &asked.id)?;
    // Version 2 has one folder without a controller's name; what is beside it is for other things.
    let paths = &container.saved().cgroup_paths;
    let is_unified = !paths.contains_key("memory") && !paths.contains_key("cpu");
    now(&Stats { stats: Some(metrics::of(&container.stats(), is_unified, kills)) })
}

fn connect(server: &mut Server, asked: &Id) -> Result<Answer, Failure> {
    let pid = server.pod.process(&asked.id, "").map(|process| process.pid).unwrap_or(0);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    now(&Connected { shim_pid: std::process::id(), task_pid: pid, version })
}

/// What a container that is gone has left to say, for the verb `delete`.
pub(crate) fn killed(pid: u32) -> Deleted {
    let Waited { exit_status, exited_at } =
        Waited { exit_status: crate::pod::KILLED, exited_at: Some(crate::clock::now()) };
    Deleted { pid, exit_status, exited_at }
}
