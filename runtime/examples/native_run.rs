//! Runs a program of a directory in a sandbox like Docker's, without an image, an engine or a daemon.
//!
//! ```text
//! native_run [-t] [-u UID] [-v FROM:TO]... [--layers N] ROOTFS PROGRAM [ARGUMENT]...
//! ```
//! `-t` gives it a terminal. `--layers N` puts the directory under an overlay of N layers, so that it stays
//! unchanged. Without root it runs in a user namespace. Not a command for users: it forwards no signals.

#![expect(clippy::print_stderr, reason = "an example")]

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs Linux");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match linux::run() {
        Ok(code) => std::process::ExitCode::from(code),
        Err(error) => {
            eprintln!("native_run: {error}");
            std::process::ExitCode::from(125)
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::path::{Path, PathBuf};

    use dhow_runtime::native::{self, defaults, idmap, seccomp::Filter};
    use dhow_runtime::spec::{Capabilities, LinuxNamespaceType, Spec};
    use dhow_runtime::{Bundle, Layer, Root, Stdio, Task};

    /// What the command line says.
    #[derive(Default)]
    struct Options {
        terminal: bool,
        uid: u32,
        volumes: Vec<(String, String)>,
        layers: usize,
        rootfs: PathBuf,
        command: Vec<String>,
    }

    pub(crate) fn run() -> Result<u8, Box<dyn Error>> {
        let options =
            parse(std::env::args().skip(1)).ok_or("usage: native_run [options] ROOTFS PROGRAM...")?;
        let rootless = !rustix::process::geteuid().is_root();
        let maps = rootless.then(idmap::default_maps);
        let capabilities: Capabilities = defaults::CAPABILITIES.into_iter().collect();
        let spec = specification(&options, maps.as_ref().map(idmap::DefaultMaps::maps), &capabilities);
        let scratch = if options.layers > 0 { Some(tempfile::tempdir()?) } else { None };
        let root = root(&options, scratch.as_ref().map(tempfile::TempDir::path))?;
        let bundle = Bundle { id: "example".to_owned(), spec, root, module: None, wasm: Default::default() };
        let executor = native::Executor::with_default_filter(Filter::docker_default(&capabilities)?);
        let stdio = if options.terminal { Stdio::Terminal(None) } else { Stdio::inherit() };
        let mut task = executor.create(&bundle, stdio).map(Task::Native)?;
        let started = task.start();
        if let Err(error) = &started {
            eprintln!("native_run: {error}");
            return Ok(match error {
                dhow_runtime::Error::CommandNotFound { .. } => 127,
                dhow_runtime::Error::CommandNotExecutable { .. } => 126,
                _ => 125,
            });
        }
        if let Some(console) = task.take_console() {
            copy_out(console);
        }
        let status = task.wait()?;
        task.delete()?;
        Ok(status.code())
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options::default();
        loop {
            let arg = args.next()?;
            match arg.as_str() {
                "-t" => options.terminal = true,
                "-u" => options.uid = args.next()?.parse().ok()?,
                "-v" => {
                    let (from, to) =
                        args.next()?.split_once(':').map(|(from, to)| (from.to_owned(), to.to_owned()))?;
                    options.volumes.push((from, to));
                }
                "--layers" => options.layers = args.next()?.parse().ok()?,
                _ => {
                    options.rootfs = PathBuf::from(arg);
                    options.command = args.collect();
                    return (!options.command.is_empty()).then_some(options);
                }
            }
        }
    }

    fn specification(options: &Options, maps: Option<&idmap::Maps>, capabilities: &Capabilities) -> Spec {
        let mut spec = Spec::default();
        let mut mounts = defaults::mounts(64 << 20);
        mounts.extend(
            options
                .volumes
                .iter()
                .map(|(from, to)| defaults::mount(to, "bind", from, &["rbind", "rprivate"])),
        );
        spec.set_mounts(Some(mounts)).set_hostname(Some("example".to_owned()));
        if let Some(process) = spec.process_mut() {
            let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            process
                .set_args(Some(options.command.clone()))
                .set_env(Some(vec![path.to_owned()]))
                .set_cwd("/".into())
                .set_no_new_privileges(Some(false))
                .set_rlimits(None)
                .set_oom_score_adj(Some(0))
                .set_capabilities(Some(defaults::capability_sets(capabilities)));
            process.user_mut().set_uid(options.uid);
        }
        if let Some(root) = spec.root_mut() {
            root.set_readonly(Some(false));
        }
        if let Some(linux) = spec.linux_mut() {
            let mut namespaces = defaults::namespaces();
            if let Some(maps) = maps {
                namespaces.push(defaults::namespace(LinuxNamespaceType::User));
                linux.set_uid_mappings(Some(maps.uids.clone())).set_gid_mappings(Some(maps.gids.clone()));
            }
            let paths = |list: &[&str]| Some(list.iter().map(|path| (*path).to_owned()).collect());
            linux
                .set_namespaces(Some(namespaces))
                .set_masked_paths(paths(&defaults::MASKED_PATHS))
                .set_readonly_paths(paths(&defaults::READONLY_PATHS));
        }
        spec
    }

    fn root(options: &Options, scratch: Option<&Path>) -> Result<Root, Box<dyn Error>> {
        let rootfs = fs_err::canonicalize(&options.rootfs)?;
        let Some(scratch) = scratch else { return Ok(Root::Dir(rootfs)) };
        let mut lower = vec![Layer { path: rootfs, id: None }];
        for number in 1..options.layers {
            let path = scratch.join(number.to_string());
            fs_err::create_dir(&path)?;
            lower.push(Layer { path, id: None });
        }
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| scratch.join(name));
        for path in [&upper, &work, &merged] {
            fs_err::create_dir(path)?;
        }
        Ok(Root::Layers { lower, upper, work, merged })
    }

    /// Copies what the program prints on its terminal until it hangs up.
    fn copy_out(console: std::os::fd::OwnedFd) {
        let mut console = fs_err::File::from_parts(std::fs::File::from(console), "console");
        let _hung_up = std::io::copy(&mut console, &mut std::io::stdout().lock());
    }
}
