//! `linux.devices`, and those every container has.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use rustix::fs::FileType;

use super::invalid;
use crate::error::Result;
use crate::native::dev::Device;
use crate::native::paths;

pub(super) fn devices(linux: &Linux) -> Result<Vec<Device>> {
    const FIELD: &str = "linux.devices";
    let given = linux.devices().as_deref().unwrap_or_default();
    let mut devices = given.iter().map(device).collect::<Result<Vec<_>>>()?;
    let missing: Vec<_> =
        Device::defaults().filter(|one| devices.iter().all(|other| other.path != one.path)).collect();
    devices.extend(missing);
    return Ok(devices);

    fn device(device: &LinuxDevice) -> Result<Device> {
        let shown = device.path().display();
        let Some(path) = paths::normal(device.path()).filter(|path| path.file_name().is_some()) else {
            return invalid(FIELD, format!("{shown} is not an absolute path"));
        };
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return invalid(FIELD, format!("{shown} has no type")),
        };
        let number = |value: i64| match u32::try_from(value) {
            Ok(number) => Ok(number),
            Err(_) if kind == FileType::Fifo => Ok(0),
            Err(_) => invalid(FIELD, format!("{shown} has the number {value}")),
        };
        Ok(Device {
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            path,
        })
    }
}
