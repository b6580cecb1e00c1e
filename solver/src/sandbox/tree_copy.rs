//! A copy of a tree that a cache directory starts with.
//!
//! Owners, modes, times, extended attributes, links and device numbers are kept; names that share
//! a file become files of their own. Nothing is resolved by a joined path.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::plan::HostPath;
use super::{overlay, target};
use crate::snapshot::Rootfs;

/// Deepest directory that is copied: each level holds two descriptors.
const MAX_DEPTH: usize = 200;

/// Longest list of attribute names, and longest value: the kernel's own limits.
const MAX_XATTR_BYTES: usize = 65_536;

/// Copies the directory `selector` of a tree to `to`, which does not exist.
///
/// # Errors
///
/// If it is not there or not a directory, or if the host refuses.
pub(super) fn copy(rootfs: &Rootfs, selector: &str, to: &Path) -> io::Result<()> {
    let root = open_root(rootfs)?;
    let from = target::resolve(&root, selector)?;
    copy_found(&from, to)
}

/// Copies what is at `selector` of a tree to `to`, which does not exist: a directory or a file.
///
/// # Errors
///
/// If it is not there, or if the host refuses.
pub(super) fn copy_any(rootfs: &Rootfs, selector: &str, to: &Path) -> io::Result<()> {
    let root = open_root(rootfs)?;
    let from = target::resolve(&root, selector)?;
    let stat = rustix::fs::fstat(&from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return copy_found(&from, to);
    }
    let name = format!("/proc/self/fd/{}", from.as_raw_fd());
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let source = rustix::fs::open(name, read, Mode::empty())?;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let new = rustix::fs::open(to, write, Mode::from_raw_mode(0o600))?;
    copy_bytes(source, new, &stat)
}

fn copy_bytes(source: OwnedFd, new: OwnedFd, stat: &Stat) -> io::Result<()> {
    let (mut source, mut new) = (std::fs::File::from(source), std::fs::File::from(new));
    io::copy(&mut source, &mut new)?;
    let (source, new) = (OwnedFd::from(source), OwnedFd::from(new));
    attributes(&source, &new)?;
    metadata(&new, stat)
}

fn open_root(rootfs: &Rootfs) -> io::Result<OwnedFd> {
    Ok(match rootfs {
        Rootfs::Overlay { lowers, .. } => {
            let lowers: Vec<HostPath> = lowers.iter().map(HostPath::from).collect();
            overlay::make(&lowers, None).map_err(io::Error::other)?
        }
        Rootfs::Dir(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())?
        }
    })
}

fn copy_found(from: &OwnedFd, to: &Path) -> io::Result<()> {
    let from = open_dir(from.as_fd(), c".")?;
    rustix::fs::mkdirat(CWD, to, Mode::from_raw_mode(0o700))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let to = rustix::fs::open(to, flags, Mode::empty())?;
    copy_dir(&from, &to, MAX_DEPTH)
}

fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), ResolveFlags::BENEATH)
}

fn copy_dir(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(Errno::NAMETOOLONG.into());
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_entry(from, to, name, depth)?;
    }
    attributes(from, to)?;
    metadata(to, &rustix::fs::fstat(from)?)
}

pub(super) fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    depth: usize,
) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            copy_dir(&open_dir(from.as_fd(), name)?, &open_dir(to.as_fd(), name)?, depth - 1)
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let source = rustix::fs::openat(from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let new = rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?;
            copy_bytes(source, new, &stat)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&link, to, name)?;
            let (uid, gid) = owner(&stat);
            rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(rustix::fs::utimensat(to, name, &target::times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            match rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev) {
                // A device cannot be made in a user namespace, nor could a step have used it.
                Err(Errno::PERM) => return Ok(()),
                other => other?,
            }
            let (uid, gid) = owner(&stat);
            rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(rustix::fs::chmodat(to, name, mode, AtFlags::empty())?)
        }
        // A socket without its listener is of no use.
        FileType::Socket | FileType::Unknown => Ok(()),
    }
}

pub(super) fn attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut names = vec![0; MAX_XATTR_BYTES];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0; MAX_XATTR_BYTES];
    for name in names[..length].split(|&byte| byte == 0).filter(|it| !it.is_empty()) {
        if name.starts_with(b"user.overlay.") {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(to, name, &value[..length], flags)?;
    }
    Ok(())
}

/// Owner first: changing it clears set-user-id bits.
pub(super) fn metadata(to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let name = format!("/proc/self/fd/{}", to.as_raw_fd());
    Ok(rustix::fs::utimensat(CWD, name, &target::times(stat), AtFlags::empty())?)
}

pub(super) fn owner(stat: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    let uid = rustix::fs::Uid::from_raw(stat.st_uid);
    (Some(uid), Some(rustix::fs::Gid::from_raw(stat.st_gid)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_copy_is_like_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/f"), "text").unwrap();
        fs::set_permissions(from.join("a/b/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("nowhere", from.join("a/l")).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o1777)).unwrap();
        let to = dir.path().join("to");
        copy(&Rootfs::Dir(from.clone()), "/a", &to).unwrap();
        let (old, new) = (from.join("a"), to);
        assert_eq!(fs::read_to_string(new.join("b/f")).unwrap(), "text");
        assert_eq!(fs::read_link(new.join("l")).unwrap(), Path::new("nowhere"));
        for name in ["b", "b/f", "l"] {
            let old = fs::symlink_metadata(old.join(name)).unwrap();
            let new = fs::symlink_metadata(new.join(name)).unwrap();
            assert_eq!((old.mode(), old.mtime_nsec()), (new.mode(), new.mtime_nsec()), "{name}");
        }
        assert!(copy(&Rootfs::Dir(from.clone()), "/none", &dir.path().join("x")).is_err());
        assert!(copy(&Rootfs::Dir(from), "/a/b/f", &dir.path().join("y")).is_err());
    }
}
