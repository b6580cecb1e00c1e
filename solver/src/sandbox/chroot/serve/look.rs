//! What a step learns of a file of the kernel without opening it.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Access, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{PATH, Server, Subject};
use crate::sandbox::asked::{Answer, Reply, Stop, int};
use crate::sandbox::chroot::paths::{self, Kind, Place, Who};
use crate::sandbox::sys::{self, Notification};

/// Bytes of one name in `struct utsname`.
const NAME_BYTES: usize = 65;

/// Where files of the kernel are looked for: never above, never through a link that the kernel makes
/// up, which would resolve with the keeper's rights.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

impl Server {
    /// The inode that a call is about, without access to its content.
    pub(super) fn find(&self, call: &Notification, subject: &Subject) -> Result<OwnedFd, Stop> {
        let place = match subject {
            Subject::Place(place) => place,
            Subject::Secret(index) => {
                let file = &self.secrets[*index].1;
                return Ok(rustix::io::fcntl_dupfd_cloexec(file, 0)?);
            }
        };
        let beneath = |dir: &OwnedFd, path: &[u8]| {
            let path = if path.is_empty() { b"." } else { path };
            rustix::fs::openat2(dir, path, PATH, Mode::empty(), BENEATH)
        };
        Ok(match place {
            Place::Processes => return Err(Stop::Continue),
            Place::Process(who, rest) => {
                if paths::in_a_process(rest) == Kind::Nothing {
                    return Err(Errno::NOENT.into());
                }
                let path = self.of_process(call, *who, rest)?;
                let dir = &self.tracees.proc;
                self.tracees.as_it(call.pid, || beneath(dir, &path)).or_else(|errno| {
                    // Files of who has changed its user belong to nobody that it could be.
                    if errno == Errno::ACCESS { beneath(dir, &path) } else { Err(errno) }
                })?
            }
            Place::Descriptor(who, number, rest) if rest.is_empty() => {
                self.descriptor(call, *who, *number)?
            }
            Place::Descriptor(..) | Place::Link(..) => {
                let path = self.in_tree(call, place)?;
                self.open_in_tree(call, &path, PATH)?
            }
            Place::Kernel(rest) if paths::in_the_kernel(rest) => beneath(&self.tracees.proc, rest)?,
            Place::System(rest) if paths::in_the_system(rest, self.network) => {
                beneath(&self.sys, rest)?
            }
            Place::Kernel(_) | Place::System(_) => return Err(Errno::NOENT.into()),
            Place::Device(name) => rustix::fs::open(format!("/dev/{name}"), PATH, Mode::empty())?,
            Place::NewTerminal => rustix::fs::open("/dev/ptmx", PATH, Mode::empty())?,
            Place::Terminal(number) => self.terminal(*number)?,
        })
    }

    /// `rest` in the directory of a process, below `/proc`, if the caller may look at that process.
    pub(super) fn of_process(
        &self,
        call: &Notification,
        who: Who,
        rest: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let number = self.number_of(call, who)?;
        let mut path = number.to_string().into_bytes();
        path.push(b'/');
        path.extend_from_slice(rest);
        Ok(path)
    }

    /// What a descriptor of a process of the step is open on.
    fn descriptor(&self, call: &Notification, who: Who, number: i32) -> Result<OwnedFd, Errno> {
        let pid = self.looked_into(call, who)?;
        let path = format!("{pid}/fd/{number}");
        let open = || rustix::fs::openat(&self.tracees.proc, &path, PATH, Mode::empty());
        self.tracees.as_it(call.pid, open)
    }

    /// The number of a process that a path names, if the caller may look into it: it is its own, or
    /// one of the same user, or the caller is root.
    pub(super) fn looked_into(&self, call: &Notification, who: Who) -> Result<i32, Errno> {
        let pid = self.number_of(call, who)?;
        let own = self.tracees.process_of(call.pid);
        let caller = self.tracees.ids(call.pid).ok_or(Errno::SRCH)?;
        let same = || self.tracees.ids(pid) == Some(caller);
        if own == Some(pid) || caller.is_root() || same() { Ok(pid) } else { Err(Errno::ACCESS) }
    }

    /// The path in the tree that a link of a process, and what comes after it, stand for.
    pub(super) fn in_tree(&self, call: &Notification, place: &Place) -> Result<Vec<u8>, Errno> {
        let (who, link, rest) = match place {
            Place::Descriptor(who, number, rest) => (*who, format!("fd/{number}"), rest),
            Place::Link(who, name, rest) => (*who, (*name).to_owned(), rest),
            Place::Processes
            | Place::Process(..)
            | Place::Kernel(_)
            | Place::System(_)
            | Place::Device(_)
            | Place::NewTerminal
            | Place::Terminal(_) => return Err(Errno::INVAL),
        };
        let pid = self.looked_into(call, who)?;
        let target = self.link_of(pid, &link)?;
        let mut path = self.inside(&target).ok_or(Errno::ACCESS)?;
        if !rest.is_empty() {
            path.push(b'/');
            path.extend_from_slice(rest);
        }
        Ok(path)
    }

    /// Opens a path of the tree as the caller would.
    pub(super) fn open_in_tree(
        &self,
        call: &Notification,
        path: &[u8],
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let relative = if relative.is_empty() { b"." } else { relative };
        let open = || rustix::fs::openat2(&self.root, relative, flags, Mode::empty(), inside);
        self.tracees.as_it(call.pid, open)
    }

