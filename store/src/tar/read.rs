//! The reader: entries of an untrusted layer, one after the other, in constant memory.
//!
//! It reads what Go's `archive/tar` reads (the parser behind containerd), and means the same by it;
//! what two parsers could read differently is refused: sizes that contradict, NULs in names,
//! several extended headers for one entry. Paths come out normalised as containerd does it: below
//! the root whatever they say. Whoever applies them still resolves them beneath a directory handle:
//! symbolic links are not looked at here.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::header::{BLOCK_BYTES, Header, HeaderError};
use super::pax::{self, PaxError, Record};
use super::sparse::{self, PaxSparse, Segment, SparseError};
use super::whiteout::{self, Meaning};
use crate::entry::{Entry, Kind, Timestamp, Xattrs};

/// Longest path or link target: the kernel's `PATH_MAX`.
const MAX_PATH_BYTES: usize = 4096;

/// Largest extended header: a few extended attributes of the kernel's 64 KiB each.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// An archive with more entries is refused.
const MAX_ENTRIES: u64 = 20_000_000;

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream failed, or ended too early.
    #[error("cannot read the layer")]
    Io(#[source] io::Error),
    /// A header makes no sense.
    #[error("the layer's entry {number} (`{path}`) is malformed: {what}")]
    Malformed {
        /// Counted from 1.
        number: u64,
        /// Its path, as far as it is known.
        path: String,
        /// What is wrong with it.
        what: Malformed,
    },
    /// There are too many entries.
    #[error("the layer has more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// The header block.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The extended header.
    #[error(transparent)]
    Pax(#[from] PaxError),
    /// The map of holes.
    #[error(transparent)]
    Sparse(#[from] SparseError),
    /// A number is negative or too large.
    #[error("its {0} is out of range")]
    Range(&'static str),
    /// A type that no layer has.
    #[error("entries of the type {0:#04x} are not known")]
    Type(u8),
    /// A name is longer than the kernel allows, or holds a NUL.
    #[error("its {0} is too long or holds a NUL")]
    Name(&'static str),
    /// The name of a whiteout of nothing.
    #[error("it is a whiteout without a name")]
    Whiteout,
    /// A hard link or symbolic link without target.
    #[error("it is a link without a target")]
    NoTarget,
    /// Several extended headers of one kind, one that is too large, or one without an entry.
    #[error("its extended headers are repeated, too large, or without an entry")]
    Extended,
    /// Something follows a single empty block.
    #[error("there is data after an empty block")]
    AfterEnd,
}

/// Something that a layer says.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An entry; regular files have a body. Whiteouts have come out as [`Kind::Whiteout`],
    /// directories are never opaque: that is said separately, before or after them.
    Entry(Entry),
    /// This directory hides what lower layers have in it.
    Opaque(Vec<u8>),
}

/// Headers in front of an entry that extend it.
#[derive(Debug, Default)]
struct Extended {
    records: Option<Vec<Record>>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Reads an archive. Reading from it (`Read`) gives the body of the entry that came last.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    segments: VecDeque<Segment>,
    padding: u64,
    entries: u64,
    ended: bool,
    names: Names,
}

/// What names mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Names {
    /// A layer's: some are whiteouts, and the root is nothing to tell.
    Layer,
    /// Any archive's.
    Plain,
}

impl<R: Read> TarReader<R> {
    /// Starts at the beginning of an uncompressed archive. `inner` should be buffered, or fast at
    /// small reads.
    pub const fn new(inner: R) -> Self {
        Self::with(inner, Names::Layer)
    }

    /// As [`TarReader::new`] for an archive that is no layer: names of whiteouts mean nothing
    /// special, and entries for the root come out, with an empty path.
    pub const fn plain(inner: R) -> Self {
        Self::with(inner, Names::Plain)
    }

    const fn with(inner: R, names: Names) -> Self {
        Self { inner, segments: VecDeque::new(), padding: 0, entries: 0, ended: false, names }
    }

    /// The next item; what is left of the body before is skipped. None at the end of the archive:
    /// then everything up to the end of the stream was read, so that a digest over it is complete.
    ///
    /// Entries for the root itself and bookkeeping of AUFS are left out, as containerd does.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]. The archive cannot be read any further.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be read from")]
    pub fn next(&mut self) -> Result<Option<Item>, ReadError> {
        while !self.ended {
            self.skip_body()?;
            let mut extended = Extended::default();
            self.entries += 1;
            let Some(header) = self.header(&mut extended)? else { break };
            if self.entries > MAX_ENTRIES {
                return Err(ReadError::TooMany);
            }
            let path = raw_path(&header, &extended);
            match self.item(&header, &extended, &path) {
                Ok(Some(item)) => return Ok(Some(item)),
                Ok(None) => {}
                Err(Failed::Io(error)) => return Err(ReadError::Io(error)),
                Err(Failed::Malformed(what)) => return Err(self.malformed(&path, what)),
            }
        }
        self.ended = true;
        io::copy(&mut self.inner, &mut io::sink()).map_err(ReadError::Io)?;
        Ok(None)
    }

    fn malformed(&self, path: &[u8], what: Malformed) -> ReadError {
        let path = String::from_utf8_lossy(&path[..path.len().min(MAX_PATH_BYTES)]).into_owned();
        ReadError::Malformed { number: self.entries, path, what }
    }

    /// The next header that is an entry, with what extends it. None at the end.
    fn header(&mut self, extended: &mut Extended) -> Result<Option<Header>, ReadError> {
        loop {
            let Some(block) = self.block_or_end()? else {
                return self.at_end(extended);
            };
            let header = Header::parse(block).map_err(|what| self.malformed(b"?", what.into()))?;
            let Some(header) = header else {
                // One empty block must be followed by another, or by the end of the stream.
                return match self.block_or_end()? {
                    Some(block) if block != [0; BLOCK_BYTES] => {
                        Err(self.malformed(b"?", Malformed::AfterEnd))
                    }
                    Some(_) | None => self.at_end(extended),
                };
            };
            let name = header.name();
            let repeated = match header.kind() {
                b'x' => {
                    let body = self.extension(&header)?;
                    let records =
                        pax::parse(&body).map_err(|what| self.malformed(&name, what.into()))?;
                    extended.records.replace(records).is_some()
                }
                b'L' => extended.long_name.replace(trimmed(self.extension(&header)?)).is_some(),
                b'K' => extended.long_link.replace(trimmed(self.extension(&header)?)).is_some(),
                // Applies to all that follow, and is ignored by containerd, too.
                b'g' => {
                    self.extension(&header)?;
                    false
                }
                _ => return Ok(Some(header)),
            };
            if repeated {
                return Err(self.malformed(&name, Malformed::Extended));
            }
        }
    }

    fn at_end(&self, extended: &Extended) -> Result<Option<Header>, ReadError> {
        match extended {
            Extended { records: None, long_name: None, long_link: None } => Ok(None),
            Extended { .. } => Err(self.malformed(b"?", Malformed::Extended)),
        }
    }

    /// Body of an extended header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, ReadError> {
        let name = header.name();
        let size = header.size().map_err(|what| self.malformed(&name, what.into()))?;
        let size = u64::try_from(size)
            .ok()
            .filter(|size| *size <= MAX_EXTENDED_BYTES)
            .ok_or_else(|| self.malformed(&name, Malformed::Extended))?;
        let padded = size.next_multiple_of(BLOCK_BYTES as u64);
        let mut body = vec![0; usize::try_from(padded).unwrap_or(0)];
        self.inner.read_exact(&mut body).map_err(ReadError::Io)?;
        body.truncate(usize::try_from(size).unwrap_or(0));
        Ok(body)
    }

    /// Next block; none where the stream ends.
    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, ReadError> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        Ok(Some(block))
    }

    /// Makes an item of a header, and gets its body ready. None for what is left out.
    fn item(
        &mut self,
        header: &Header,
        extended: &Extended,
        path: &[u8],
    ) -> Result<Option<Item>, Failed> {
        let records = extended.records.as_deref().unwrap_or_default();
        let find = |key: &[u8]| find(records, key);
        let kind = header.kind();
        let is_dir = kind == b'5' || (matches!(kind, b'0' | 0) && path.ends_with(b"/"));
        let link = match (find(b"linkpath"), &extended.long_link) {
            (Some(link), None) => link.to_vec(),
            (None | Some(_), Some(link)) => link.clone(),
            (None, None) => header.link(),
        };
        let size = match find(b"size") {
            Some(size) => pax::number(size)?,
            None => u64::try_from(header.size()?).map_err(|_| Malformed::Range("size"))?,
        };
        let kind = match kind {
            _ if is_dir => Kind::Dir { opaque: false },
            0 | b'0' | b'7' | b'S' => {
                let size = self.body(header, records, size)?;
                Kind::File { size, digest: None }
            }
            b'1' => Kind::Hardlink { target: normalise(&name("target", link)?) },
            b'2' => Kind::Symlink { target: name("target", link)? },
            b'3' | b'4' => device(header)?,
            b'6' => Kind::Fifo,
            other => return Err(Malformed::Type(other).into()),
        };
        if matches!(&kind, Kind::Hardlink { target } | Kind::Symlink { target } if target.is_empty())
        {
            return Err(Malformed::NoTarget.into());
        }
        let path = normalise(&name("path", path.to_owned())?);
        let meaning = match self.names {
            Names::Layer => whiteout::meaning(&path),
            Names::Plain => return Ok(Some(Item::Entry(metadata(header, records, path, kind)?))),
        };
        let (path, kind) = match meaning {
            Meaning::Plain if path.is_empty() => return Ok(None),
            Meaning::Plain => (path, kind),
            Meaning::Whiteout(path) => (path, Kind::Whiteout),
            Meaning::Opaque(dir) => return Ok(Some(Item::Opaque(dir))),
            Meaning::Bookkeeping => return Ok(None),
            Meaning::Invalid => return Err(Malformed::Whiteout.into()),
        };
        let entry = metadata(header, records, path, kind)?;
        Ok(Some(Item::Entry(entry)))
    }

    /// Gets the body of a regular file ready; gives its size once holes are filled.
    fn body(&mut self, header: &Header, records: &[Record], stored: u64) -> Result<u64, Failed> {
        let padding = stored.checked_next_multiple_of(BLOCK_BYTES as u64);
        let padding = padding.ok_or(Malformed::Range("size"))? - stored;
        let mut stored = stored;
        let mut block = || -> Result<[u8; BLOCK_BYTES], Failed> {
            let mut block = [0; BLOCK_BYTES];
            self.inner.read_exact(&mut block).map_err(Failed::Io)?;
            Ok(block)
        };
        let sparse = if header.kind() == b'S' {
            Some(sparse::from_gnu(header.block(), &mut block)?)
        } else {
            match sparse::from_pax(records)? {
                None => None,
                Some((PaxSparse::Here(extents), size)) => Some((extents, size)),
                Some((PaxSparse::InBody, size)) => {
                    let (extents, blocks) = sparse::from_body(&mut block)?;
                    let map_bytes = blocks * BLOCK_BYTES as u64;
                    stored = stored.checked_sub(map_bytes).ok_or(SparseError::Contradiction)?;
                    Some((extents, size))
                }
            }
        };
        let (segments, size) = match sparse {
            Some((extents, size)) => (sparse::segments(&extents, size, stored)?, size),
            None if stored == 0 => (Vec::new(), 0),
            None => (vec![Segment::Data(stored)], stored),
        };
        self.segments = segments.into();
        self.padding = padding;
        Ok(size)
    }

    /// Skips what is left of a body, holes without effort, and its padding.
    fn skip_body(&mut self) -> Result<(), ReadError> {
        let mut bytes = self.padding;
        for segment in self.segments.drain(..) {
            match segment {
                Segment::Data(length) => bytes += length,
                Segment::Hole(_) => {}
            }
        }
        self.padding = 0;
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())
            .map_err(ReadError::Io)?;
        if skipped == bytes {
            Ok(())
        } else {
            Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    /// The body of the entry that came last, holes filled with zeros. A stream that ends too early
    /// is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.segments.front_mut() else { return Ok(0) };
        let (Segment::Hole(left) | Segment::Data(left)) = segment;
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        let is_hole = matches!(segment, Segment::Hole(_));
        let read = if is_hole {
            buffer[..most].fill(0);
            most
        } else {
            self.inner.read(&mut buffer[..most])?
        };
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(Segment::Hole(left) | Segment::Data(left)) = self.segments.front_mut() {
            *left -= read as u64;
            if *left == 0 {
                self.segments.pop_front();
            }
        }
        Ok(read)
    }
}

