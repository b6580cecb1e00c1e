//! Compression of layers: which there are, how streams are recognised and read.
//!
//! Writing gzip is in [`crate::gzip`]. Encoders have fixed parameters: the same tar gives the same
//! blob, whatever the number of threads.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

/// Compression of a layer blob.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip with a level from 0 to 9.
    Gzip(u32),
    /// Zstandard with a level from 1 to 22.
    Zstd(i32),
}

/// The level of gzip where none is given (ADR 0017: half again as fast as 6, 2 to 3 % larger).
pub const GZIP_LEVEL: u32 = 3;

/// The level of Zstandard where none is given: its own default.
pub const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// The compression of that name (`uncompressed`, `gzip`, `zstd`) and level; the level is
    /// brought into the range that the method has, as `BuildKit` does.
    pub fn named(name: &str, level: Option<i32>) -> Option<Self> {
        match name {
            "uncompressed" | "none" => Some(Self::None),
            "gzip" => {
                Some(Self::Gzip(level.map_or(GZIP_LEVEL, |level| level.clamp(0, 9).unsigned_abs())))
            }
            "zstd" => Some(Self::Zstd(level.unwrap_or(ZSTD_LEVEL).clamp(1, 22))),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip(level) => write!(f, "gzip-{level}"),
            Self::Zstd(level) => write!(f, "zstd-{level}"),
        }
    }
}

/// How a stream is compressed, as its first bytes tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Not, or in no way known here.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878), also with skippable frames in front.
    Zstd,
}

/// Bytes that are enough to tell.
const MAGIC_BYTES: usize = 6;

/// Bytes read at a time from a compressed stream.
const BUFFER_BYTES: usize = 128 << 10;

impl Format {
    /// Tells from the first bytes; fewer than six may be given where there are no more.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Decompresses `reader`, whatever it is compressed with; several members or frames in a row are
/// one stream.
///
/// # Errors
///
/// The stream cannot be read. Damage shows when the decoder comes to it, as `InvalidData` or
/// `UnexpectedEof`.
pub fn decoder<'a, R: Read + Send + 'a>(
    reader: R,
) -> io::Result<(Format, Box<dyn Read + Send + 'a>)> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let start = peek(&mut reader)?;
    let format = Format::detect(&start);
    // The bytes looked at are given back in front of the rest.
    let reader = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(start).chain(reader));
    Ok((format, decoder_of(format, reader)?))
}

/// Decompresses `reader`, known to be `format`.
///
/// # Errors
///
/// The decoder cannot be made.
pub fn decoder_of<'a, R: BufRead + Send + 'a>(
    format: Format,
    reader: R,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match format {
        Format::Plain => Box::new(reader),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new(reader, true)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}

/// The first bytes, taken out of the reader.
fn peek(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    reader.take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn decode(bytes: &[u8]) -> (Format, Vec<u8>) {
        let (format, mut reader) = decoder(bytes).expect("starts");
        let mut all = Vec::new();
        reader.read_to_end(&mut all).expect("decodes");
        (format, all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("writes");
        encoder.finish().expect("finishes")
    }

    /// What `xz --check=crc32` makes of `text`.
    const XZ_OF_TEXT: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x03, 0x74, 0x65, 0x78,
        0x74, 0x00, 0xc7, 0xa7, 0x8b, 0x3b, 0x00, 0x01, 0x18, 0x04, 0x6b, 0xe9, 0xf0, 0xa5, 0x90,
        0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
    ];

    #[test]
    fn every_format_is_recognised_and_read() {
        let text = b"some text, some text, some text".repeat(50);
        assert_eq!(decode(&text), (Format::Plain, text.clone()));
        assert_eq!(decode(b"a"), (Format::Plain, b"a".to_vec()));
        assert_eq!(decode(b""), (Format::Plain, Vec::new()));
        assert_eq!(decode(&gzip(&text)), (Format::Gzip, text.clone()));
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).expect("writes");
        assert_eq!(decode(&bzip2.finish().expect("finishes")), (Format::Bzip2, text.clone()));
        assert_eq!(decode(XZ_OF_TEXT), (Format::Xz, b"text".to_vec()));
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("encodes");
        assert_eq!(decode(&zstd), (Format::Zstd, text));
    }

    #[test]
    fn members_in_a_row_are_one_stream() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(&two), (Format::Gzip, b"one two".to_vec()));
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let whole = gzip(&b"text".repeat(100));
        let (_, mut reader) = decoder(&whole[..whole.len() - 4]).expect("starts");
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn levels_are_brought_into_range() {
        assert_eq!(Compression::named("gzip", Some(99)), Some(Compression::Gzip(9)));
        assert_eq!(Compression::named("zstd", Some(-5)), Some(Compression::Zstd(1)));
        assert_eq!(Compression::named("gzip", None), Some(Compression::Gzip(GZIP_LEVEL)));
        assert_eq!(Compression::named("lzo", None), None);
    }
}
