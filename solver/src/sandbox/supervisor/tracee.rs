//! The supervised processes: their memory, their descriptors, their paths.
//!
//! The supervisor's thread has the step's root as its own root, so that the kernel resolves paths
//! for it as for the step, links included; its working directory is its own list of descriptors in
//! the worker's `/proc`, through which inodes are reached that only have a path descriptor.

use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, openat};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sandbox::asked::{Stop, int, leave};

/// Longest path that the kernel takes, with its end.
const PATH_MAX: usize = 4096;

/// Bytes that most paths fit into.
const USUAL: usize = 256;

/// Bytes of a page: what one read of memory must not cross, since the next may not be there.
const PAGE: u64 = 4096;

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

#[derive(Debug)]
pub(super) struct Tracees {
    /// `/proc` of the worker.
    proc: OwnedFd,
    /// `/proc/self/fd` of the worker.
    own: OwnedFd,
    /// `/dev` of the worker.
    pub(super) dev: OwnedFd,
    /// Whether this host keeps people from hard links to what they cannot write to.
    pub(super) protects_links: bool,
}

/// As whom a process makes files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Maker {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Effective capabilities.
    pub(super) caps: u64,
    pub(super) umask: u32,
}

impl Maker {
    /// From `/proc/PID/status`.
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|it| it.strip_prefix(name)).map(str::trim);
        // Real, effective, saved, and the one for files.
        let for_files = |name| field(name)?.split_whitespace().nth(3)?.parse().ok();
        Some(Self {
            uid: for_files("Uid:")?,
            gid: for_files("Gid:")?,
            caps: u64::from_str_radix(field("CapEff:")?, 16).ok()?,
            umask: u32::from_str_radix(field("Umask:")?, 8).ok()?,
        })
    }
}

impl Tracees {
    /// In the worker's own root.
    pub(super) fn new() -> Result<Self, Errno> {
        let dir = PATH | OFlags::DIRECTORY;
        let proc = rustix::fs::open("/proc", dir, Mode::empty())?;
        let own = openat(&proc, "self/fd", dir, Mode::empty())?;
        let dev = rustix::fs::open("/dev", dir, Mode::empty())?;
        let setting = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks");
        let protects_links = setting.is_ok_and(|it| it.trim() == "1");
        Ok(Self { proc, own, dev, protects_links })
    }

