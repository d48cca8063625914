//! The program that is the first process of a pod without a pause container: it keeps the pod's namespaces and lets the kernel bury
//! what is left to it there.
//!
//! A container must never run the very file that the host runs, and what a container runs cannot be in `/run`, where many hosts
//! have nothing executed. So it is no mode of this program: it is one of less than 300 bytes, which is made here. As
//! an assembler has it:
//!
//! ```text
//!         sigaction(SIGCHLD, &ignore, 0, 8)     nobody has to wait for children then
//! again:  pause()                               ppoll() without anything where there is none
//!         goto again
//! ignore: SIG_IGN, 0, 0, 0
//! ```

/// An ELF file for this processor; `None` where none was written.
pub(crate) fn program() -> Option<Vec<u8>> {
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        "x86_64" => (62, X86_64),
        "aarch64" => (183, AARCH64),
        _ => return None,
    };
    Some(file(machine, code))
}

/// `mov`, `lea`, `syscall`, `jmp`, and what aligns `ignore`.
const X86_64: &[u8] = &[
    0xb8, 13, 0, 0, 0, 0xbf, 17, 0, 0, 0, 0x48, 0x8d, 0x35, 23, 0, 0, 0, 0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0,
    0x0f, 0x05, 0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7, 0x0f, 0x1f, 0x40, 0,
];

/// `mov x8, #134`, `mov x0, #17`, `adr x1, ignore`, `mov x2, #0`, `mov x3, #8`, `svc #0`, four zeros, `mov x8, #73`, `svc #0`, `b`.
const AARCH64: &[u8] = &[
    0xc8, 0x10, 0x80, 0xd2, 0x20, 0x02, 0x80, 0xd2, 0x81, 0x01, 0, 0x10, 0x02, 0, 0x80, 0xd2, 0x03, 0x01,
    0x80, 0xd2, 0x01, 0, 0, 0xd4, 0, 0, 0x80, 0xd2, 0x01, 0, 0x80, 0xd2, 0x02, 0, 0x80, 0xd2, 0x03, 0, 0x80,
    0xd2, 0x28, 0x09, 0x80, 0xd2, 0x01, 0, 0, 0xd4, 0xfa, 0xff, 0xff, 0x17, 0x1f, 0x20, 0x03, 0xd5,
];

/// `SIG_IGN`, and no flags, restorer or mask.
const IGNORE: [u64; 4] = [1, 0, 0, 0];

/// The header of the file, two of segments, the code.
fn file(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 2 * 56;
    const LARGEST_PAGE: u64 = 0x1_0000;
    let ignore: Vec<u8> = IGNORE.iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = HEADERS + code.len() as u64 + ignore.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |out: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    };
    let word = |out: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    };
    let long = |out: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    };
    // Executable, the processor; the version; where it begins, where the segments' headers are, no sections.
    half(&mut out, &[2, machine]);
    word(&mut out, &[1]);
    long(&mut out, &[BASE + HEADERS, 64, 0]);
    word(&mut out, &[0]);
    half(&mut out, &[64, 56, 2, 64, 0, 0]);
    // All of the file, to be read and executed.
    word(&mut out, &[1, 5]);
    long(&mut out, &[0, BASE, BASE, length, length, LARGEST_PAGE]);
    // A stack that is not executed.
    word(&mut out, &[0x6474_e551, 6]);
    long(&mut out, &[0, 0, 0, 0, 0, 16]);
    out.extend(code);
    out.extend(ignore);
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_waits_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        fs_err::write(&path, program().unwrap()).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let waits = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let state = fs_err::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let ignored = state.lines().find_map(|line| line.strip_prefix("SigIgn:\t"));
            let ignored = ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
            // The ends of children, signal 17.
            state.contains("State:\tS") && ignored & 1 << 16 != 0
        });
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(waits && ended.is_none(), "{ended:?}");
    }

    #[test]
    fn both_are_whole() {
        for (machine, code) in [(62, X86_64), (183, AARCH64)] {
            let file = file(machine, code);
            assert_eq!(file.len(), 64 + 2 * 56 + code.len() + 32);
            // What is ignored is aligned.
            assert_eq!((file.len() - 32) % 8, 0);
        }
    }
}
