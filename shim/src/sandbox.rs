//! A pod without a pause container: the process that holds its namespaces, and the files that its containers share.
//!
//! ```text
//! <bundle of the pod>/pod         nothing but `/bin/pause`, see `hold`; containerd wants `rootfs` to stay empty
//!                    /config.json what its container is
//!                    /shm         the pod's shared memory, mounted for its containers
//!                    /hostname, hosts, resolv.conf
//! ```
//! containerd writes into each container's specification that it joins the namespaces of the process that the sandbox
//! service names, whatever that is: of the shim itself they are the host's. So each pod gets a process of its own, which is a
//! container like any other for `dhow_runtime::oci`, with no rights at all.
//!
//! With its own pause containers containerd also makes the files; here it mounts them only where it finds them in its own
//! folders, which nobody else writes to. So they are put into the specifications of the pod's containers instead.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dhow_runtime::oci;
use dhow_runtime::oci::create::{self, Request};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Map, Value, json};

use crate::error::{Code, Failure};
use crate::hold;
use crate::messages::Any;
use crate::messages::sandbox::{Dns, PodConfig, PodNamespaces};
use crate::wire::Message as _;

/// The root of the process that holds a pod together, in the pod's bundle.
const ROOT: &str = "pod";
/// Kubernetes' words for where a namespace is from.
const NODE: i32 = 2;
/// As the pause container's image has it: nobody.
const NOBODY: u32 = 65535;
/// As containerd gives the shared memory of pods.
const SHM: &str = "mode=1777,size=67108864";
/// As containerd's pause containers have it: the last to go when there is no memory left.
const SCORE: i32 = -998;
/// What containerd allows programs of pods that have a network of their own, unless the pod says otherwise.
const NETWORK_DEFAULTS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// What a pod is to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    /// Where its network namespace is; it gets a new one without.
    pub(crate) network: String,
    pub(crate) config: PodConfig,
}

/// What is said of a pod.
///
/// # Errors
/// For words that nobody knows, or that cannot be meant here.
pub(crate) fn config(given: Option<&Any>) -> Result<PodConfig, Failure> {
    let Some(any) = given.filter(|any| !any.type_url.is_empty()) else { return Ok(PodConfig::default()) };
    let wrong = |what: String| Failure::new(Code::InvalidArgument, format!("pod: {what}"));
    if any.kind() != "runtime.v1.PodSandboxConfig" {
        return Err(wrong(format!("unknown type {:?}", any.kind())));
    }
    let config = PodConfig::decode(&any.value).map_err(|error| wrong(error.to_string()))?;
    if namespaces(&config).users.is_some_and(|users| users.mode != NODE) {
        let text =
            "pods with a user namespace need a pause container: take sandboxer = \"podsandbox\" for them";
        return Err(Failure::new(Code::Unimplemented, text));
    }
    Ok(config)
}

fn namespaces(config: &PodConfig) -> PodNamespaces {
    let security = config.linux.as_ref().and_then(|linux| linux.security.as_ref());
    security.and_then(|security| security.namespaces.clone()).unwrap_or_default()
}

impl Pod {
    /// Makes everything; gives the number of the process that holds it together.
    ///
    /// # Errors
    /// When something cannot be made; nothing is left then.
    pub(crate) fn make(&self, root: &Path, aot: &Path) -> Result<u32, Failure> {
        let made = self.make_files().and_then(|()| self.hold(root, aot));
        made.inspect_err(|_| {
            remove(root, &self.id, &self.bundle).ok();
        })
    }

