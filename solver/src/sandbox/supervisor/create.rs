//! What a step makes while it is not root, or in a directory that hands its group on.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::calls::CREATES;
use super::ids::Ids;
use super::tracee::{self, id, int};
use super::{Outcome, Reply, Stop, Supervisor, leave};
use crate::sandbox::sys::{self, Notification};
use crate::snapshot::owner::Meta;

/// Argument numbers of a directory, if the call has one, and of a path.
type Where = (Option<usize>, usize);

/// `S_ISGID`.
const SET_GROUP: u32 = 0o2000;

/// Write and search permission, as a digit of a mode.
const ENTER_NAMES: u32 = 0o3;

/// What a new inode belongs to.
#[derive(Clone, Copy)]
struct Heir {
    uid: u32,
    gid: u32,
    /// Whether a new directory hands its group on as well.
    set_group: bool,
    /// Whether the directory lets the process make something in it.
    may: bool,
}

impl Heir {
    fn is_root(&self) -> bool {
        (self.uid, self.gid) == (0, 0)
    }
}

impl Supervisor {
    /// Who owns what `pid` makes in the directory `parent`. The kernel can do it alone if that is
    /// root.
    fn heir(&self, pid: i32, parent: BorrowedFd<'_>) -> Result<Heir, Stop> {
        let meta = self.look(parent).map_err(leave)?.meta;
        let ids: &Ids = self.people.of(pid);
        let set_group = meta.mode & SET_GROUP != 0;
        let gid = if set_group { meta.gid } else { ids.group.files };
        let may = ids.may(ENTER_NAMES, meta.uid, meta.gid, meta.mode);
        Ok(Heir { uid: ids.user.files, gid, set_group, may })
    }

    /// Records a new inode's owner.
    fn adopt(&mut self, fd: BorrowedFd<'_>, heir: Heir) -> Result<(), Errno> {
        let mut meta = self.look(fd)?.meta;
        (meta.uid, meta.gid) = (heir.uid, heir.gid);
        if heir.set_group && meta.file_type() == FileType::Directory {
            meta.mode |= SET_GROUP;
        }
        self.write(fd, meta)
    }

    pub(super) fn open(
        &mut self,
        call: &Notification,
        at: Where,
        flags: u64,
        mode: u64,
    ) -> Outcome {
        let flags = OFlags::from_bits_retain(id(flags));
        if flags.contains(OFlags::PATH) {
            return Err(Stop::Continue);
        }
        if flags.contains(OFlags::TMPFILE) {
            return self.open_unnamed(call, at, flags, mode);
        }
        let (parent, name) = self.tracees.parent(call, at, false)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        if !heir.may {
            self.existing(call.pid, &parent, &name, flags)?;
            return Err(Stop::Failed(Errno::ACCESS));
        }
        let mode = Mode::from_raw_mode(id(mode) & 0o7777 & !self.tracees.umask(call.pid));
        let ours = OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        match openat(&parent, &name[..], flags | ours, mode) {
            Ok(file) => self.hand_over(call, &file, heir, flags),
            Err(Errno::EXIST) => {
                self.existing(call.pid, &parent, &name, flags)?;
                // It is gone again: whoever asks again, gets it.
                Err(Stop::Continue)
            }
            Err(errno) => Err(Stop::Failed(errno)),
        }
    }

    /// Stops if there is such a file: the kernel opens it, unless the process may not write to it.
    fn existing(&self, pid: i32, parent: &OwnedFd, name: &[u8], flags: OFlags) -> Result<(), Stop> {
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(there) = openat(parent, name, path, Mode::empty()) else {
            return Ok(());
        };
        let meta = self.look(there.as_fd()).map_err(leave)?.meta;
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        let is_file = meta.file_type() == FileType::RegularFile;
        if is_file && writes && !self.people.of(pid).may(0o2, meta.uid, meta.gid, meta.mode) {
            return Err(Stop::Failed(Errno::ACCESS));
        }
        Err(Stop::Continue)
    }

    /// `O_TMPFILE`: a file that gets its name later.
    fn open_unnamed(
        &mut self,
        call: &Notification,
        (dir, path): Where,
        flags: OFlags,
        mode: u64,
    ) -> Outcome {
        let path = tracee::path(call.pid, call.args[path])?;
        let dir = dir.map_or(libc::AT_FDCWD, |index| int(call.args[index]));
        let parent = self.tracees.resolve(call.pid, dir, &path, true)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        if !heir.may {
            return Err(Stop::Failed(Errno::ACCESS));
        }
        let mode = Mode::from_raw_mode(id(mode) & 0o7777 & !self.tracees.umask(call.pid));
        let file = openat(&parent, ".", flags | OFlags::CLOEXEC, mode)?;
        self.hand_over(call, &file, heir, flags)
    }

    /// Gives the process a file that was opened for it.
    fn hand_over(
        &mut self,
        call: &Notification,
        file: &OwnedFd,
        heir: Heir,
        flags: OFlags,
    ) -> Outcome {
        self.adopt(file.as_fd(), heir)?;
        let close = flags.contains(OFlags::CLOEXEC);
        let sent = sys::answer_with_descriptor(self.listener.as_fd(), call.id, file.as_fd(), close);
        match sent {
            Ok(()) => Ok(Reply::Sent),
            Err(error) => Err(Stop::Failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        }
    }

    pub(super) fn open_how(&mut self, call: &Notification) -> Outcome {
        // flags, mode, resolve: 8 bytes each.
        let mut how = [0; 24];
        tracee::read(call.pid, call.args[2], &mut how)?;
        let word = |at: usize| how[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        let (flags, mode, resolve) = (word(0), word(8), word(16));
        if resolve != 0 || flags & u64::from(CREATES) == 0 {
            return Err(Stop::Continue);
        }
        self.open(call, (Some(0), 1), flags, mode)
    }

    pub(super) fn make_dir(&mut self, call: &Notification, at: Where) -> Outcome {
        let (parent, name) = self.tracees.parent(call, at, true)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() && !heir.set_group {
            return Err(Stop::Continue);
        }
        self.refuse(&parent, &name, heir)?;
        let mode = id(call.args[at.1 + 1]) & 0o1777 & !self.tracees.umask(call.pid);
        rustix::fs::mkdirat(&parent, &name[..], Mode::from_raw_mode(mode))?;
        self.adopt_name(&parent, &name, heir)
    }

    pub(super) fn make_link(&mut self, call: &Notification, at: Where) -> Outcome {
        let (parent, name) = self.tracees.parent(call, at, false)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        self.refuse(&parent, &name, heir)?;
        let target = tracee::c_path(call.pid, call.args[0])?;
        rustix::fs::symlinkat(&target, &parent, &name[..])?;
        self.adopt_name(&parent, &name, heir)
    }

    pub(super) fn make_node(&mut self, call: &Notification, at: Where) -> Outcome {
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
        let (parent, name) = self.tracees.parent(call, at, false)?;
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

    fn adopt_name(&mut self, parent: &OwnedFd, name: &[u8], heir: Heir) -> Outcome {
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = openat(parent, name, path, Mode::empty())?;
        self.adopt(new.as_fd(), heir)?;
        Ok(Reply::Value(0))
    }
}
