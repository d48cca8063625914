//! Assembles classic BPF: sections per architecture, a binary search in each, checks of arguments at its leaves.
//!
//! Knows numbers only, no names and no profile. Arguments are read as on little endian machines. Jumps of classic BPF only go forward, and conditional ones at
//! most 255 instructions; where a half of the search is longer a plain jump leads to it.

use oci_spec::runtime::LinuxSeccompOperator as Operator;

use crate::native::sys::Instruction;

/// Higher than any call's number on the architectures supported.
const NUMBERS: u16 = 512;

/// What one architecture's calls get.
#[derive(Debug)]
pub(super) struct Section {
    /// `AUDIT_ARCH_*`.
    architecture: u32,
    /// What calls with the x32 bit get, on x86-64.
    x32: Option<u32>,
    /// What calls above a number get that have no rule, when not the default.
    newer: Option<(u32, u32)>,
    /// Results without conditions, by number.
    always: [Option<u32>; NUMBERS as usize],
    /// The others, in the profile's order.
    checked: Vec<Rule>,
}

/// One call's result, when all checks hold.
#[derive(Debug)]
struct Rule {
    number: u32,
    result: u32,
    checks: Vec<Check>,
}

impl Section {
    /// No rules yet.
    pub(super) fn new(architecture: u32, x32: Option<u32>) -> Self {
        Self { architecture, x32, newer: None, always: [None; NUMBERS as usize], checked: Vec::new() }
    }

    /// Gives calls above `newest` that have no rule this result.
    pub(super) fn newer_than(self, newest: u32, result: u32) -> Self {
        Self { newer: Some((newest, result)), ..self }
    }

    /// Adds a rule. Of several without conditions for one call the first counts, and it counts before all that
    /// have conditions.
    pub(super) fn add(&mut self, number: u32, result: u32, checks: &[Check]) {
        if !checks.is_empty() {
            self.checked.push(Rule { number, result, checks: checks.to_vec() });
        } else if let Some(always) = self.always.get_mut(number as usize) {
            always.get_or_insert(result);
        }
    }
}

/// A comparison of one 64 bit argument.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    pub(super) index: u32,
    pub(super) operator: Operator,
    pub(super) value: u64,
    /// For the masked comparison: what must be left of the argument under the mask `value`.
    pub(super) second: u64,
}

/// Neighbouring numbers with the same treatment, up to the next span's first.
struct Span {
    first: u32,
    treatment: Treatment,
}