    /// Makes the root of `pid` the calling thread's.
    pub(super) fn enter(&self, pid: i32) -> Result<(), Errno> {
        let root = self.open(pid, "root")?;
        rustix::process::fchdir(&root)?;
        match rustix::process::chroot(".") {
            // The filter of some containers; then the step cannot have a second root either, and
            // its mount namespace's root is the one.
            Err(Errno::PERM) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let space = openat(&self.proc, format!("{pid}/ns/mnt"), flags, Mode::empty())?;
                let kind = Some(LinkNameSpaceType::Mount);
                move_into_link_name_space(space.as_fd(), kind)?;
            }
            result => result?,
        }
        rustix::process::fchdir(&self.own)
    }

    /// What a link in the `/proc` directory of `pid` leads to.
    fn open(&self, pid: i32, link: &str) -> Result<OwnedFd, Errno> {
        openat(&self.proc, format!("{pid}/{link}"), PATH, Mode::empty())
    }

    /// What is at a place as `pid` has it, if the way there can be gone at once.
    pub(super) fn stat_at(&self, pid: i32, place: &Place) -> Result<Statx, Errno> {
        let Place { dir, path, follow } = place;
        let follows = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let flags = follows | AtFlags::NO_AUTOMOUNT;
        if path.starts_with(b"/") {
            return super::record::statx(CWD, path, flags);
        }
        let mut name = match *dir {
            libc::AT_FDCWD => format!("{pid}/cwd"),
            dir => format!("{pid}/fd/{dir}"),
        }
        .into_bytes();
        if path.is_empty() {
            return super::record::statx(self.proc.as_fd(), &name, AtFlags::NO_AUTOMOUNT);
        }
        name.push(b'/');
        name.extend_from_slice(path);
        super::record::statx(self.proc.as_fd(), &name, flags)
    }

    /// A small file in the `/proc` directory of `pid`.
    fn read(&self, pid: i32, file: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, format!("{pid}/{file}"), flags, Mode::empty()).ok()?;
        let mut bytes = [0; PATH_MAX];
        let length = rustix::io::read(&file, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// `/proc/PID/status`.
    pub(super) fn status(&self, pid: i32) -> Option<String> {
        self.read(pid, "status")
    }

    /// As whom `pid` makes files.
    pub(super) fn maker(&self, pid: i32) -> Option<Maker> {
        Maker::parse(&self.status(pid)?)
    }

    /// The bits that `pid` does not want in the modes of new files.
    pub(super) fn umask(&self, pid: i32) -> u32 {
        let status = self.read(pid, "status").unwrap_or_default();
        let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        value.and_then(|it| u32::from_str_radix(it.trim(), 8).ok()).unwrap_or(0o022)
    }

    /// The number of `pid` in its own pid namespace.
    pub(super) fn own_number(&self, pid: i32) -> Option<i32> {
        let status = self.read(pid, "status")?;
        let value = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        value.split_whitespace().last()?.parse().ok()
    }

    /// The path that leads to an inode from the current root.
    pub(super) fn path_of(&self, fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
        let path = rustix::fs::readlinkat(&self.own, own_name(fd), Vec::new()).ok()?;
        Some(path.into_bytes())
    }

    /// What is open under a number.
    pub(super) fn descriptor(&self, pid: i32, fd: u64) -> Result<OwnedFd, Stop> {
        let fd = int(fd);
        if fd < 0 {
            return Err(Stop::Continue);
        }
        self.open(pid, &format!("fd/{fd}")).map_err(leave)
    }

    /// The directory that relative paths start from.
    pub(super) fn base(&self, pid: i32, dir: i32) -> Result<OwnedFd, Stop> {
        if dir == libc::AT_FDCWD {
            self.open(pid, "cwd").map_err(leave)
        } else {
            self.descriptor(pid, u64::from(dir.cast_unsigned()))
        }
    }
}

/// Where an inode is, as a process has it.
#[derive(Debug)]
pub(super) struct Place {
    /// What the path starts from: a descriptor, or `AT_FDCWD`.
    pub(super) dir: i32,
    /// The path; empty for what is open as `dir`.
    pub(super) path: Vec<u8>,
    /// Whether the path may be that of a link.
    pub(super) follow: bool,
}

/// The name of a descriptor in the supervisor's working directory.
pub(super) fn own_name(fd: BorrowedFd<'_>) -> String {
    fd.as_raw_fd().to_string()
}

/// The low half of an argument, as the kernel takes an id.
pub(super) const fn id(argument: u64) -> u32 {
    int(argument).cast_unsigned()
}