    fn make_files(&self) -> Result<(), Failure> {
        let write = |name: &str, text: &[u8]| {
            let path = self.bundle.join(name);
            fs_err::write(&path, text).map_err(Failure::of(format!("write the pod's {name}")))
        };
        let host = |path: &str| fs_err::read(path).unwrap_or_default();
        write("hostname", format!("{}\n", self.name()).as_bytes())?;
        write("hosts", &host("/etc/hosts"))?;
        match &self.config.dns {
            Some(dns) => write("resolv.conf", resolver(dns).as_bytes())?,
            None => write("resolv.conf", &host("/etc/resolv.conf"))?,
        }
        if namespaces(&self.config).ipc != NODE {
            let shm = self.bundle.join("shm");
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let data = std::ffi::CString::new(SHM).map_err(Failure::of("mount the pod's shared memory"))?;
            fs_err::create_dir_all(&shm).map_err(Failure::of("mount the pod's shared memory"))?;
            mount("shm", &shm, "tmpfs", flags, Some(data.as_c_str()))
                .map_err(Failure::of("mount the pod's shared memory"))?;
        }
        Ok(())
    }

    fn hold(&self, root: &Path, aot: &Path) -> Result<u32, Failure> {
        let failed = || Failure::of("make the pod's own process");
        let program = hold::program().ok_or_else(|| {
            let text = "pods need a pause container on this processor: take sandboxer = \"podsandbox\"";
            Failure::new(Code::Unimplemented, text)
        })?;
        let folder = self.bundle.join(ROOT);
        let path = folder.join("bin/pause");
        fs_err::create_dir_all(folder.join("bin")).map_err(failed())?;
        fs_err::write(&path, program).map_err(failed())?;
        // Whatever this process's mask takes away: it is not run by root.
        for path in [&folder, &folder.join("bin"), &path] {
            fs_err::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed())?;
        }
        let (group, systemd) = self.group();
        let spec = self.spec(group.as_deref()).to_string();
        fs_err::write(self.bundle.join("config.json"), spec).map_err(failed())?;
        let request = Request {
            root: root.to_owned(),
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            systemd,
            aot: Some(aot.to_owned()),
            ..Request::default()
        };
        create::create(&request)?;
        let mut container = oci::Container::open(root, &self.id)?;
        container.start()?;
        Ok(container.saved().pid)
    }

    /// Its host's name, unless it has its own.
    fn name(&self) -> String {
        match self.config.hostname.as_str() {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        }
    }

    /// The control group, in the pod's own, and whether systemd makes it.
    fn group(&self) -> (Option<String>, bool) {
        let parent = self.config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let last = parent.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        match parent {
            "" => (None, false),
            _ if last.ends_with(".slice") => (Some(format!("{last}:cri-containerd:{}", self.id)), true),
            _ => (Some(format!("{}/{}", parent.trim_end_matches('/'), self.id)), false),
        }
    }

    fn spec(&self, group: Option<&str>) -> Value {
        let wanted = namespaces(&self.config);
        let mut kinds = vec![json!({ "type": "mount" })];
        let mut sysctls: Map<String, Value> = Map::new();
        let given = self.config.linux.as_ref().map(|linux| &linux.sysctls);
        sysctls.extend(given.into_iter().flatten().map(|(key, value)| (key.clone(), json!(value))));
        let mut name = None;
        if wanted.network != NODE {
            kinds.push(match self.network.as_str() {
                "" => json!({ "type": "network" }),
                path => json!({ "type": "network", "path": path }),
            });
            // A pod in the host's network has the host's name.
            kinds.push(json!({ "type": "uts" }));
            name = Some(self.name());
            for (key, value) in NETWORK_DEFAULTS {
                sysctls.entry(key).or_insert_with(|| json!(value));
            }
        }
        if wanted.ipc != NODE {
            kinds.push(json!({ "type": "ipc" }));
        }
        if wanted.pid != NODE {
            kinds.push(json!({ "type": "pid" }));
        }
        let none: [&str; 0] = [];
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/bin/pause"],
                "cwd": "/",
                "user": { "uid": NOBODY, "gid": NOBODY },
                "noNewPrivileges": true,
                "oomScoreAdj": SCORE,
                "capabilities": { "bounding": none, "effective": none, "permitted": none },
            },
            "root": { "path": ROOT, "readonly": true },
            // A file system of its own: from `/run`, where the bundle is, nothing may be executed.
            "mounts": [{
                "destination": "/bin", "type": "tmpfs", "source": "pause",
                "options": ["tmpcopyup", "nosuid", "nodev", "mode=755", "size=64k"],
            }],
            "linux": { "namespaces": kinds, "sysctl": sysctls },
        });
        if let Some(name) = name {
            spec["hostname"] = json!(name);
        }
        if let Some(group) = group {
            spec["linux"]["cgroupsPath"] = json!(group);
        }
        spec
    }
}

