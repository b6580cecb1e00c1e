//! open(2): of what is there, by who may; of what is not, with its owner; and of devices.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::Supervisor;
use super::calls::Name;
use super::create::Heir;
use super::ids::Ids;
use super::tracee::{self, id, split};
use super::walk::{MAX_LINKS, READ, WRITE, is_proc, root};
use crate::sandbox::asked::{Answer, Reply, Stop, int, leave};
use crate::sandbox::plan::Pretend;
use crate::sandbox::sys::{self, Notification};
use crate::snapshot::owner::Meta;

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a process wants to open, and how.
struct Opening {
    flags: OFlags,
    mode: u64,
    /// Whether the name may be that of a link.
    follow: bool,
}

/// The character devices that a step may use, as with Docker: major, minor, name.
const DEVICES: [(u32, u32, &str); 5] =
    [(1, 3, "null"), (1, 5, "zero"), (1, 7, "full"), (1, 8, "random"), (1, 9, "urandom")];

impl Supervisor {
    pub(super) fn open(&mut self, call: &Notification, at: Name, flags: u64, mode: u64) -> Answer {
        let flags = OFlags::from_bits_retain(id(flags));
        let follow = !flags.intersects(OFlags::NOFOLLOW | OFlags::EXCL);
        self.open_as(call, at, &Opening { flags, mode, follow })
    }

    pub(super) fn open_how(&mut self, call: &Notification) -> Answer {
        // flags, mode, resolve: 8 bytes each.
        let mut how = [0; 24];
        tracee::read(call.pid, call.args[2], &mut how)?;
        let word = |at: usize| how[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        let (flags, mode, resolve) = (word(0), word(8), word(16));
        if resolve == 0 {
            return self.open(call, (Some(0), 1), flags, mode);
        }
        // The way must be one that the process would take: then it leads where it always does.
        let resolve = ResolveFlags::from_bits_retain(resolve);
        if resolve.contains(ResolveFlags::IN_ROOT) {
            return Err(Stop::Continue);
        }
        let path = tracee::path(call.pid, call.args[1])?;
        let (parent, _) = split(&path, false).ok_or(Stop::Continue)?;
        let base = self.tracees.base(call.pid, int(call.args[0]))?;
        openat2(&base, parent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            .map_err(leave)?;
        let flags = OFlags::from_bits_retain(id(flags));
        self.open_as(call, (Some(0), 1), &Opening { flags, mode, follow: false })
    }

    fn open_as(&mut self, call: &Notification, at: Name, opening: &Opening) -> Answer {
        let flags = opening.flags;
        let ids = self.people.of(call.pid);
        let unnamed = flags.contains(OFlags::TMPFILE);
        let creates = unnamed || flags.contains(OFlags::CREATE);
        if self.pretend == Pretend::Ids && !flags.contains(OFlags::PATH) && creates {
            let ids = ids.clone();
            return if unnamed {
                self.open_unnamed(call, at, opening, &ids)
            } else {
                self.open_or_create(call, at, opening, &ids)
            };
        }
        if ids.is_root_of_files() && !self.devices {
            return Err(Stop::Continue);
        }
        let path = tracee::path(call.pid, call.args[at.1])?;
        let dir = at.0.map_or(libc::AT_FDCWD, |index| int(call.args[index]));
        let there = self.reach(call, ids, dir, &path, opening.follow)?;
        self.open_there(call, there.as_fd(), ids, flags)
    }

    /// Something that is there: the kernel opens it, unless it is forbidden or a device.
    fn open_there(
        &self,
        call: &Notification,
        there: BorrowedFd<'_>,
        ids: &Ids,
        flags: OFlags,
    ) -> Answer {
        if flags.contains(OFlags::PATH) {
            return Err(Stop::Continue);
        }
        let seen = self.look(there).map_err(leave)?;
        let is_device =
            matches!(seen.meta.file_type(), FileType::CharacterDevice | FileType::BlockDevice);
        if seen.meta.file_type() != FileType::Symlink && !ids.is_root_of_files() {
            self.permit(there, ids, wanted(flags))?;
        }
        if is_device && seen.record.is_some() {
            return self.open_device(call, &seen.meta, flags);
        }
        if !ids.is_root_of_files() && flags & OFlags::ACCMODE == OFlags::RDONLY && is_proc(there) {
            return self.open_status(call, there, ids, flags);
        }
        Err(Stop::Continue)
    }

    /// What a recorded device stands for, where a step may have that.
    fn open_device(&self, call: &Notification, meta: &Meta, flags: OFlags) -> Answer {
        if flags.contains(OFlags::DIRECTORY) {
            return Err(Stop::Failed(Errno::NOTDIR));
        }
        if flags.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Stop::Failed(Errno::EXIST));
        }
        let device = meta.device_parts();
        let known = DEVICES.iter().find(|it| (it.0, it.1) == device);
        let known = known.filter(|_| meta.file_type() == FileType::CharacterDevice);
        let (_, _, name) = known.ok_or(Stop::Failed(Errno::PERM))?;
        let kept = OFlags::ACCMODE | OFlags::NONBLOCK | OFlags::APPEND;
        let file = openat(&self.tracees.dev, *name, flags & kept | OFlags::CLOEXEC, Mode::empty())?;
        self.send(call, file.as_fd(), flags)
    }

