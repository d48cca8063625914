//! `logs`: what a container has written, to the streams it was written to.

use std::io::{BufWriter, Write as _};

use anyhow::{Result, anyhow};
use clap::Args;
use dhow_engine::logs::{Entry, Source, Wanted};
use jiff::Timestamp;

use crate::args::Global;
use crate::context;
use crate::filter;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only this many lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_negative_numbers = true)]
    tail: String,
    /// Only what was written after, as `2026-05-01T12:00:00` or `42m` ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written before, as `2026-05-01T12:00:00` or `42m` ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show the extra attributes of the log
    #[arg(long)]
    details: bool,
    /// Name or id
    container: String,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &LogsArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let now = Timestamp::now();
    let time = |name: &str, text: &Option<String>| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => {
            let wrong = |_| {
                anyhow!("invalid value for \"{name}\": failed to parse value as time or duration: \"{text}\"")
            };
            filter::time(text, now).map(Some).map_err(wrong)
        }
    };
    let wanted = Wanted {
        since: time("since", &args.since)?,
        until: time("until", &args.until)?,
        // As Docker: what is no number, or a negative one, is everything.
        tail: args.tail.parse().ok(),
        follow: args.follow,
    };
    let container = engine.container(&args.container)?;
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let mut error = std::io::stderr().lock();
    let terminal = container.record.config.tty;
    let mut failed = None;
    engine.logs(&container, &wanted, &mut |entry| {
        let line = shown(entry, args);
        let written = match entry.source {
            // What comes first is seen first, where both go the same way.
            Source::Stderr if !terminal => out.flush().and_then(|()| error.write_all(line.as_bytes())),
            _ => out.write_all(line.as_bytes()).and_then(|()| if args.follow { out.flush() } else { Ok(()) }),
        };
        failed = written.err();
        failed.is_none()
    })?;
    if let Err(error) = out.flush() {
        failed.get_or_insert(error);
    }
    drop((out, error));
    if let Some(error) = failed
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        ui.warn(&format!("cannot write the log: {error}"));
        return Ok(1);
    }
    Ok(0)
}

fn shown(entry: &Entry, args: &LogsArgs) -> String {
    let mut line = String::with_capacity(entry.text.len() + 40);
    if args.timestamps {
        // Always nine digits, so that columns stay columns.
        line.push_str(&format!("{:.9} ", entry.time));
    }
    if args.details {
        // As Docker: `a=b,c=d`, escaped as in addresses of the web; the space is there without any, too.
        for (number, (name, value)) in entry.attributes.iter().enumerate() {
            line.push_str(if number == 0 { "" } else { "," });
            line.push_str(&format!("{}={}", escaped(name), escaped(value)));
        }
        line.push(' ');
    }
    line.push_str(&entry.text);
    line
}

/// The form of a query's value: a space is `+`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn attributes_are_escaped() {
        assert_eq!(super::escaped("a b,c=d/\u{e9}"), "a+b%2Cc%3Dd%2F%C3%A9");
    }
}
