//! Random numbers of the system, without opening anything: in a static executable the `getrandom` crate cannot see libc's
//! function and opens a device, which a guest's process cannot once its wall stands.

/// Fills `bytes`.
///
/// # Errors
/// The system's.
pub(super) fn fill(bytes: &mut [u8]) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::rand::{GetRandomFlags, getrandom};
        let mut done = 0;
        while done < bytes.len() {
            match getrandom(&mut bytes[done..], GetRandomFlags::empty()) {
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
    #[cfg(not(unix))]
    getrandom::fill(bytes).map_err(std::io::Error::other)
}
