//! `update`: other limits and another restart policy for containers.

use anyhow::Result;
use clap::Args;
use dhow_engine::config::RestartPolicy;
use dhow_engine::container::Update;

use crate::args::Global;
use crate::commands::run::limits::{memory_swap, nano_cpus, size};
use crate::context;
use crate::error::hinted;
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dhow update --memory 512m --memory-swap 1g web    at once, also where it runs
  dhow update --restart unless-stopped web db")]
pub(crate) struct UpdateArgs {
    /// Most memory
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Most memory and swap together; -1 for any amount of swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that it is pressed down to when others need some
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Most processors, as `0.5`
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Weight against other containers, 1024 if all are equal
    #[arg(short = 'c', long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// Time in which the quota may be used
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Time of a processor in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors to run on, as `0-2,7`
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Nodes of memory to use, as `0-1`
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes and threads, -1 for any number
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Time in which the real-time budget may be used
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,
    /// Real-time scheduling in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Weight against others at block devices, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<u16>,
    /// Start it again when it has ended: `no`, `always`, `unless-stopped`, `on-failure[:TIMES]`
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &UpdateArgs) -> Result<u8> {
    if args.kernel_memory.is_some() {
        return Err(hinted(
            "--kernel-memory is not supported: the kernel has no such limit any more",
            "`--memory` counts what the kernel uses for a container, too",
        ));
    }
    let update = Update {
        memory: size("--memory", args.memory.as_deref())?,
        memory_swap: memory_swap(args.memory_swap.as_deref())?,
        memory_reservation: size("--memory-reservation", args.memory_reservation.as_deref())?,
        nano_cpus: args.cpus.as_deref().map(nano_cpus).transpose()?.unwrap_or_default(),
        cpu_shares: args.cpu_shares.unwrap_or_default(),
        cpu_period: args.cpu_period.unwrap_or_default(),
        cpu_quota: args.cpu_quota.unwrap_or_default(),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: args.pids_limit,
        blkio_weight: args.blkio_weight.unwrap_or_default(),
        cpu_realtime_period: args.cpu_rt_period.unwrap_or_default(),
        cpu_realtime_runtime: args.cpu_rt_runtime.unwrap_or_default(),
        restart_policy: args.restart.as_deref().map(RestartPolicy::parse).transpose()?,
    };
    if update == Update::default() {
        return Err(hinted(
            "you must provide one or more flags when using this command",
            "`dhow update --help` lists them",
        ));
    }
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        engine.update(&engine.container(wanted)?, &update)?;
        ui.line(wanted);
        Ok(())
    })
}
