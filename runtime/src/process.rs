//! Forking a process that has one thread, and signals: how a container's monitor comes to be and what it is told.
//!
//! A child of a process with several threads may find the allocator locked for ever, so that is refused.
//! Namespaces are not made here; see the native executor.

#![expect(unsafe_code, reason = "fork, _exit, poll, signal, sigaction, pidfd_send_signal, madvise")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::task::ExitStatus;

/// The exit code of a forked child whose closure panicked, as of Rust's own `main`.
const PANICKED: u8 = 101;

/// A forked child. Dropping it neither ends nor reaps it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has been reaped elsewhere, for example because this process ignores `SIGCHLD`.
    pub fn wait(self) -> Result<ExitStatus> {
        let status = loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(source) => {
                    return Err(Error::Setup {
                        action: format!("wait for process {}", self.pid()),
                        source: source.into(),
                    });
                }
            }
        };
        Ok(exit_status(status.exit_status(), status.terminating_signal()))
    }
}

/// An exit code or a signal, as the kernel reports them.
pub(crate) fn exit_status(code: Option<i32>, signal: Option<i32>) -> ExitStatus {
    let signal = signal.and_then(|number| u8::try_from(number).ok()).and_then(Signal::from_number);
    match signal {
        Some(signal) => ExitStatus::Signaled(signal),
        None => ExitStatus::Code(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)),
    }
}

/// When a living process was started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`. With the number it tells
/// one process from all others. `None` for one that has ended, also while it waits to be asked for.
#[cfg(target_os = "linux")]
pub fn start_time(pid: u32) -> Option<u64> {
    use std::io::Read as _;
    // No numbers but these lie before it; the name has 64 bytes at most.
    let mut stat = [0; 512];
    let mut file = fs_err::File::open(format!("/proc/{pid}/stat")).ok()?;
    let length = file.read(&mut stat).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let after_name = stat[..length].rsplit(|byte| *byte == b')').next()?;
    let mut fields = std::str::from_utf8(after_name).ok()?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Lets go of memory that is not needed while nothing happens: the pages of this program's own code and constants, which are
/// the file's and come back, some at a time, as they are needed; what of the heap is free; and the stack below here. A process
/// that has just done much and will now wait for long holds a third of the memory then.
#[cfg(target_os = "linux")]
pub fn forget() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and only gives back what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
    if threads().is_some_and(|count| count <= 1) {
        forget_stack();
    }
    forget_code();
}

/// The main thread's, deeper than this call.
#[cfg(target_os = "linux")]
fn forget_stack() {
    /// Still in use, with all that is called from here.
    const NEAR: usize = 32 << 10;
    /// As deep as a command line and a document lead.
    const DEEPEST: usize = 1 << 20;
    let here = 0_u8;
    let end = ((&raw const here).addr() - NEAR) & !0xffff;
    let start = (&raw const here).with_addr(end - DEEPEST).cast_mut().cast();
    // SAFETY: the kernel leaves more than this free below the main thread's stack, so nothing else is there, and what lies
    // below a frame that is still in use is nobody's. It is advice: a failure changes nothing.
    unsafe { libc::madvise(start, DEEPEST, libc::MADV_DONTNEED) };
}

#[cfg(target_os = "linux")]
fn forget_code() {
    #[expect(improper_ctypes, reason = "places, not values")]
    unsafe extern "C" {
        /// Where the linker has put the program's beginning, which is that of a page.
        static __executable_start: ();
        /// The end of its code. What can be written comes behind it.
        static etext: ();
    }
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let length = end.addr().saturating_sub(start.addr());
    // SAFETY: nothing between the two can be written, so what the kernel reads again from the file is what was there. It is
    // advice: a failure changes nothing.
    unsafe { libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED) };
}

