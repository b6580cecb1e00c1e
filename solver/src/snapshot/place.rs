//! Makes one inode in a directory, as a listing entry describes it.
//!
//! The order of calls matters: content, then owner (which clears set-uid bits and capabilities),
//! then mode, then extended attributes, then times. Directories get theirs when all that is in them
//! has been made. The usual file (root's, mode not masked) costs four calls: `openat`, `write`,
//! `utimensat`, `close`.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};

use rbuild_store::entry::{Entry, Kind, Timestamp};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
use rustix::io::Errno;

use super::dir::proc_path;
use super::owner::{ATTRIBUTE, Record, Table, is_reserved};
use super::{LayerStore, Ownership};

/// Id of an inode whose intended owner is outside of the mapping.
const NOBODY: u32 = 65_534;

/// What becomes of the owner that an entry intends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owners {
    /// The host holds it.
    Real,
    /// It is recorded.
    Recorded,
    /// It is dropped: the inodes are the caller's own.
    Dropped,
}

/// How inodes are made below one directory. Shared by threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placer {
    owners: Owners,
    /// Whether overlay's whiteouts and opaque marks are written.
    conventions: bool,
    /// Bits that the process's umask takes away.
    umask: u32,
    /// What new inodes belong to.
    own: (u32, u32),
}

impl Placer {
    /// For layers of `store`.
    pub(crate) fn new(store: &LayerStore) -> Self {
        Self {
            owners: match store.ownership {
                Ownership::Real => Owners::Real,
                Ownership::Recorded => Owners::Recorded,
            },
            conventions: store.mapkey.mountable(),
            umask: store.umask,
            own: caller(),
        }
    }

    /// For files that a caller gets as its own: modes and times are kept, owners and attributes
    /// are not.
    pub(crate) fn as_caller(umask: u32) -> Self {
        Self { owners: Owners::Dropped, conventions: false, umask, own: caller() }
    }

