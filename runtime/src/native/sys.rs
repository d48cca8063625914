//! The system calls that neither rustix nor nix offers in the form needed here, each behind a safe function.
//!
//! Nothing here decides anything: arguments in, the kernel's answer out. It is the only file of the native
//! executor with unsafe code.

#![expect(unsafe_code, reason = "raw system calls: clone3, mount_setattr, landlock, execve and a few more")]

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::Pid;

pub(crate) mod tune;

/// Turns a raw system call's result into rustix's.
fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Errno::from_raw_os_error(errno())) } else { Ok(result) }
}

fn errno() -> i32 {
    // SAFETY: the location is always valid for the calling thread.
    unsafe { *libc::__errno_location() }
}

/// `CLONE_CLEAR_SIGHAND`: the child starts without the handlers of this process.
const CLEAR_SIGNAL_HANDLERS: u64 = 1 << 32;

/// What [`clone3`] returns, once in each process.
#[derive(Debug)]
pub(super) enum Cloned {
    /// In the caller: the new process.
    Parent {
        /// Its id as the caller counts.
        pid: Pid,
        /// A stable reference to it.
        pidfd: OwnedFd,
    },
    /// In the new process.
    Child,
}

/// What a new process is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Birth<'a> {
    /// Its new namespaces, `CLONE_NEW*`.
    pub(super) namespaces: u64,
    /// The folder of the control group (version 2) it is born in.
    pub(super) group: Option<BorrowedFd<'a>>,
    /// Its parent is this process's parent.
    pub(super) sibling: bool,
}

