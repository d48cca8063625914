//! Where the runtime says what went wrong: the log its caller reads, and standard error.

use std::io::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::ui::Ui;

/// The log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    json: bool,
    debug: bool,
}

impl Log {
    pub(super) fn new(path: Option<&str>, format: Option<&str>, debug: bool) -> Self {
        Self { path: path.map(PathBuf::from), json: format == Some("json"), debug }
    }

    /// Says why a verb failed; gives the exit code.
    pub(super) fn fail(&self, ui: Ui, text: &str, code: u8) -> u8 {
        if self.path.is_some() {
            self.write(ui, "error", text);
            ui.note(text);
        } else {
            ui.note(self.line("error", text).trim_end());
        }
        code
    }

    /// Says something the caller may want to know though the verb goes on.
    pub(super) fn warn(&self, ui: Ui, text: &str) {
        self.write(ui, "warning", text);
    }

    /// Says what is done, where that was asked for.
    pub(super) fn debug(&self, ui: Ui, text: &str) {
        if self.debug {
            self.write(ui, "debug", text);
        }
    }

    fn write(&self, ui: Ui, level: &str, text: &str) {
        let line = self.line(level, text);
        let written = self.path.as_ref().map(|path| {
            let mut file = fs_err::OpenOptions::new().append(true).create(true).open(path)?;
            // In one call: others write to the same file.
            file.write_all(line.as_bytes())
        });
        if !matches!(written, Some(Ok(()))) {
            ui.note(line.trim_end());
        }
    }

    fn line(&self, level: &str, text: &str) -> String {
        let now = Timestamp::now();
        let now = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(0)).timestamp_to_string(&now);
        if self.json {
            return format!("{}\n", serde_json::json!({ "level": level, "msg": text, "time": now }));
        }
        format!("time={now:?} level={level} msg={text:?}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_callers_read() {
        let line = Log::new(None, Some("json"), false).line("error", "a \"b\"");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("error"), Some("a \"b\"")));
        assert!(value["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        let line = Log::default().line("warning", "x");
        assert!(line.starts_with("time=\"20") && line.ends_with("level=warning msg=\"x\"\n"), "{line}");
    }
}
