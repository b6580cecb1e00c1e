//! The deterministic writer: the same entries give the same bytes, wherever and whenever.
//!
//! Headers are ustar; PAX records appear only where ustar cannot say something, sorted by key.
//! Owners are numbers without names, there is no atime and no ctime, times are whole seconds,
//! rounded down (containerd's writer does that, so `BuildKit`'s layers have no others), and
//! whiteouts have the time 0. The order of entries is the caller's.

use std::io::{self, Read, Write};

use super::header::{BLOCK_BYTES, Fields, Header, MAX_OCTAL_7, MAX_OCTAL_11, split_name};
use super::pax::{self, Records};
use super::whiteout;
use crate::entry::{Entry, Kind, Xattrs};

/// Bytes copied at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Name of the headers that hold PAX records.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// Why an entry could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file does not have the size that its entry states: somebody changed it meanwhile.
    #[error("`{}` changed while it was read: it had {expected} bytes", lossy(path))]
    Changed {
        /// Path of the entry.
        path: Vec<u8>,
        /// Bytes that the entry states.
        expected: u64,
    },
    /// A file could not be read.
    #[error("cannot read `{}`", lossy(path))]
    Read {
        /// Path of the entry.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// No tar can hold this.
    #[error("`{}` cannot be in a layer: {what}", lossy(path))]
    Unrepresentable {
        /// Path of the entry.
        path: Vec<u8>,
        /// Why.
        what: &'static str,
    },
    /// The tar could not be written.
    #[error("cannot write the tar")]
    Output(#[source] io::Error),
}

fn lossy(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// Writes entries to `out`, unbuffered: give it something that gathers small writes.
#[derive(Debug)]
pub struct TarWriter<W: Write> {
    out: W,
    clamp_mtime: Option<i64>,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive. Times later than `clamp_mtime` (seconds since the epoch) become it.
    pub fn new(out: W, clamp_mtime: Option<i64>) -> Self {
        Self { out, clamp_mtime, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Writes one entry. `body` is read only for regular files, and must yield as many bytes as
    /// the entry states. An opaque directory becomes two entries.
    ///
    /// # Errors
    ///
    /// See [`WriteError`]. The archive is of no use afterwards.
    pub fn append(&mut self, entry: &Entry, body: impl Read) -> Result<(), WriteError> {
        let unrepresentable = |what| WriteError::Unrepresentable { path: entry.path.clone(), what };
        if entry.path.contains(&0) {
            return Err(unrepresentable("its path holds a NUL"));
        }
        if let Kind::Whiteout = entry.kind {
            return self.empty_file(&whiteout::of(&entry.path));
        }
        let header = encode(entry, self.clamp_mtime).map_err(unrepresentable)?;
        self.out.write_all(&header).map_err(WriteError::Output)?;
        match &entry.kind {
            Kind::File { size, .. } => self.body(&entry.path, *size, body),
            Kind::Dir { opaque: true } => self.empty_file(&whiteout::opaque(&entry.path)),
            Kind::Dir { opaque: false }
            | Kind::Symlink { .. }
            | Kind::Hardlink { .. }
            | Kind::Char { .. }
            | Kind::Block { .. }
            | Kind::Fifo
            | Kind::Whiteout => Ok(()),
        }
    }

    /// Writes an entry without a body.
    ///
    /// # Errors
    ///
    /// As [`TarWriter::append`]; also if it is a file that is not empty.
    pub fn append_bodiless(&mut self, entry: &Entry) -> Result<(), WriteError> {
        self.append(entry, io::empty())
    }

    /// Copies the body and fills up the last block. Asks for one byte more than there must be, so
    /// that a file that has grown is noticed without another system call.
    fn body(&mut self, path: &[u8], size: u64, mut body: impl Read) -> Result<(), WriteError> {
        let changed = || WriteError::Changed { path: path.to_owned(), expected: size };
        let mut left = size;
        let mut at_end = false;
        while left > 0 {
            let most = usize::try_from(left.saturating_add(1)).unwrap_or(BUFFER_BYTES);
            let buffer = &mut self.buffer[..most.min(BUFFER_BYTES)];
            let found = match body.read(buffer) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(WriteError::Read { path: path.to_owned(), source }),
            };
            at_end = found < buffer.len();
            left = left.checked_sub(found as u64).ok_or_else(changed)?;
            if found == 0 {
                return Err(changed());
            }
            self.out.write_all(&self.buffer[..found]).map_err(WriteError::Output)?;
        }
        if !at_end && size > 0 {
            let found = body
                .read(&mut self.buffer[..1])
                .map_err(|source| WriteError::Read { path: path.to_owned(), source })?;
            if found > 0 {
                return Err(changed());
            }
        }
        self.out.write_all(padding(size)).map_err(WriteError::Output)
    }

    /// A file that only means something by its name.
    fn empty_file(&mut self, path: &[u8]) -> Result<(), WriteError> {
        let entry = Entry {
            path: path.to_owned(),
            kind: Kind::File { size: 0, digest: None },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: crate::entry::Timestamp::default(),
            xattrs: Xattrs::new(),
        };
        let header = encode(&entry, self.clamp_mtime)
            .map_err(|what| WriteError::Unrepresentable { path: path.to_owned(), what })?;
        self.out.write_all(&header).map_err(WriteError::Output)
    }

    /// Writes the end of the archive: two empty blocks, and no more. Gives `out` back.
    ///
    /// # Errors
    ///
    /// The end could not be written.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES]).map_err(WriteError::Output)?;
        Ok(self.out)
    }
}

/// Zeros from `size` bytes up to the next block.
fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    let over = usize::try_from(size % BLOCK_BYTES as u64).unwrap_or(0);
    if over == 0 { &[] } else { &ZEROS[over..] }
}

/// All header blocks of an entry.
fn encode(entry: &Entry, clamp_mtime: Option<i64>) -> Result<Vec<u8>, &'static str> {
    let mut records = xattrs(entry)?;
    let mut path = entry.path.clone();
    match (path.is_empty(), entry.is_dir()) {
        (true, true) => path.extend_from_slice(b"./"),
        (true, false) => return Err("the root is not a directory"),
        (false, true) => path.push(b'/'),
        (false, false) => {}
    }
    let (mut prefix, mut name) = (&[][..], path.as_slice());
    match split_name(&path) {
        Some(parts) if path.is_ascii() => (prefix, name) = parts,
        Some(_) | None => drop(records.insert(b"path".to_vec(), path.clone())),
    }
    let (kind, size, link, device) = describe(&entry.kind);
    if link.contains(&0) {
        return Err("its target holds a NUL");
    }
    if link.len() > 100 || !link.is_ascii() {
        records.insert(b"linkpath".to_vec(), link.to_vec());
    }
    if u64::from(device.0.max(device.1)) > MAX_OCTAL_7 {
        return Err("its device number is too large");
    }
    let secs = entry.mtime.secs.min(clamp_mtime.unwrap_or(i64::MAX));
    let mtime = u64::try_from(secs).ok().filter(|secs| *secs <= MAX_OCTAL_11);
    if mtime.is_none() {
        records.insert(b"mtime".to_vec(), secs.to_string().into_bytes());
    }
    let mut limited = |key: &str, number: u64, limit: u64| {
        if number > limit {
            records.insert(key.into(), number.to_string().into_bytes());
        }
        if number > limit { 0 } else { number }
    };
    let fields = Fields {
        uid: limited("uid", u64::from(entry.uid), MAX_OCTAL_7),
        gid: limited("gid", u64::from(entry.gid), MAX_OCTAL_7),
        size: limited("size", size, MAX_OCTAL_11),
        name,
        prefix,
        kind,
        mode: entry.mode & 0o7777,
        mtime: mtime.unwrap_or(0),
        link,
        device,
    };
    let mut blocks = extended(&records);
    blocks.extend_from_slice(Header::ustar(&fields).block());
    Ok(blocks)
}

