//! What a step makes while it is not root, or in a directory that hands its group on: all but files.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::Supervisor;
use super::calls::Name;
use super::ids::Ids;
use super::tracee::{self, id, own_name, split};
use crate::sandbox::asked::{Answer, Reply, Stop, leave};
use crate::sandbox::sys::Notification;
use crate::snapshot::owner::Meta;

/// `S_ISGID`.
const SET_GROUP: u32 = 0o2000;

/// Write and search permission, as a digit of a mode.
const ENTER_NAMES: u32 = 0o3;

/// Bytes of the longest address that is a path (`struct sockaddr_un`): the family, then the path.
const MAX_ADDRESS: usize = 110;

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

    /// bind(2): a socket of the process, bound here to a path.
    pub(super) fn bind(&mut self, call: &Notification) -> Answer {
        let [fd, address, length, ..] = call.args;
        let path = socket_path(call.pid, address, length)?;
        let (parent, name) = split(&path, false).ok_or(Stop::Continue)?;
        let ids = self.people.of(call.pid);
        let parent = self.reach(call, ids, libc::AT_FDCWD, parent, true)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        match self.refuse(&parent, name, heir) {
            Err(Stop::Failed(Errno::EXIST)) => return Err(Stop::Failed(Errno::ADDRINUSE)),
            result => result?,
        }
        // A name that does not fit any more is the kernel's, as root's.
        let here = [own_name(parent.as_fd()).as_bytes(), b"/", name].concat();
        let here = SocketAddrUnix::new(&here[..]).map_err(leave)?;
        let socket = self.tracees.socket(call.pid, fd)?;
        let umask = Mode::from_raw_mode(self.tracees.umask(call.pid));
        self.still(call)?;
        rustix::process::umask(umask);
        let bound = rustix::net::bind(&socket, &here);
        rustix::process::umask(Mode::empty());
        bound?;
        self.adopt_name(&parent, name, heir)
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

/// The path in a socket address of `pid`; other addresses are the kernel's.
fn socket_path(pid: i32, address: u64, length: u64) -> Result<Vec<u8>, Stop> {
    let length = usize::try_from(length).map_err(leave)?;
    let mut bytes = [0; MAX_ADDRESS];
    let bytes = bytes.get_mut(..length).ok_or(Stop::Continue)?;
    tracee::read(pid, address, bytes)?;
    path_of(bytes).map(<[u8]>::to_vec).ok_or(Stop::Continue)
}

/// unix(7): the family, and a path that ends with the address or at its first zero. What starts with
/// a zero has no inode.
fn path_of(address: &[u8]) -> Option<&[u8]> {
    let (family, path) = address.split_at_checked(2)?;
    if family != u16::try_from(libc::AF_UNIX).ok()?.to_ne_bytes() {
        return None;
    }
    path.split(|&byte| byte == 0).next().filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_a_path() {
        assert_eq!(path_of(b"\x01\x00/run/s"), Some(&b"/run/s"[..]));
        assert_eq!(path_of(b"\x01\x00s\x00rest"), Some(&b"s"[..]));
        for other in [&b"\x01\x00"[..], b"\x01\x00\x00name", b"\x02\x00\x1f\x90", b"\x01"] {
            assert_eq!(path_of(other), None, "{other:?}");
        }
    }
}
