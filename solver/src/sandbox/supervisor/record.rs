//! What is recorded about inodes, read and written through path descriptors.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, XattrFlags, major, makedev,
    minor,
};
use rustix::io::Errno;

use super::tracee::own_name;
use super::{Inode, Supervisor};
use crate::snapshot::inodes;
use crate::snapshot::owner::{ATTRIBUTE, Meta, Record};

/// Longest record on disk.
const MAX_BYTES: usize = 128;

/// An inode as the step is to see it.
pub(super) struct Seen {
    pub(super) record: Option<Record>,
    /// As intended.
    pub(super) meta: Meta,
}

/// The inode on disk.
pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(fd, b"", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT)
}

/// The inode at a path on disk.
pub(super) fn statx(dir: BorrowedFd<'_>, path: &[u8], flags: AtFlags) -> Result<Statx, Errno> {
    rustix::fs::statx(dir, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// What tells an inode from all others.
pub(super) fn inode(stat: &Statx) -> Inode {
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let birth =
        i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec);
    (device, stat.stx_ino, birth)
}

/// Whether inodes of this type can carry a record.
pub(super) const fn carries(file_type: FileType) -> bool {
    matches!(file_type, FileType::RegularFile | FileType::Directory)
}

/// The record in the attribute of an inode.
fn attribute(fd: BorrowedFd<'_>) -> Option<Record> {
    let mut bytes = [0; MAX_BYTES];
    let length = rustix::fs::getxattr(own_name(fd), ATTRIBUTE, &mut bytes).ok()?;
    Record::parse(&bytes[..length])
}

impl Supervisor {
    /// An inode and what is recorded about it.
    pub(super) fn look(&self, fd: BorrowedFd<'_>) -> Result<Seen, Errno> {
        Ok(self.seen(fd, &stat(fd)?))
    }

    /// An inode that is on disk like this, with what is recorded about it.
    pub(super) fn seen(&self, fd: BorrowedFd<'_>, stat: &Statx) -> Seen {
        let record = self.record(fd, stat);
        let meta = Meta::intended(stat, record, Some((0, 0)));
        Seen { record, meta }
    }

    fn record(&self, fd: BorrowedFd<'_>, stat: &Statx) -> Option<Record> {
        let file_type = FileType::from_raw_mode(stat.stx_mode.into());
        if carries(file_type)
            && let Some(found) = self.attributes.borrow_mut().of(stat, || attribute(fd))
        {
            return Some(found);
        }
        if !self.records.is_empty()
            && let Some(record) = self.records.get(&inode(stat))
        {
            return Some(*record);
        }
        if !self.foreign.is_empty() && !carries(file_type) { self.listed(fd, stat) } else { None }
    }

    /// Whether it is known without another look at the inode that nothing is recorded about it.
    pub(super) fn has_no_record(&self, stat: &Statx) -> bool {
        let silent = if carries(FileType::from_raw_mode(stat.stx_mode.into())) {
            self.attributes.borrow().has_none(stat)
        } else {
            self.foreign.is_empty()
        };
        silent && (self.records.is_empty() || !self.records.contains_key(&inode(stat)))
    }

    /// What the listing says about a link or pipe that has not changed since the step began.
    fn listed(&self, fd: BorrowedFd<'_>, stat: &Statx) -> Option<Record> {
        let path = self.tracees.path_of(fd)?;
        let path = path.strip_prefix(b"/").unwrap_or_default();
        let target =
            || rustix::fs::readlinkat(fd, "", Vec::new()).ok().map(std::ffi::CString::into_bytes);
        let owner = self.foreign.owner(&self.view, path, stat, &target)?;
        Some(inodes::record(owner, stat))
    }

    /// Records that an inode is meant to be `meta`.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, meta: Meta) -> Result<(), Errno> {
        let stat = stat(fd)?;
        let record = Record {
            uid: meta.uid,
            gid: meta.gid,
            mode: meta.mode,
            major: major(meta.device),
            minor: minor(meta.device),
            held_uid: stat.stx_uid,
            held_gid: stat.stx_gid,
            held_mode: u32::from(stat.stx_mode) & 0o7777,
        };
        if carries(FileType::from_raw_mode(stat.stx_mode.into())) {
            let text = record.to_string();
            let flags = XattrFlags::empty();
            let written = rustix::fs::setxattr(own_name(fd), ATTRIBUTE, text.as_bytes(), flags);
            self.attributes.get_mut().forget(&stat);
            match written {
                // A file system without attributes.
                Err(Errno::OPNOTSUPP) => {}
                result => return result,
            }
        }
        self.records.insert(inode(&stat), record);
        // What was copied up keeps the number that it had below.
        if let Some(above) = self.in_upper(fd, &stat) {
            self.records.insert(above, record);
        }
        Ok(())
    }

    /// The inode in the overlay's upper directory that stands behind this one.
    fn in_upper(&self, fd: BorrowedFd<'_>, stat: &Statx) -> Option<Inode> {
        let upper = self.upper.as_ref().filter(|_| !self.several_roots)?;
        let path = self.tracees.path_of(fd)?;
        let path = path.strip_prefix(b"/")?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let found = rustix::fs::openat2(upper, path, flags, Mode::empty(), beneath).ok()?;
        let above = self::stat(found.as_fd()).ok()?;
        let kind = |it: &Statx| FileType::from_raw_mode(it.stx_mode.into());
        (kind(&above) == kind(stat)).then(|| inode(&above))
    }
}