/// Makes a process. It is a plain copy of this one, as after fork.
///
/// The caller must have one thread: the child allocates, and another thread could have held the allocator's lock.
/// [`crate::process::single_threaded`] is checked by the only caller.
pub(super) fn clone3(birth: Birth<'_>) -> Result<Cloned> {
    /// `CLONE_INTO_CGROUP`
    const INTO_GROUP: u64 = 1 << 33;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args is valid: no stack, no TLS, nothing shared.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = birth.namespaces | u64::from(libc::CLONE_PIDFD.cast_unsigned()) | CLEAR_SIGNAL_HANDLERS;
    args.pidfd = (&raw mut pidfd) as u64;
    if birth.sibling {
        // It sends the signal this process would send.
        args.flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
    } else {
        args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    }
    if let Some(group) = birth.group {
        args.flags |= INTO_GROUP;
        args.cgroup = group.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: without CLONE_VM the child has its own copy of all memory; `args` and `pidfd` outlive the call.
    let result =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    let raw = i32::try_from(result).map_err(|_| Errno::OVERFLOW)?;
    match Pid::from_raw(raw) {
        None => Ok(Cloned::Child),
        // SAFETY: the kernel has stored a new descriptor that nobody else owns.
        Some(pid) => Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// The mount namespace of the process a pidfd stands for. Since Linux 6.11.
pub(super) fn mount_namespace(pidfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    /// `_IO(0xff, 3)`
    const PIDFD_GET_MNT_NAMESPACE: libc::c_int = 0xff03;
    // SAFETY: this request takes no argument and returns a new descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_ioctl, pidfd.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: the kernel has just made it, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user namespace that another namespace belongs to.
pub(super) fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    /// `_IO(0xb7, 1)`
    const NS_GET_USERNS: libc::c_int = 0xb701;
    // SAFETY: this request takes no argument and returns a new descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_ioctl, namespace.as_raw_fd(), NS_GET_USERNS, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: the kernel has just made it, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends this process at once: no destructors, no exit handlers.
pub(super) fn exit_now(code: u8) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Marks every descriptor from `first` on as closed at exec.
pub(super) fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: no pointers; descriptors stay open until exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// The arguments of [`mount_setattr`], `struct mount_attr` of the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(super) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(super) clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub(super) propagation: u64,
    /// The user namespace whose maps an id-mapped mount gets.
    pub(super) userns_fd: u64,
}

/// Changes the attributes of the mount `fd` stands for, or of all below it too.
pub(super) fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, `attr` has the kernel's layout and its true size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// A detached copy of the mount at `path` from `fd` on, with attributes from the beginning. Since Linux 6.15. `flags` are of
/// `open_tree`, and `AT_RECURSIVE` is for the attributes, too.
pub(super) fn open_tree_attr(
    fd: BorrowedFd<'_>,
    path: &CStr,
    flags: u32,
    attr: &MountAttr,
) -> Result<OwnedFd> {
    /// The same number on every architecture.
    const OPEN_TREE_ATTR: libc::c_long = 467;
    // SAFETY: the path is a valid C string, `attr` has the kernel's layout and its true size is given.
    let tree = check(unsafe {
        libc::syscall(
            OPEN_TREE_ATTR,
            fd.as_raw_fd(),
            path.as_ptr(),
            flags,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    let tree = i32::try_from(tree).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: the kernel has just made it, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Joins the namespace `fd` refers to, which must be of this kind (`CLONE_NEW*`).
pub(super) fn setns(fd: BorrowedFd<'_>, kind: i32) -> Result<()> {
    // SAFETY: no pointers; the process has one thread, so nothing else is surprised.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kind) }).map(drop)
}

/// Starts a new, anonymous session keyring.
pub(super) fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>())
    })
    .map(drop)
}

/// Sets the supplementary groups of this thread.
pub(super) fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` ids of 32 bits each.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets all three group ids of this thread.
pub(super) fn setresgid(gid: u32) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets all three user ids of this thread.
pub(super) fn setresuid(uid: u32) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: only used with options whose arguments are numbers.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, first, second, none, none) }).map(drop)
}

/// Takes one capability out of the bounding set. `INVAL`: the kernel does not know this one.
pub(super) fn drop_bounding(capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)
}

/// Raises one capability in the ambient set.
pub(super) fn raise_ambient(capability: u8) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.cast_unsigned().into(), capability.into())
}

/// Brings the loopback interface of this network namespace up.
pub(super) fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    check(unsafe {
        libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })
    .map(drop)
}

/// One instruction of classic BPF, `struct sock_filter` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    /// Operation.
    pub(super) code: u16,
    /// Instructions to skip when the comparison holds.
    pub(super) jump_true: u8,
    /// Instructions to skip when it does not.
    pub(super) jump_false: u8,
    /// Operand.
    pub(super) operand: u32,
}

/// Puts this thread under a seccomp filter, for good. `listens` says that the flags ask for a listener.
pub(super) fn seccomp_filter(flags: u32, listens: bool, program: &[Instruction]) -> Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: `Program` has the layout of sock_fprog and points at `length` instructions; the kernel copies them.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    if !listens {
        return Ok(None);
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with a listener the call returns a new descriptor, which nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A null-terminated array of C strings, as exec takes it.
#[derive(Debug)]
pub(super) struct StringArray {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl StringArray {
    /// Takes the strings over; they stay where they are.
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// Runs another program in this process; returns only when that failed.
pub(super) fn execve(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: both arrays end with a null pointer and own what they point at.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    check(result).err().unwrap_or(Errno::INVAL)
}

/// The same for the file behind a handle, which is closed by it: a script, which would have to be opened again,
/// is `ENOENT`.
pub(super) fn execveat(file: BorrowedFd<'_>, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: the path is a valid C string; both arrays end with a null pointer and own what they point at.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::INVAL)
}

/// Gives the signals a parent may have ignored their default meaning again (exec keeps ignored ones), and
/// unblocks all.
pub(super) fn reset_signals() {
    const MAY_BE_IGNORED: [i32; 12] = [
        libc::SIGPIPE,
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGCHLD,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGXFSZ,
    ];
    for signal in MAY_BE_IGNORED {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is a valid sigset_t; the old one is not asked for.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// What a Landlock ruleset handles, as the kernel has it: rights over files, rights to ports, scopes. The kernel takes a
/// longer one than it knows if the rest is zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handled {
    /// `LANDLOCK_ACCESS_FS_*`
    pub(crate) files: u64,
    /// `LANDLOCK_ACCESS_NET_*`
    pub(crate) net: u64,
    /// `LANDLOCK_SCOPE_*`
    pub(crate) scoped: u64,
}

/// Makes a Landlock ruleset without rules.
pub(crate) fn landlock_ruleset(handled: &Handled) -> Result<OwnedFd> {
    // SAFETY: the structure is the kernel's, of the size that is told, and outlives the call.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *handled, size_of::<Handled>(), 0)
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel has made this descriptor for the caller, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The version of Landlock that the kernel has.
pub(crate) fn landlock_version() -> Result<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`
    const VERSION: u32 = 1;
    let none = ptr::null::<Handled>();
    // SAFETY: with this flag nothing is read.
    let version = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) })?;
    u32::try_from(version).map_err(|_| Errno::INVAL)
}

/// Allows `rights` to what is open as `place` and, of a directory, to everything beneath.
pub(crate) fn landlock_allow(ruleset: BorrowedFd<'_>, place: BorrowedFd<'_>, rights: u64) -> Result<()> {
    #[repr(C, packed)]
    struct Beneath {
        rights: u64,
        place: libc::c_int,
    }
    /// `LANDLOCK_RULE_PATH_BENEATH`
    const BENEATH: libc::c_int = 1;
    let rule = Beneath { rights, place: place.as_raw_fd() };
    // SAFETY: the structure is the kernel's, and outlives the call.
    check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), BENEATH, &raw const rule, 0)
    })
    .map(drop)
}

/// Puts the calling thread, and those that it will start, behind a ruleset, for good.
pub(crate) fn landlock_enter(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointer is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
