//! What `dhow oci --help` and `--version` print.

/// The version of the OCI runtime specification that is implemented.
const SPECIFICATION: &str = "1.2.1";

/// In the form that Docker and Podman read.
pub(super) fn version() -> String {
    format!(
        "dhow version {}\ncommit: {}\nspec: {SPECIFICATION}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_VERSION")
    )
}

/// Usage of a verb, or of all.
pub(super) fn of(verb: &str) -> String {
    let found = VERBS.iter().find(|(name, ..)| *name == verb);
    if let Some((name, arguments, about, options)) = found {
        let options = if options.is_empty() { String::new() } else { format!("\nOptions:\n{options}\n") };
        return format!("{about}\n\nUsage: dhow oci {name} {arguments}\n{options}");
    }
    let verbs: String = VERBS.iter().map(|(name, _, about, _)| format!("  {name:<12}{about}\n")).collect();
    format!(
        "Run OCI bundles, as the runtime of Docker, containerd, Podman or CRI-O

Usage: dhow oci [OPTIONS] COMMAND [ARG...]

A link to dhow that is named dhow-oci is the same without the word oci:
  dockerd --add-runtime dhow=/usr/local/bin/dhow-oci
  podman --runtime /usr/local/bin/dhow-oci run ...

Commands:
{verbs}
Options:
{GLOBAL}
"
    )
}

const GLOBAL: &str = "      --root DIR             Folder of the containers' state [default: /run/dhow/oci, without root $XDG_RUNTIME_DIR/dhow/oci]
      --log FILE             Where errors go, beside standard error
      --log-format FORMAT    text or json
      --debug                Log more
      --systemd-cgroup       Control groups are made by systemd; cgroupsPath is SLICE:PREFIX:NAME
      --rootless BOOL        Missing rights for control groups are no failure
      --criu FILE            The program of checkpoint and restore [default: criu]
  -v, --version              Show versions
  -h, --help                 Show help";

const CREATE: &str = "  -b, --bundle DIR           Folder with config.json [default: .]
      --console-socket FILE  Socket that gets the master of the terminal
      --pidfd-socket FILE    Socket that gets a handle of the process
      --pid-file FILE        File for the number of the process
      --no-pivot             Move the root into place, for hosts that run in memory
      --no-new-keyring       Keep the session keyring
      --preserve-fds N       Pass N more descriptors to the program";

const RUN: &str = "  -b, --bundle DIR           Folder with config.json [default: .]
  -d, --detach               Do not wait for the program
      --keep                 Do not delete the container at its end
      --no-subreaper         Leave orphans of a container without a process namespace to the host
      --console-socket FILE  Socket that gets the master of the terminal
      --pidfd-socket FILE    Socket that gets a handle of the process
      --pid-file FILE        File for the number of the process
      --no-pivot             Move the root into place, for hosts that run in memory
      --no-new-keyring       Keep the session keyring
      --preserve-fds N       Pass N more descriptors to the program";

const EXEC: &str = "  -p, --process FILE         Description of the process, in place of all below
  -t, --tty                  Allocate a terminal
  -u, --user UID[:GID]       User, by number
  -g, --additional-gids GID  One more group
  -e, --env NAME=VALUE       One more environment variable
      --cwd DIR              Working directory
  -c, --cap CAP              One more capability
      --no-new-privs         Give up new privileges
      --apparmor PROFILE     AppArmor profile
      --process-label LABEL  SELinux label
      --cgroup PATH          Group below the container's, [CONTROLLER,...:]PATH
      --ignore-paused        Also in a paused container
  -d, --detach               Do not wait for the program
      --console-socket FILE  Socket that gets the master of the terminal
      --pidfd-socket FILE    Socket that gets a handle of the process
      --pid-file FILE        File for the number of the process
      --preserve-fds N       Pass N more descriptors to the program";

const UPDATE: &str =
    "  -r, --resources FILE       Resources of the specification as JSON; - for standard input
      --memory BYTES         --memory-reservation BYTES    --memory-swap BYTES
      --cpu-period US        --cpu-quota US                --cpu-burst US
      --cpu-share N          --cpu-rt-period US            --cpu-rt-runtime US
      --cpuset-cpus LIST     --cpuset-mems LIST            --cpu-idle N
      --pids-limit N         --blkio-weight N";

