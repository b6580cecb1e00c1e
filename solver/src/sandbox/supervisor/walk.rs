//! From the arguments of a call to the inode that it is about, as far as its process may go.
//!
//! Who is root of files may go everywhere, and the kernel finds the way. For others every directory
//! on the way has to allow it, by its recorded owner and mode, so their paths are walked here.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, FsWord, Mode, OFlags, ResolveFlags, Statx, openat, openat2};
use rustix::io::Errno;

use super::Supervisor;
use super::calls::{At, Name};
use super::ids::Ids;
use super::tracee::{self, Place, split};
use crate::sandbox::asked::{Stop, int, leave};
use crate::sandbox::sys::Notification;

/// Permissions, as digits of a mode.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const ENTER: u32 = 1;

/// Most symbolic links in a path, as in the kernel.
pub(super) const MAX_LINKS: usize = 40;

/// File systems of the kernel's own, whose owners are not recorded: proc, sysfs, mqueue.
const OWNERLESS: [FsWord; 3] = [PROC, 0x6265_6572, 0x1980_0202];

/// File systems of what has no name: pipes, sockets, terminals.
const ANONYMOUS: [FsWord; 3] = [0x5049_5045, 0x534f_434b, 0x1cd1];

/// The one whose links may be magic.
const PROC: FsWord = 0x9fa0;

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Supervisor {
    /// The inode that a call is about.
    pub(super) fn target(&self, call: &Notification, at: At) -> Result<OwnedFd, Stop> {
        self.target_for(call, at, self.people.of(call.pid))
    }

    /// The same for a process that has these ids.
    pub(super) fn target_for(
        &self,
        call: &Notification,
        at: At,
        ids: &Ids,
    ) -> Result<OwnedFd, Stop> {
        self.arrive(call, ids, &place(call, at)?)
    }

    /// The inode at a place.
    pub(super) fn arrive(
        &self,
        call: &Notification,
        ids: &Ids,
        place: &Place,
    ) -> Result<OwnedFd, Stop> {
        if place.path.is_empty() {
            let base = self.tracees.base(call.pid, place.dir)?;
            return self.still(call).map(|()| base);
        }
        self.reach(call, ids, place.dir, &place.path, place.follow)
    }

    /// Whether it is known already that nothing is recorded of the inode at a place, or that there is
    /// none: most of what is asked for. Only for a call that the kernel carries out then: nothing is
    /// opened, and the way may be a magic link's.
    pub(super) fn is_plain(&self, call: &Notification, place: &Place) -> bool {
        if !self.people.of(call.pid).is_root_of_files() {
            return false;
        }
        match self.tracees.stat_at(call.pid, place) {
            Ok(stat) => self.has_no_record(&stat),
            Err(errno) => errno == Errno::NOENT && descriptor(&place.path).is_none(),
        }
    }

    /// The directory in which a call makes or takes away something, and the name.
    pub(super) fn parent(
        &self,
        call: &Notification,
        (dir, path): Name,
        may_end_in_slash: bool,
    ) -> Result<(OwnedFd, Vec<u8>), Stop> {
        let path = tracee::path(call.pid, call.args[path])?;
        let dir = dir.map_or(libc::AT_FDCWD, |index| int(call.args[index]));
        let (parent, name) = split(&path, may_end_in_slash).ok_or(Stop::Continue)?;
        let parent = self.reach(call, self.people.of(call.pid), dir, parent, true)?;
        Ok((parent, name.to_vec()))
    }

    /// What the caller has open under a number.
    fn opened(&self, call: &Notification, fd: u64) -> Result<OwnedFd, Stop> {
        let open = self.tracees.descriptor(call.pid, fd)?;
        self.still(call).map(|()| open)
    }

    /// The inode at a path.
    pub(super) fn reach(
        &self,
        call: &Notification,
        ids: &Ids,
        dir: i32,
        path: &[u8],
        follow: bool,
    ) -> Result<OwnedFd, Stop> {
        if let Some(open) = descriptor(path).filter(|_| follow) {
            return self.opened(call, open);
        }
        let is_root = ids.is_root_of_files();
        if path.starts_with(b"/") {
            self.still(call)?;
            return if is_root {
                resolve(CWD, path, follow)
            } else {
                self.walk(call.pid, root()?, ids, path, follow)
            };
        }
        let base = self.tracees.base(call.pid, dir)?;
        // The path and the directory are the caller's: nobody else has its number meanwhile.
        self.still(call)?;
        if is_root {
            resolve(base.as_fd(), path, follow)
        } else {
            self.walk(call.pid, base, ids, path, follow)
        }
    }

    /// The inode at a path below `base`, or at an absolute one.
    pub(super) fn walk(
        &self,
        pid: i32,
        base: OwnedFd,
        ids: &Ids,
        path: &[u8],
        follow: bool,
    ) -> Result<OwnedFd, Stop> {
        let (mut at, mut links) = (base, 0);
        let mut rest: VecDeque<Vec<u8>> = components(path).collect();
        let stat = |fd: &OwnedFd| super::record::stat(fd.as_fd()).map_err(leave);
        let mut found = stat(&at)?;
        while let Some(name) = rest.pop_front() {
            self.permit_found(at.as_fd(), &found, ids, ENTER)?;
            let next = openat2(&at, &name[..], PATH, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
                .map_err(leave)?;
            let next_found = stat(&next)?;
            let is_link = FileType::from_raw_mode(next_found.stx_mode.into()) == FileType::Symlink;
            if !is_link || rest.is_empty() && !follow {
                (at, found) = (next, next_found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Stop::Continue);
            }
            let target = if is_proc(next.as_fd()) {
                // What another link of proc leads to only the kernel knows.
                let own = self.tracees.own_number(pid).filter(|_| name == b"self");
                own.ok_or(Stop::Continue)?.to_string().into_bytes()
            } else {
                rustix::fs::readlinkat(&next, "", Vec::new()).map_err(leave)?.into_bytes()
            };
            if target.starts_with(b"/") {
                at = root()?;
                found = stat(&at)?;
            }
            for part in components(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(part);
            }
        }
        Ok(at)
    }

    /// Fails if a process with these ids may not do `wanted` with an inode.
    pub(super) fn permit(&self, fd: BorrowedFd<'_>, ids: &Ids, wanted: u32) -> Result<(), Stop> {
        let found = super::record::stat(fd).map_err(leave)?;
        self.permit_found(fd, &found, ids, wanted)
    }

    /// The same of an inode that has been looked at.
    fn permit_found(
        &self,
        fd: BorrowedFd<'_>,
        found: &Statx,
        ids: &Ids,
        wanted: u32,
    ) -> Result<(), Stop> {
        let meta = self.seen(fd, found).meta;
        let may = ids.may(wanted, meta.uid, meta.gid, meta.mode);
        if may || is_anonymous(fd) || file_system(fd).is_none_or(|it| OWNERLESS.contains(&it)) {
            return Ok(());
        }
        Err(Stop::Failed(Errno::ACCESS))
    }
}

/// Where the arguments of a call say that its inode is.
pub(super) fn place(call: &Notification, at: At) -> Result<Place, Stop> {
    match at {
        At::Fd => {
            let dir = int(call.args[0]);
            let open = Place { dir, path: Vec::new(), follow: true };
            if dir < 0 { Err(Stop::Continue) } else { Ok(open) }
        }
        At::Path { follow } => {
            let path = tracee::path(call.pid, call.args[0])?;
            // There is nothing of that name.
            let place = Place { dir: libc::AT_FDCWD, path, follow };
            if place.path.is_empty() { Err(Stop::Continue) } else { Ok(place) }
        }
        At::Dir { flags } => {
            let flags = flags.map_or(0, |index| int(call.args[index]));
            let path = tracee::path(call.pid, call.args[1])?;
            if path.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
                return Err(Stop::Continue);
            }
            let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
            Ok(Place { dir: int(call.args[0]), path, follow })
        }
    }
}