    pub(super) fn stat(&self, call: &Notification, subject: &Subject, out: u64) -> Answer {
        let found = self.find(call, subject)?;
        let stat = sys::stat(std::os::fd::AsFd::as_fd(&found)).map_err(|_| Stop::Continue)?;
        self.tracees.write(call.pid, out, sys::bytes_of_stat(&stat))
    }

    pub(super) fn statx(&self, call: &Notification, subject: &Subject) -> Answer {
        let found = self.find(call, subject)?;
        let (flags, mask) = (int(call.args[2]), int(call.args[3]).cast_unsigned());
        let stat = sys::statx(std::os::fd::AsFd::as_fd(&found), flags, mask)
            .map_err(|_| Stop::Continue)?;
        self.tracees.write(call.pid, call.args[4], sys::bytes_of_statx(&stat))
    }

    pub(super) fn access(&self, call: &Notification, subject: &Subject, mode: u64) -> Answer {
        let found = self.find(call, subject)?;
        let mode = Access::from_bits_truncate(int(mode).cast_unsigned());
        if mode.contains(Access::WRITE_OK)
            && let Subject::Place(Place::Kernel(_) | Place::System(_)) | Subject::Secret(_) =
                subject
        {
            return Err(Errno::ROFS.into());
        }
        let name = format!("self/fd/{}", found.as_raw_fd());
        let proc = &self.tracees.proc;
        let ask = || rustix::fs::accessat(proc, &name, mode, AtFlags::EACCESS);
        self.tracees.as_it(call.pid, ask)?;
        Ok(Reply::Value(0))
    }

    pub(super) fn read_link(
        &self,
        call: &Notification,
        subject: &Subject,
        (out, size): (u64, u64),
    ) -> Answer {
        let Subject::Place(place) = subject else { return Err(Stop::Continue) };
        let mut text = self.target(call, place)?;
        text.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        self.tracees.write(call.pid, out, &text)?;
        Ok(Reply::Value(i64::try_from(text.len()).unwrap_or(0)))
    }

    /// Where a link leads.
    fn target(&self, call: &Notification, place: &Place) -> Result<Vec<u8>, Stop> {
        match place {
            Place::Process(Who::Caller, rest) if rest.is_empty() => {
                Ok(self.number_of(call, Who::Caller)?.to_string().into_bytes())
            }
            Place::Process(Who::Thread, rest) if rest.is_empty() => {
                let process = self.number_of(call, Who::Caller)?;
                Ok(format!("{process}/task/{}", call.pid).into_bytes())
            }
            Place::Process(who, rest) if rest.starts_with(b"ns/") => {
                let pid = self.looked_into(call, *who)?;
                Ok(self.link_of(pid, &String::from_utf8_lossy(rest))?)
            }
            Place::Descriptor(who, number, rest) if rest.is_empty() => {
                let pid = self.looked_into(call, *who)?;
                let target = self.link_of(pid, &format!("fd/{number}"))?;
                Ok(self.inside(&target).unwrap_or(target))
            }
            Place::Link(_, _, rest) if rest.is_empty() => Ok(self.in_tree(call, place)?),
            Place::Descriptor(..) | Place::Link(..) => {
                let path = self.in_tree(call, place)?;
                let link = self.open_in_tree(call, &path, PATH | OFlags::NOFOLLOW)?;
                read_link(&link)
            }
            Place::Kernel(rest) if paths::in_the_kernel(rest) => {
                read_link(&self.link_beneath(&self.tracees.proc, rest)?)
            }
            Place::System(rest) if paths::in_the_system(rest, self.network) => {
                read_link(&self.link_beneath(&self.sys, rest)?)
            }
            Place::Kernel(_) | Place::System(_) => Err(Errno::NOENT.into()),
            Place::Processes
            | Place::Process(..)
            | Place::Device(_)
            | Place::NewTerminal
            | Place::Terminal(_) => Err(Errno::INVAL.into()),
        }
    }

    #[expect(clippy::unused_self, reason = "belongs to what it serves")]
    fn link_beneath(&self, dir: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(dir, path, PATH | OFlags::NOFOLLOW, Mode::empty(), BENEATH)
    }

    /// uname(2), with the name that the step has.
    pub(super) fn names(&self, call: &Notification, out: u64) -> Answer {
        let own = rustix::system::uname();
        let parts = [
            own.sysname().to_bytes(),
            self.hostname.as_bytes(),
            own.release().to_bytes(),
            own.version().to_bytes(),
            own.machine().to_bytes(),
            own.domainname().to_bytes(),
        ];
        let mut bytes = [0; NAME_BYTES * 6];
        for (field, part) in bytes.chunks_mut(NAME_BYTES).zip(parts) {
            let length = part.len().min(NAME_BYTES - 1);
            field[..length].copy_from_slice(&part[..length]);
        }
        self.tracees.write(call.pid, out, &bytes)
    }
}

fn read_link(link: &OwnedFd) -> Result<Vec<u8>, Stop> {
    match rustix::fs::readlinkat(link, "", Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        // What it says of a descriptor that is no link.
        Err(Errno::NOENT) => Err(Errno::INVAL.into()),
        Err(errno) => Err(errno.into()),
    }
}