    fn open_or_create(
        &mut self,
        call: &Notification,
        at: Name,
        opening: &Opening,
        ids: &Ids,
    ) -> Answer {
        let (mut parent, mut name) = self.parent(call, at, false)?;
        for _ in 0..MAX_LINKS {
            let heir = self.heir(call.pid, parent.as_fd())?;
            // Nothing to record, nothing to forbid.
            if heir.is_root() && ids.is_root_of_files() && !self.devices {
                return Err(Stop::Continue);
            }
            let Ok(there) = openat(&parent, &name[..], PATH, Mode::empty()) else {
                return self.create(call, (&parent, &name), heir, opening);
            };
            let is_link =
                self.look(there.as_fd()).map_err(leave)?.meta.file_type() == FileType::Symlink;
            if !is_link {
                return self.open_there(call, there.as_fd(), ids, opening.flags);
            }
            // What a link of proc leads to (`/dev/stdout`) only the kernel knows.
            if !opening.follow || is_proc(there.as_fd()) {
                return Err(Stop::Continue);
            }
            let target = rustix::fs::readlinkat(&there, "", Vec::new()).map_err(leave)?;
            let (dir, last) = split(target.as_bytes(), false).ok_or(Stop::Continue)?;
            let base = if dir.starts_with(b"/") { root()? } else { parent };
            parent = self.walk(call.pid, base, ids, dir, true)?;
            name = last.to_vec();
        }
        Err(Stop::Continue)
    }

    fn create(
        &mut self,
        call: &Notification,
        (parent, name): (&OwnedFd, &[u8]),
        heir: Heir,
        opening: &Opening,
    ) -> Answer {
        if !heir.may {
            return Err(Stop::Failed(Errno::ACCESS));
        }
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        let ours = OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let mode = self.new_mode(call, opening);
        match openat(parent, name, opening.flags | ours, mode) {
            Ok(file) => self.hand_over(call, &file, heir, opening.flags),
            // Somebody was faster: the kernel opens what is there.
            Err(Errno::EXIST) => Err(Stop::Continue),
            Err(errno) => Err(Stop::Failed(errno)),
        }
    }

    /// `O_TMPFILE`: a file that gets its name later.
    fn open_unnamed(
        &mut self,
        call: &Notification,
        (dir, path): Name,
        opening: &Opening,
        ids: &Ids,
    ) -> Answer {
        let path = tracee::path(call.pid, call.args[path])?;
        let dir = dir.map_or(libc::AT_FDCWD, |index| int(call.args[index]));
        let parent = self.reach(call, ids, dir, &path, true)?;
        let heir = self.heir(call.pid, parent.as_fd())?;
        if !heir.may {
            return Err(Stop::Failed(Errno::ACCESS));
        }
        if heir.is_root() {
            return Err(Stop::Continue);
        }
        let mode = self.new_mode(call, opening);
        let file = openat(&parent, ".", opening.flags | OFlags::CLOEXEC, mode)?;
        self.hand_over(call, &file, heir, opening.flags)
    }

    fn new_mode(&self, call: &Notification, opening: &Opening) -> Mode {
        Mode::from_raw_mode(id(opening.mode) & 0o7777 & !self.tracees.umask(call.pid))
    }

    /// Gives the process a file that was made for it.
    fn hand_over(
        &mut self,
        call: &Notification,
        file: &OwnedFd,
        heir: Heir,
        flags: OFlags,
    ) -> Answer {
        self.adopt(file.as_fd(), heir)?;
        self.send(call, file.as_fd(), flags)
    }

    /// Answers a call with a descriptor.
    pub(super) fn send(&self, call: &Notification, file: BorrowedFd<'_>, flags: OFlags) -> Answer {
        let close = flags.contains(OFlags::CLOEXEC);
        let sent = sys::answer_with_descriptor(self.listener.as_fd(), call.id, file, close);
        match sent {
            Ok(()) => Ok(Reply::Sent),
            Err(error) => Err(Stop::Failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        }
    }
}

/// The permissions that opening needs, as a digit of a mode.
fn wanted(flags: OFlags) -> u32 {
    let access = match flags & OFlags::ACCMODE {
        OFlags::RDONLY => READ,
        OFlags::WRONLY => WRITE,
        _ => READ | WRITE,
    };
    if flags.contains(OFlags::TRUNC) { access | WRITE } else { access }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_needs_what_it_does() {
        assert_eq!(wanted(OFlags::RDONLY), 4);
        assert_eq!(wanted(OFlags::WRONLY | OFlags::APPEND), 2);
        assert_eq!(wanted(OFlags::RDWR), 6);
        assert_eq!(wanted(OFlags::RDONLY | OFlags::TRUNC), 6);
    }
}