#[derive(Clone, Copy, PartialEq)]
enum Treatment {
    Always(u32),
    /// The rules with conditions for this one number.
    Checked(u32),
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const X32_BIT: u32 = 0x4000_0000;

/// A jump whose target is not known yet: to where the rule's checks fail.
const TO_FAIL: u8 = 255;

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

fn branch(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

/// The program: `default` is for calls without a rule, `foreign` for all calls of other architectures.
pub(super) fn assemble(
    sections: impl Iterator<Item = Section>,
    default: u32,
    foreign: u32,
) -> Vec<Instruction> {
    let mut out = vec![plain(LOAD, ARCHITECTURE_AT)];
    for section in sections {
        let body = body(&section, default);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        out.push(branch(JUMP_EQUAL, section.architecture, 1, 0));
        out.push(plain(JUMP, length));
        out.extend(body);
    }
    out.push(plain(RETURN, foreign));
    out
}

fn body(section: &Section, default: u32) -> Vec<Instruction> {
    let mut out = vec![plain(LOAD, NUMBER_AT)];
    if let Some(result) = section.x32 {
        out.push(branch(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1));
        out.push(plain(RETURN, result));
    }
    section.search(&section.spans(default), default, &mut out);
    out
}

impl Section {
    fn spans(&self, default: u32) -> Vec<Span> {
        let otherwise = |number: u32| match self.newer {
            Some((newest, result)) if number > newest => result,
            _ => default,
        };
        let mut spans: Vec<Span> = Vec::with_capacity(160);
        let mut push = |first: u32, treatment: Treatment| {
            if spans.last().is_none_or(|last| last.treatment != treatment) {
                spans.push(Span { first, treatment });
            }
        };
        for (number, always) in (0..).zip(&self.always) {
            let treatment = match always {
                Some(result) => Treatment::Always(*result),
                None if self.checked.iter().any(|rule| rule.number == number) => Treatment::Checked(number),
                None => Treatment::Always(otherwise(number)),
            };
            push(number, treatment);
        }
        push(NUMBERS.into(), Treatment::Always(otherwise(NUMBERS.into())));
        spans
    }

    fn search(&self, spans: &[Span], default: u32, out: &mut Vec<Instruction>) {
        match spans {
            [] => out.push(plain(RETURN, default)),
            [span] => match span.treatment {
                Treatment::Always(result) => out.push(plain(RETURN, result)),
                Treatment::Checked(number) => {
                    for rule in self.checked.iter().filter(|rule| rule.number == number) {
                        checked(rule, out);
                    }
                    out.push(plain(RETURN, default));
                }
            },
            _ => {
                let (low, high) = spans.split_at(spans.len() / 2);
                let at = out.len();
                self.search(low, default, out);
                let length = out.len() - at;
                match u8::try_from(length) {
                    Ok(skip) => out.insert(at, branch(JUMP_GREATER_OR_EQUAL, high[0].first, skip, 0)),
                    Err(_) => {
                        let far = u32::try_from(length).unwrap_or(u32::MAX);
                        out.splice(
                            at..at,
                            [branch(JUMP_GREATER_OR_EQUAL, high[0].first, 0, 1), plain(JUMP, far)],
                        );
                    }
                }
                self.search(high, default, out);
            }
        }
    }
}

/// One rule: its checks, then its result; a check that fails jumps behind the result.
fn checked(rule: &Rule, out: &mut Vec<Instruction>) {
    let start = out.len();
    for check in &rule.checks {
        compare(check, out);
    }
    out.push(plain(RETURN, rule.result));
    let end = out.len();
    for (at, instruction) in out.iter_mut().enumerate().skip(start) {
        let skip = u8::try_from(end - at - 1).unwrap_or(TO_FAIL);
        if instruction.jump_true == TO_FAIL {
            instruction.jump_true = skip;
        }
        if instruction.jump_false == TO_FAIL {
            instruction.jump_false = skip;
        }
    }
}

/// Compares the halves of an argument, high one first. Falls through when the check holds.
fn compare(check: &Check, out: &mut Vec<Instruction>) {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
    let halves = |value: u64| [(value >> 32) as u32, value as u32];
    let [high, low] = halves(check.value);
    let low_at = ARGUMENTS_AT + 8 * check.index;
    let (load_high, load_low) = (plain(LOAD, low_at + 4), plain(LOAD, low_at));
    match check.operator {
        Operator::ScmpCmpEq => out.extend([
            load_high,
            branch(JUMP_EQUAL, high, 0, TO_FAIL),
            load_low,
            branch(JUMP_EQUAL, low, 0, TO_FAIL),
        ]),
        Operator::ScmpCmpNe => out.extend([
            load_high,
            branch(JUMP_EQUAL, high, 0, 2),
            load_low,
            branch(JUMP_EQUAL, low, TO_FAIL, 0),
        ]),
        Operator::ScmpCmpMaskedEq => {
            let [wanted_high, wanted_low] = halves(check.second);
            // A half that is neither looked at nor asked for costs nothing.
            if high != 0 || wanted_high != 0 {
                out.extend([load_high, plain(AND, high), branch(JUMP_EQUAL, wanted_high, 0, TO_FAIL)]);
            }
            out.extend([load_low, plain(AND, low), branch(JUMP_EQUAL, wanted_low, 0, TO_FAIL)]);
        }
        Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
            let code =
                if check.operator == Operator::ScmpCmpGt { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
            out.extend([
                load_high,
                branch(JUMP_GREATER, high, 3, 0),
                branch(JUMP_EQUAL, high, 0, TO_FAIL),
                load_low,
                branch(code, low, 0, TO_FAIL),
            ]);
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            let code =
                if check.operator == Operator::ScmpCmpLt { JUMP_GREATER_OR_EQUAL } else { JUMP_GREATER };
            out.extend([
                load_high,
                branch(JUMP_GREATER, high, TO_FAIL, 0),
                branch(JUMP_EQUAL, high, 0, 2),
                load_low,
                branch(code, low, TO_FAIL, 0),
            ]);
        }
    }
}