/// Why an entry failed.
enum Failed {
    Io(io::Error),
    Malformed(Malformed),
}

impl<E: Into<Malformed>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Malformed(error.into())
    }
}

/// The last record of that key that is not empty: an empty one takes back what was said before.
fn find<'a>(records: &'a [Record], key: &[u8]) -> Option<&'a [u8]> {
    let found = records.iter().rev().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
}

/// The path as the archive has it.
fn raw_path(header: &Header, extended: &Extended) -> Vec<u8> {
    let records = extended.records.as_deref().unwrap_or_default();
    if let Some(name) = &extended.long_name {
        return name.clone();
    }
    match find(records, b"GNU.sparse.name").or_else(|| find(records, b"path")) {
        Some(path) => path.to_vec(),
        None => header.name(),
    }
}

/// GNU's long names end with NULs.
fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn name(what: &'static str, name: Vec<u8>) -> Result<Vec<u8>, Malformed> {
    if name.len() > MAX_PATH_BYTES || name.contains(&0) {
        Err(Malformed::Name(what))
    } else {
        Ok(name)
    }
}

/// Brings a path into the form of [`Entry::path`]: relative to the root, whatever it says; `..`
/// stops there.
fn normalise(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn device(header: &Header) -> Result<Kind, Malformed> {
    let (major, minor) = header.device()?;
    let range = |number| u32::try_from(number).map_err(|_| Malformed::Range("device number"));
    let (major, minor) = (range(major)?, range(minor)?);
    Ok(match header.kind() {
        b'3' => Kind::Char { major, minor },
        _ => Kind::Block { major, minor },
    })
}

/// The rest of the entry.
fn metadata(
    header: &Header,
    records: &[Record],
    path: Vec<u8>,
    kind: Kind,
) -> Result<Entry, Malformed> {
    let id = |key: &[u8], what, stated: Result<i64, HeaderError>| match find(records, key) {
        Some(value) => u32::try_from(pax::number(value)?).map_err(|_| Malformed::Range(what)),
        None => u32::try_from(stated?).map_err(|_| Malformed::Range(what)),
    };
    let mtime = match find(records, b"mtime") {
        Some(value) => pax::time(value)?,
        None => Timestamp::from_secs(header.mtime()?),
    };
    let mut xattrs = Xattrs::new();
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(pax::XATTR)
            && !name.is_empty()
        {
            xattrs.insert(name.to_vec(), value.clone());
        }
    }
    Ok(Entry {
        path,
        kind,
        mode: u32::try_from(header.mode()? & 0o7777).unwrap_or(0),
        uid: id(b"uid", "uid", header.uid())?,
        gid: id(b"gid", "gid", header.gid())?,
        mtime,
        xattrs,
    })
}

#[cfg(test)]
mod tests;