/// Sends a signal, by Linux's number, to the process that a pidfd holds; real-time signals too.
///
/// # Errors
/// The system's, `ESRCH` when the process has ended.
#[cfg(target_os = "linux")]
pub fn send(pidfd: std::os::fd::BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (number, none) = (libc::c_int::from(signal.number()), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: a null siginfo asks for the default one; no other pointer is passed.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As [`send`], to the process `pid` of a task, in a task's words.
///
/// # Errors
/// [`Error::NotRunning`] when it has ended.
#[cfg(target_os = "linux")]
pub(crate) fn send_to_task(
    pidfd: std::os::fd::BorrowedFd<'_>,
    (id, pid): (&str, u32),
    signal: Signal,
) -> Result<()> {
    send(pidfd, signal).map_err(|source| match source.raw_os_error() {
        Some(libc::ESRCH) => Error::NotRunning { id: id.to_owned() },
        _ => Error::Setup { action: format!("send {signal} to process {pid} of task {id}"), source },
    })
}

/// What a program needs before its first file is opened, where Rust's own start does not see to it: standard descriptors
/// that are open, so that no file takes the place of one, and writes to closed pipes that fail and do not end it.
///
/// # Errors
/// When there is no `/dev/null` to take the place of a descriptor that is not open.
#[cfg(target_os = "linux")]
pub fn begin() -> io::Result<()> {
    let none = libc::pollfd { fd: 0, events: 0, revents: 0 };
    let mut standard = [none, libc::pollfd { fd: 1, ..none }, libc::pollfd { fd: 2, ..none }];
    // SAFETY: the array has three elements; `poll` only writes into them.
    unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    for _ in standard.iter().filter(|one| one.revents & libc::POLLNVAL != 0) {
        // The kernel gives the lowest number that is free, and these are.
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        std::mem::forget(null);
    }
    // SAFETY: sets a disposition without a handler; no code of ours runs on the signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// Closes all descriptors but the standard streams and so many after them.
///
/// # Errors
/// The number of one of those that is not open.
#[cfg(target_os = "linux")]
pub fn keep_descriptors(count: u32) -> std::result::Result<(), u32> {
    let first = 3 + count.min(1 << 20);
    for number in 3..first {
        // SAFETY: asks for the flags of a descriptor that may not be there.
        if unsafe { libc::fcntl(number.cast_signed(), libc::F_GETFD) } < 0 {
            return Err(number);
        }
    }
    // SAFETY: called before this process has opened anything of its own: whoever calls it owns none of them.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    Ok(())
}

/// Closes all descriptors but the standard streams and these. For a child that was forked from a process with many: whoever
/// owned the others there must not use them here, and not drop them, as of children that end without returning.
#[cfg(target_os = "linux")]
pub fn keep_only(kept: &[std::os::fd::BorrowedFd<'_>]) {
    use std::os::fd::AsRawFd as _;
    let mut kept: Vec<u32> =
        kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).filter(|number| *number > 2).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().chain([u32::MAX]) {
        if number > first {
            let last = if number == u32::MAX { number } else { number - 1 };
            // SAFETY: the caller says that nobody uses what is closed any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = number.saturating_add(1);
    }
}

/// All signals that can be, read from a descriptor instead of obeyed.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Signals(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Signals {
    /// Blocks them in this process. Those that are about a fault of its own stay as they are.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn watch() -> io::Result<Self> {
        use std::os::fd::FromRawFd as _;
        const FAULTS: [libc::c_int; 7] = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
            libc::SIGTRAP,
            libc::SIGSYS,
        ];
        // SAFETY: the set is filled before it is used, and outlives the calls.
        let fd = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            for fault in FAULTS {
                libc::sigdelset(&raw mut all, fault);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
            libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, so nobody else owns it.
        Ok(Self(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }))
    }

    /// In a child that runs another program: signals do again what they do to any.
    pub fn obey() {
        // SAFETY: the set is filled before it is used, and outlives the calls.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
    }

    /// The next one that has come.
    pub fn next(&self) -> Option<u8> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut info).ok().filter(|length| *length == info.len())?;
        // The number is the first of the fields.
        let number = info.first_chunk().copied().map(u32::from_ne_bytes)?;
        u8::try_from(number).ok()
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets ended children wait to be asked for, whatever the parent of this process has made of that.
///
/// # Errors
/// Never on a system that has the signal.
pub fn default_child_signal() -> Result<()> {
    // SAFETY: sets a disposition without a handler; no code of ours runs on the signal.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
        let source = io::Error::last_os_error();
        return Err(Error::Setup { action: "reset SIGCHLD".to_owned(), source });
    }
    Ok(())
}

/// Forks. The child runs `child` and ends with the code it returns, or 101 after a panic; it runs no exit
/// handlers and none of the caller's destructors.
///
/// # Errors
/// When this process has more than one thread, or the system has no room for another process.
pub fn fork(child: impl FnOnce() -> u8) -> Result<Child> {
    single_threaded()?;
    fork_unchecked(child)
}

