//! Places in a step's root: found, or made and remembered.
//!
//! A path is resolved with the root as its `/`, so that neither `..` nor a symbolic link of the
//! image leads out, and links that the kernel makes up (`/proc/self/fd/…`) are not followed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, Timespec, Timestamps,
};
use rustix::io::Errno;

use super::apply::KernelError;
use super::mount_api::call;
use super::plan::{Litter, Stub};

/// The root of a step while mounts are added to it.
#[derive(Debug)]
pub(super) struct Target {
    /// The root directory.
    pub root: OwnedFd,
    /// What was made and has to go, parents before children.
    pub stubs: Vec<Stub>,
    mount_id: u64,
    host_path: PathBuf,
}

/// Opens `path` inside `root`, without access to its content.
///
/// # Errors
///
/// As openat2(2).
pub(super) fn resolve(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), inside)
}

impl Target {
    /// Starts with a root that has no mounts of ours yet.
    pub(super) fn new(root: OwnedFd) -> Result<Self, KernelError> {
        let mount_id = mount_id(&root)?;
        let host_path = real_path(&root)?;
        Ok(Self { root, stubs: Vec::new(), mount_id, host_path })
    }

    /// What is at `at`, if there is something.
    pub(super) fn existing(&self, at: &str) -> Result<Option<OwnedFd>, KernelError> {
        match resolve(&self.root, at) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(failed(at)(errno)),
        }
    }

    /// The place `at`, made if it is missing: a directory, or an empty file.
    pub(super) fn mount_point(
        &mut self,
        at: &str,
        is_dir: bool,
        litter: Litter,
    ) -> Result<OwnedFd, KernelError> {
        match resolve(&self.root, at) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(at)(errno)),
        }
        let parts: Vec<&str> = at.split('/').filter(|it| !matches!(*it, "" | ".")).collect();
        let mut here = resolve(&self.root, "/").map_err(failed(at))?;
        let mut found = 0;
        // The last one is what is missing.
        while found + 1 < parts.len()
            && let Ok(next) = resolve(&self.root, &parts[..=found].join("/"))
        {
            here = next;
            found += 1;
        }
        for (index, part) in parts.iter().enumerate().skip(found) {
            if *part == ".." {
                return Err(failed(at)(Errno::NOENT));
            }
            let is_last = index + 1 == parts.len();
            let goes = match litter {
                Litter::Keep => false,
                Litter::Remove => is_last,
                Litter::RemoveWithParents => true,
            };
            here = self.make(&here, part, is_dir || !is_last, goes, at)?;
        }
        Ok(here)
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &str,
        is_dir: bool,
        goes: bool,
        at: &str,
    ) -> Result<OwnedFd, KernelError> {
        // Only what lies in the root itself is ours to clear up: what is made in a cache mount
        // stays there, what is made in memory goes with it.
        let goes = goes && mount_id(parent)? == self.mount_id;
        let stat = goes.then(|| rustix::fs::fstat(parent)).transpose().map_err(failed(at))?;
        let made = if is_dir {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
                .and_then(|()| rustix::fs::openat(parent, name, flags, Mode::empty()))
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))
        };
        let made = made.map_err(|errno| match errno {
            // It was not found, and yet it is there: a link to nothing.
            Errno::EXIST => KernelError::Dangling { at: at.to_owned() },
            errno => failed(at)(errno),
        })?;
        if let Some(stat) = stat {
            restore_times(parent, &stat).map_err(failed(at))?;
            let real = real_path(parent)?;
            let inside = real.strip_prefix(&self.host_path).unwrap_or(Path::new(""));
            self.stubs.push(Stub { path: inside.join(name), is_dir });
        }
        Ok(made)
    }

    /// A symbolic link; whatever is at `at` already stays.
    pub(super) fn symlink(&mut self, at: &str, target: &str) -> Result<(), KernelError> {
        let (parent, name) = at.rsplit_once('/').unwrap_or(("", at));
        let dir = self.mount_point(parent, true, Litter::Keep)?;
        match rustix::fs::symlinkat(target, &dir, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed(at)(errno)),
        }
    }
}

/// Gives a directory the times that it had.
pub(super) fn restore_times(dir: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    let times = times(stat);
    // An `O_PATH` descriptor takes no times itself.
    let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
    rustix::fs::utimensat(rustix::fs::CWD, name, &times, AtFlags::empty())
}

/// The times of a file, as they are set.
pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = |secs: i64, nanos: u64| Timespec {
        tv_sec: secs,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn mount_id(fd: &OwnedFd) -> Result<u64, KernelError> {
    let flags = AtFlags::EMPTY_PATH;
    rustix::fs::statx(fd, "", flags, StatxFlags::MNT_ID)
        .map(|it| it.stx_mnt_id)
        .map_err(call("statx(2)"))
}

/// Where a descriptor leads to, from the caller's root.
pub(super) fn real_path(fd: &OwnedFd) -> Result<PathBuf, KernelError> {
    use std::os::fd::AsRawFd as _;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(name).map_err(|source| KernelError::Call {
        call: "readlink(2) of a descriptor",
        detail: String::new(),
        source,
    })
}

fn failed(at: &str) -> impl Fn(Errno) -> KernelError {
    let at = at.to_owned();
    move |errno| KernelError::MountPoint { at: at.clone(), source: errno.into() }
}

/// Removes the mount points that were made for a step from `root`, where what the step wrote is
/// (an overlay's upper directory, or the whole tree). Whatever the step itself put there stays, and
/// the directories around keep their times.
pub(super) fn remove_stubs(root: &OwnedFd, stubs: &[Stub]) -> Result<(), Errno> {
    for stub in stubs.iter().rev() {
        let (Some(parent), Some(name)) = (stub.path.parent(), stub.path.file_name()) else {
            continue;
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let parent = match rustix::fs::openat2(root, parent, flags, Mode::empty(), beneath) {
            Ok(parent) => parent,
            // The step removed or replaced the directory around it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(errno),
        };
        let before = rustix::fs::fstat(&parent)?;
        let Ok(now) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let gone = match (stub.is_dir, FileType::from_raw_mode(now.st_mode)) {
            (true, FileType::Directory) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
            (false, FileType::RegularFile) if now.st_size == 0 => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())
            }
            _ => continue,
        };
        match gone {
            Ok(()) => restore_times(&parent, &before)?,
            Err(Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
