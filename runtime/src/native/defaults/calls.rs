//! The system calls of Docker's seccomp profile, by topic. Data only.
//!
//! `io_uring` is not among them: Docker removed it again after a row of kernel holes.

use oci_spec::runtime::Capability;

/// Allowed for every container.
#[rustfmt::skip]
pub(super) const ALWAYS: &[&[&str]] = &[
    // Files by name.
    &[
        "access", "faccessat", "faccessat2", "chmod", "fchmodat", "fchmodat2", "chown", "chown32", "lchown",
        "lchown32", "fchownat", "creat", "open", "openat", "openat2", "link", "linkat", "unlink",
        "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat", "rename", "renameat", "renameat2",
        "mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "truncate", "truncate64", "utime", "utimes",
        "futimesat", "utimensat", "utimensat_time64", "chdir", "getcwd", "umask", "name_to_handle_at",
    ],
    // What is known about a file.
    &[
        "stat", "stat64", "lstat", "lstat64", "fstat", "fstat64", "newfstatat", "fstatat64", "statx",
        "statfs", "statfs64", "fstatfs", "fstatfs64", "getdents", "getdents64", "getxattr", "lgetxattr",
        "fgetxattr", "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr",
        "removexattr", "lremovexattr", "fremovexattr", "getxattrat", "setxattrat", "listxattrat",
        "removexattrat",
    ],
    // Open files.
    &[
        "close", "close_range", "read", "readv", "pread64", "preadv", "preadv2", "write", "writev",
        "pwrite64", "pwritev", "pwritev2", "lseek", "_llseek", "dup", "dup2", "dup3", "fcntl", "fcntl64",
        "ioctl", "flock", "fchdir", "fchmod", "fchown", "fchown32", "ftruncate", "ftruncate64", "fallocate",
        "fadvise64", "fadvise64_64", "fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "readahead",
        "cachestat", "copy_file_range", "sendfile", "sendfile64", "splice", "tee", "vmsplice", "pipe",
        "pipe2",
    ],
    // Waiting for files, timers and events.
    &[
        "poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64",
        "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_wait", "epoll_wait_old",
        "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "inotify_init", "inotify_init1",
        "inotify_add_watch", "inotify_rm_watch", "fanotify_mark", "signalfd", "signalfd4", "timerfd_create",
        "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64", "io_setup",
        "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents", "io_pgetevents_time64",
    ],
    // Memory.
    &[
        "brk", "mmap", "mmap2", "munmap", "mprotect", "mremap", "remap_file_pages", "msync", "madvise",
        "mincore", "mlock", "mlock2", "mlockall", "munlock", "munlockall", "memfd_create", "memfd_secret",
        "membarrier", "mseal", "map_shadow_stack", "pkey_alloc", "pkey_free", "pkey_mprotect",
        "process_mrelease",
    ],
    // Processes and threads.
    &[
        "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "waitpid", "getpid",
        "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "pidfd_open",
        "pidfd_send_signal", "prctl", "arch_prctl", "modify_ldt", "get_thread_area", "set_thread_area",
        "set_tid_address", "set_robust_list", "get_robust_list", "rseq", "futex", "futex_time64",
        "futex_wait", "futex_wake", "futex_requeue", "futex_waitv", "restart_syscall", "getcpu", "ptrace",
        "process_vm_readv", "process_vm_writev", "uretprobe", "seccomp", "landlock_create_ruleset",
        "landlock_add_rule", "landlock_restrict_self",
    ],
    // Signals.
    &[
        "kill", "tkill", "tgkill", "pause", "alarm", "sigaltstack", "sigprocmask", "sigreturn",
        "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
        "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo",
    ],
    // Who a process is.
    &[
        "getuid", "getuid32", "geteuid", "geteuid32", "getgid", "getgid32", "getegid", "getegid32",
        "getresuid", "getresuid32", "getresgid", "getresgid32", "getgroups", "getgroups32", "setuid",
        "setuid32", "setgid", "setgid32", "setreuid", "setreuid32", "setregid", "setregid32", "setresuid",
        "setresuid32", "setresgid", "setresgid32", "setfsuid", "setfsuid32", "setfsgid", "setfsgid32",
        "setgroups", "setgroups32", "capget", "capset",
    ],
    // Limits and scheduling.
    &[
        "getrlimit", "setrlimit", "prlimit64", "ugetrlimit", "getrusage", "getpriority", "setpriority",
        "ioprio_get", "ioprio_set", "sched_getaffinity", "sched_setaffinity", "sched_getattr",
        "sched_setattr", "sched_getparam", "sched_setparam", "sched_getscheduler", "sched_setscheduler",
        "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval",
        "sched_rr_get_interval_time64", "sched_yield",
    ],
    // Time. Setting the clock still needs the capability.
    &[
        "time", "times", "gettimeofday", "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres",
        "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
        "clock_nanosleep_time64", "nanosleep", "getitimer", "setitimer", "timer_create", "timer_delete",
        "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    ],
    // Sockets; `socket` itself has a condition.
    &[
        "socketcall", "socketpair", "bind", "listen", "accept", "accept4", "connect", "shutdown",
        "getsockname", "getpeername", "getsockopt", "setsockopt", "send", "sendto", "sendmsg", "sendmmsg",
        "recv", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64",
    ],
    // Messages, semaphores and shared memory.
    &[
        "ipc", "msgget", "msgctl", "msgsnd", "msgrcv", "semget", "semctl", "semop", "semtimedop",
        "semtimedop_time64", "shmget", "shmctl", "shmat", "shmdt", "mq_open", "mq_unlink", "mq_notify",
        "mq_getsetattr", "mq_timedsend", "mq_timedsend_time64", "mq_timedreceive", "mq_timedreceive_time64",
    ],
    // The system.
    &[
        "uname", "sysinfo", "getrandom",
    ],
];

/// Allowed for a container that has been given the capability.
#[rustfmt::skip]
pub(super) const WITH_CAPABILITY: &[(Capability, &[&str])] = &[
    (Capability::Bpf, &["bpf"]),
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (Capability::Perfmon, &["perf_event_open"]),
    (Capability::SysAdmin, &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
        "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "quotactl",
        "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::SysPacct, &["acct"]),
    (Capability::SysPtrace, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::Syslog, &["syslog"]),
];