/// Directory and last component; none for what cannot be made.
pub(super) fn split(path: &[u8], may_end_in_slash: bool) -> Option<(&[u8], &[u8])> {
    let mut path = path;
    if may_end_in_slash {
        while let [rest @ .., b'/'] = path {
            path = rest;
        }
    }
    let at = memchr::memrchr(b'/', path);
    let (parent, name) = match at {
        Some(0) => (&b"/"[..], &path[1..]),
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((parent, name))
}

/// A path in the memory of `pid`, without its end.
pub(super) fn path(pid: i32, address: u64) -> Result<Vec<u8>, Stop> {
    text(pid, address, PATH_MAX)
}

/// A text in the memory of `pid`, which ends before `limit` bytes, without its end.
pub(super) fn text(pid: i32, address: u64, limit: usize) -> Result<Vec<u8>, Stop> {
    let mut path = Vec::new();
    let mut at = address;
    while path.len() < limit {
        let (known, most) = (path.len(), if path.is_empty() { USUAL } else { PATH_MAX });
        let length = usize::try_from(PAGE - at % PAGE).map_err(leave)?.min(limit - known);
        path.resize(known + length.min(most), 0);
        let got = read_some(pid, at, &mut path[known..])?;
        path.truncate(known + got);
        if let Some(end) = memchr::memchr(0, &path[known..]) {
            path.truncate(known + end);
            return Ok(path);
        }
        at = at.checked_add(got as u64).ok_or(Stop::Continue)?;
    }
    Err(Stop::Continue)
}

/// The same for a call that takes C strings.
pub(super) fn c_path(pid: i32, address: u64) -> Result<CString, Stop> {
    CString::new(path(pid, address)?).map_err(leave)
}

/// Reads memory of `pid`.
pub(super) fn read(pid: i32, address: u64, buffer: &mut [u8]) -> Result<(), Stop> {
    let wanted = buffer.len();
    if read_some(pid, address, buffer)? == wanted { Ok(()) } else { Err(Stop::Continue) }
}

fn read_some(pid: i32, address: u64, buffer: &mut [u8]) -> Result<usize, Stop> {
    let base = usize::try_from(address).map_err(leave)?;
    let remote = [RemoteIoVec { base, len: buffer.len() }];
    let got = process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(buffer)], &remote);
    got.ok().filter(|&got| got > 0).ok_or(Stop::Continue)
}

/// Writes memory of `pid`.
pub(super) fn write(pid: i32, address: u64, bytes: &[u8]) -> Result<(), Stop> {
    let base = usize::try_from(address).map_err(leave)?;
    let remote = [RemoteIoVec { base, len: bytes.len() }];
    match process_vm_writev(Pid::from_raw(pid), &[IoSlice::new(bytes)], &remote) {
        Ok(done) if done == bytes.len() => Ok(()),
        Ok(_) | Err(nix::errno::Errno::EFAULT) => Err(Stop::Failed(Errno::FAULT)),
        Err(_) => Err(Stop::Continue),
    }
}

impl Tracees {
    /// A socket of `pid`, as a descriptor of the caller.
    pub(super) fn socket(&self, pid: i32, fd: u64) -> Result<OwnedFd, Stop> {
        let open = |pid| {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::SRCH)?;
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        };
        // A thread has none, but shares what is open with its process.
        let process = open(pid).or_else(|_| open(self.process_of(pid).ok_or(Errno::SRCH)?));
        let flags = rustix::process::PidfdGetfdFlags::empty();
        rustix::process::pidfd_getfd(process.map_err(leave)?, int(fd), flags).map_err(leave)
    }

    /// The process that the thread `pid` belongs to.
    fn process_of(&self, pid: i32) -> Option<i32> {
        let status = self.read(pid, "status")?;
        status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_read() {
        let status = "Name:\tsh\nUmask:\t0027\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapEff:\t00000000a80425fb\n";
        let maker = Maker { uid: 4, gid: 8, caps: 0xa804_25fb, umask: 0o27 };
        assert_eq!(Maker::parse(status), Some(maker));
        assert_eq!(Maker::parse("Name:\tsh\n"), None);
    }

    #[test]
    fn paths_are_split_as_the_kernel_does() {
        let text = |path: &str, slash| {
            let it = split(path.as_bytes(), slash)?;
            Some(format!("{} {}", String::from_utf8_lossy(it.0), String::from_utf8_lossy(it.1)))
        };
        assert_eq!(text("/a", false).unwrap(), "/ a");
        assert_eq!(text("a", false).unwrap(), ". a");
        assert_eq!(text("/a/../b", false).unwrap(), "/a/.. b");
        assert_eq!(text("a//b", false).unwrap(), "a/ b");
        assert_eq!(text("a/b//", true).unwrap(), "a b");
        for bad in ["", "/", "a/", ".", "a/.."] {
            assert_eq!(text(bad, false), None, "{bad}");
        }
        assert_eq!(text("/", true), None);
    }
}
