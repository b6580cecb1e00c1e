//! Mounting an overlay without privileges.
//!
//! Always with `userxattr` (the only way to have opaque directories in a user namespace, Linux
//! 5.11) and, where there is an upper directory, `volatile` (5.10): a step's result is synced once,
//! when it is committed.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsOpenFlags, MountFlags, OpenTreeFlags, UnmountFlags};

use super::apply::KernelError;
use super::mount_api::{call, finish, said};
use super::plan::HostPath;

/// A detached overlay mount: `lowers` topmost first, `upper` with its work directory.
///
/// # Errors
///
/// What the kernel says, its own words included.
pub(super) fn make(
    lowers: &[HostPath],
    upper: Option<&(HostPath, HostPath)>,
) -> Result<OwnedFd, KernelError> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(call("fsopen(2) of an overlay"))?;
    rustix::mount::fsconfig_set_string(&fs, "source", "overlay")
        .map_err(said(&fs, "fsconfig(2)"))?;
    let mut names = Names::default();
    for lower in lowers {
        match rustix::mount::fsconfig_set_string(&fs, "lowerdir+", names.of(lower)?) {
            Ok(()) => {}
            // Before Linux 6.5 an overlay has only one option for all lower directories, which
            // this way of mounting limits to 256 bytes.
            Err(rustix::io::Errno::INVAL) => return make_by_mount(lowers, upper),
            Err(errno) => return Err(said(&fs, "adding a lower directory to an overlay")(errno)),
        }
    }
    if let Some((dir, work)) = upper {
        for (key, path) in [("upperdir", dir), ("workdir", work)] {
            rustix::mount::fsconfig_set_string(&fs, key, names.of(path)?)
                .map_err(said(&fs, "adding the upper directory to an overlay"))?;
        }
        rustix::mount::fsconfig_set_flag(&fs, "volatile").map_err(said(&fs, "fsconfig(2)"))?;
    }
    rustix::mount::fsconfig_set_flag(&fs, "userxattr").map_err(said(&fs, "fsconfig(2)"))?;
    match finish(&fs) {
        // The same kernels take any option, and look at it only now.
        Err(KernelError::Call { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            make_by_mount(lowers, upper)
        }
        made => made,
    }
}

/// Longest text that fsconfig(2) takes, without its end.
const MAX_OPTION_BYTES: usize = 255;

/// Names of directories as mount options can have them.
#[derive(Default)]
struct Names {
    held: Vec<OwnedFd>,
}

impl Names {
    /// The path itself, or where that is too long or needs escapes, that of a descriptor.
    fn of(&mut self, path: &HostPath) -> Result<PathBuf, KernelError> {
        let bytes = path.as_path().as_os_str().as_encoded_bytes();
        if bytes.len() <= MAX_OPTION_BYTES && !bytes.contains(&b'\\') {
            return Ok(path.0.clone());
        }
        self.short(path)
    }

    fn short(&mut self, path: &HostPath) -> Result<PathBuf, KernelError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(path.as_path(), flags, Mode::empty()).map_err(call("open(2)"))?;
        let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
        self.held.push(dir);
        Ok(name.into())
    }
}

/// The same by mount(2), whose options must fit one page: so each directory is named by the number
/// of a descriptor. The mount is made on the first lower directory and taken off at once.
fn make_by_mount(
    lowers: &[HostPath],
    upper: Option<&(HostPath, HostPath)>,
) -> Result<OwnedFd, KernelError> {
    let place = lowers.first().ok_or(KernelError::Plan("an overlay of nothing"))?.as_path();
    let mut names = Names::default();
    let mut options = String::from("userxattr,lowerdir=");
    for (index, lower) in lowers.iter().enumerate() {
        options.push_str(if index == 0 { "" } else { ":" });
        options.push_str(&names.short(lower)?.to_string_lossy());
    }
    if let Some((dir, work)) = upper {
        for (key, path) in [("upperdir", dir), ("workdir", work)] {
            let name = names.short(path)?;
            options.extend([",", key, "=", &name.to_string_lossy()]);
        }
        options.push_str(",volatile");
    }
    let options = CString::new(options).map_err(|_| KernelError::Plan("a zero byte in a name"))?;
    rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(call("mount(2) of an overlay"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, place, flags);
    rustix::mount::unmount(place, UnmountFlags::DETACH).map_err(call("umount(2)"))?;
    mount.map_err(call("open_tree(2)"))
}

/// What is left of an overlay that was tried. Dropping it takes the overlay off, for which the kernel
/// may take longer than for all else together.
#[derive(Debug)]
pub(crate) struct Tried {
    mount: Option<OwnedFd>,
    dir: PathBuf,
}

impl Drop for Tried {
    fn drop(&mut self) {
        drop(self.mount.take());
        // What stays is in a directory of unfinished work.
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Whether an overlay below `dir` (made) can be made and works as snapshots need it: copy-up, a
/// whiteout, an opaque directory. Else why not, in words.
pub(crate) fn works_in(dir: &Path) -> (Result<(), String>, Tried) {
    let mut tried = Tried { mount: None, dir: dir.to_owned() };
    (try_in(dir, &mut tried.mount), tried)
}

fn try_in(dir: &Path, kept: &mut Option<OwnedFd>) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| crate::causes::chain(error);
    for name in ["lower/d/e", "second", "upper", "work"] {
        std::fs::create_dir_all(dir.join(name)).map_err(|error| said(&error))?;
    }
    let path = |name: &str| HostPath::from(dir.join(name));
    std::fs::write(dir.join("lower/f"), "x").map_err(|error| said(&error))?;
    let upper = (path("upper"), path("work"));
    let mount = make(&[path("second"), path("lower")], Some(&upper));
    let mount = kept.insert(mount.map_err(|error| said(&error))?);
    let merged = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let act = || -> std::io::Result<bool> {
        std::fs::write(merged.join("f"), "y")?;
        std::fs::remove_file(merged.join("f"))?;
        std::fs::remove_dir(merged.join("d/e"))?;
        std::fs::remove_dir(merged.join("d"))?;
        std::fs::create_dir(merged.join("d"))?;
        let mut value = [0; 8];
        let opaque = rustix::fs::getxattr(dir.join("upper/d"), "user.overlay.opaque", &mut value)?;
        Ok(&value[..opaque] == b"y")
    };
    match act() {
        Ok(true) => Ok(()),
        Ok(false) => Err("directories are not marked opaque".to_owned()),
        Err(error) => Err(said(&error)),
    }
}