    /// Makes an empty regular file, open for writing.
    pub(crate) fn create_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<File, Errno> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.host_mode(entry) & 0o777);
        Ok(File::from(rustix::fs::openat(dir, name, flags, mode)?))
    }

    /// Gives a written file its owner, mode, attributes and times.
    pub(crate) fn finish_file(&self, file: &File, entry: &Entry) -> Result<(), Errno> {
        let fd = file.as_fd();
        let held = self.give(entry, |uid, gid| rustix::fs::fchown(fd, uid, gid))?;
        if self.needs_chmod(entry) {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(self.host_mode(entry)))?;
        }
        self.set_attributes(entry, |name, value| {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        if let Some(record) = self.record_of_file(entry, held) {
            let text = record.to_string();
            let result = rustix::fs::fsetxattr(fd, ATTRIBUTE, text.as_bytes(), XattrFlags::empty());
            tolerate_unsupported(result)?;
        }
        rustix::fs::futimens(fd, &times(entry.mtime))
    }

    /// Makes a directory; one that is there is left as it is.
    pub(crate) fn make_dir(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(self.host_mode(entry) & 0o777);
        match rustix::fs::mkdirat(dir, name, mode) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        }
    }

    /// Gives a directory its owner, mode, attributes and times, once its content is complete.
    pub(crate) fn finish_dir(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Errno> {
        let name = if name.is_empty() { b"." } else { name };
        let path = || proc_path(dir, name);
        let held = self.give(entry, |uid, gid| {
            rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        if self.needs_chmod(entry) || name == b"." {
            let mode = Mode::from_raw_mode(self.host_mode(entry));
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
        }
        self.set_attributes(entry, |attribute, value| {
            rustix::fs::lsetxattr(path(), attribute, value, XattrFlags::empty())
        })?;
        if let Some(record) = self.record(entry, held) {
            let text = record.to_string();
            let flags = XattrFlags::empty();
            tolerate_unsupported(rustix::fs::lsetxattr(path(), ATTRIBUTE, text.as_bytes(), flags))?;
        }
        if matches!(entry.kind, Kind::Dir { opaque: true }) && self.conventions {
            let flags = XattrFlags::empty();
            tolerate_unsupported(rustix::fs::lsetxattr(path(), OPAQUE, b"y", flags))?;
        }
        rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Makes what is neither a file, a directory nor a hard link. In a layer an empty file takes a
    /// device's place; a caller's own gets the node, if the host lets it. `owners` gets what cannot
    /// be recorded on the inode.
    pub(crate) fn make_other(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        owners: &mut Table,
    ) -> Result<(), Errno> {
        match &entry.kind {
            Kind::Whiteout => return self.white_out(dir, name),
            Kind::Symlink { target } => rustix::fs::symlinkat(&target[..], dir, name)?,
            Kind::Fifo => self.make_node(dir, name, entry, FileType::Fifo, 0)?,
            Kind::Char { major, minor } if self.owners == Owners::Dropped => {
                let device = makedev(*major, *minor);
                self.make_node(dir, name, entry, FileType::CharacterDevice, device)?;
            }
            Kind::Block { major, minor } if self.owners == Owners::Dropped => {
                let device = makedev(*major, *minor);
                self.make_node(dir, name, entry, FileType::BlockDevice, device)?;
            }
            // A step of the rung without namespaces could open the host's.
            Kind::Char { .. } | Kind::Block { .. } => {
                return self.finish_file(&self.create_file(dir, name, entry)?, entry);
            }
            Kind::File { .. } | Kind::Dir { .. } | Kind::Hardlink { .. } => {
                return Err(Errno::INVAL);
            }
        }
        let path = || proc_path(dir, name);
        let held = self.give(entry, |uid, gid| {
            rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        })?;
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        if !is_link && self.needs_chmod(entry) {
            let mode = Mode::from_raw_mode(self.host_mode(entry));
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
        }
        self.set_attributes(entry, |attribute, value| {
            match rustix::fs::lsetxattr(path(), attribute, value, XattrFlags::empty()) {
                // Links and special files cannot have attributes of the user namespace.
                Err(Errno::PERM) => Ok(()),
                result => result,
            }
        })?;
        if let Some(record) = self.record(entry, held) {
            owners.insert(&entry.path, record);
        }
        rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn white_out(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        if !self.conventions {
            return Ok(());
        }
        let mode = Mode::empty();
        match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, 0) {
            // On an overlay, which cannot be below another's upper anyway: the listing knows.
            Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    fn make_node(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(self.host_mode(entry) & 0o777);
        rustix::fs::mknodat(dir, name, kind, mode, device)
    }

    /// Permission bits on disk: without full ids the caller keeps access, and no set-uid bit turns
    /// a file of the image into one of the caller's.
    fn host_mode(&self, entry: &Entry) -> u32 {
        match self.owners {
            Owners::Real | Owners::Dropped => entry.mode & 0o7777,
            Owners::Recorded if entry.is_dir() => entry.mode & 0o1777 | 0o700,
            Owners::Recorded => entry.mode & 0o1777 | 0o600,
        }
    }

    /// Whether the mode at creation was not the wanted one.
    fn needs_chmod(&self, entry: &Entry) -> bool {
        let mode = self.host_mode(entry);
        mode & !0o777 != 0 || mode & self.umask != 0
    }

    /// Changes the owner where that is needed and possible; returns what the host holds.
    fn give(
        &self,
        entry: &Entry,
        chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<(u32, u32), Errno> {
        let wanted = (entry.uid, entry.gid);
        if self.owners != Owners::Real || wanted == self.own {
            return Ok(self.own);
        }
        let set = |(uid, gid): (u32, u32)| {
            // The all-ones id means "unchanged" to the kernel: no inode can have it.
            if uid == u32::MAX || gid == u32::MAX {
                return Err(Errno::INVAL);
            }
            chown(Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        };
        match set(wanted) {
            // Outside of the mapping: keep it as a record, on an inode that is nobody's, or, if
            // the mapping is too short for that, root's.
            Err(Errno::INVAL) => match set((NOBODY, NOBODY)) {
                Err(Errno::INVAL) => Ok(self.own),
                result => result.map(|()| (NOBODY, NOBODY)),
            },
            result => result.map(|()| wanted),
        }
    }

    /// What must be recorded on an inode, if the host does not hold what `entry` says.
    fn record(&self, entry: &Entry, held: (u32, u32)) -> Option<Record> {
        // A caller without ids is root of the image, whatever its id on the host.
        let shown = match self.owners {
            Owners::Real => held,
            Owners::Recorded => (0, 0),
            Owners::Dropped => return None,
        };
        let is_link = matches!(entry.kind, Kind::Symlink { .. });
        let differs =
            (entry.uid, entry.gid) != shown || !is_link && self.host_mode(entry) != entry.mode;
        differs.then(|| Record::of(entry, held, self.host_mode(entry)))
    }

    /// As [`Self::record`], for a regular file, which may stand for a device.
    fn record_of_file(&self, entry: &Entry, held: (u32, u32)) -> Option<Record> {
        match entry.kind {
            Kind::Char { .. } | Kind::Block { .. } if self.owners != Owners::Dropped => {
                Some(Record::of(entry, held, self.host_mode(entry)))
            }
            Kind::Char { .. }
            | Kind::Block { .. }
            | Kind::File { .. }
            | Kind::Dir { .. }
            | Kind::Symlink { .. }
            | Kind::Hardlink { .. }
            | Kind::Fifo
            | Kind::Whiteout => self.record(entry, held),
        }
    }

    fn set_attributes(
        &self,
        entry: &Entry,
        set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if self.owners == Owners::Dropped {
            return Ok(());
        }
        for (name, value) in &entry.xattrs {
            if is_reserved(name) || name.contains(&0) {
                continue;
            }
            match set(name, value) {
                // The listing keeps it; what the host cannot hold a step cannot see.
                Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if self.owners == Owners::Recorded => {}
                Err(Errno::PERM) if name != b"security.capability" => {}
                result => result?,
            }
        }
        Ok(())
    }
}

fn caller() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Overlay's mark of a directory that hides what is below.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

fn tolerate_unsupported(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Both times as the one that counts.
pub(crate) fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
