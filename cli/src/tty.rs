//! The user's terminal in raw mode while a container's terminal is attached, and back again however that ends.

use std::io::{IsTerminal as _, Stdin, stdin};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Raw mode; the old mode comes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Raw {
    stdin: Stdin,
    before: Termios,
}

impl Raw {
    /// Switches standard input to raw mode; `None` when it is no terminal.
    pub(crate) fn enter() -> std::io::Result<Option<Self>> {
        let stdin = stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { stdin, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone away needs no mode.
        tcsetattr(&self.stdin, OptionalActions::Now, &self.before).ok();
    }
}