const CHECKPOINT: &str = "      --image-path DIR       Where the image goes [default: checkpoint]
      --work-path DIR        Where CRIU's logs go [default: the image's folder]
      --parent-path DIR      The image of the --pre-dump before, as seen from the image's folder
      --leave-running        Let the container go on
      --pre-dump             Write its memory only, and let it go on
      --tcp-established      Keep TCP connections
      --ext-unix-sk          It may use sockets of the host
      --shell-job            Its session may be another's
      --file-locks           It may hold file locks
      --manage-cgroups-mode MODE  soft, full, strict or ignore [default: soft]
      --empty-ns NAMESPACE   Leave out what is in it: network
      --auto-dedup           Give back to the disk what an earlier image has, too
      --lazy-pages           Serve memory to a restore with --lazy-pages
      --status-fd N          Descriptor that is told when it is served
      --page-server ADDRESS:PORT  Where memory goes";

const RESTORE: &str = "      --image-path DIR       Where the image is [default: checkpoint]
      --work-path DIR        Where CRIU's logs go [default: the image's folder]
  -b, --bundle DIR           Folder with config.json [default: .]
  -d, --detach               Do not wait for the program
      --keep                 Do not delete the container at its end
      --no-subreaper         Leave orphans of a container without a process namespace to the host
      --console-socket FILE  Socket that gets the master of the terminal
      --pidfd-socket FILE    Socket that gets a handle of the process
      --pid-file FILE        File for the number of the process
      --tcp-established      Keep TCP connections
      --ext-unix-sk          It may use sockets of the host
      --shell-job            Its session may be another's
      --file-locks           It may hold file locks
      --manage-cgroups-mode MODE  soft, full, strict or ignore [default: soft]
      --empty-ns NAMESPACE   Make it empty: network
      --auto-dedup           Give back to the disk what has been read
      --lazy-pages           Fetch memory when it is touched
      --lsm-profile TYPE:NAME     Security label
      --lsm-mount-context CONTEXT Security label of mounts";

/// Name, arguments, what it does, options.
const VERBS: [(&str, &str, &str, &str); 17] = [
    ("create", "[OPTIONS] ID", "Create a container of a bundle", CREATE),
    ("start", "ID", "Run the program of a container that was created", ""),
    ("run", "[OPTIONS] ID", "Create a container and run it", RUN),
    ("state", "ID", "Show the state of a container", ""),
    (
        "kill",
        "[-a] ID [SIGNAL]",
        "Send a signal to a container [default: SIGTERM]",
        "  -a, --all    To all its processes",
    ),
    ("delete", "[-f] ID", "Remove a container that has ended", "  -f, --force    Kill it first"),
    ("exec", "[OPTIONS] ID COMMAND [ARG...]", "Run another program in a container", EXEC),
    (
        "ps",
        "[--format FORMAT] ID [PS OPTION...]",
        "List the processes of a container",
        "  -f, --format FORMAT    table or json",
    ),
    ("pause", "ID", "Let a container stand still", ""),
    ("resume", "ID", "Let a paused container go on", ""),
    ("update", "[OPTIONS] ID", "Change the limits of a container", UPDATE),
    (
        "events",
        "[OPTIONS] ID",
        "Show what a container uses",
        "      --interval TIME    Time between two lines [default: 5s]\n      --stats            Show it once",
    ),
    (
        "list",
        "[OPTIONS]",
        "List containers",
        "  -f, --format FORMAT    table or json\n  -q, --quiet            Ids only",
    ),
    (
        "spec",
        "[OPTIONS]",
        "Write a config.json to start from",
        "  -b, --bundle DIR    Where it goes\n      --rootless          For a user without root",
    ),
    ("features", "", "Show what this runtime can do, as JSON", ""),
    (
        "checkpoint",
        "[OPTIONS] ID",
        "Write a running container's processes into a folder, by CRIU",
        CHECKPOINT,
    ),
    ("restore", "[OPTIONS] ID", "Run a container from such a folder", RESTORE),
];
