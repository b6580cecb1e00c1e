//! Set-group-id bits: a step has no right to set them on files of groups that it is not in, since with
//! that right root would also keep the set-user-id bit of a file that it writes to.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::tracee::Ids;
use super::{PATH, Server, path_of};
use crate::sandbox::asked::{Answer, Reply, Stop, int};
use crate::sandbox::caps::{has, number};
use crate::sandbox::chroot::changes::Change;
use crate::sandbox::sys::Notification;

/// `S_ISGID`.
const SET_GROUP: u64 = 0o2000;

impl Server {
    /// chmod(2) by root of a file of the tree; anything else is left to the kernel.
    pub(super) fn set_mode(&self, call: &Notification, change: Change, mode: u64) -> Answer {
        let is_root = self.tracees.ids(call.pid).is_some_and(Ids::is_root);
        if mode & SET_GROUP == 0 || !is_root || !self.may_change_any(call.pid) {
            return Err(Stop::Continue);
        }
        let found = match change {
            Change::Content(at) => self.found(call, at, OFlags::empty()),
            Change::ByFlag(at, flags) => {
                let flags = AtFlags::from_bits_retain(int(call.args[flags]).cast_unsigned());
                let itself = flags.contains(AtFlags::SYMLINK_NOFOLLOW);
                self.found(call, at, if itself { OFlags::NOFOLLOW } else { OFlags::empty() })
            }
            Change::Open(fd) => self.open_as(call.pid, int(call.args[fd])),
            Change::Make(_)
            | Change::Remove(_)
            | Change::Itself(_)
            | Change::Move(..)
            | Change::Link(..)
            | Change::Create(_) => return Err(Stop::Continue),
        };
        // Where it is not found, or not in the tree, the kernel says what is wrong.
        let found = found.map_err(|_| Stop::Continue)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if kind == FileType::Symlink || self.inside(&path_of(&found)?).is_none() {
            return Err(Stop::Continue);
        }
        let mode = Mode::from_raw_mode(int(mode).cast_unsigned() & 0o7777);
        rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), mode)?;
        Ok(Reply::Value(0))
    }

    /// What a process has open by this number.
    fn open_as(&self, pid: i32, fd: i32) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.tracees.proc, format!("{pid}/fd/{fd}"), PATH, Mode::empty())
    }

    /// Whether a process still has root's right over the modes of others' files.
    fn may_change_any(&self, pid: i32) -> bool {
        let held = self.tracees.field(pid, "CapEff:");
        let held = held.and_then(|it| u64::from_str_radix(&it, 16).ok());
        held.is_some_and(|it| has(it, number::FOWNER))
    }
}
