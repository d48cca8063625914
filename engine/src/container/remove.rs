//! `rm`: ends a container if asked to, and removes everything that is its own.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use dhow_images::Digest;
#[cfg(target_os = "linux")]
use dhow_runtime::wasm::{Keep, Rights};
use fs_err as fs;

use crate::container::start::A_BLINK;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::marks::STOPPED;
#[cfg(target_os = "linux")]
use crate::marks::StoppedBy;
use crate::names;
use crate::record::{Attempt, Claim, Container, Status};

/// How often one is looked at that does not run and is busy.
const LOOKS: u32 = 50;

/// So many are removed at once: most of the time is spent waiting, for monitors and for the disk.
const AT_ONCE: usize = 16;

impl Engine {
    /// As [`Engine::remove`] for many, which end and are removed beside each other. One answer for each, in their order.
    pub fn remove_many(&self, containers: &[Container], force: bool, volumes: bool) -> Vec<Result<()>> {
        let threads = if may_part() { containers.len().min(AT_ONCE) } else { 1 };
        if threads < 2 {
            return containers.iter().map(|container| self.remove(container, force, volumes)).collect();
        }
        #[cfg(target_os = "linux")]
        if force {
            // What goes wrong here goes wrong again below.
            containers.iter().for_each(|container| drop(self.kill_unless_free(container)));
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((index, container)) = take(containers, &next) {
                done.push((index, self.remove(container, force, volumes)));
            }
            done
        };
        let mut all = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for other in others {
                match other.join() {
                    Ok(part) => all.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, result)| result).collect()
    }

    /// Sends the first process of one that runs the signal, and waits for nothing.
    #[cfg(target_os = "linux")]
    fn kill_unless_free(&self, container: &Container) -> Result<()> {
        if let Attempt::Busy = container.try_claim()?
            && let Some((pid, started)) = self.about_to_die(container)?
            && let Some(process) = crate::survivor::hold(pid, started)?
        {
            process.send(dhow_runtime::Signal::KILL)?;
        }
        Ok(())
    }

    /// Removes a container; a running one only with `force`, by killing it.
    ///
    /// With `volumes` its own volumes go too.
    ///
    /// # Errors
    /// [`Error::Running`] or [`Error::PausedNotRemoved`] without `force`, or when something of it cannot be removed.
    pub fn remove(&self, container: &Container, force: bool, volumes: bool) -> Result<()> {
        let mut looked = 0;
        loop {
            match container.try_claim()? {
                Attempt::Taken(claim) => {
                    #[cfg(target_os = "linux")]
                    if container.state()?.status == Status::Paused {
                        crate::resources::thaw(self, container)?;
                    }
                    container.end_survivor()?;
                    container.await_sessions()?;
                    #[cfg(target_os = "linux")]
                    crate::resources::end_group(self, &container.record);
                    #[cfg(target_os = "linux")]
                    crate::resources::end_frozen(self, container);
                    self.erase(container, claim)?;
                    // A `--rm` container has taken them along.
                    let left = volumes && !container.record.host_config.auto_remove;
                    return if left { self.remove_own_volumes(&container.record.mounts) } else { Ok(()) };
                }
                // Its own monitor has removed it meanwhile (`--rm`).
                Attempt::Gone => return Ok(()),
                // One that has ended is let go in a moment, by its monitor and by who waits for that.
                Attempt::Busy if !force && looked < LOOKS && !container.state()?.status.is_alive() => {
                    looked += 1;
                }
                Attempt::Busy if !force => {
                    let name = container.record.name.clone();
                    return Err(match container.state()?.status {
                        Status::Paused => Error::PausedNotRemoved(name),
                        Status::Restarting => Error::RestartingNotRemoved(name),
                        _ => Error::Running(name),
                    });
                }
                Attempt::Busy => self.kill_first_process(container)?,
            }
            // It may be starting, and have no process yet; or its monitor is writing down how it ended.
            std::thread::sleep(A_BLINK);
        }
    }

    /// Kills the first process, if it has one already.
    #[cfg(target_os = "linux")]
    fn kill_first_process(&self, container: &Container) -> Result<()> {
        match self.about_to_die(container)? {
            Some((pid, started)) => crate::survivor::end(pid, started),
            None => Ok(()),
        }
    }

