//! Files of the kernel, devices and secrets, opened for a step.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{PATH, Server, Subject};
use crate::sandbox::asked::{Answer, Reply, Stop, int};
use crate::sandbox::chroot::paths::{self, Place};
use crate::sandbox::chroot::system::{MOUNTINFO, MOUNTS};
use crate::sandbox::sys::{self, Notification};

/// Flags of open(2) that are the keeper's own business: nothing is made, nothing is waited for, no
/// terminal becomes the keeper's.
const OURS: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW);

impl Server {
    /// Opens what a path leads to, and answers with the descriptor.
    pub(super) fn open(&self, call: &Notification, subject: &Subject, flags: u64) -> Answer {
        let flags = OFlags::from_bits_retain(int(flags).cast_unsigned());
        let found = match subject {
            Subject::Place(place @ (Place::Processes | Place::NewTerminal)) => {
                let file = self.special(call, place, flags)?;
                return self.send(call, &file, flags);
            }
            Subject::Place(_) | Subject::Secret(_) => self.find(call, subject)?,
        };
        let stat = rustix::fs::fstat(&found)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.open_directory(call, subject, flags);
        }
        if flags.contains(OFlags::PATH) {
            return self.send(call, &found, flags);
        }
        if flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR.into());
        }
        self.check(call, subject, kind, flags)?;
        if let Some(text) = self.text(subject) {
            return self.send(call, &memory("file", text.as_bytes())?, flags);
        }
        let file = self.reopen(call, &found, flags)?;
        self.send(call, &file, flags)
    }

    /// What is not found before it is opened.
    fn special(&self, call: &Notification, place: &Place, flags: OFlags) -> Result<OwnedFd, Stop> {
        if *place == Place::NewTerminal {
            let flags = flags & !OURS | OFlags::NOCTTY | OFlags::CLOEXEC;
            let open = || rustix::fs::open("/dev/ptmx", flags, Mode::empty());
            return Ok(self.tracees.as_it(call.pid, open)?);
        }
        self.show(call, place)
    }

    fn open_directory(&self, call: &Notification, subject: &Subject, flags: OFlags) -> Answer {
        let Subject::Place(place) = subject else { return Err(Stop::Continue) };
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return Err(Errno::ISDIR.into());
        }
        let dir = match place {
            Place::Descriptor(..) | Place::Link(..) => {
                let path = self.in_tree(call, place)?;
                self.open_in_tree(call, &path, flags & !OURS | OFlags::CLOEXEC)?
            }
            Place::Processes
            | Place::Process(..)
            | Place::Kernel(_)
            | Place::System(_)
            | Place::Device(_)
            | Place::NewTerminal
            | Place::Terminal(_) => self.show(call, place)?,
        };
        self.send(call, &dir, flags)
    }

    /// Whether a step may open something in this way at all; whether this user may is for the kernel
    /// to say.
    fn check(
        &self,
        call: &Notification,
        subject: &Subject,
        kind: FileType,
        flags: OFlags,
    ) -> Result<(), Stop> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let allowed = match subject {
            Subject::Secret(_) if writes => return Err(Errno::ROFS.into()),
            Subject::Secret(_) => true,
            Subject::Place(Place::Kernel(_) | Place::System(_)) if writes => {
                return Err(Errno::ROFS.into());
            }
            Subject::Place(Place::Kernel(_) | Place::System(_)) => kind == FileType::RegularFile,
            Subject::Place(Place::Process(who, rest)) => {
                let own = self.number_of(call, *who).ok() == self.tracees.process_of(call.pid);
                let is_own = own || *who == paths::Who::Thread;
                let memory = rest == b"mem";
                (!writes || is_own && paths::may_be_written(rest)) && (!memory || is_own)
            }
            Subject::Place(Place::Descriptor(who, number, rest)) if rest.is_empty() => {
                let is_ours = || -> Result<bool, Errno> {
                    let pid = self.looked_into(call, *who)?;
                    let path = self.link_of(pid, &format!("fd/{number}"))?;
                    Ok(self.inside(&path).is_some() || path.starts_with(b"/memfd:"))
                };
                // A file of the kernel that was opened for reading stays that.
                kind != FileType::RegularFile || !writes || is_ours()?
            }
            // Whoever has no terminal has none here either.
            Subject::Place(Place::Device("tty")) => return Err(Errno::NXIO.into()),
            Subject::Place(
                Place::Descriptor(..)
                | Place::Link(..)
                | Place::Device(_)
                | Place::Terminal(_)
                | Place::Processes
                | Place::NewTerminal,
            ) => true,
        };
        if allowed { Ok(()) } else { Err(Errno::ACCESS.into()) }
    }

    /// What a file says that is not the kernel's to say.
    fn text(&self, subject: &Subject) -> Option<String> {
        match subject {
            Subject::Place(Place::Process(_, rest)) => match rest.as_slice() {
                b"mounts" => Some(MOUNTS.to_owned()),
                b"mountinfo" => Some(MOUNTINFO.to_owned()),
                b"mountstats" => Some(String::new()),
                _ => None,
            },
            Subject::Place(Place::Kernel(rest)) if rest == b"sys/kernel/hostname" => {
                Some(format!("{}\n", self.hostname))
            }
            Subject::Place(_) | Subject::Secret(_) => None,
        }
    }

    /// Opens an inode that was found, with the rights of the caller, and without waiting.
    fn reopen(
        &self,
        call: &Notification,
        found: &OwnedFd,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let name = format!("self/fd/{}", found.as_raw_fd());
        let ours = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let open = || {
            let proc = &self.tracees.proc;
            rustix::fs::openat(proc, &name, flags & !OURS | ours, Mode::empty())
        };
        let file = self.tracees.as_it(call.pid, open)?;
        if !flags.contains(OFlags::NONBLOCK) {
            let now = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, now & !OFlags::NONBLOCK)?;
        }
        Ok(file)
    }

    fn send(&self, call: &Notification, file: &OwnedFd, flags: OFlags) -> Answer {
        let close = flags.contains(OFlags::CLOEXEC);
        let sent = sys::answer_with_descriptor(self.listener.as_fd(), call.id, file.as_fd(), close);
        match sent.map_err(|error| error.raw_os_error()) {
            // A caller that was killed needs no answer.
            Ok(()) | Err(Some(libc::ENOENT)) => Ok(Reply::Sent),
            Err(errno) => Err(Errno::from_raw_os_error(errno.unwrap_or(libc::EIO)).into()),
        }
    }

    /// A terminal whose other end belongs to a process of the step: others are none of its business.
    pub(super) fn terminal(&self, number: u32) -> Result<OwnedFd, Errno> {
        let ours = self.tracees.all()?.into_iter().any(|pid| self.has_terminal(pid, number));
        if !ours {
            return Err(Errno::NOENT);
        }
        rustix::fs::open(format!("/dev/pts/{number}"), PATH, Mode::empty())
    }

    fn has_terminal(&self, pid: i32, number: u32) -> bool {
        let line = format!("tty-index:\t{number}");
        let has = |fd: &str| {
            let info = self.tracees.read_file(pid, &format!("fdinfo/{fd}")).unwrap_or_default();
            info.lines().any(|it| it == line)
        };
        let fds = self.tracees.descriptors(pid).unwrap_or_default();
        fds.iter().any(|fd| has(fd))
    }
}

/// A file in memory with this content, open for reading at its start.
pub(in crate::sandbox::chroot) fn memory(name: &str, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}
