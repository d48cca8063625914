//! This process as a container's client: its terminal, the keys to leave by, and what the end means.

use anyhow::Result;
use clap::{ArgAction, Args};
use dhow_engine::Engine;
use dhow_engine::container::{Attended, ClientStreams};
use dhow_engine::detach::DetachKeys;
use dhow_engine::record::Container;

use crate::ui::Ui;

/// How this process's streams are connected to a container that runs.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// Keys that leave a terminal while the container goes on [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the container
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        hide_possible_values = true,
        action = ArgAction::Set,
        value_name = "BOOL"
    )]
    sig_proxy: bool,
}

impl ClientArgs {
    /// When none of the options is given.
    pub(crate) fn usual() -> Self {
        Self { detach_keys: None, sig_proxy: true }
    }

    /// The streams of a container that is, or becomes, attached.
    pub(crate) fn streams(&self, input: bool, terminal: bool) -> Result<ClientStreams> {
        let keys = match self.detach_keys.as_deref() {
            None | Some("") => DetachKeys::default(),
            Some(text) => DetachKeys::parse(text)?,
        };
        let outputs = [true, true];
        Ok(ClientStreams { input, terminal, detach_keys: Some(keys), sig_proxy: self.sig_proxy, outputs })
    }
}

/// Stays with a container until it ends or the user leaves it; gives the exit code.
pub(crate) fn attend(
    ui: &Ui,
    engine: &Engine,
    container: &Container,
    streams: ClientStreams,
    attach: impl FnOnce(ClientStreams) -> Result<Attended>,
) -> Result<u8> {
    if engine.copies_terminal(container) {
        return attend_raw(ui, streams, attach);
    }
    said(ui, attach(streams)?)
}

/// As [`attend`], where the terminal is copied for certain: keys must reach the container as they are typed.
pub(crate) fn attend_raw(
    ui: &Ui,
    streams: ClientStreams,
    attach: impl FnOnce(ClientStreams) -> Result<Attended>,
) -> Result<u8> {
    #[cfg(unix)]
    let raw = if streams.terminal && streams.input { crate::tty::Raw::enter()? } else { None };
    let attended = attach(streams);
    #[cfg(unix)]
    drop(raw);
    said(ui, attended?)
}

fn said(ui: &Ui, attended: Attended) -> Result<u8> {
    match attended {
        Attended::Ended(code) => Ok(code),
        Attended::Detached => {
            ui.note("read escape sequence");
            Ok(0)
        }
        Attended::Over => Ok(0),
    }
}
