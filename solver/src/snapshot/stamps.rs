//! What the files of a working tree looked like when nobody had touched them yet.
//!
//! A file whose inode, change time, size and modification time are as recorded is unchanged: it is
//! neither opened nor asked for attributes. Whatever else is true of it is compared with the
//! listing, so a stamp that misses (a change within one tick of the clock) costs only time.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Statx};

use super::dir::{MAX_DEPTH, on_deep_stack, open_dir};
use super::error::{Error, show};
use super::scan;
use crate::tree::listing::join;

/// First bytes of the file: name and version.
const MAGIC: &[u8; 8] = b"rbstamp1";

/// Bytes of a stamp in the file.
const STAMP_BYTES: usize = 40;

/// One inode at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    ino: u64,
    size: u64,
    ctime: (i64, u32),
    mtime: (i64, u32),
}

impl Stamp {
    /// Of what `statx` says.
    pub(crate) fn of(stat: &Statx) -> Self {
        Self {
            ino: stat.stx_ino,
            size: stat.stx_size,
            ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        }
    }

    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&self.ino.to_le_bytes());
        put(&self.size.to_le_bytes());
        put(&self.ctime.0.to_le_bytes());
        put(&self.mtime.0.to_le_bytes());
        put(&self.ctime.1.to_le_bytes());
        put(&self.mtime.1.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> Self {
        let (longs, _) = bytes.as_chunks::<8>();
        let (ints, _) = bytes[32..].as_chunks::<4>();
        Self {
            ino: u64::from_le_bytes(longs[0]),
            size: u64::from_le_bytes(longs[1]),
            ctime: (i64::from_le_bytes(longs[2]), u32::from_le_bytes(ints[0])),
            mtime: (i64::from_le_bytes(longs[3]), u32::from_le_bytes(ints[1])),
        }
    }
}

/// The stamps of a tree, by path. Directories have none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stamps(BTreeMap<Vec<u8>, Stamp>);

impl Stamps {
    /// Takes the stamps of all that is below `root`.
    pub(crate) fn take(root: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut stamps = Self::default();
        on_deep_stack(|| stamps.collect(root, b"", 0))?;
        Ok(stamps)
    }

    fn collect(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let (path, limit) = (show(path), MAX_DEPTH as u64);
            return Err(Error::Limit { path, what: "depth of directories", limit });
        }
        for item in scan::list(dir).map_err(Error::io("read the directory", path))? {
            let child = join(path, &item.name);
            if item.file_type() == FileType::Directory {
                let dir = open_dir(dir, &item.name).map_err(Error::io("open", &child))?;
                self.collect(dir.as_fd(), &child, depth + 1)?;
            } else {
                self.put(child, &item.stat);
            }
        }
        Ok(())
    }

    /// Notes what the inode at a path looks like.
    pub(crate) fn put(&mut self, path: Vec<u8>, stat: &Statx) {
        self.0.insert(path, Stamp::of(stat));
    }

    /// Whether `stat` is what the path had.
    pub(crate) fn is_unchanged(&self, path: &[u8], stat: &Statx) -> bool {
        self.0.get(path) == Some(&Stamp::of(stat))
    }

    /// The file's form: magic, then for each path its length, the path, the stamp.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (path, stamp) in &self.0 {
            let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.extend_from_slice(&stamp.to_bytes());
        }
        bytes
    }

    /// Reads the file's form; none if it is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut stamps = Self::default();
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (path, tail) = tail.split_at_checked(length)?;
            let (stamp, tail) = tail.split_first_chunk::<STAMP_BYTES>()?;
            stamps.0.insert(path.to_vec(), Stamp::from_bytes(stamp));
            rest = tail;
        }
        Some(stamps)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::snapshot::dir::stat;

    #[test]
    fn keeps_what_it_has_seen() {
        let temp = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(temp.path().join("d")).expect("mkdir");
        fs::write(temp.path().join("d/f"), "one").expect("write");
        let root = File::open(temp.path()).expect("open");
        let stamps = Stamps::take(root.as_fd()).expect("takes");
        assert_eq!(Stamps::parse(&stamps.to_bytes()).as_ref(), Some(&stamps));
        let now = || stat(root.as_fd(), b"d/f").expect("stat");
        assert!(stamps.is_unchanged(b"d/f", &now()));
        fs::write(temp.path().join("d/f"), "three").expect("write");
        assert!(!stamps.is_unchanged(b"d/f", &now()));
        assert!(!stamps.is_unchanged(b"d/g", &now()));
    }

    #[test]
    fn damage_is_noticed() {
        let bytes = Stamps(BTreeMap::from([(
            b"a".to_vec(),
            Stamp { ino: 1, size: 2, ctime: (3, 4), mtime: (-5, 6) },
        )]))
        .to_bytes();
        assert!(Stamps::parse(&bytes).is_some());
        for end in 1..bytes.len() {
            if end != MAGIC.len() {
                assert_eq!(Stamps::parse(&bytes[..end]), None, "{end}");
            }
        }
    }
}
