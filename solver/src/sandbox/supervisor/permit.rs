//! What a process that is not root is kept from: the kernel, to which it is root, would let it.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, XattrFlags, openat};
use rustix::io::Errno;

use super::Supervisor;
use super::access_list;
use super::calls::{At, Name};
use super::ids::{Ids, Roles};
use super::tracee::{self, id};
use super::walk::{ENTER, READ, WRITE};
use crate::sandbox::asked::{Answer, Reply, Stop, int, leave};
use crate::sandbox::plan::Pretend;
use crate::sandbox::sys::Notification;

/// `S_ISVTX`: who owns neither the file nor the directory does not take it away.
const STICKY: u32 = 0o1000;

/// `S_ISUID`; `S_ISGID` with execution by the group.
const SET_USER: u32 = 0o4000;
const RUNS_AS_GROUP: u32 = 0o2010;

/// Prefix of the attributes that are records.
const OURS: &[u8] = b"user.rbuild.";

/// Longest name of an attribute (`XATTR_NAME_MAX`), with its end.
const NAME_BYTES: usize = 256;

/// Longest list of names of attributes (`XATTR_LIST_MAX`).
const LIST_BYTES: usize = 65_536;

impl Supervisor {
    /// access(2): by the real ids, unless asked otherwise.
    pub(super) fn access(&self, call: &Notification, at: At, mode: usize) -> Answer {
        let flags = if let At::Dir { flags: Some(index) } = at { int(call.args[index]) } else { 0 };
        let mut ids = self.people.of(call.pid).clone();
        if flags & libc::AT_EACCESS == 0 {
            let real = |roles: Roles| Roles { files: roles.real, ..roles };
            (ids.user, ids.group) = (real(ids.user), real(ids.group));
        }
        if ids.is_root_of_files() {
            return Err(Stop::Continue);
        }
        let fd = self.target_for(call, at, &ids)?;
        self.permit(fd.as_fd(), &ids, id(call.args[mode]) & 0o7)?;
        Err(Stop::Continue)
    }

    /// unlink(2), rmdir(2).
    pub(super) fn remove(&self, call: &Notification, name: Name) -> Answer {
        self.may_take(call, name)?;
        Err(Stop::Continue)
    }

    pub(super) fn rename(&self, call: &Notification, from: Name, to: Name) -> Answer {
        self.may_take(call, from)?;
        self.may_take(call, to)?;
        Err(Stop::Continue)
    }

    /// link(2): to a file of somebody else only where it can be read and written, unless the host
    /// has that otherwise.
    pub(super) fn link(&self, call: &Notification, from: Name, to: Name) -> Answer {
        self.may_take(call, to)?;
        let ids = self.people.of(call.pid);
        let path = tracee::path(call.pid, call.args[from.1])?;
        let dir = from.0.map_or(libc::AT_FDCWD, |index| int(call.args[index]));
        let file = self.reach(call, ids, dir, &path, false)?;
        let meta = self.look(file.as_fd()).map_err(leave)?.meta;
        let special = meta.mode & SET_USER != 0 || meta.mode & RUNS_AS_GROUP == RUNS_AS_GROUP;
        let open = meta.file_type() == FileType::RegularFile
            && !special
            && ids.may(READ | WRITE, meta.uid, meta.gid, meta.mode);
        if self.tracees.protects_links && ids.user.files != meta.uid && !open {
            return Err(Stop::Failed(Errno::PERM));
        }
        Err(Stop::Continue)
    }

    /// Whether the process may change a name, and what has it now.
    fn may_take(&self, call: &Notification, name: Name) -> Result<(), Stop> {
        let ids = self.people.of(call.pid);
        let (parent, name) = self.parent(call, name, true)?;
        self.permit(parent.as_fd(), ids, WRITE | ENTER)?;
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(there) = openat(&parent, &name[..], path, Mode::empty()) else { return Ok(()) };
        let dir = self.look(parent.as_fd()).map_err(leave)?.meta;
        if dir.mode & STICKY != 0
            && ids.user.files != dir.uid
            && !self.owns(there.as_fd(), ids).map_err(leave)?
        {
            return Err(Stop::Failed(Errno::PERM));
        }
        Ok(())
    }

    fn owns(&self, fd: BorrowedFd<'_>, ids: &Ids) -> Result<bool, Errno> {
        Ok(ids.user.files == self.look(fd)?.meta.uid)
    }

