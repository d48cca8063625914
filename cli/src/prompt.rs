//! Questions to the user on the terminal, and secrets that must not be seen while they are typed.

use std::io::{self, Write as _};

use anyhow::Result;

use crate::error::hinted;

/// Longest answer, in bytes.
#[cfg(unix)]
const MAX: usize = 4096;

/// Asks on standard error and reads a line from the terminal at standard input. Ctrl-C and an early end are errors.
pub(crate) fn ask(question: &str, visible: bool) -> Result<String> {
    if !visible {
        let secret = secret(question)?;
        return secret.ok_or_else(|| hinted("interrupted", "try again, or use `--password-stdin`"));
    }
    print(question)?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Err(hinted("no answer", "try again, or give `-u NAME --password-stdin`"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn print(question: &str) -> io::Result<()> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()
}

/// A line that is not shown; `None` after Ctrl-C or Ctrl-D. The terminal is as before then, whatever happens: the
/// keys that would end this process are read like all others.
#[cfg(unix)]
fn secret(question: &str) -> Result<Option<String>> {
    use std::io::Read as _;

    use crate::tty::Raw;

    // Before the question: who answers at once must not be seen either.
    let raw = Raw::enter()?;
    print(question)?;
    let mut typed: Vec<u8> = Vec::new();
    let mut stdin = io::stdin().lock();
    let finished = loop {
        let mut byte = [0];
        if stdin.read(&mut byte)? == 0 {
            break false;
        }
        match byte[0] {
            b'\r' | b'\n' => break true,
            // Ctrl-C; Ctrl-D, Ctrl-\ and Ctrl-Z.
            3 | 4 | 26 | 28 => break false,
            // Backspace takes a whole character.
            8 | 127 => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            21 => typed.clear(),
            byte if typed.len() < MAX => typed.push(byte),
            _ => {}
        }
    };
    drop(raw);
    writeln!(io::stderr()).ok();
    let text =
        String::from_utf8(typed).map_err(|_| hinted("the password is not valid UTF-8", "use another one"))?;
    Ok(finished.then_some(text))
}

#[cfg(not(unix))]
fn secret(_question: &str) -> Result<Option<String>> {
    Err(hinted("a password cannot be typed here unseen yet", "pipe it in with `--password-stdin`"))
}
