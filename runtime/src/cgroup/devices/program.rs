//! Assembles the BPF program of a device filter (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! The kernel asks with the kind of device and the kinds of access in one word, then major and minor number. The rules are
//! gone through from the last one: a rule that denies one of the kinds of access still asked for ends it, one that allows
//! takes its kinds out, and nothing left is a yes.

use super::{ALL, Kind, Rule};
use crate::cgroup::sys::Code;

/// Registers: the answer, the question, the device's kind, the access asked for, major, minor, scratch.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// `BPF_LDX | BPF_W | BPF_MEM`
const LOAD: u8 = 0x61;
/// 32 bit arithmetic with a constant: `BPF_ALU | ... | BPF_K`, and a copy.
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const COPY: u8 = 0xbc;
/// `BPF_JMP | ... | BPF_K`
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_*`
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

fn code(operation: u8, to: u8, from: u8, offset: i16, constant: i32) -> Code {
    Code { operation, registers: to | from << 4, offset, constant }
}

pub(super) fn assemble(rules: &[Rule]) -> Vec<Code> {
    let mut out = vec![
        code(LOAD, KIND, QUESTION, 0, 0),
        code(COPY, ACCESS, KIND, 0, 0),
        code(AND, KIND, 0, 0, 0xffff),
        code(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        code(LOAD, MAJOR, QUESTION, 4, 0),
        code(LOAD, MINOR, QUESTION, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let block = block(rule);
        let is_last = !block.iter().any(|code| matches!(code.operation, JUMP_EQUAL | JUMP_NOT_EQUAL));
        out.extend(block);
        // The kernel does not take what cannot be reached.
        if is_last {
            return out;
        }
    }
    out.extend(answer(false));
    out
}

fn answer(allow: bool) -> [Code; 2] {
    [code(SET, ANSWER, 0, 0, i32::from(allow)), code(EXIT, 0, 0, 0, 0)]
}

/// One rule; falls through to the next where it does not decide.
fn block(rule: &Rule) -> Vec<Code> {
    let mut out = Vec::with_capacity(8);
    // Jumps are filled in at the end.
    let mut unless = |register: u8, value: i32| out.push(code(JUMP_NOT_EQUAL, register, 0, 0, value));
    match rule.kind {
        Kind::Any => {}
        Kind::Block => unless(KIND, BLOCK),
        Kind::Character => unless(KIND, CHARACTER),
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            unless(register, number.cast_signed());
        }
    }
    if rule.access != ALL {
        if rule.allow {
            out.push(code(AND, ACCESS, 0, 0, i32::from(ALL & !rule.access)));
            out.push(code(JUMP_NOT_EQUAL, ACCESS, 0, 0, 0));
        } else {
            out.push(code(COPY, SCRATCH, ACCESS, 0, 0));
            out.push(code(AND, SCRATCH, 0, 0, i32::from(rule.access)));
            out.push(code(JUMP_EQUAL, SCRATCH, 0, 0, 0));
        }
    }
    out.extend(answer(rule.allow));
    let end = out.len();
    for (at, code) in out.iter_mut().enumerate() {
        if matches!(code.operation, JUMP_EQUAL | JUMP_NOT_EQUAL) {
            code.offset = i16::try_from(end - at - 1).unwrap_or(0);
        }
    }
    out
}