    pub(super) fn truncate(&self, call: &Notification) -> Answer {
        let ids = self.people.of(call.pid);
        let fd = self.target(call, At::Path { follow: true })?;
        self.permit(fd.as_fd(), ids, WRITE)?;
        Err(Stop::Continue)
    }

    pub(super) fn change_dir(&self, call: &Notification, at: At) -> Answer {
        let fd = self.target(call, at)?;
        self.permit(fd.as_fd(), self.people.of(call.pid), ENTER)?;
        Err(Stop::Continue)
    }

    /// utime(2) and its relatives: the owner sets any time, who may write sets the present one.
    pub(super) fn times(&self, call: &Notification, at: At, times: usize) -> Answer {
        let ids = self.people.of(call.pid);
        let fd = self.target(call, at)?;
        if self.owns(fd.as_fd(), ids).map_err(leave)? {
            return Err(Stop::Continue);
        }
        if call.args[times] != 0 {
            return Err(Stop::Failed(Errno::PERM));
        }
        self.permit(fd.as_fd(), ids, WRITE)?;
        Err(Stop::Continue)
    }

    /// setxattr(2), removexattr(2): nobody changes a record, and others than root only what they may
    /// write to.
    pub(super) fn set_attribute(
        &self,
        call: &Notification,
        at: At,
        name: usize,
        value: Option<usize>,
    ) -> Answer {
        let name = tracee::text(call.pid, call.args[name], NAME_BYTES)?;
        if name.starts_with(OURS) {
            return Err(Stop::Failed(Errno::PERM));
        }
        let ids = self.people.of(call.pid);
        let list = access_list::NAMES.contains(&&name[..]);
        if ids.is_root_of_files() {
            return if list { self.set_list(call, at, &name, value) } else { Err(Stop::Continue) };
        }
        if !name.starts_with(b"user.") {
            let fd = self.target(call, at)?;
            if !list || !self.owns(fd.as_fd(), ids).map_err(leave)? {
                return Err(Stop::Failed(Errno::PERM));
            }
            return self.set_list(call, at, &name, value);
        }
        let fd = self.target(call, at)?;
        self.permit(fd.as_fd(), ids, WRITE)?;
        Err(Stop::Continue)
    }

    /// Sets an access control list, as far as ids are known here.
    fn set_list(&self, call: &Notification, at: At, name: &[u8], value: Option<usize>) -> Answer {
        let value = value.filter(|_| self.pretend == Pretend::Ids).ok_or(Stop::Continue)?;
        let length = usize::try_from(call.args[value + 1]).map_err(leave)?;
        if length > access_list::MAX_BYTES {
            return Err(Stop::Continue);
        }
        let mut list = vec![0; length];
        tracee::read(call.pid, call.args[value], &mut list)?;
        let known = access_list::without_strangers(&list).ok_or(Stop::Continue)?;
        let fd = self.target(call, at)?;
        self.still(call)?;
        let flags = XattrFlags::from_bits_retain(id(call.args[value + 2]));
        rustix::fs::setxattr(tracee::own_name(fd.as_fd()), name, &known, flags)?;
        Ok(Reply::Value(0))
    }

    /// listxattr(2): without the records.
    pub(super) fn list_attributes(&self, call: &Notification, at: At, list: usize) -> Answer {
        let fd = self.target(call, at)?;
        let seen = self.look(fd.as_fd()).map_err(leave)?;
        let on_disk = super::record::stat(fd.as_fd()).map_err(leave)?;
        let on_disk = FileType::from_raw_mode(on_disk.stx_mode.into());
        if seen.record.is_none() || !super::record::carries(on_disk) {
            return Err(Stop::Continue);
        }
        let mut names = vec![0; LIST_BYTES];
        let length = rustix::fs::listxattr(tracee::own_name(fd.as_fd()), &mut names[..])?;
        names.truncate(length);
        let mut shown = Vec::new();
        for name in names.split_inclusive(|&byte| byte == 0).filter(|it| !it.starts_with(OURS)) {
            shown.extend_from_slice(name);
        }
        let room = usize::try_from(call.args[list + 1]).unwrap_or(usize::MAX);
        if room != 0 {
            if room < shown.len() {
                return Err(Stop::Failed(Errno::RANGE));
            }
            if !shown.is_empty() {
                tracee::write(call.pid, call.args[list], &shown)?;
            }
        }
        Ok(Reply::Value(i64::try_from(shown.len()).unwrap_or(i64::MAX)))
    }
}