/// Extended attributes as records.
fn xattrs(entry: &Entry) -> Result<Records, &'static str> {
    let mut records = Records::new();
    for (name, value) in &entry.xattrs {
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b'=' | 0)) {
            return Err("the name of an extended attribute holds `=` or NUL");
        }
        records.insert([pax::XATTR, name].concat(), value.clone());
    }
    Ok(records)
}

/// Type, size, link target and device numbers for the header.
fn describe(kind: &Kind) -> (u8, u64, &[u8], (u32, u32)) {
    match kind {
        Kind::File { size, .. } => (b'0', *size, &[], (0, 0)),
        Kind::Hardlink { target } => (b'1', 0, target, (0, 0)),
        Kind::Symlink { target } => (b'2', 0, target, (0, 0)),
        Kind::Char { major, minor } => (b'3', 0, &[], (*major, *minor)),
        Kind::Block { major, minor } => (b'4', 0, &[], (*major, *minor)),
        Kind::Dir { .. } => (b'5', 0, &[], (0, 0)),
        Kind::Fifo => (b'6', 0, &[], (0, 0)),
        Kind::Whiteout => (b'0', 0, &[], (0, 0)),
    }
}

/// Header and blocks of PAX records; nothing where there are none.
fn extended(records: &Records) -> Vec<u8> {
    if records.is_empty() {
        return Vec::with_capacity(BLOCK_BYTES);
    }
    let mut body = Vec::new();
    for (key, value) in records {
        pax::append(&mut body, key, value);
    }
    let fields = Fields {
        name: PAX_NAME,
        prefix: &[],
        kind: b'x',
        mode: 0,
        uid: 0,
        gid: 0,
        size: body.len() as u64,
        mtime: 0,
        link: &[],
        device: (0, 0),
    };
    let mut blocks = Header::ustar(&fields).block().to_vec();
    blocks.extend_from_slice(&body);
    blocks.extend_from_slice(padding(body.len() as u64));
    blocks
}
