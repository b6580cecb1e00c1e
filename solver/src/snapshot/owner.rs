//! What the image says about an inode where the host cannot hold it.
//!
//! Under a full id mapping the host holds owner, mode and type, and nothing is recorded, save for
//! ids beyond the mapping. Elsewhere the intended values go into the extended attribute
//! [`ATTRIBUTE`] of the file or directory; a symbolic link cannot carry one, so its owner goes into
//! the table `owners` beside the layer's files.
//!
//! A record also says which owner and mode the host held when it was made: once somebody has really
//! changed them, that part of the record no longer counts. Whatever an image says in this attribute, or in those of
//! overlay, is never written to disk, so no image can forge a record.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use rbuild_store::entry::{Entry, Kind};
use rustix::fs::{FileType, Gid, Statx, Uid, XattrFlags, major, makedev, minor};
use rustix::io::Errno;

/// Name of the extended attribute.
pub const ATTRIBUTE: &str = "user.rbuild.owner";

/// Prefixes of attributes that mean something to us or to overlay: never taken from an image, never
/// put into a layer.
const RESERVED: [&[u8]; 3] = [b"user.overlay.", b"trusted.overlay.", b"user.rbuild."];

/// Longest record on disk.
pub(crate) const MAX_RECORD_BYTES: usize = 128;

/// Whether an image's attribute of this name must not reach the disk.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

/// Intended metadata of an inode, and the owner that the host held meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    /// Intended owner.
    pub uid: u32,
    /// Intended group.
    pub gid: u32,
    /// Intended permission bits and file type, as in `st_mode`.
    pub mode: u32,
    /// Intended device number: major.
    pub major: u32,
    /// Intended device number: minor.
    pub minor: u32,
    /// Owner on disk.
    pub held_uid: u32,
    /// Group on disk.
    pub held_gid: u32,
    /// Permission bits on disk.
    pub held_mode: u32,
}

impl fmt::Display for Record {
    /// `uid:gid:mode:major:minor:held_uid:held_gid:held_mode`, modes in octal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gid, mode, major, minor, held_uid, held_gid, held_mode } = self;
        write!(f, "{uid}:{gid}:{mode:o}:{major}:{minor}:{held_uid}:{held_gid}:{held_mode:o}")
    }
}

impl Record {
    /// What is intended for `entry`, on an inode that the host gives to `held`.
    pub(crate) fn of(entry: &Entry, held: (u32, u32), held_mode: u32) -> Self {
        let (kind, (major, minor)) = match entry.kind {
            Kind::File { .. } | Kind::Hardlink { .. } | Kind::Whiteout => {
                (FileType::RegularFile, (0, 0))
            }
            Kind::Dir { .. } => (FileType::Directory, (0, 0)),
            Kind::Symlink { .. } => (FileType::Symlink, (0, 0)),
            Kind::Char { major, minor } => (FileType::CharacterDevice, (major, minor)),
            Kind::Block { major, minor } => (FileType::BlockDevice, (major, minor)),
            Kind::Fifo => (FileType::Fifo, (0, 0)),
        };
        Self {
            uid: entry.uid,
            gid: entry.gid,
            mode: kind.as_raw_mode() | entry.mode,
            major,
            minor,
            held_uid: held.0,
            held_gid: held.1,
            held_mode,
        }
    }

    /// Reads a record; none if it is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(':');
        let record = Self {
            uid: parts.next()?.parse().ok()?,
            gid: parts.next()?.parse().ok()?,
            mode: u32::from_str_radix(parts.next()?, 8).ok()?,
            major: parts.next()?.parse().ok()?,
            minor: parts.next()?.parse().ok()?,
            held_uid: parts.next()?.parse().ok()?,
            held_gid: parts.next()?.parse().ok()?,
            held_mode: u32::from_str_radix(parts.next()?, 8).ok()?,
        };
        parts.next().is_none().then_some(record)
    }
}