/// As `resolv.conf` has it.
fn resolver(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Removes whatever there is of a pod's own.
///
/// # Errors
/// When its process cannot be ended.
pub(crate) fn remove(root: &Path, id: &str, bundle: &Path) -> Result<(), Failure> {
    let removed = crate::server::life::remove(root, id, bundle);
    unmount(bundle.join("shm"), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
    removed
}

/// Gives a container the files of its pod: what its specification has at these places already stays, but for a shared memory of
/// its own.
///
/// # Errors
/// When the specification cannot be read or written. What is wrong in it is left to who makes the container.
pub(crate) fn complete(pod: &Path, container: &Path) -> Result<(), Failure> {
    let path = container.join("config.json");
    let failed = || Failure::of(format!("put the pod's files into {}", path.display()));
    let text = fs_err::read(&path).map_err(failed())?;
    let Ok(mut spec) = serde_json::from_slice::<Value>(&text) else { return Ok(()) };
    let access = match spec["root"]["readonly"].as_bool() {
        Some(true) => "ro",
        _ => "rw",
    };
    if spec["mounts"].is_null() {
        spec["mounts"] = json!([]);
    }
    let Some(mounts) = spec["mounts"].as_array_mut() else { return Ok(()) };
    let files = ["hostname", "hosts", "resolv.conf"].map(|name| (name, format!("/etc/{name}"), access));
    for (name, place, access) in files.into_iter().chain([("shm", "/dev/shm".to_owned(), "rw")]) {
        let source = pod.join(name);
        if !source.exists() {
            continue;
        }
        let mount = json!({
            "destination": place, "type": "bind", "source": source, "options": ["rbind", "rprivate", access],
        });
        match mounts.iter_mut().find(|one| one["destination"] == json!(place)) {
            Some(own) if own["type"] == "tmpfs" && name == "shm" => *own = mount,
            Some(_) => {}
            None => mounts.push(mount),
        }
    }
    fs_err::write(&path, spec.to_string()).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::sandbox::{LinuxPod, PodSecurity, PodUsers};

    fn pod(namespaces: PodNamespaces) -> Pod {
        let linux = LinuxPod {
            cgroup_parent: "/kubepods/pod1/".into(),
            security: Some(PodSecurity { namespaces: Some(namespaces) }),
            ..LinuxPod::default()
        };
        let config = PodConfig { hostname: "web".into(), linux: Some(linux), ..PodConfig::default() };
        Pod { id: "one".into(), network: "/run/netns/a".into(), config, ..Pod::default() }
    }

    fn kinds(pod: &Pod) -> Vec<String> {
        let spec = pod.spec(None);
        let kinds = spec["linux"]["namespaces"].as_array().unwrap().iter();
        kinds.map(|kind| kind["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_pod_has_the_namespaces_that_it_does_not_share_with_its_node() {
        let own = pod(PodNamespaces::default());
        assert_eq!(kinds(&own), ["mount", "network", "uts", "ipc", "pid"]);
        let spec = own.spec(None);
        assert_eq!(spec["linux"]["namespaces"][1]["path"], "/run/netns/a");
        assert_eq!(spec["hostname"], "web");
        assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
        let nodes = pod(PodNamespaces { network: NODE, pid: NODE, ipc: NODE, users: None });
        assert_eq!(kinds(&nodes), ["mount"]);
        let spec = nodes.spec(None);
        assert!(spec["hostname"].is_null() && spec["linux"]["sysctl"] == json!({}), "{spec}");
    }

    /// Without one it would be in the host's.
    #[test]
    fn a_pod_that_is_given_no_network_gets_an_empty_one() {
        let spec = Pod::default().spec(None);
        assert_eq!(spec["linux"]["namespaces"][1], json!({ "type": "network" }));
    }

    #[test]
    fn groups_are_in_the_pod_s() {
        let mut pod = pod(PodNamespaces::default());
        assert_eq!(pod.group(), (Some("/kubepods/pod1/one".into()), false));
        pod.config.linux.as_mut().unwrap().cgroup_parent = "/kubepods.slice/kubepods-pod1.slice".into();
        assert_eq!(pod.group(), (Some("kubepods-pod1.slice:cri-containerd:one".into()), true));
        pod.config.linux = None;
        assert_eq!(pod.group(), (None, false));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let users = |mode| pod(PodNamespaces { users: Some(PodUsers { mode }), ..Default::default() }).config;
        let any = |config: &PodConfig| Any::of("k8s.io/runtime.v1.PodSandboxConfig", config);
        assert_eq!(config(Some(&any(&users(0)))).unwrap_err().code, Code::Unimplemented);
        assert_eq!(config(Some(&any(&users(NODE)))).unwrap(), users(NODE));
        assert_eq!(config(None).unwrap(), PodConfig::default());
        let broken = Any { type_url: "runtime.v1.PodSandboxConfig".into(), value: b"\xff".to_vec() };
        let other = Any { type_url: "some.Config".into(), value: Vec::new() };
        for given in [broken, other] {
            assert_eq!(config(Some(&given)).unwrap_err().code, Code::InvalidArgument);
        }
    }

    #[test]
    fn resolvers_are_written_down() {
        let dns = Dns {
            servers: vec!["10.0.0.1".into(), "10.0.0.2".into()],
            searches: vec!["a.b".into(), "c".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search a.b c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n";
        assert_eq!(resolver(&dns), text);
        assert_eq!(resolver(&Dns::default()), "");
    }

    #[test]
    fn containers_get_what_they_have_not() {
        let dir = tempfile::tempdir().unwrap();
        let (pod, container) = (dir.path().join("pod"), dir.path().join("one"));
        for path in [&pod, &container] {
            fs_err::create_dir(path).unwrap();
        }
        for name in ["hostname", "hosts", "shm"] {
            fs_err::write(pod.join(name), "").unwrap();
        }
        let before = json!({
            "root": { "readonly": true },
            "mounts": [
                { "destination": "/dev/shm", "type": "tmpfs" },
                { "destination": "/etc/hosts", "type": "bind", "source": "/its/own" },
            ],
        });
        fs_err::write(container.join("config.json"), before.to_string()).unwrap();
        complete(&pod, &container).unwrap();
        let after: Value =
            serde_json::from_slice(&fs_err::read(container.join("config.json")).unwrap()).unwrap();
        let mounts = after["mounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 3, "{after}");
        assert_eq!(mounts[0]["source"], json!(pod.join("shm")));
        assert_eq!(mounts[0]["options"], json!(["rbind", "rprivate", "rw"]));
        assert_eq!(mounts[1]["source"], "/its/own");
        assert_eq!(mounts[2]["destination"], "/etc/hostname");
        assert_eq!(mounts[2]["options"], json!(["rbind", "rprivate", "ro"]));
        // Nor is anything made of what is no specification.
        fs_err::write(container.join("config.json"), "{").unwrap();
        complete(&pod, &container).unwrap();
        assert_eq!(fs_err::read_to_string(container.join("config.json")).unwrap(), "{");
    }
}
