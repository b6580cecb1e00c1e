//! A listing as bytes.
//!
//! ```text
//!  listing := "RBL" version:u8 count:varint entry*
//!  entry   := shared:varint rest:bytes            path: so much of the previous one, then the rest
//!             tag:u8                              low 4 bits kind, high 4 bits what follows
//!             mode:varint [uid:varint gid:varint] secs:signed [nanos:varint]
//!             kind's own fields
//!             [count:varint (name:bytes value:bytes)*]
//!  bytes   := length:varint that many bytes       varint: LEB128, signed: zigzag
//! ```
//!
//! Nothing is trusted when it is read back: lengths are checked against what is left, and the
//! result passes through [`Listing::new`].

use rbuild_store::digest::Digest;
use rbuild_store::entry::{Entry, Kind, Timestamp, Xattrs};

use super::{Listing, ListingError, MAX_PATH};

const MAGIC: &[u8; 4] = b"RBL\x01";
/// Bytes of all paths of a listing, which a few bytes of input could make long.
const MAX_PATHS: usize = 1 << 30;
/// The fewest bytes an entry takes.
const MIN_ENTRY: usize = 6;

const FILE: u8 = 0;
const DIR: u8 = 1;
const SYMLINK: u8 = 2;
const HARDLINK: u8 = 3;
const CHAR: u8 = 4;
const BLOCK: u8 = 5;
const FIFO: u8 = 6;
const WHITEOUT: u8 = 7;

const KIND: u8 = 0x0f;
/// A digest of a file; opacity of a directory.
const MARKED: u8 = 0x10;
const OWNED: u8 = 0x20;
const NANOS: u8 = 0x40;
const XATTRS: u8 = 0x80;

/// Why bytes are not a listing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes are those of something else, or of another version.
    #[error("these are not the bytes of a listing of version 1")]
    Magic,
    /// A length or number does not fit, or bytes are missing.
    #[error("the listing is broken at byte {at}")]
    Broken {
        /// Offset of the field.
        at: usize,
    },
    /// The entries are not a listing.
    #[error(transparent)]
    Listing(#[from] ListingError),
}

