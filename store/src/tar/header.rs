//! One header block: 512 bytes, fields at fixed places.
//!
//! POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format", for
//! `magic` with spaces and for numbers in base 256; the star format for its shorter prefix.

/// Bytes of a header, and the unit in which everything is padded.
pub const BLOCK_BYTES: usize = 512;

/// Largest number in 7 octal digits: owner, group, device.
pub const MAX_OCTAL_7: u64 = 0o777_7777;

/// Largest number in 11 octal digits: size, time.
pub const MAX_OCTAL_11: u64 = 0o777_7777_7777;

/// Bytes of the name field, all of which may be used.
const NAME_BYTES: usize = 100;

/// Bytes of the prefix field.
const PREFIX_BYTES: usize = 155;

const NAME: (usize, usize) = (0, NAME_BYTES);
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const TYPE: usize = 156;
const LINK: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 8);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);
const PREFIX: (usize, usize) = (345, PREFIX_BYTES);
const STAR_PREFIX: (usize, usize) = (345, 131);
const STAR_TRAILER: (usize, usize) = (508, 4);

/// Why a header block makes no sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeaderError {
    /// The sum over the block is not the one that it states.
    #[error("its header has a wrong checksum")]
    Checksum,
    /// A field is not a number.
    #[error("the field `{0}` of its header is not a number")]
    Number(&'static str),
}

/// Whose header it is: decides what the bytes after the link name mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block.
#[derive(Clone)]
pub struct Header([u8; BLOCK_BYTES]);

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header").field("name", &String::from_utf8_lossy(&self.name())).finish()
    }
}

/// Reading.
impl Header {
    /// Takes a block that was read; none if it is all zeros (the end of the archive).
    ///
    /// # Errors
    ///
    /// The checksum is wrong. Sums over signed bytes are accepted, too: old programs made them.
    pub fn parse(block: [u8; BLOCK_BYTES]) -> Result<Option<Self>, HeaderError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Self(block);
        let stated = number(header.field(CHECKSUM)).ok_or(HeaderError::Checksum)?;
        let (mut unsigned, mut signed) = (0, 0);
        for (index, byte) in block.iter().enumerate() {
            let in_field = (CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1).contains(&index);
            let byte = if in_field { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated == unsigned || stated == signed {
            Ok(Some(header))
        } else {
            Err(HeaderError::Checksum)
        }
    }

    fn field(&self, (start, len): (usize, usize)) -> &[u8] {
        &self.0[start..start + len]
    }

    /// The whole block.
    pub const fn block(&self) -> &[u8; BLOCK_BYTES] {
        &self.0
    }

    fn format(&self) -> Format {
        match self.field(MAGIC) {
            b"ustar  \0" => Format::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if self.field(STAR_TRAILER) == b"tar\0" => {
                Format::Star
            }
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            _ => Format::V7,
        }
    }

    /// Type of the entry.
    pub const fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// The name, with its prefix.
    pub fn name(&self) -> Vec<u8> {
        let prefix = match self.format() {
            Format::Ustar => text(self.field(PREFIX)),
            Format::Star => text(self.field(STAR_PREFIX)),
            Format::V7 | Format::Gnu => &[],
        };
        let name = text(self.field(NAME));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// The target of a link.
    pub fn link(&self) -> Vec<u8> {
        text(self.field(LINK)).to_vec()
    }

    /// Permission bits, and whatever else is there.
    ///
    /// # Errors
    ///
    /// Not a number.
    pub fn mode(&self) -> Result<i64, HeaderError> {
        self.number("mode", MODE)
    }

    /// Owner.
    ///
    /// # Errors
    ///
    /// Not a number.
    pub fn uid(&self) -> Result<i64, HeaderError> {
        self.number("uid", UID)
    }

    /// Group.
    ///
    /// # Errors
    ///
    /// Not a number.
    pub fn gid(&self) -> Result<i64, HeaderError> {
        self.number("gid", GID)
    }

    /// Bytes of the body.
    ///
    /// # Errors
    ///
    /// Not a number.
    pub fn size(&self) -> Result<i64, HeaderError> {
        self.number("size", SIZE)
    }

    /// Time of the last change, seconds since the epoch.
    ///
    /// # Errors
    ///
    /// Not a number.
    pub fn mtime(&self) -> Result<i64, HeaderError> {
        self.number("mtime", MTIME)
    }

    /// Major and minor number of a device.
    ///
    /// # Errors
    ///
    /// Not a number.
    pub fn device(&self) -> Result<(i64, i64), HeaderError> {
        match self.format() {
            Format::V7 => Ok((0, 0)),
            Format::Ustar | Format::Star | Format::Gnu => {
                Ok((self.number("devmajor", MAJOR)?, self.number("devminor", MINOR)?))
            }
        }
    }

    fn number(&self, name: &'static str, place: (usize, usize)) -> Result<i64, HeaderError> {
        number(self.field(place)).ok_or(HeaderError::Number(name))
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits between spaces and NULs, nothing for 0; or base 256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Two's complement: the second bit of the first byte is the sign.
            let negative = first & 0x40 != 0;
            let start = if negative { -1 } else { 0 };
            let low = i64::from(first & 0x3f) | if negative { !0x3f } else { 0 };
            let value = if rest.is_empty() { start } else { low };
            rest.iter().try_fold(value, |value, byte| {
                value.checked_mul(256)?.checked_add(i64::from(*byte))
            })
        }
        _ => {
            let blank = |byte: &u8| matches!(byte, b' ' | 0);
            let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
            let digits = &field[start..];
            let end = digits.iter().position(blank).unwrap_or(digits.len());
            digits[..end].iter().try_fold(0i64, |value, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
                value.checked_mul(8)?.checked_add(i64::from(digit))
            })
        }
    }
}

