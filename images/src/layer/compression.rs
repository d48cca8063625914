//! Undoing compression, with bounds: on memory by the window of zstd, on output by the caller.

use std::io;
use std::io::BufRead;
use std::io::Read;

use super::gzip;
use crate::media::Compression;

/// A reader of the plain content. Trailing bytes after the compressed data are an error.
pub(crate) fn decoder<'r>(
    input: impl BufRead + Send + 'r,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send + 'r>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(gzip::Reader::new(input)),
        Compression::Zstd => Box::new(zstd(input)?),
    })
}

/// As [`decoder`], for input that must stay in its thread.
pub(crate) fn local_decoder<'r>(
    input: impl BufRead + 'r,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(gzip::Reader::new(input)),
        Compression::Zstd => Box::new(zstd(input)?),
    })
}

fn zstd<'r, R: BufRead>(input: R) -> io::Result<zstd::stream::read::Decoder<'r, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    // 128 MiB, the most that the zstd command itself accepts without being told to.
    decoder.window_log_max(27)?;
    Ok(decoder)
}

/// What the first bytes of a file say about its compression.
pub(crate) fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame, which zstd files may begin with.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decoder(bytes, detect(bytes))?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn whole_streams_and_members_are_read() {
        let zstd = zstd::encode_all(&b"abc"[..], 3).unwrap();
        assert_eq!(read(&gzip(b"abc")).unwrap(), b"abc");
        assert_eq!(read(&[gzip(b"abc"), gzip(b""), gzip(b"def")].concat()).unwrap(), b"abcdef");
        assert_eq!(read(&zstd).unwrap(), b"abc");
        assert_eq!(read(&[&zstd[..], &zstd].concat()).unwrap(), b"abcabc");
        assert_eq!(read(b"plain").unwrap(), b"plain");
    }

    #[test]
    fn cut_and_dirty_streams_are_errors() {
        let zstd = zstd::encode_all(&[7; 1000][..], 3).unwrap();
        for stream in [gzip(&[7; 1000]), zstd] {
            for cut in 4..stream.len() {
                assert!(read(&stream[..cut]).is_err(), "{cut} of {}", stream.len());
            }
            assert!(read(&[&stream[..], b"trailing garbage"].concat()).is_err());
            let mut flipped = stream.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 0xff;
            assert!(read(&flipped).map_or(true, |plain| plain != [7; 1000]));
        }
    }
}
