//! What this host offers.

use dhow_images::Platform;

use crate::engine::Engine;

/// This host as `info` shows it.
#[derive(Debug)]
pub struct Host {
    /// Release of the kernel; empty where there is no such thing to ask.
    pub kernel: String,
    /// Native containers run in a user namespace of this user's.
    pub rootless: bool,
    /// What can run here.
    pub executors: Vec<&'static str>,
    /// How many processors this process may use.
    pub processors: usize,
    /// Bytes of memory; 0 where that is not known.
    pub memory: u64,
    /// Its own name in a network; empty where that is not known.
    pub name: String,
    /// The operating system, as it calls itself.
    pub system: String,
    /// Version of the kernel's control groups: `1` (also beside the other one) or `2`; empty where there are none.
    pub groups: &'static str,
    /// Platforms in the order in which they are preferred.
    pub platforms: Vec<String>,
}

impl Engine {
    /// Looks at this host.
    pub fn host(&self) -> Host {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        #[cfg(target_os = "linux")]
        {
            let names = rustix::system::uname();
            Host {
                kernel: names.release().to_string_lossy().into_owned(),
                processors,
                memory: memory(),
                name: names.nodename().to_string_lossy().into_owned(),
                system: system(),
                groups: groups(),
                rootless: crate::spec::needs_user_namespace(),
                executors: vec!["wasm", "native"],
                platforms: vec![Platform::wasm().to_string(), Platform::host().to_string()],
            }
        }
        #[cfg(not(target_os = "linux"))]
        Host {
            kernel: String::new(),
            processors,
            memory: 0,
            name: String::new(),
            system: std::env::consts::OS.to_owned(),
            groups: "",
            rootless: true,
            executors: vec!["wasm"],
            platforms: vec![Platform::wasm().to_string()],
        }
    }
}

/// The words after this one in a line of a file of the system's.
#[cfg(target_os = "linux")]
fn line(file: &str, word: &str) -> Option<String> {
    let text = fs_err::read_to_string(file).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix(word))?.trim().to_owned())
}

#[cfg(target_os = "linux")]
fn memory() -> u64 {
    let kilobytes = line("/proc/meminfo", "MemTotal:");
    let number = kilobytes.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    number.unwrap_or_default() * 1024
}

#[cfg(target_os = "linux")]
fn system() -> String {
    let name = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|file| line(file, "PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(target_os = "linux")]
fn groups() -> &'static str {
    const CGROUP2: u64 = 0x6367_7270;
    match rustix::fs::statfs("/sys/fs/cgroup") {
        Ok(found) if u64::try_from(found.f_type).is_ok_and(|kind| kind == CGROUP2) => "2",
        Ok(_) => "1",
        Err(_) => "",
    }
}
