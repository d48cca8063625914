//! `update`: other limits for a container that is there.

use std::io::Read as _;

use dhow_engine::runtime::oci::Container;
use dhow_engine::runtime::spec::LinuxResources;
use serde_json::{Value, json};

use super::args::{Flag, Given, value};
use super::{Failure, Global, Outcome, failed};
use crate::ui::Ui;

const FLAGS: [Flag; 17] = [
    value("resources", "r"),
    value("blkio-weight", ""),
    value("cpu-period", ""),
    value("cpu-quota", ""),
    value("cpu-burst", ""),
    value("cpu-share", ""),
    value("cpu-rt-period", ""),
    value("cpu-rt-runtime", ""),
    value("cpuset-cpus", ""),
    value("cpuset-mems", ""),
    value("cpu-idle", ""),
    value("kernel-memory", ""),
    value("kernel-memory-tcp", ""),
    value("memory", ""),
    value("memory-reservation", ""),
    value("memory-swap", ""),
    value("pids-limit", ""),
];

/// Options that are numbers, and their places in the specification's resources.
const NUMBERS: [(&str, &str, &str); 11] = [
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("pids-limit", "pids", "limit"),
    ("kernel-memory", "", ""),
    ("kernel-memory-tcp", "", ""),
];

/// `update`
pub(super) fn update(_ui: Ui, global: &Global, words: Vec<String>) -> Outcome {
    let given = Given::parse(&FLAGS, words, None)?;
    let mut container = Container::open(&global.root, given.id("update")?)?;
    container.update(&resources(&given)?)?;
    Ok(0)
}

fn resources(given: &Given) -> Result<LinuxResources, Failure> {
    let value = match given.text("resources") {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            serde_json::from_str(&text)?
        }
        Some(path) => serde_json::from_slice(&fs_err::read(path)?)?,
        None => of_flags(given)?,
    };
    serde_json::from_value(value).map_err(|error| failed(format!("invalid resources: {error}")))
}

fn of_flags(given: &Given) -> Result<Value, Failure> {
    let mut value = json!({});
    for (flag, part, field) in NUMBERS {
        if let Some(number) = given.number::<i64>(flag)?
            && !part.is_empty()
        {
            value[part][field] = number.into();
        }
    }
    for (flag, field) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(text) = given.text(flag) {
            value["cpu"][field] = text.into();
        }
    }
    for (flag, field) in [("memory", "limit"), ("memory-reservation", "reservation"), ("memory-swap", "swap")]
    {
        if let Some(text) = given.text(flag) {
            let bytes = bytes(text).ok_or_else(|| failed(format!("invalid value for {flag}: {text:?}")))?;
            value["memory"][field] = bytes.into();
        }
    }
    Ok(value)
}

/// A number of bytes, with the suffixes of powers of 1024; -1 is no limit.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[number.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.trim_end().parse::<i64>().ok().filter(|number| *number >= 0)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_resources() {
        let line = "--memory 64m --memory-swap -1 --cpu-quota=5000 --cpuset-cpus 0-1 --pids-limit 9 id";
        let given = Given::parse(&FLAGS, line.split(' ').map(str::to_owned).collect(), None).unwrap();
        let made = resources(&given).unwrap();
        let memory = made.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(-1)));
        assert_eq!(made.cpu().as_ref().unwrap().quota(), Some(5000));
        assert_eq!(made.cpu().as_ref().unwrap().cpus().as_deref(), Some("0-1"));
        for (text, number) in
            [("1", Some(1)), ("2KiB", Some(2048)), ("x", None), ("-2", None), ("9223372036854775807k", None)]
        {
            assert_eq!(bytes(text), number, "{text}");
        }
    }
}