impl Listing {
    /// The listing as bytes, to be read by [`Listing::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.entries.len() * 48);
        out.extend_from_slice(MAGIC);
        put_number(&mut out, self.entries.len() as u64);
        let mut previous: &[u8] = b"";
        for entry in &self.entries {
            put_entry(&mut out, entry, previous);
            previous = &entry.path;
        }
        out
    }

    /// Reads what [`Listing::encode`] wrote.
    ///
    /// # Errors
    ///
    /// If the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
        let mut input = Input { all: bytes.len(), rest };
        let entries =
            input.entries().ok_or(DecodeError::Broken { at: input.all - input.rest.len() })?;
        Ok(Self::new(entries)?)
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, previous: &[u8]) {
    let Entry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
    let shared = path.iter().zip(previous).take_while(|(left, right)| left == right).count();
    put_number(out, shared as u64);
    put_bytes(out, &path[shared..]);
    let (number, marked) = match kind {
        Kind::File { digest, .. } => (FILE, digest.is_some()),
        Kind::Dir { opaque } => (DIR, *opaque),
        Kind::Symlink { .. } => (SYMLINK, false),
        Kind::Hardlink { .. } => (HARDLINK, false),
        Kind::Char { .. } => (CHAR, false),
        Kind::Block { .. } => (BLOCK, false),
        Kind::Fifo => (FIFO, false),
        Kind::Whiteout => (WHITEOUT, false),
    };
    let flag = |present: bool, bit: u8| if present { bit } else { 0 };
    let owned = (*uid, *gid) != (0, 0);
    out.push(
        number
            | flag(marked, MARKED)
            | flag(owned, OWNED)
            | flag(mtime.nanos != 0, NANOS)
            | flag(!xattrs.is_empty(), XATTRS),
    );
    put_number(out, u64::from(*mode));
    if owned {
        put_number(out, u64::from(*uid));
        put_number(out, u64::from(*gid));
    }
    put_number(out, ((mtime.secs << 1) ^ (mtime.secs >> 63)).cast_unsigned());
    if mtime.nanos != 0 {
        put_number(out, u64::from(mtime.nanos));
    }
    match kind {
        Kind::File { size, digest } => {
            put_number(out, *size);
            if let Some(digest) = digest {
                out.extend_from_slice(digest.as_bytes());
            }
        }
        Kind::Symlink { target } | Kind::Hardlink { target } => put_bytes(out, target),
        Kind::Char { major, minor } | Kind::Block { major, minor } => {
            put_number(out, u64::from(*major));
            put_number(out, u64::from(*minor));
        }
        Kind::Dir { .. } | Kind::Fifo | Kind::Whiteout => {}
    }
    if !xattrs.is_empty() {
        put_number(out, xattrs.len() as u64);
        for (name, value) in xattrs {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }
}

/// What is left to read. Every method takes its field off the front, or says none.
struct Input<'a> {
    all: usize,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            number |= part << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn short(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn entries(&mut self) -> Option<Vec<Entry>> {
        let count = usize::try_from(self.number()?).ok()?;
        if count > self.rest.len() / MIN_ENTRY {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut paths = 0;
        for _ in 0..count {
            let previous = entries.last().map_or(&b""[..], |entry| &entry.path);
            let entry = self.entry(previous)?;
            paths += entry.path.len();
            if entry.path.len() > MAX_PATH || paths > MAX_PATHS {
                return None;
            }
            entries.push(entry);
        }
        self.rest.is_empty().then_some(entries)
    }

    fn entry(&mut self, previous: &[u8]) -> Option<Entry> {
        let shared = previous.get(..usize::try_from(self.number()?).ok()?)?;
        let rest = self.bytes()?;
        let mut path = Vec::with_capacity(shared.len() + rest.len());
        path.extend_from_slice(shared);
        path.extend_from_slice(rest);
        let tag = self.byte()?;
        let mode = self.short().filter(|&mode| mode <= 0o7777)?;
        let (mut uid, mut gid) = (0, 0);
        if tag & OWNED != 0 {
            (uid, gid) = (self.short()?, self.short()?);
        }
        let secs = self.number()?;
        let secs = (secs >> 1).cast_signed() ^ -(secs & 1).cast_signed();
        let nanos = if tag & NANOS == 0 { 0 } else { self.short()? };
        if nanos > 999_999_999 {
            return None;
        }
        let kind = self.kind(tag)?;
        let xattrs = if tag & XATTRS == 0 { Xattrs::new() } else { self.xattrs()? };
        Some(Entry { path, kind, mode, uid, gid, mtime: Timestamp { secs, nanos }, xattrs })
    }

    fn kind(&mut self, tag: u8) -> Option<Kind> {
        let marked = tag & MARKED != 0;
        Some(match tag & KIND {
            FILE => {
                let size = self.number()?;
                let digest = if marked {
                    let (&bytes, rest) = self.rest.split_first_chunk()?;
                    self.rest = rest;
                    Some(Digest::from_bytes(bytes))
                } else {
                    None
                };
                Kind::File { size, digest: digest.map(Box::new) }
            }
            DIR => Kind::Dir { opaque: marked },
            SYMLINK => Kind::Symlink { target: self.bytes()?.to_vec() },
            HARDLINK => Kind::Hardlink { target: self.bytes()?.to_vec() },
            CHAR => Kind::Char { major: self.short()?, minor: self.short()? },
            BLOCK => Kind::Block { major: self.short()?, minor: self.short()? },
            FIFO => Kind::Fifo,
            WHITEOUT => Kind::Whiteout,
            _ => return None,
        })
    }

    fn xattrs(&mut self) -> Option<Xattrs> {
        let count = self.number()?;
        let mut xattrs = Xattrs::new();
        for _ in 0..count {
            xattrs.insert(self.bytes()?.to_vec(), self.bytes()?.to_vec());
        }
        Some(xattrs)
    }
}
