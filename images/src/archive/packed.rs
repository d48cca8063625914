//! Compression of whole archives: what Docker accepts, which is more than layers may have.
//!
//! Every decoder is bounded in memory, goes on to the next member after each one, and takes the early end of a
//! stream for the error that it is.

use std::io;
use std::io::BufRead;
use std::io::Read;

use crate::layer::compression;
use crate::media::Compression;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// What layers may have too.
    Layer(Compression),
    Bzip2,
    Xz,
}

/// Bytes that tell them apart.
pub(crate) const START: usize = 6;
/// Most memory of an xz stream, in KiB: as for zstd. `xz -9` takes half of it.
const XZ_MEMORY: u32 = 128 << 10;

impl Packing {
    /// What the first bytes of a file say.
    pub(crate) fn detect(start: &[u8]) -> Self {
        match start {
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Layer(compression::detect(start)),
        }
    }

    /// Nothing is to be undone.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::Layer(Compression::None)
    }

    /// A reader of the plain content.
    pub(crate) fn decoder<'r>(self, input: impl BufRead + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Self::Layer(compression) => compression::local_decoder(input, compression)?,
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn bzip2(content: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// `xz -0` of the 1000 bytes 7.
    const XZ: &[u8] = include_bytes!("tests/sevens.xz");

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Packing::detect(bytes).decoder(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn whole_streams_are_read_and_cut_ones_are_errors() {
        for stream in [bzip2(&[7; 1000]), XZ.to_vec()] {
            assert_eq!(read(&stream).unwrap(), [7; 1000]);
            assert_eq!(read(&[&stream[..], &stream].concat()).unwrap(), [7; 2000]);
            for cut in START..stream.len() {
                assert!(read(&stream[..cut]).is_err(), "{cut} of {}", stream.len());
            }
            assert!(read(&[&stream[..], b"trailing garbage"].concat()).is_err());
            let mut flipped = stream.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 0xff;
            assert!(read(&flipped).map_or(true, |plain| plain != [7; 1000]));
        }
        assert_eq!(Packing::detect(b"plain"), Packing::Layer(Compression::None));
        assert_eq!(Packing::detect(b""), Packing::Layer(Compression::None));
    }
}