/// The inode at a path, as root of the step would find it. Magic links are not followed: they would
/// resolve with the supervisor's rights.
fn resolve(base: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<OwnedFd, Stop> {
    let flags = if follow { PATH.difference(OFlags::NOFOLLOW) } else { PATH };
    openat2(base, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).map_err(leave)
}

/// The step's root, which is the supervisor's.
pub(super) fn root() -> Result<OwnedFd, Stop> {
    openat(CWD, "/", PATH, Mode::empty()).map_err(leave)
}

/// The number of what a process has open, if that is what a path of this kind leads to: a magic link
/// is not followed, but what it stands for is known.
fn descriptor(path: &[u8]) -> Option<u64> {
    let number = match path {
        b"/dev/stdin" => b"0",
        b"/dev/stdout" => b"1",
        b"/dev/stderr" => b"2",
        _ => path.strip_prefix(b"/proc/self/fd/").or_else(|| path.strip_prefix(b"/dev/fd/"))?,
    };
    std::str::from_utf8(number).ok().filter(|it| !it.starts_with('+'))?.parse().ok()
}

/// The names on a path, in order.
fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/');
    parts.filter(|&it| !matches!(it, b"" | b".")).map(<[u8]>::to_vec)
}

/// Whether an inode is a pipe, a socket or a terminal that has no name in a tree.
pub(super) fn is_anonymous(fd: BorrowedFd<'_>) -> bool {
    file_system(fd).is_some_and(|it| ANONYMOUS.contains(&it))
}

/// Whether an inode is one of `/proc`.
pub(super) fn is_proc(fd: BorrowedFd<'_>) -> bool {
    file_system(fd) == Some(PROC)
}

/// What kind of file system an inode is on.
fn file_system(fd: BorrowedFd<'_>) -> Option<FsWord> {
    rustix::fs::fstatfs(fd).ok().map(|it| it.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_names() {
        for (path, number) in
            [("/proc/self/fd/12", Some(12)), ("/dev/stderr", Some(2)), ("/dev/fd/0", Some(0))]
        {
            assert_eq!(descriptor(path.as_bytes()), number, "{path}");
        }
        for path in ["/proc/self/fd/", "/proc/self/fd/1/x", "/dev/fd/+1", "/proc/1/fd/0", "fd/0"] {
            assert_eq!(descriptor(path.as_bytes()), None, "{path}");
        }
    }
}
