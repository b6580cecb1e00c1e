//! The processes of a step: their memory, their ids, their family.
//!
//! The keeper has no capability to look into processes of other users, so it looks as one of them:
//! for reading memory its real ids count, for everything in `/proc` its file system ids. Processes
//! that have changed their user without executing anything since are closed even to that user;
//! their calls are left to the kernel.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::sandbox::asked::{Answer, Reply, Stop};

/// Longest path that the kernel takes, with its end.
pub(super) const PATH_MAX: usize = 4096;

/// Bytes of a page: what one read of memory must not cross, since the next may not be there.
const PAGE: u64 = 4096;

/// Most generations between a process and the keeper that are looked at.
const MAX_GENERATIONS: usize = 10_000;

/// The ids of a process that count for files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ids {
    uid: u32,
    gid: u32,
    fs_uid: u32,
    fs_gid: u32,
}

impl Ids {
    /// Whether it is root to files.
    pub(super) fn is_root(self) -> bool {
        self.fs_uid == 0
    }
}

const ROOT: Ids = Ids { uid: 0, gid: 0, fs_uid: 0, fs_gid: 0 };

#[derive(Debug)]
pub(super) struct Tracees {
    /// `/proc` of the container.
    pub(super) proc: OwnedFd,
    /// The keeper.
    own: i32,
    /// Whose real ids the keeper has at the moment.
    seen_as: Cell<Ids>,
}

impl Tracees {
    pub(super) fn new(proc: OwnedFd) -> Self {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        Self { proc, own, seen_as: Cell::new(ROOT) }
    }

    /// A small file in the `/proc` directory of `pid`.
    pub(super) fn read_file(&self, pid: i32, file: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, format!("{pid}/{file}"), flags, Mode::empty()).ok()?;
        let mut bytes = [0; PATH_MAX];
        let length = rustix::io::read(&file, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// The process that the thread `pid` belongs to.
    pub(super) fn process_of(&self, pid: i32) -> Option<i32> {
        self.field(pid, "Tgid:")?.parse().ok()
    }

    /// The value of a line of its status.
    pub(super) fn field(&self, pid: i32, name: &str) -> Option<String> {
        let status = self.read_file(pid, "status")?;
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim().to_owned())
    }

