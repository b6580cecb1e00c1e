//! Mounts by descriptor (`fsopen(2)`, `open_tree(2)`, `mount_setattr(2)`, `move_mount(2)`; Linux 5.12), with errors
//! that say which call the kernel refused, and why.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::apply::KernelError;
use super::plan::Restrict;
use super::sys;

/// A mount of a new file system of a kind.
pub(super) fn new_mount(
    kind: &'static str,
    options: &[(&str, &str)],
) -> Result<OwnedFd, KernelError> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(call("fsopen(2)"))?;
    // What mount(8) and df(1) show as the device.
    rustix::mount::fsconfig_set_string(&fs, "source", kind).map_err(said(&fs, "fsconfig(2)"))?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&fs, *key, *value).map_err(said(&fs, "fsconfig(2)"))?;
    }
    finish(&fs)
}

/// Makes the mount of a file system whose options are set.
pub(super) fn finish(fs: &OwnedFd) -> Result<OwnedFd, KernelError> {
    rustix::mount::fsconfig_create(fs).map_err(said(fs, "mounting"))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(fs, flags, MountAttrFlags::empty()).map_err(said(fs, "fsmount(2)"))
}

/// A detached copy of the mounts at a path and below.
pub(super) fn clone(dir: BorrowedFd<'_>, path: impl AsRef<Path>) -> Result<OwnedFd, KernelError> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(dir, path, flags).map_err(|errno| KernelError::Call {
        call: "open_tree(2)",
        detail: format!(" for `{}`", path.display()),
        source: errno.into(),
    })
}

/// Mounts the file `from` on the file `at`, read-only, in the caller's mount namespace.
///
/// # Errors
///
/// If the host refuses.
pub(super) fn bind_read_only(from: &Path, at: &Path) -> Result<(), KernelError> {
    let mount = clone(CWD, from)?;
    restrict(&mount, Restrict { suid: true, dev: true, ..Restrict::WRITE })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, at, flags).map_err(call("move_mount(2)"))
}

/// Forbids things on a mount and on what is mounted below it.
pub(super) fn restrict(mount: &OwnedFd, what: Restrict) -> Result<(), KernelError> {
    let pairs = [
        (what.write, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (what.suid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (what.dev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (what.exec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ];
    let set = pairs.iter().filter(|it| it.0).fold(MountAttrFlags::empty(), |all, it| all | it.1);
    if set.is_empty() {
        return Ok(());
    }
    sys::mount_setattr(mount.as_fd(), set, MountAttrFlags::empty(), true)
        .map_err(io_call("mount_setattr(2)"))
}

pub(super) fn attach(mount: &OwnedFd, point: &OwnedFd, at: &str) -> Result<(), KernelError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", point, "", flags)
        .map_err(|errno| KernelError::MountPoint { at: at.to_owned(), source: errno.into() })
}

/// For `map_err` of a rustix call.
pub(super) fn call(call: &'static str) -> impl Fn(rustix::io::Errno) -> KernelError {
    move |errno| KernelError::Call { call, detail: String::new(), source: errno.into() }
}

pub(super) fn io_call(call: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Call { call, detail: String::new(), source }
}

/// Like [`call`], with what the kernel wrote into the log of a file system context.
pub(super) fn said(fs: &OwnedFd, call: &'static str) -> impl Fn(rustix::io::Errno) -> KernelError {
    move |errno| {
        let mut line = [0; 512];
        let got = rustix::io::read(fs, &mut line).unwrap_or(0);
        let text = String::from_utf8_lossy(&line[..got]).trim().to_owned();
        // Each message begins with its level: e, w or i.
        let text = text.strip_prefix("e ").unwrap_or(&text);
        let detail = if text.is_empty() { String::new() } else { format!(" (kernel: {text})") };
        KernelError::Call { call, detail, source: errno.into() }
    }
}