/// Gives an open file or directory an owner: for real, or where there is only one id, by a record.
/// To be called after its mode is set.
pub(crate) fn give(file: BorrowedFd<'_>, uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match rustix::fs::fchown(file, Some(user), Some(group)) {
        Err(Errno::INVAL | Errno::PERM) => {}
        result => return result,
    }
    let stat = rustix::fs::fstat(file)?;
    let record = Record {
        uid,
        gid,
        mode: stat.st_mode,
        major: 0,
        minor: 0,
        held_uid: stat.st_uid,
        held_gid: stat.st_gid,
        held_mode: stat.st_mode & 0o7777,
    };
    let text = record.to_string();
    match rustix::fs::fsetxattr(file, ATTRIBUTE, text.as_bytes(), XattrFlags::empty()) {
        // It stays the caller's, who is the only one there is.
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Owner, mode, type and device number: what a record can change about an inode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Meta {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// With the file type.
    pub(crate) mode: u32,
    /// As one number.
    pub(crate) device: u64,
}

impl Meta {
    /// What the host says, corrected by what still counts of a record. A plain user without ids
    /// (`own` given) is root of the image.
    pub(crate) fn intended(stat: &Statx, record: Option<Record>, own: Option<(u32, u32)>) -> Self {
        let held = (stat.stx_uid, stat.stx_gid);
        let mut meta = Self {
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: stat.stx_mode.into(),
            device: makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        };
        if own == Some(held) {
            (meta.uid, meta.gid) = (0, 0);
        }
        let Some(it) = record else { return meta };
        if (it.held_uid, it.held_gid) == held {
            (meta.uid, meta.gid) = (it.uid, it.gid);
        }
        let mode = if it.held_mode == meta.permissions() { it.mode } else { meta.mode };
        let is_device = matches!(
            FileType::from_raw_mode(it.mode),
            FileType::CharacterDevice | FileType::BlockDevice
        );
        // Whatever was written to the file that stands for a device is gone, as in most devices.
        let stands_in = meta.file_type() == FileType::RegularFile && is_device;
        let kind = if stands_in { it.mode } else { meta.mode };
        meta.mode = (kind & !0o7777) | (mode & 0o7777);
        if stands_in {
            meta.device = makedev(it.major, it.minor);
        }
        meta
    }

    /// The type.
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Permission bits.
    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Device number in two parts.
    pub(crate) fn device_parts(&self) -> (u32, u32) {
        (major(self.device), minor(self.device))
    }
}

/// Records of inodes that cannot carry an attribute, by path.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table(BTreeMap<Vec<u8>, Record>);

impl Table {
    /// Adds a record.
    pub fn insert(&mut self, path: &[u8], record: Record) {
        self.0.insert(path.to_vec(), record);
    }

    /// The record of a path.
    pub fn get(&self, path: &[u8]) -> Option<Record> {
        self.0.get(path).copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file's form: for each path its record, a space, the path, a zero byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, record) in &self.0 {
            bytes.extend_from_slice(record.to_string().as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        bytes
    }

    /// Reads the file's form; none if it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut table = Self::default();
        for line in bytes.split_inclusive(|&byte| byte == 0) {
            let line = line.strip_suffix(b"\0")?;
            let space = memchr::memchr(b' ', line)?;
            table.insert(&line[space + 1..], Record::parse(&line[..space])?);
        }
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record = Record {
        uid: 70_000,
        gid: 5,
        mode: 0o100_4755,
        major: 1,
        minor: 3,
        held_uid: 0,
        held_gid: 65_534,
        held_mode: 0o755,
    };

    #[test]
    fn prints_and_parses() {
        assert_eq!(RECORD.to_string(), "70000:5:1004755:1:3:0:65534:755");
        assert_eq!(Record::parse(b"70000:5:1004755:1:3:0:65534:755"), Some(RECORD));
        for bad in ["", "1:2:3", "1:2:9:0:0:0:0:0", "1:2:3:0:0:0:0:0:0", "-1:2:3:0:0:0:0:0"] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn table_keeps_strange_paths() {
        let mut table = Table::default();
        table.insert(b"a b\n\xff", RECORD);
        table.insert(b"", RECORD);
        assert_eq!(Table::parse(&table.to_bytes()), Some(table));
        assert_eq!(Table::parse(b"1:2:3 a"), None);
    }

    #[test]
    fn images_cannot_forge() {
        assert!(is_reserved(b"user.rbuild.owner"));
        assert!(is_reserved(b"user.overlay.opaque"));
        assert!(!is_reserved(b"user.color"));
    }
}