    /// The ids of `pid`.
    pub(super) fn ids(&self, pid: i32) -> Option<Ids> {
        let status = self.read_file(pid, "status")?;
        let four = |name: &str| -> Option<[u32; 4]> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let mut ids = line.split_whitespace().map(str::parse);
            let mut next = || ids.next()?.ok();
            Some([next()?, next()?, next()?, next()?])
        };
        let ([uid, _, _, fs_uid], [gid, _, _, fs_gid]) = (four("Uid:")?, four("Gid:")?);
        Some(Ids { uid, gid, fs_uid, fs_gid })
    }

    /// Whether `pid` descends from the keeper.
    pub(super) fn is_ours(&self, pid: i32) -> bool {
        let mut at = pid;
        for _ in 0..MAX_GENERATIONS {
            let Some(parent) = self.field(at, "PPid:").and_then(|it| it.parse().ok()) else {
                return false;
            };
            if parent == self.own {
                return true;
            }
            if parent <= 1 {
                return false;
            }
            at = parent;
        }
        false
    }

    /// The processes of the step.
    pub(super) fn all(&self) -> Result<Vec<i32>, Errno> {
        let mut all = self.numbers(".")?;
        all.retain(|&pid| self.is_ours(pid));
        Ok(all)
    }

    /// The descriptors of `pid`.
    pub(super) fn descriptors(&self, pid: i32) -> Result<Vec<String>, Errno> {
        Ok(self.numbers(&format!("{pid}/fd"))?.iter().map(i32::to_string).collect())
    }

    /// The names of a directory of `/proc` that are numbers.
    fn numbers(&self, dir: &str) -> Result<Vec<i32>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&self.proc, dir, flags, Mode::empty())?;
        let mut numbers = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            numbers.extend(entry?.file_name().to_str().ok().and_then(|it| it.parse::<i32>().ok()));
        }
        Ok(numbers)
    }

    /// Reads memory of `pid`, as far as it is there; not beyond the page that `address` lies in.
    fn read_page(&self, pid: i32, address: u64, buffer: &mut [u8]) -> Result<usize, Stop> {
        let base = usize::try_from(address).map_err(|_| Stop::Continue)?;
        let mut read = || {
            let remote = [RemoteIoVec { base, len: buffer.len() }];
            process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(buffer)], &remote)
        };
        let mut got = read();
        if got == Err(nix::errno::Errno::EPERM) {
            self.look_as(pid)?;
            got = read();
        }
        got.ok().filter(|&got| got > 0).ok_or(Stop::Continue)
    }

    /// Takes on the real ids of `pid`.
    fn look_as(&self, pid: i32) -> Result<(), Stop> {
        let ids = self.ids(pid).ok_or(Stop::Continue)?;
        if ids == self.seen_as.get() {
            return Err(Stop::Continue);
        }
        let (root_uid, root_gid) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setresgid(Gid::from_raw(ids.gid), root_gid, root_gid)
            .and_then(|()| nix::unistd::setresuid(Uid::from_raw(ids.uid), root_uid, root_uid))
            .map_err(|_| Stop::Continue)?;
        self.seen_as.set(ids);
        Ok(())
    }

    /// The beginning of a string in the memory of `pid`: at most `most` bytes, and whether it ends
    /// there.
    pub(super) fn start(
        &self,
        pid: i32,
        address: u64,
        most: usize,
    ) -> Result<(Vec<u8>, bool), Stop> {
        let length = usize::try_from(PAGE - address % PAGE).unwrap_or(most).min(most);
        let mut bytes = vec![0; length];
        let got = self.read_page(pid, address, &mut bytes)?;
        bytes.truncate(got);
        match memchr::memchr(0, &bytes) {
            Some(end) => {
                bytes.truncate(end);
                Ok((bytes, true))
            }
            None => Ok((bytes, false)),
        }
    }

    /// A path in the memory of `pid`, without its end.
    pub(super) fn path(&self, pid: i32, address: u64) -> Result<Vec<u8>, Stop> {
        let mut path = Vec::new();
        let mut at = address;
        while path.len() < PATH_MAX {
            let (bytes, ends) = self.start(pid, at, PATH_MAX - path.len())?;
            at = at.checked_add(bytes.len() as u64).ok_or(Stop::Continue)?;
            path.extend(bytes);
            if ends {
                return Ok(path);
            }
        }
        Err(Stop::Continue)
    }

    /// Reads memory of `pid`.
    pub(super) fn read(&self, pid: i32, address: u64, buffer: &mut [u8]) -> Result<(), Stop> {
        let wanted = buffer.len();
        if self.read_page(pid, address, buffer)? == wanted { Ok(()) } else { Err(Stop::Continue) }
    }

    /// Writes memory of `pid`, and answers with the number of bytes if `count`, else with 0.
    pub(super) fn write(&self, pid: i32, address: u64, bytes: &[u8]) -> Answer {
        let base = usize::try_from(address).map_err(|_| Stop::Continue)?;
        let write = || {
            let remote = [RemoteIoVec { base, len: bytes.len() }];
            process_vm_writev(Pid::from_raw(pid), &[IoSlice::new(bytes)], &remote)
        };
        let mut done = write();
        if done == Err(nix::errno::Errno::EPERM) {
            self.look_as(pid)?;
            done = write();
        }
        match done {
            Ok(done) if done == bytes.len() => Ok(Reply::Value(0)),
            Ok(_) | Err(nix::errno::Errno::EFAULT) => Err(Stop::Failed(Errno::FAULT)),
            Err(_) => Err(Stop::Continue),
        }
    }

    /// Does `work` with the file system ids of `pid`, and only with the rights that go with them.
    pub(super) fn as_it<T>(
        &self,
        pid: i32,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let ids = self.ids(pid).ok_or(Errno::SRCH)?;
        if (ids.fs_uid, ids.fs_gid) == (0, 0) {
            return work();
        }
        setfsgid(Gid::from_raw(ids.fs_gid));
        setfsuid(Uid::from_raw(ids.fs_uid));
        let result = work();
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        result
    }
}
