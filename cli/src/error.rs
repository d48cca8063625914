//! From an error to what the user sees and the exit code. The one place that knows Docker's codes for failures of the
//! command itself: 125 for `run`, 1 elsewhere; 126 and 127 come from the engine.

use crate::ui::Ui;

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct WithCode {
    pub(crate) code: u8,
    pub(crate) error: anyhow::Error,
}

/// A failure with advice of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Hinted {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// An error with advice.
pub(crate) fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { message: message.into(), hint: hint.into() }.into()
}

/// Marks a failure of `run` before the container ran: Docker's 125, or what the engine says.
pub(crate) fn of_run(error: anyhow::Error) -> anyhow::Error {
    if error.is::<WithCode>() {
        return error;
    }
    let code = error.downcast_ref::<dhow_engine::Error>().map_or(125, dhow_engine::Error::exit_code);
    WithCode { code, error }.into()
}

/// Prints a failure; returns its exit code.
pub(crate) fn report(ui: &Ui, error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<WithCode>() {
        Some(with_code) => {
            print(ui, &with_code.error);
            with_code.code
        }
        None => {
            print(ui, error);
            1
        }
    }
}

/// Prints the `error:` line, and a `hint:` line where there is advice.
pub(crate) fn print(ui: &Ui, error: &anyhow::Error) {
    ui.error(&one_line(&format!("{error:#}")));
    let advice = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(engine) = cause.downcast_ref::<dhow_engine::Error>() {
            return engine.hint();
        }
        cause.downcast_ref::<Hinted>().map(|hinted| hinted.hint.clone())
    };
    if let Some(hint) = error.chain().find_map(advice) {
        ui.hint(&one_line(&hint));
    }
}

/// Why a file that the user has named cannot be opened, without its name, which the sentence has already.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Names in messages come from images, registries and users: a line break or an escape sequence in one must not look
/// like a line of ours.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
