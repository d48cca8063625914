//! `info`: what is stored and what this host offers.

use anyhow::Result;
use clap::Args;
use dhow_engine::Status;
use dhow_engine::image::ImageFilters;
use serde_json::json;

use crate::args::Global;
use crate::context;
use crate::template::Template;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// `json`, or a Go template such as `{{.Containers}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &InfoArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let containers = engine.containers()?;
    let (mut running, mut paused) = (0, 0);
    for container in &containers {
        let status = container.state()?.status;
        running += usize::from(status == Status::Running);
        paused += usize::from(status == Status::Paused);
    }
    let stopped = containers.len() - running - paused;
    let images = engine.images(&ImageFilters::default())?.len();
    let usage = engine.store().total_usage().map_err(dhow_engine::Error::from)?;
    let host = engine.host();
    let value = json!({
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": images,
        "DockerRootDir": engine.root().display().to_string(),
        "OSType": std::env::consts::OS,
        "Architecture": std::env::consts::ARCH,
        "KernelVersion": host.kernel,
        "OperatingSystem": host.system,
        "NCPU": host.processors,
        "MemTotal": host.memory,
        "Name": host.name,
        "Driver": "overlay",
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": host.groups,
        "DefaultRuntime": "dhow",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Log": ["json-file", "local"],
        },
        "Rootless": host.rootless,
        "Executors": host.executors,
        "Platforms": host.platforms,
        "Blobs": usage.blobs,
        "Layers": usage.unpacked,
    });
    match args.format.as_deref() {
        None => {}
        Some("json") => {
            ui.line(&value.to_string());
            return Ok(0);
        }
        Some(format) => {
            ui.line(&Template::parse(format)?.render(&value)?);
            return Ok(0);
        }
    }
    ui.print(&format!(
        " Containers: {}\n  Running: {running}\n  Paused: {paused}\n  Stopped: {stopped}\n Images: {images}\n Dhow Version: {}\n \
         Storage: {} in blobs, {} in layers\n Root Dir: {}\n Rootless: {}\n Executors: {}\n Platforms: {}\n \
         Operating System: {}\n OSType: {}\n Architecture: {}\n Kernel Version: {}\n CPUs: {}\n Total Memory: {}\n \
         Name: {}\n Cgroup Version: {}\n",
        containers.len(),
        env!("CARGO_PKG_VERSION"),
        units::human_size(usage.blobs),
        units::human_size(usage.unpacked),
        engine.root().display(),
        host.rootless,
        host.executors.join(" "),
        host.platforms.join(" "),
        host.system,
        std::env::consts::OS,
        std::env::consts::ARCH,
        host.kernel,
        host.processors,
        units::bytes_size(host.memory),
        host.name,
        host.groups,
    ));
    Ok(0)
}
