//! `stats`: what a running container uses, as far as this host can tell.
//!
//! Its control group knows best, where it has one; what that does not count comes from the container's processes.

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::error::Result;
use crate::record::Container;

/// Figures of one moment; what is not known is `None`.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When it was taken.
    pub at: Instant,
    /// Time on processors until now.
    pub cpu: Option<Duration>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// The most it may have: its limit, or all that this host has.
    pub memory_limit: Option<u64>,
    /// Bytes received and sent. A container without a network has none.
    pub network: Option<(u64, u64)>,
    /// Bytes read from and written to block devices.
    pub block: Option<(u64, u64)>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Sample {
    /// Percent of one processor since an earlier sample.
    pub fn cpu_percent(&self, before: &Self) -> Option<f64> {
        let passed = self.at.saturating_duration_since(before.at).as_secs_f64();
        // What has ended between the two may have taken its time with it.
        let used = self.cpu?.saturating_sub(before.cpu?).as_secs_f64();
        (passed > 0.0).then(|| used / passed * 100.0)
    }
}

impl Engine {
    /// What a container uses now; `None` when it does not run.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn sample(&self, container: &Container) -> Result<Option<Sample>> {
        if !container.state()?.status.is_alive() {
            return Ok(None);
        }
        #[cfg(target_os = "linux")]
        return self.measure(container);
        #[cfg(not(target_os = "linux"))]
        return Ok(Some(Sample {
            at: Instant::now(),
            cpu: None,
            memory: None,
            memory_limit: None,
            network: None,
            block: None,
            pids: None,
        }));
    }

    #[cfg(target_os = "linux")]
    fn measure(&self, container: &Container) -> Result<Option<Sample>> {
        use crate::processes;
        use dhow_runtime::Kind;
        use dhow_runtime::cgroup::Group;
        let pids = processes::of(container);
        let Some(first) = pids.first() else { return Ok(None) };
        let at = Instant::now();
        let usage = processes::usage(&pids);
        let group = Group::find(&self.group_name(&container.record.id)?);
        let group = group.map(|group| group.stats()).unwrap_or_default();
        let host = &container.record.host_config;
        let network = match container.record.kind {
            // Of the host's own network nobody counts whose bytes they are; Docker says nothing passed.
            Kind::Native => Some(processes::network(*first).unwrap_or_default()),
            Kind::Wasm => {
                let uses_none = host.network_mode != "host"
                    && host.allow_net.is_empty()
                    && host.port_bindings.is_empty()
                    && !host.publish_all_ports;
                uses_none.then_some((0, 0))
            }
        };
        Ok(Some(Sample {
            at,
            cpu: Some(group.cpu.unwrap_or(usage.cpu)),
            memory: Some(group.memory.unwrap_or(usage.memory)),
            memory_limit: Some(if host.memory == 0 { processes::host_memory() } else { host.memory }),
            network,
            block: group.block.or(usage.block),
            pids: Some(group.pids.unwrap_or(usage.threads)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_a_processor() {
        let at = Instant::now();
        let sample = |seconds: u64, cpu: Option<u64>| Sample {
            at: at + Duration::from_secs(seconds),
            cpu: cpu.map(Duration::from_millis),
            memory: None,
            memory_limit: None,
            network: None,
            block: None,
            pids: None,
        };
        let before = sample(0, Some(1000));
        assert_eq!(sample(2, Some(4000)).cpu_percent(&before), Some(150.0));
        assert_eq!(sample(2, Some(10)).cpu_percent(&before), Some(0.0));
        assert_eq!(sample(2, None).cpu_percent(&before), None);
        assert_eq!(sample(0, Some(4000)).cpu_percent(&before), None);
    }
}
