//! `system start` and `system stop`: containers of a system that comes up or goes down.

use anyhow::Result;
use clap::Args;
use dhow_engine::system::Outcome;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(
    after_help = "A restart policy works without a daemon: the container's own monitor starts it again. Only after a
boot, or where a monitor itself was killed, somebody has to begin, and that is this command:

  always           runs again, whoever has stopped it
  unless-stopped   runs again unless `dhow stop` or `dhow kill` has ended it
  on-failure[:n]   runs again if it ended with another code than 0, or with the system

With systemd, as /etc/systemd/system/dhow.service (`systemctl enable --now dhow`):

  [Unit]
  Description=Containers of Dhow
  After=network-online.target
  Wants=network-online.target
  [Service]
  Type=oneshot
  RemainAfterExit=yes
  ExecStart=/usr/local/bin/dhow system start
  ExecStop=/usr/local/bin/dhow system stop
  TimeoutStopSec=5min
  KillMode=mixed
  [Install]
  WantedBy=multi-user.target

Without root the same file is a user's own, in ~/.config/systemd/user, with WantedBy=default.target, after
`loginctl enable-linger`. See docs/restart.md."
)]
pub(crate) struct StartArgs {}

#[derive(Debug, Args)]
#[command(after_help = "`dhow system start` starts those again that have a restart policy.")]
pub(crate) struct StopArgs {
    /// Seconds until they are killed; -1 waits for ever [default: the container's own, or 10]
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
}

pub(crate) fn start(ui: &Ui, global: &Global, _args: &StartArgs) -> Result<u8> {
    context::close_inherited();
    Ok(report(ui, context::engine(global)?.start_all()?))
}

pub(crate) fn stop(ui: &Ui, global: &Global, args: &StopArgs) -> Result<u8> {
    Ok(report(ui, context::engine(global)?.stop_all(args.timeout)?))
}

/// Names those that it has worked with, and says why not of the others.
fn report(ui: &Ui, outcomes: Vec<Outcome>) -> u8 {
    let mut code = 0;
    for Outcome { name, failure } in outcomes {
        match failure {
            None => ui.line(&name),
            Some(failure) => {
                crate::error::print(ui, &anyhow::Error::from(failure).context(name));
                code = 1;
            }
        }
    }
    code
}
