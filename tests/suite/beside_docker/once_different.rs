//! Command lines in which Dhow once differed from Docker, and their like: each is given to both.

use super::Both;

/// The same code, output and words.
const SAME: [&str; 40] = [
    // Of an option that is given twice the last counts, and what follows one is its value.
    "run --rm --rm --name aa --name bb --network none busybox:1 echo twice",
    "run --rm --rm=false --rm --network none -w /bin -w /tmp busybox:1 pwd",
    "run --rm --network none -l -x -e A=-b busybox:1 printenv A",
    "run --rm --network none --entrypoint -x busybox:1",
    "run --rm --network none --cap-add nosuch busybox:1 true",
    "run --rm --network none --cap-drop CAP_NOSUCH busybox:1 true",
    "run --rm --network none --env-file /nosuch busybox:1 true",
    "run --rm --network none --label-file /nosuch busybox:1 true",
    "run --rm --network none --security-opt seccomp=/nosuch busybox:1 true",
    "run --rm --network none -l =x busybox:1 true",
    "run --rm --network none -v :/x busybox:1 true",
    "run --rm --network none -v /x: busybox:1 true",
    "run --rm --network container:nosuch busybox:1 true",
    "run --rm --network container:it -p 80 busybox:1 true",
    "run --rm --network container:it --hostname x busybox:1 true",
    "run --rm --network container:it --dns 1.1.1.1 busybox:1 true",
    "run --rm --network container:it --add-host a:1.2.3.4 busybox:1 true",
    "run --rm --network nosuch busybox:1 true",
    "run --rm --network none --ip 10.1.0.2 busybox:1 true",
    "top it -o nosuch",
    "top it -o x=PID",
    "pause it",
    "exec it true",
    "unpause it",
    "restart -t 0 it nosuch more",
    "stop -t 0 it nosuch more",
    "start it nosuch more",
    "volume inspect nosuch",
    "volume rm nosuch",
    "volume rm -f nosuch",
    "volume inspect data --format {{.Options}}{{.Labels}}",
    "inspect --type volume nosuch",
    "network create -d host nn",
    "network create -d null nn",
    "network create host",
    "network ls -f dangling=true --format {{.Name}}",
    "network ls -f driver=null --format {{.Name}}",
    "system info --format {{.NCPU}}/{{.MemTotal}}/{{.OSType}}/{{.Architecture}}/{{.Name}}/{{.OperatingSystem}}",
    "info --format {{.KernelVersion}}/{{.CgroupVersion}}/{{.ContainersPaused}}/{{.LoggingDriver}}",
    "network inspect host --format {{.Driver}}{{.Options}}{{.Internal}}",
];

/// The same code; who says it, and where, is another matter.
const SAME_CODE: [&str; 12] = [
    "run",
    "exec it",
    "exec -w /nosuch it true",
    "exec -u nosuch it true",
    "exec -u :nosuch it true",
    "port it 80",
    "port it x",
    "run --rm --network none --cpus -1 busybox:1 true",
    "run --rm --network none --memory -1 busybox:1 true",
    "run --rm --network none --pids-limit -1 busybox:1 true",
    "network create --subnet 10.300.0.0/16 nn",
    "network create --gateway 10.8.0.1 nn",
];

#[test]
fn each_line() {
    let Some(both) = Both::start() else { return };
    for name in ["it", "more"] {
        both.prepare(&["run", "-d", "--network", "none", "--name", name, "busybox:1", "sleep", "600"]);
    }
    both.prepare(&["volume", "create", "data"]);
    for line in SAME {
        both.same(&line.split(' ').collect::<Vec<_>>());
    }
    for line in SAME_CODE {
        let args: Vec<&str> = line.split(' ').collect();
        let (theirs, ours) = (both.theirs(&args), both.ours(&args));
        assert_eq!(ours.code, theirs.code, "{line}\n{ours:?}\n{theirs:?}");
    }
    both.prepare(&["rm", "-f", "it", "more"]);
}
