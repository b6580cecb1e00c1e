//! What a step makes while it is not root, or in a directory that hands its group on: all but files.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::Supervisor;
use super::calls::Name;
use super::ids::Ids;
use super::tracee::{self, id};
use crate::sandbox::asked::{Answer, Reply, Stop, leave};
use crate::sandbox::sys::Notification;
use crate::snapshot::owner::Meta;

/// `S_ISGID`.
const SET_GROUP: u32 = 0o2000;

/// Write and search permission, as a digit of a mode.
const ENTER_NAMES: u32 = 0o3;

/// What a new inode belongs to.
#[derive(Clone, Copy)]
pub(super) struct Heir {
    uid: u32,
    gid: u32,
    /// Whether a new directory hands its group on as well.
    set_group: bool,
    /// Whether the directory lets the process make something in it.
    pub(super) may: bool,
}

impl Heir {
    pub(super) fn is_root(&self) -> bool {
        (self.uid, self.gid) == (0, 0)
    }
}

impl Supervisor {
    /// Who owns what `pid` makes in the directory `parent`. The kernel can do it alone if that is
    /// root.
    pub(super) fn heir(&self, pid: i32, parent: BorrowedFd<'_>) -> Result<Heir, Stop> {
        let meta = self.look(parent).map_err(leave)?.meta;
        let ids: &Ids = self.people.of(pid);
        let set_group = meta.mode & SET_GROUP != 0;
        let gid = if set_group { meta.gid } else { ids.group.files };
        let may = ids.may(ENTER_NAMES, meta.uid, meta.gid, meta.mode);
        Ok(Heir { uid: ids.user.files, gid, set_group, may })
    }

    /// Records a new inode's owner.
    pub(super) fn adopt(&mut self, fd: BorrowedFd<'_>, heir: Heir) -> Result<(), Errno> {
        let mut meta = self.look(fd)?.meta;
        (meta.uid, meta.gid) = (heir.uid, heir.gid);
        if heir.set_group && meta.file_type() == FileType::Directory {
            meta.mode |= SET_GROUP;
        }
        self.write(fd, meta)
    }

    pub(super) fn make_dir(&mut self, call: &Notification, at: Name) -> Answer {
        let (parent, name) = self.parent(call, at, true)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() && !heir.set_group {
            return Err(Stop::Continue);
        }
        self.refuse(&parent, &name, heir)?;
        let mode = id(call.args[at.1 + 1]) & 0o1777 & !self.tracees.umask(call.pid);
        rustix::fs::mkdirat(&parent, &name[..], Mode::from_raw_mode(mode))?;
        self.adopt_name(&parent, &name, heir)
    }

    pub(super) fn make_link(&mut self, call: &Notification, at: Name) -> Answer {
        let (parent, name) = self.parent(call, at, false)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        self.refuse(&parent, &name, heir)?;
        let target = tracee::c_path(call.pid, call.args[0])?;
        rustix::fs::symlinkat(&target, &parent, &name[..])?;
        self.adopt_name(&parent, &name, heir)
    }

    pub(super) fn make_node(&mut self, call: &Notification, at: Name) -> Answer {
        let (wanted, device) = (id(call.args[at.1 + 1]), call.args[at.1 + 2]);
        let file_type = FileType::from_raw_mode(wanted);
        let is_device = match file_type {
            // 0/0 is overlay's whiteout: the kernel decides.
            FileType::CharacterDevice => device != 0,
            FileType::BlockDevice => true,
            FileType::RegularFile
            | FileType::Directory
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => false,
        };
        let (parent, name) = self.parent(call, at, false)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() && !is_device {
            return Err(Stop::Continue);
        }
        if is_device && !self.people.of(call.pid).is_root() {
            return Err(Stop::Failed(Errno::PERM));
        }
        self.refuse(&parent, &name, heir)?;
        let mode = wanted & 0o7777 & !self.tracees.umask(call.pid);
        let bits = Mode::from_raw_mode(mode);
        if !is_device {
            rustix::fs::mknodat(&parent, &name[..], file_type, bits, device)?;
            return self.adopt_name(&parent, &name, heir);
        }
        // An empty file stands for it.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&parent, &name[..], flags, bits)?;
        let mode = file_type.as_raw_mode() | mode;
        self.write(file.as_fd(), Meta { uid: heir.uid, gid: heir.gid, mode, device })?;
        self.devices = true;
        Ok(Reply::Value(0))
    }

    /// Fails if the process may not make anything in a directory.
    #[expect(clippy::unused_self, reason = "belongs to what it serves")]
    fn refuse(&self, parent: &OwnedFd, name: &[u8], heir: Heir) -> Result<(), Stop> {
        if heir.may {
            return Ok(());
        }
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let there = openat(parent, name, path, Mode::empty()).is_ok();
        Err(Stop::Failed(if there { Errno::EXIST } else { Errno::ACCESS }))
    }

    fn adopt_name(&mut self, parent: &OwnedFd, name: &[u8], heir: Heir) -> Answer {
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = openat(parent, name, path, Mode::empty())?;
        self.adopt(new.as_fd(), heir)?;
        Ok(Reply::Value(0))
    }
}
