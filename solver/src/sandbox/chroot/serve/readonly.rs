//! What a step mounts read-only: it has a copy, which it could write to. That it cannot is told to it
//! here, as the kernel would tell of a mount. Fidelity, not a fence: what is written is lost.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{PATH, Server, path_of};
use crate::sandbox::asked::{Answer, Stop, int};
use crate::sandbox::chroot::changes::{Change, Name, Within};
use crate::sandbox::sys::Notification;

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Flags of open(2) that change a file.
const WRITES: OFlags = OFlags::WRONLY.union(OFlags::RDWR).union(OFlags::TRUNC);

const REFUSED: Answer = Err(Stop::Failed(Errno::ROFS));
const LEFT: Answer = Err(Stop::Continue);

impl Server {
    /// A call that changes something: refused, or left to the kernel.
    pub(super) fn change(&self, call: &Notification, change: Change) -> Answer {
        let name = |name: Name| self.name(call, name);
        match change {
            Change::Make(at) => self.make_name(call, at),
            Change::Create(at) => self.write(call, at, OFlags::CREATE | OFlags::WRONLY),
            Change::Remove(at) => match name(at)? {
                it if it.is_point => Err(Errno::BUSY.into()),
                it if it.readonly => REFUSED,
                _ => LEFT,
            },
            Change::Content(at) => self.change_found(call, at, OFlags::empty()),
            Change::Itself(at) => self.change_found(call, at, OFlags::NOFOLLOW),
            Change::ByFlag(at, flags) => {
                let flags = AtFlags::from_bits_retain(int(call.args[flags]).cast_unsigned());
                let itself = flags.contains(AtFlags::SYMLINK_NOFOLLOW);
                let follow = if itself { OFlags::NOFOLLOW } else { OFlags::empty() };
                self.change_found(call, at, follow)
            }
            Change::Open(fd) => self.change_open(call, int(call.args[fd])),
            Change::Move(from, to) => match (name(from)?, name(to)?) {
                (from, to) if from.is_point || to.is_point => Err(Errno::BUSY.into()),
                (from, to) => between(from, to).unwrap_or(LEFT),
            },
            Change::Link(from, to) => match between(name(from)?, name(to)?) {
                Some(answer @ Err(Stop::Failed(Errno::XDEV))) => answer,
                _ => self.make_name(call, to),
            },
        }
    }

    /// open(2) with these flags of something in the tree.
    pub(super) fn write(&self, call: &Notification, at: Name, flags: OFlags) -> Answer {
        let follow = flags & OFlags::NOFOLLOW;
        match self.found(call, at, follow) {
            Ok(_) if flags.contains(OFlags::CREATE | OFlags::EXCL) => LEFT,
            Ok(found) if flags.intersects(WRITES) => self.refuse(&found),
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => self.make_name(call, at),
            // Reading, or the kernel says what is wrong.
            Ok(_) | Err(_) => LEFT,
        }
    }

    /// access(2) for writing.
    pub(super) fn may_write(&self, call: &Notification, at: Name) -> Answer {
        self.change_found(call, at, OFlags::empty())
    }

    fn make_name(&self, call: &Notification, at: Name) -> Answer {
        // What is there already is said first.
        let is_there = self.found(call, at, OFlags::NOFOLLOW).is_ok();
        if !is_there && self.name(call, at)?.readonly { REFUSED } else { LEFT }
    }

    fn change_found(&self, call: &Notification, at: Name, follow: OFlags) -> Answer {
        if call.args[at.path] == 0 {
            // No path: the descriptor itself.
            return at.dir.map_or(LEFT, |dir| self.change_open(call, int(call.args[dir])));
        }
        self.found(call, at, follow).map_or(LEFT, |found| self.refuse(&found))
    }

    fn change_open(&self, call: &Notification, fd: i32) -> Answer {
        let path = self.link_of(call.pid, &format!("fd/{fd}"));
        let path = path.ok().and_then(|it| self.inside(&it));
        path.map_or(LEFT, |it| if self.mounts.find(&it).readonly { REFUSED } else { LEFT })
    }

    fn refuse(&self, found: &OwnedFd) -> Answer {
        let stat = rustix::fs::fstat(found)?;
        // Who writes to these changes no file.
        let special = matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket
        );
        let path = self.inside(&path_of(found)?).ok_or(Stop::Continue)?;
        if !special && self.mounts.find(&path).readonly { REFUSED } else { LEFT }
    }

    /// What a name stands for.
    pub(super) fn found(
        &self,
        call: &Notification,
        at: Name,
        follow: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let path = self.whole(call, at).map_err(|_| Errno::INVAL)?;
        self.beneath(&path, PATH | follow)
    }

    /// Where a name is, whether it stands for anything or not.
    fn name(&self, call: &Notification, at: Name) -> Result<Within, Stop> {
        let path = self.whole(call, at)?;
        let end = path.iter().rposition(|&it| it != b'/').map_or(0, |it| it + 1);
        let cut = memchr::memrchr(b'/', &path[..end]).map_or(0, |it| it + 1);
        let name = &path[cut..end];
        if matches!(name, b"" | b"." | b"..") {
            return Err(Stop::Continue);
        }
        let parent = self.beneath(&path[..cut], PATH | OFlags::DIRECTORY);
        let parent = path_of(&parent.map_err(|_| Stop::Continue)?)?;
        let mut full = self.inside(&parent).ok_or(Stop::Continue)?;
        if full != b"/" {
            full.push(b'/');
        }
        full.extend_from_slice(name);
        Ok(self.mounts.find(&full))
    }

    fn whole(&self, call: &Notification, at: Name) -> Result<Vec<u8>, Stop> {
        self.whole_path(call, at.dir.map(|it| int(call.args[it])), call.args[at.path])
    }

    fn beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = [b".", path].concat();
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), INSIDE)
    }
}

/// Why a name cannot be given to what another name stands for.
fn between(from: Within, to: Within) -> Option<Answer> {
    if !from.readonly && !to.readonly {
        return None;
    }
    Some(if from.mount == to.mount { REFUSED } else { Err(Errno::XDEV.into()) })
}