/// What a header that is written states; numbers fit their fields, the rest is in PAX records.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) name: &'a [u8],
    pub(super) prefix: &'a [u8],
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: u64,
    pub(super) link: &'a [u8],
    pub(super) device: (u32, u32),
}

/// Writing.
impl Header {
    /// A ustar header. Names are cut to what fits.
    pub(super) fn ustar(fields: &Fields<'_>) -> Self {
        let mut header = Self([0; BLOCK_BYTES]);
        header.put(NAME, fields.name);
        header.put(PREFIX, fields.prefix);
        header.put_octal(MODE, u64::from(fields.mode));
        header.put_octal(UID, fields.uid);
        header.put_octal(GID, fields.gid);
        header.put_octal(SIZE, fields.size);
        header.put_octal(MTIME, fields.mtime);
        header.0[TYPE] = fields.kind;
        header.put(LINK, fields.link);
        header.put(MAGIC, b"ustar\x0000");
        header.put_octal(MAJOR, u64::from(fields.device.0));
        header.put_octal(MINOR, u64::from(fields.device.1));
        header.put(CHECKSUM, b"        ");
        let sum: u64 = header.0.iter().map(|byte| u64::from(*byte)).sum();
        header.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        header
    }

    fn put(&mut self, (start, len): (usize, usize), bytes: &[u8]) {
        let len = len.min(bytes.len());
        self.0[start..start + len].copy_from_slice(&bytes[..len]);
    }

    /// All digits of the field, with leading zeros, and a NUL.
    fn put_octal(&mut self, place: (usize, usize), number: u64) {
        let text = format!("{number:0width$o}", width = place.1 - 1);
        self.put(place, text.as_bytes());
    }
}

/// Splits a path into prefix and name, where both fit their fields.
pub(super) fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME_BYTES {
        return Some((&[], path));
    }
    // The last slash that leaves the prefix short enough; the one at a directory's end is part of
    // the name.
    let last = path.len().min(PREFIX_BYTES + 1).min(path.len() - 1);
    let slash = path[..last].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (!prefix.is_empty() && name.len() <= NAME_BYTES).then_some((prefix, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(&[0xbf; 12]), None);
    }

    #[test]
    fn names_are_split_at_a_slash() {
        let long = [&[b'a'; 90][..], b"/", &[b'b'; 100]].concat();
        assert_eq!(split_name(b"short"), Some((&b""[..], &b"short"[..])));
        assert_eq!(split_name(&long), Some((&long[..90], &long[91..])));
        let directory = [&long[..], b"/"].concat();
        assert_eq!(split_name(&directory), None);
        assert_eq!(split_name(&[b'a'; 101]), None);
        assert_eq!(split_name(&[&b"/"[..], &[b'a'; 100]].concat()), None);
    }
}