    /// The first process, if there is one already, of a container that may be killed and stays stopped then.
    #[cfg(target_os = "linux")]
    fn about_to_die(&self, container: &Container) -> Result<Option<(u32, u64)>> {
        if !container.record.host_config.auto_remove {
            container.stays_stopped(StoppedBy::User)?;
        }
        let state = container.state()?;
        match (state.status.is_alive(), state.pid_started) {
            (true, Some(started)) => {
                // Nobody dies who stands still.
                crate::resources::thaw(self, container)?;
                Ok(Some((state.pid, started)))
            }
            _ => Ok(None),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn kill_first_process(&self, _container: &Container) -> Result<()> {
        Err(Error::elsewhere("killing a container from another process"))
    }

    /// Removes a claimed container: first what makes it visible, then the rest, so that a crash leaves something that
    /// belongs to nobody.
    pub(crate) fn erase(&self, container: &Container, claim: Claim) -> Result<()> {
        let record = &container.record;
        let mut name = record.name.clone();
        if self.owner_of(&name)?.is_none_or(|owner| owner != record.id) {
            // Renamed since this record was read.
            if let Ok(now) = Container::load(container.folder().to_owned()) {
                name = now.record.name;
            }
        }
        match fs::remove_file(container.folder().join("config.json")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.tell(&Event::of_container(record, "destroy", &[]));
        for place in self.places() {
            // A name is in one place.
            if names::release(&place.names, &name, &record.id)? {
                break;
            }
        }
        if let Some(image) = &record.image {
            // It was in use until now, however long ago the container was made.
            if let Ok(image) = image.id.parse::<Digest>() {
                self.store().touch(&image);
            }
        }
        if record.image.is_some() || record.mounts.iter().any(|point| point.image.is_some()) {
            self.store().release(&record.id)?;
        }
        #[cfg(target_os = "linux")]
        if record.host_config.ipc_mode == "shareable" {
            self.let_memory_go(record);
            remove_folder(&self.shm_folder(&record.id)?)?;
        }
        // Windows removes no folder in which a file is open, and the claim is one.
        #[cfg(windows)]
        drop(claim);
        self.discard(container.folder(), &record.id)?;
        #[cfg(not(windows))]
        drop(claim);
        if record.host_config.auto_remove && record.mounts.iter().any(|point| point.anonymous) {
            self.remove_own_volumes(&record.mounts)?;
        }
        Ok(())
    }

    /// What [`Engine::erase`] needs of the file system for a container without volumes of its own, for a process that has
    /// a guest behind it: it may take the container's own names and folders away, and write nothing.
    #[cfg(target_os = "linux")]
    pub(crate) fn needed_to_erase(&self, container: &Container) -> Result<Vec<Keep>> {
        let keep = |path: &Path, rights| Keep { path: path.to_owned(), rights };
        let folder = container.folder();
        let mut all = vec![keep(folder, Rights::Clear)];
        if let Some(place) = self.places().find(|place| folder.starts_with(&place.containers)) {
            all.push(keep(&place.containers, Rights::RemoveEmpty));
            all.push(keep(&place.names, Rights::Remove));
        }
        all.push(keep(&self.store().lease_folder(false), Rights::Remove));
        let data = self.data_folder(container);
        if data != folder {
            // Where the guest writes with its first change; what is not there cannot be kept.
            if !container.record.host_config.readonly_rootfs {
                match fs::create_dir(&data) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                    _ => {}
                }
            }
            all.push(keep(&data, Rights::Write));
            all.push(keep(&self.scratch_folder(), Rights::RemoveEmpty));
        }
        Ok(all)
    }

    /// Removes a container's folder and what it wrote elsewhere.
    pub(crate) fn discard(&self, folder: &Path, id: &str) -> Result<()> {
        if !folder.starts_with(self.root()) {
            remove_written(&self.scratch_folder().join(id))?;
        }
        remove_filled(folder)
    }
}

/// The next one that nobody has taken.
fn take<'a>(containers: &'a [Container], next: &AtomicUsize) -> Option<(usize, &'a Container)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    containers.get(index).map(|container| (index, container))
}

/// Without root, files of other users are removed by a process that this one forks, and who forks has one thread.
fn may_part() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    true
}

/// Removes a folder of ours. One of a container that wrote nothing, the most frequent kind, is taken apart by the names
/// that are known to be in it, without listing anything.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    if is_gone(folder) { Ok(()) } else { remove_filled(folder) }
}

fn is_gone(folder: &Path) -> bool {
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// The same of what a container wrote, where its record is elsewhere: mostly directories with nothing in them.
fn remove_written(folder: &Path) -> Result<()> {
    if is_gone(folder) {
        return Ok(());
    }
    remove_empty_parts(folder);
    remove_folder(folder)
}

fn remove_empty_parts(folder: &Path) {
    for part in ["upper", "work/work", "work", "merged"] {
        fs::remove_dir(folder.join(part)).ok();
    }
}

/// The same of one that has something in it.
fn remove_filled(folder: &Path) -> Result<()> {
    // What is not there or not empty stays for the thorough way below.
    for files in [&["state.json", "lock"][..], &[STOPPED, "socket", "hosts", "hostname", "resolv.conf"]] {
        for file in files {
            fs::remove_file(folder.join(file)).ok();
        }
        if is_gone(folder) {
            return Ok(());
        }
    }
    remove_empty_parts(folder);
    match dhow_images::remove_tree(folder) {
        #[cfg(target_os = "linux")]
        Err(error) if error.kind() == ErrorKind::PermissionDenied => remove_as_namespace_root(folder, error),
        other => Ok(other?),
    }
}

/// Without root, what a container's other users wrote belongs to ids that only its user namespace may remove.
#[cfg(target_os = "linux")]
fn remove_as_namespace_root(folder: &Path, refused: std::io::Error) -> Result<()> {
    use dhow_runtime::native::idmap::{default_maps, in_user_namespace};
    if rustix::process::geteuid().is_root() {
        return Err(refused.into());
    }
    let removed =
        in_user_namespace(default_maps().maps(), || u8::from(dhow_images::remove_tree(folder).is_err()))?;
    if removed == dhow_runtime::ExitStatus::Code(0) { Ok(()) } else { Err(refused.into()) }
}
