//! chown, chmod, stat, and programs that change their user.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::calls::At;
use super::record::Seen;
use super::tracee::{self, id, own_name};
use super::walk::{ENTER, is_anonymous, place};
use super::{Supervisor, narrow};
use crate::sandbox::asked::{Answer, Reply, Stop, int, leave};
use crate::sandbox::sys::{self, Notification};
use crate::snapshot::owner::Meta;

/// "Leave it as it is", as chown(2) has it.
const KEEP: u32 = u32::MAX;

/// `S_ISUID`, `S_ISGID`, and execution by the group.
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

impl Supervisor {
    /// The inode that a call asks about, if something is recorded about it.
    fn recorded(&self, call: &Notification, at: At) -> Result<(OwnedFd, Seen), Stop> {
        let place = place(call, at)?;
        if self.is_plain(call, &place) {
            return Err(Stop::Continue);
        }
        let fd = self.arrive(call, self.people.of(call.pid), &place)?;
        let seen = self.look(fd.as_fd()).map_err(leave)?;
        if seen.record.is_some() { Ok((fd, seen)) } else { Err(Stop::Continue) }
    }

    pub(super) fn stat(&self, call: &Notification, at: At, out: usize) -> Answer {
        let (fd, seen) = self.recorded(call, at)?;
        let mut stat = sys::stat(fd.as_fd()).map_err(leave)?;
        let meta = seen.meta;
        (stat.st_uid, stat.st_gid, stat.st_mode) = (meta.uid, meta.gid, meta.mode);
        stat.st_rdev = meta.device;
        tracee::write(call.pid, call.args[out], sys::bytes_of_stat(&stat))?;
        Ok(Reply::Value(0))
    }

    /// The same for a 32-bit program.
    pub(super) fn narrow_stat(&self, call: &Notification, at: At, out: usize) -> Answer {
        let (fd, seen) = self.recorded(call, at)?;
        let stat = super::record::stat(fd.as_fd()).map_err(leave)?;
        tracee::write(call.pid, call.args[out], &narrow::bytes(&stat, &seen.meta))?;
        Ok(Reply::Value(0))
    }

    pub(super) fn statx(&self, call: &Notification) -> Answer {
        let (fd, seen) = self.recorded(call, At::Dir { flags: Some(2) })?;
        let flags = int(call.args[2]) & !libc::AT_SYMLINK_NOFOLLOW;
        let mut stat = sys::statx(fd.as_fd(), flags, id(call.args[3])).map_err(leave)?;
        let meta = seen.meta;
        (stat.stx_uid, stat.stx_gid) = (meta.uid, meta.gid);
        stat.stx_mode = u16::try_from(meta.mode).unwrap_or(stat.stx_mode);
        (stat.stx_rdev_major, stat.stx_rdev_minor) = meta.device_parts();
        tracee::write(call.pid, call.args[4], sys::bytes_of_statx(&stat))?;
        Ok(Reply::Value(0))
    }

    pub(super) fn change_owner(&mut self, call: &Notification, at: At, index: usize) -> Answer {
        let (uid, gid) = (id(call.args[index]), id(call.args[index + 1]));
        let fd = self.target(call, at)?;
        // What `/dev/stdout` and the like lead to has no owner of any interest to a layer.
        if is_anonymous(fd.as_fd()) {
            return Ok(Reply::Value(0));
        }
        let seen = self.look(fd.as_fd()).map_err(leave)?;
        let ids = self.people.of(call.pid);
        let old = seen.meta;
        if !ids.is_root_of_files() {
            let owner = ids.user.files == old.uid;
            let user_stays = uid == KEEP || (owner && uid == old.uid);
            let group_may = gid == KEEP || (owner && (gid == old.gid || ids.is_in(gid)));
            if !user_stays || !group_may {
                return Err(Stop::Failed(Errno::PERM));
            }
        }
        let or = |new: u32, old: u32| if new == KEEP { old } else { new };
        let mut new = Meta { uid: or(uid, old.uid), gid: or(gid, old.gid), ..old };
        if (new.uid, new.gid) == (0, 0) && seen.record.is_none() {
            return Err(Stop::Continue);
        }
        if old.file_type() != FileType::Directory && old.file_type() != FileType::Symlink {
            new.mode &= !SET_USER;
            if new.mode & GROUP_EXECUTES != 0 {
                new.mode &= !SET_GROUP;
            }
        }
        // What goes with every change of owner: a new time, no capabilities, and on an overlay an
        // inode of the step's own.
        let (user, group) = (Some(Uid::from_raw(0)), Some(Gid::from_raw(0)));
        match rustix::fs::chownat(&fd, "", user, group, AtFlags::EMPTY_PATH) {
            // A server that lets nobody change owners, be it to the same one.
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.write(fd.as_fd(), new)?;
        Ok(Reply::Value(0))
    }

    pub(super) fn change_mode(&mut self, call: &Notification, at: At, index: usize) -> Answer {
        let fd = self.target(call, at)?;
        let seen = self.look(fd.as_fd()).map_err(leave)?;
        let ids = self.people.of(call.pid);
        let root = ids.is_root_of_files();
        if seen.meta.file_type() == FileType::Symlink || (root && seen.record.is_none()) {
            return Err(Stop::Continue);
        }
        if !root && ids.user.files != seen.meta.uid {
            return Err(Stop::Failed(Errno::PERM));
        }
        let mut mode = id(call.args[index]) & 0o7777;
        if !root && !ids.is_in(seen.meta.gid) {
            mode &= !SET_GROUP;
        }
        rustix::fs::chmod(own_name(fd.as_fd()), Mode::from_raw_mode(mode))?;
        let new = Meta { mode: seen.meta.mode & !0o7777 | mode, ..seen.meta };
        self.write(fd.as_fd(), new)?;
        Ok(Reply::Value(0))
    }

    /// Lets a program start, as its owner where it has the bit for that.
    pub(super) fn execute(
        &mut self,
        call: &Notification,
        (dir, path): (Option<usize>, usize),
        flags: Option<usize>,
    ) -> Answer {
        let ids = self.people.of(call.pid).clone();
        let (mut owner, mut group) = (None, None);
        if !ids.is_root() {
            let path = tracee::path(call.pid, call.args[path])?;
            let dir = dir.map_or(libc::AT_FDCWD, |index| int(call.args[index]));
            let flags = flags.map_or(0, |index| int(call.args[index]));
            let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
            let fd = self.reach(call, &ids, dir, &path, follow)?;
            let meta = self.look(fd.as_fd()).map_err(leave)?.meta;
            if meta.file_type() == FileType::RegularFile {
                self.permit(fd.as_fd(), &ids, ENTER)?;
                let both = SET_GROUP | GROUP_EXECUTES;
                owner = (meta.mode & SET_USER != 0).then_some(meta.uid);
                group = (meta.mode & both == both).then_some(meta.gid);
            }
        }
        let new = ids.after_exec(owner, group);
        if new != ids {
            self.people.become_(call.pid, new)?;
        }
        Err(Stop::Continue)
    }
}