/// Ends this process at once, whatever its threads do: no destructors, no exit handlers.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// From now on a fault's signal (`SIGSEGV` and its kin) that somebody *sent* ends this process, as it ends any other. For
/// processes that run Wasm code: wasmtime's handlers take such signals for the guest's faults, which these are not, and
/// then for nobody's. To be called when those are in place; real faults are still theirs.
#[cfg(target_os = "linux")]
pub fn obey_sent_faults() {
    let ours = tell_sent_from_real as *const () as usize;
    for (number, before) in FAULTS.iter().zip(&FAULTS_BEFORE) {
        // SAFETY: all-zero sigactions are valid: no flags, an empty mask.
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        // As wasmtime's: on its own stack, and again while it runs.
        new.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
        new.sa_sigaction = ours;
        // SAFETY: the handler has the signature of SA_SIGINFO and only calls what may be called in one; until the line
        // below it ends the process, which a guest's fault cannot ask for yet.
        let known = unsafe { libc::sigaction(*number, &raw const new, &raw mut old) } == 0;
        if !known || old.sa_sigaction == ours {
            continue;
        }
        if [libc::SIG_DFL, libc::SIG_IGN].contains(&old.sa_sigaction) || old.sa_flags & libc::SA_SIGINFO == 0
        {
            // SAFETY: puts back what was there.
            unsafe { libc::sigaction(*number, &raw const old, std::ptr::null_mut()) };
            continue;
        }
        before.store(old.sa_sigaction, Ordering::SeqCst);
    }
}

/// The signals that wasmtime handles on Linux.
#[cfg(target_os = "linux")]
const FAULTS: [libc::c_int; 3] = [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];

/// Who handled them before [`tell_sent_from_real`].
#[cfg(target_os = "linux")]
static FAULTS_BEFORE: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

#[cfg(target_os = "linux")]
extern "C" fn tell_sent_from_real(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid structure. Its codes are positive, those of senders are not.
    let sent = unsafe { (*info).si_code } <= 0;
    let before = FAULTS.iter().position(|known| *known == number);
    let before = before.map_or(0, |index| FAULTS_BEFORE[index].load(Ordering::SeqCst));
    if sent || before == 0 {
        // SAFETY: both may be called in a handler; none of ours runs after them.
        unsafe {
            libc::signal(number, libc::SIG_DFL);
            libc::raise(number);
        }
        return;
    }
    // SAFETY: what was stored is a handler that was installed with SA_SIGINFO, so it has this signature.
    let before: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(before) };
    before(number, info, context);
}

/// [`fork`] with a child that is born in this control group of version 2, where the kernel can do that: says whether it was.
/// To move a process into a group afterwards takes 5 to 20 ms, as all processors have to notice.
#[cfg(target_os = "linux")]
pub(crate) fn fork_into(
    group: Option<std::os::fd::BorrowedFd<'_>>,
    child: impl FnOnce() -> u8,
) -> Result<(Child, bool)> {
    single_threaded()?;
    let Some(result) = group.and_then(born_in) else { return Ok((fork_unchecked(child)?, false)) };
    match Pid::from_raw(result) {
        Some(pid) => Ok((Child { pid }, true)),
        None => run_child(child),
    }
}

/// libc's fork as the kernel sees it, less the handlers that were registered for it, with a control group. `None` where that
/// does not work; 0 in the child.
#[cfg(target_os = "linux")]
fn born_in(group: std::os::fd::BorrowedFd<'_>) -> Option<i32> {
    use std::os::fd::AsRawFd as _;

    /// `CLONE_INTO_CGROUP`
    const INTO_GROUP: u64 = 1 << 33;
    let mut number: *mut libc::c_int = std::ptr::null_mut();
    // SAFETY: stores one pointer: where libc keeps the number of this thread, which is another one in the child.
    let known = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut number) } == 0;
    if !known || number.is_null() {
        return None;
    }
    // SAFETY: an all-zero clone_args is valid: no stack, no TLS, nothing shared.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let keep_number = (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID).cast_unsigned();
    args.flags = INTO_GROUP | u64::from(keep_number);
    args.child_tid = number as u64;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    args.cgroup = group.as_raw_fd().cast_unsigned().into();
    // SAFETY: without CLONE_VM the child has its own copy of all memory, and the caller has one thread, so that no lock is
    // held in the copy; `args` outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    i32::try_from(result).ok().filter(|result| *result >= 0)
}

