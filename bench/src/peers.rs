//! The peers: whether they are installed, and private instances of those that need preparation.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::made::{Image, is_root, tool, until};
use crate::world::World;

/// Finds a program, or says that it is left out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        println!("({program} is not installed: left out)");
    }
    found
}

/// The first line of `PROGRAM --version`, shortened to name and number.
pub(crate) fn version(program: &Path) -> String {
    let output =
        Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let number = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{name} {}", number.unwrap_or("?").trim_end_matches([',', '\n']))
}

/// A private dockerd with its own containerd; ends with its value.
#[derive(Debug)]
pub(crate) struct Docker {
    daemon: Child,
    host: String,
    /// Shown in the table.
    pub(crate) name: String,
}

impl Docker {
    /// Starts it, where docker and dockerd are installed and we may.
    pub(crate) fn start(world: &World) -> Result<Option<Self>> {
        let (Some(client), Some(daemon)) = (find("docker"), find("dockerd")) else { return Ok(None) };
        if !is_root() {
            return Ok(None);
        }
        let dir = world.folder("docker")?;
        let host = format!("unix://{}", dir.join("socket").display());
        let log = fs_err::File::create(dir.join("log"))?.into_parts().0;
        let name = format!("{}, {}", version(&client), version(&daemon));
        // It must not outlive this process, however that ends.
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(daemon)
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .args(["--host", &host, "--bridge=none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let docker = Self { daemon, host, name };
        until("dockerd", || {
            docker.call(["version"]).output().is_ok_and(|output| output.status.success()).then_some(())
        });
        Ok(Some(docker))
    }

    /// A call of its client.
    pub(crate) fn call<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host).args(args);
        command
    }

    /// Puts an image of one layer into it.
    pub(crate) fn import(&self, name: &str, image: &Image) -> Result<()> {
        let Image::Single(single) = image else { anyhow::bail!("an index cannot be imported") };
        let archive = tempfile::NamedTempFile::new()?;
        fs_err::write(archive.path(), &single.layers[0])?;
        tool(self.call(["import", "-c", "ENV PATH=/bin"]).arg(archive.path()).arg(name));
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // A polite end lets it take its containerd and mounts along.
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.daemon.wait().ok();
    }
}

/// An OCI bundle that runs `args`: the runtime's own default specification without a terminal.
pub(crate) fn bundle(world: &World, runtime: &Path, image: &Image, args: &[&str]) -> Result<PathBuf> {
    let Image::Single(single) = image else { anyhow::bail!("an index is no bundle") };
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    let bundle = world.folder(&format!("bundle-{name}"))?;
    let rootfs = bundle.join("rootfs");
    fs_err::create_dir_all(&rootfs)?;
    for layer in &single.layers {
        tar::Archive::new(layer.as_slice()).unpack(&rootfs)?;
    }
    tool(Command::new(runtime).arg("spec").current_dir(&bundle));
    let file = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs_err::read(&file)?)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = args.into();
    // Root here may lack the right to raise limits.
    spec["process"]["rlimits"] = Value::Array(Vec::new());
    fs_err::write(&file, spec.to_string())?;
    Ok(bundle)
}
