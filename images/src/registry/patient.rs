//! Reading from somebody who may send next to nothing for ever: a byte now and then keeps every other limit of time
//! from being reached.

use std::io;
use std::io::Read;
use std::time::Duration;
use std::time::Instant;

/// Fewer bytes than this in the time for which silence is borne are as good as silence.
const LEAST: u64 = 4 << 10;

/// Fails with `TimedOut` when what it reads comes too slowly. Only the time spent waiting for it counts, not what the
/// reader does in between.
#[derive(Debug)]
pub(super) struct Patient<R> {
    inner: R,
    limit: Duration,
    waited: Duration,
    came: u64,
}

impl<R> Patient<R> {
    pub(super) fn new(inner: R, limit: Duration) -> Self {
        Self { inner, limit, waited: Duration::ZERO, came: 0 }
    }
}

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begin = Instant::now();
        let n = self.inner.read(buffer)?;
        self.waited += begin.elapsed();
        self.came += n as u64;
        if self.came >= LEAST {
            (self.waited, self.came) = (Duration::ZERO, 0);
        } else if self.waited >= self.limit && n > 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it sends next to nothing"));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `step` bytes for each read, after a pause.
    struct Slow(Duration, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.0);
            Ok(self.1.min(buffer.len()))
        }
    }

    #[test]
    fn a_trickle_ends_and_a_stream_does_not() {
        let pause = Duration::from_millis(2);
        let mut drops = Patient::new(Slow(pause, 1), Duration::from_millis(20)).take(10_000);
        let error = drops.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Each read takes longer than the limit, and brings enough.
        let mut stream = Patient::new(Slow(pause, 8192), Duration::from_millis(1)).take(81_920);
        assert_eq!(io::copy(&mut stream, &mut io::sink()).unwrap(), 81_920);
    }
}