/// The child's whole life.
fn run_child(child: impl FnOnce() -> u8) -> ! {
    let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
    // SAFETY: does not return; nothing of the parent's is flushed or dropped twice.
    unsafe { libc::_exit(code.into()) }
}

/// [`fork`] without looking at the number of threads. For tests, whose harness has a thread that only waits:
/// libc's fork leaves the allocator usable in the child.
pub(crate) fn fork_unchecked(child: impl FnOnce() -> u8) -> Result<Child> {
    // SAFETY: the caller has one thread, or the other ones hold no lock the child takes (see above).
    match unsafe { libc::fork() } {
        0 => run_child(child),
        pid => match Pid::from_raw(pid) {
            Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Child { pid }),
            _ => Err(Error::Setup { action: "fork".to_owned(), source: io::Error::last_os_error() }),
        },
    }
}

/// Refuses when this process has more than one thread. A thread that was joined a moment ago may still be on its way
/// out of the kernel, so it is given the time for that.
///
/// # Errors
/// [`Error::Host`] then. A system without a way to count is trusted.
pub(crate) fn single_threaded() -> Result<()> {
    const ATTEMPTS: u32 = 100;
    let mut count = threads();
    for _ in 0..ATTEMPTS {
        if count.is_none_or(|count| count <= 1) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        count = threads();
    }
    Err(Error::Host {
        what: format!("cannot fork a process with {} threads", count.unwrap_or_default()),
        hint: "start containers from a process that has only one thread".to_owned(),
    })
}

/// How many threads this process has. One call: each thread is a directory, and a directory's link count is
/// its own two plus one for each.
#[cfg(target_os = "linux")]
fn threads() -> Option<usize> {
    let links = rustix::fs::stat("/proc/self/task").ok()?.st_nlink;
    usize::try_from(links).ok()?.checked_sub(2)
}

/// How many threads this process has.
#[cfg(target_os = "macos")]
fn threads() -> Option<usize> {
    // SAFETY: an all-zero proc_taskinfo is valid.
    let mut info: libc::proc_taskinfo = unsafe { std::mem::zeroed() };
    let size = i32::try_from(std::mem::size_of::<libc::proc_taskinfo>()).ok()?;
    // SAFETY: the buffer has the size that is given.
    let got = unsafe {
        libc::proc_pidinfo(libc::getpid(), libc::PROC_PIDTASKINFO, 0, (&raw mut info).cast(), size)
    };
    if got == size { usize::try_from(info.pti_threadnum).ok() } else { None }
}

/// Not known on this system.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn threads() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn forgotten_code_still_runs() {
        let resident = || {
            let text = fs_err::read_to_string("/proc/self/statm").expect("statm");
            text.split(' ').nth(2).and_then(|pages| pages.parse::<u64>().ok()).expect("shared pages")
        };
        let before = resident();
        forget_code();
        let after = resident();
        assert!(after < before, "{after} of {before} pages are still there");
        assert_eq!("12".parse::<u8>().ok(), Some(12));
    }

    #[test]
    fn a_child_ends_with_its_code() -> Result<()> {
        for code in [0, 7, 255] {
            assert_eq!(fork_unchecked(|| code)?.wait()?, ExitStatus::Code(code));
        }
        assert_eq!(fork_unchecked(|| panic!("on purpose"))?.wait()?, ExitStatus::Code(PANICKED));
        Ok(())
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_keeps_only_what_it_needs() -> Result<()> {
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let open = || fs_err::File::open("/dev/null").expect("a file").into_parts().0;
        let files = [open(), open(), open(), open(), open()];
        let status = fork_unchecked(|| {
            keep_only(&[files[3].as_fd(), files[1].as_fd()]);
            let is_open = |file: &std::fs::File| {
                // SAFETY: asks for the flags of a descriptor that may not be there.
                unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) >= 0 }
            };
            u8::from(files.iter().map(is_open).ne([false, true, false, true, false]))
        })?
        .wait()?;
        assert_eq!(status, ExitStatus::Code(0));
        Ok(())
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn threads_are_counted_and_refused() -> Result<()> {
        // The harness's own thread makes it two at least; a forked child has one.
        assert!(threads() >= Some(2));
        assert!(matches!(fork(|| 0), Err(Error::Host { .. })));
        assert_eq!(fork_unchecked(|| u8::from(fork(|| 3).is_err()))?.wait()?, ExitStatus::Code(0));
        Ok(())
    }
}
