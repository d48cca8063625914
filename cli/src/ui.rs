//! The only place that prints: results to standard output, everything else to standard error.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// Standard error is a terminal.
    pub(crate) interactive: bool,
    color: bool,
}

impl Ui {
    pub(crate) fn new() -> Self {
        let interactive = std::io::stderr().is_terminal();
        let color = interactive && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { interactive, color }
    }

    /// A result, as it is.
    pub(crate) fn print(self, text: &str) {
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
            && error.kind() != ErrorKind::BrokenPipe
        {
            self.warn(&format!("cannot write to standard output: {error}"));
        }
    }

    /// A result on a line of its own.
    pub(crate) fn line(self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// What is going on.
    pub(crate) fn note(self, text: &str) {
        // Nobody can be told when standard error is gone.
        writeln!(std::io::stderr(), "{text}").ok();
    }

    /// What is going on in this moment, on a terminal's last line; nothing takes it away.
    pub(crate) fn status(self, text: &str) {
        write!(std::io::stderr(), "\r\x1b[K{text}").ok();
    }

    /// Something the user should know, though the command goes on.
    pub(crate) fn warn(self, text: &str) {
        self.labelled("warning", "33", text);
    }

    /// Why the command failed.
    pub(crate) fn error(self, text: &str) {
        self.labelled("error", "31", text);
    }

    /// What the user can do about it.
    pub(crate) fn hint(self, text: &str) {
        self.labelled("hint", "36", text);
    }

    fn labelled(self, label: &str, color: &str, text: &str) {
        if self.color {
            self.note(&format!("\x1b[1;{color}m{label}:\x1b[0m {text}"));
        } else {
            self.note(&format!("{label}: {text}"));
        }
    }
}
