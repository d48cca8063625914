//! Numbers of the options that limit a container, as people write them.

use anyhow::{Context as _, Result, bail};
use dhow_engine::config::{ThrottleDevice, WeightDevice};

use crate::error::hinted;
use crate::units;

/// A size, 0 where none is given.
pub(crate) fn size(option: &str, text: Option<&str>) -> Result<u64> {
    match text {
        Some(text) => {
            units::parse_size(text).with_context(|| format!("invalid value for {option}: '{text}'"))
        }
        None => Ok(0),
    }
}

/// `--memory-swap`, where -1 is without a limit.
pub(crate) fn memory_swap(text: Option<&str>) -> Result<i64> {
    match text {
        Some("-1") => Ok(-1),
        _ => Ok(i64::try_from(size("--memory-swap", text)?)?),
    }
}

/// A number of processors in billionths, as Docker reads `--cpus`.
pub(crate) fn nano_cpus(text: &str) -> Result<u64> {
    let invalid = || hinted(format!("invalid value for --cpus: '{text}'"), "`--cpus 0.5` is half of one");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(invalid());
    }
    if fraction.len() > 9 {
        bail!("value is too precise");
    }
    let number = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>() };
    let whole = number(whole).ok().and_then(|whole| whole.checked_mul(1_000_000_000));
    let fraction = number(&format!("{fraction:0<9}")).ok();
    whole.zip(fraction).and_then(|(whole, part)| whole.checked_add(part)).ok_or_else(invalid)
}

/// `PATH:WEIGHT`, in Docker's words.
pub(super) fn weight_device(text: &str) -> Result<WeightDevice> {
    let (path, weight) = text.split_once(':').filter(|(path, _)| !path.is_empty()).ok_or_else(|| {
        anyhow::anyhow!("invalid argument \"{text}\" for \"--blkio-weight-device\" flag: bad format: {text}")
    })?;
    if !path.starts_with("/dev/") {
        bail!("bad format for device path: {text}");
    }
    let weight = weight.parse().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    let weight = weight.with_context(|| format!("invalid weight for device: {text}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `PATH:RATE`, in Docker's words; `bytes`: with a unit.
pub(super) fn throttle_device(option: &str, text: &str, bytes: bool) -> Result<ThrottleDevice> {
    let unit = if bytes { "[<unit>]" } else { "" };
    let rest = if bytes { ". Unit is optional and can be kb, mb, or gb" } else { "" };
    let refused = || {
        anyhow::anyhow!(
            "invalid argument \"{text}\" for \"{option}\" flag: invalid rate for device: {text}. The correct format is <device-path>:<number>{unit}. Number must be a positive integer{rest}"
        )
    };
    let (path, rate) =
        text.split_once(':').filter(|(path, _)| path.starts_with("/dev/")).ok_or_else(refused)?;
    let rate = if bytes { units::parse_size(rate).ok() } else { rate.parse().ok() };
    Ok(ThrottleDevice { path: path.to_owned(), rate: rate.ok_or_else(refused)? })
}
