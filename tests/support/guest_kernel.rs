//! Tests that need a kernel whose cgroup v2 has every controller, or a systemd: they run themselves in one, by `tests/guest-kernel`.

use std::process::Command;

use super::repository;

/// Whether this process is in the guest. Elsewhere the test of this name (`module::test`) is run there, and nothing is
/// left to do; it is skipped, with a note, on processors that the guest's kernel is not made for.
///
/// There, `/mnt` is the only place for stores, and everything takes longer. What is made on first use, as programs and
/// root file systems, is to be asked for before this: the guest has no memory for compilers, and forgets what it makes.
pub(crate) fn inside_guest_kernel(test: &str) -> bool {
    inside("DHOW_GUEST_KERNEL", &[], test)
}

/// The same where systemd is process 1 and keeps the control groups.
pub(crate) fn inside_systemd(test: &str) -> bool {
    inside("DHOW_GUEST_SYSTEMD", &["-s"], test)
}

fn inside(sign: &str, flags: &[&str], test: &str) -> bool {
    if std::env::var_os(sign).is_some() {
        return true;
    }
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: there is no User Mode Linux for this processor");
        return false;
    }
    let suite = std::env::current_exe().expect("own path");
    let mut command = Command::new(repository().join("tests/guest-kernel"));
    command.args(flags).arg(suite).args(["--exact", "--nocapture", test]);
    let output = command.output().expect("tests/guest-kernel");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{} in the guest:\n{}\n{}", output.status, text[0], text[1]);
    assert!(text[0].contains("1 passed"), "no test is called {test}:\n{}", text[0]);
    false
}
