//! `port`: where the ports of a container are on this host.

use anyhow::Result;
use clap::Args;
use dhow_engine::ports::PortBinding;

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// Name or id of the container
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &PortArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let container = engine.container(&args.container)?;
    let ports = container.ports(&container.state()?);
    let Some(wanted) = &args.port else {
        for (port, bindings) in &ports {
            for binding in bindings {
                ui.line(&format!("{port} -> {}", shown(binding)));
            }
        }
        return Ok(0);
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    if number.parse::<u16>().is_err() {
        return Err(hinted(format!("invalid port ({wanted})"), "a port is a number, as in `80` or `53/udp`"));
    }
    match ports.get(&format!("{number}/{}", protocol.to_ascii_lowercase())) {
        Some(bindings) if !bindings.is_empty() => {
            for binding in bindings {
                ui.line(&shown(binding));
            }
            Ok(0)
        }
        _ => Err(hinted(
            format!("No public port '{wanted}' published for {}", args.container),
            "`dhow ps` shows the ports of running containers; publish one with `dhow run -p`",
        )),
    }
}

/// `0.0.0.0:80`, `[::]:80`.
pub(crate) fn shown(binding: &PortBinding) -> String {
    if binding.host_ip.contains(':') {
        format!("[{}]:{}", binding.host_ip, binding.host_port)
    } else {
        format!("{}:{}", binding.host_ip, binding.host_port)
    }
}

/// The column of `ps`: ports that follow each other on both sides are one entry.
pub(crate) fn column(ports: &dhow_engine::ports::PortMap) -> String {
    /// Host address, host port, container port, protocol, and how many more follow.
    type Run<'a> = (Option<&'a str>, u32, u32, &'a str, u32);
    let mut single: Vec<Run<'_>> = Vec::new();
    for (port, bindings) in ports {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u32 = number.parse().unwrap_or(0);
        if bindings.is_empty() {
            single.push((None, 0, number, protocol, 0));
        }
        for binding in bindings {
            let host = binding.host_port.parse().unwrap_or(0);
            single.push((Some(&binding.host_ip), host, number, protocol, 0));
        }
    }
    single.sort_by_key(|(ip, host, port, protocol, _)| (*protocol, ip.is_none(), *ip, *port, *host));
    let mut runs: Vec<Run<'_>> = Vec::new();
    for next in single {
        if let Some(last) = runs.last_mut()
            && (last.0, last.3) == (next.0, next.3)
            && last.2 + last.4 + 1 == next.2
            && (next.0.is_none() || last.1 + last.4 + 1 == next.1)
        {
            last.4 += 1;
        } else {
            runs.push(next);
        }
    }
    let range = |first: u32, more: u32| {
        if more == 0 { first.to_string() } else { format!("{first}-{}", first + more) }
    };
    // Docker sorts by the container's port.
    runs.sort_by_key(|(ip, host, port, protocol, _)| (*port, *protocol, *ip, *host));
    let entry = |(ip, host, port, protocol, more): &Run<'_>| match ip {
        Some(ip) => {
            let binding = PortBinding { host_ip: (*ip).to_owned(), host_port: range(*host, *more) };
            format!("{}->{}/{protocol}", shown(&binding), range(*port, *more))
        }
        None => format!("{}/{protocol}", range(*port, *more)),
    };
    runs.iter().map(entry).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let bound = |entries: &[(&str, &[(&str, &str)])]| {
            let entries = entries.iter().map(|(port, bindings)| {
                let bindings = bindings.iter().map(|(ip, port)| PortBinding {
                    host_ip: (*ip).to_owned(),
                    host_port: (*port).to_owned(),
                });
                ((*port).to_owned(), bindings.collect())
            });
            column(&entries.collect())
        };
        assert_eq!(bound(&[]), "");
        assert_eq!(bound(&[("80/tcp", &[])]), "80/tcp");
        assert_eq!(
            bound(&[("80/tcp", &[("0.0.0.0", "8080"), ("::", "8080")])]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        let range: [(&str, &[(&str, &str)]); 3] =
            [("80/tcp", &[("127.0.0.1", "8000")]), ("81/tcp", &[("127.0.0.1", "8001")]), ("90/udp", &[])];
        assert_eq!(bound(&range), "127.0.0.1:8000-8001->80-81/tcp, 90/udp");
    }
}
