//! Linux as the [`Kernel`] of a plan: mounts by descriptor.
//!
//! Everything that is mounted exists first as a detached mount (a descriptor), is restricted
//! there, and is then moved to a target that was itself resolved to a descriptor inside the new
//! root. No path of the image is ever resolved by the kernel in our own root.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MoveMountFlags, UnmountFlags};

use super::apply::{Kernel, KernelError};
use super::mount_api::{attach, call, clone, io_call, new_mount, restrict};
use super::plan::{Litter, NewFs, Restrict, Slot, Step, Stub};
use super::sys;
use super::target::Target;

/// The mounts of one step while they are put together.
#[derive(Debug, Default)]
pub struct Linux {
    scratch: PathBuf,
    fds: Vec<OwnedFd>,
    slots: Vec<Option<OwnedFd>>,
    target: Option<Target>,
    /// A directory that is empty and stays so, once there is one.
    empty: Option<OwnedFd>,
}

impl Linux {
    /// Takes the descriptors that the plan numbers.
    pub fn take(&mut self, fds: Vec<OwnedFd>) {
        self.fds = fds;
    }

    /// The descriptors that the plan numbers.
    pub fn fds(&self) -> &[OwnedFd] {
        &self.fds
    }

    /// The mount points that were made and have to go after the step.
    pub fn stubs(&self) -> Vec<Stub> {
        self.target.as_ref().map(|it| it.stubs.clone()).unwrap_or_default()
    }

    /// Attaches a detached mount to the scratch directory.
    fn put(&self, mount: &OwnedFd) -> Result<(), KernelError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, "", CWD, &self.scratch, flags)
            .map_err(call("move_mount(2)"))
    }

    fn keep(&mut self, slot: Slot, mount: OwnedFd) {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(mount);
    }

    fn scratch_root(&self) -> Result<OwnedFd, KernelError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.scratch, flags, Mode::empty()).map_err(call("open(2)"))
    }

    fn target(&mut self) -> Result<&mut Target, KernelError> {
        self.target.as_mut().ok_or(KernelError::Plan("no root yet"))
    }

    fn write(
        &self,
        name: &str,
        from: usize,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<(), KernelError> {
        let source = self.fds.get(from).ok_or(KernelError::Plan("no such descriptor"))?;
        let dir = self.scratch_root()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(call("open(2)"))?;
        let mut file = std::fs::File::from(file);
        copy_all(source, &mut file).map_err(io_call("copying a secret"))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(call("chmod(2)"))?;
        crate::snapshot::owner::give(file.as_fd(), owner.0, owner.1)
            .map_err(call("chown(2) of a secret"))
    }

    fn place(&mut self, slot: Slot, at: &str, how: (Restrict, Litter)) -> Result<(), KernelError> {
        let mount = self.slots.get_mut(slot).and_then(Option::take);
        let mount = mount.ok_or(KernelError::Plan("no such mount"))?;
        restrict(&mount, how.0)?;
        let stat = rustix::fs::fstat(&mount).map_err(call("stat(2)"))?;
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        let point = self.target()?.mount_point(at, is_dir, how.1)?;
        attach(&mount, &point, at)
    }

    fn mount(&mut self, fs: &NewFs, at: &str, how: (Restrict, Litter)) -> Result<(), KernelError> {
        let mount = make(fs)?;
        restrict(&mount, how.0)?;
        let point = self.target()?.mount_point(at, true, how.1)?;
        attach(&mount, &point, at)
    }

    fn read_only(&mut self, at: &str) -> Result<(), KernelError> {
        let Some(point) = self.target()?.existing(at)? else {
            return Ok(());
        };
        let mount = clone(point.as_fd(), "")?;
        restrict(&mount, Restrict::WRITE)?;
        attach(&mount, &point, at)
    }

    fn mask(&mut self, at: &str) -> Result<(), KernelError> {
        let Some(point) = self.target()?.existing(at)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&point).map_err(call("stat(2)"))?;
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            return attach(&clone(CWD, "/dev/null")?, &point, at);
        }
        // One file system is enough for all of them, as long as it is mounted somewhere.
        let again = self.empty.as_ref().and_then(|it| clone(it.as_fd(), "").ok());
        let empty = again.map_or_else(empty_directory, Ok)?;
        attach(&empty, &point, at)?;
        self.empty = Some(empty);
        Ok(())
    }

    fn pivot(&mut self) -> Result<(), KernelError> {
        let target = self.target.as_ref().ok_or(KernelError::Plan("no root yet"))?;
        rustix::process::fchdir(&target.root).map_err(call("fchdir(2)"))?;
        match rustix::process::pivot_root(".", ".") {
            Ok(()) => {
                // Both roots are on top of each other now; the old one is on top.
                rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(call("umount(2)"))?;
            }
            // Docker's filter never lists pivot_root, not even for those who may mount.
            Err(rustix::io::Errno::PERM) => {
                rustix::mount::mount_move(".", "/").map_err(call("mount(2) with MS_MOVE"))?;
                rustix::process::chroot(".").map_err(call("chroot(2)"))?;
            }
            Err(errno) => return Err(call("pivot_root(2)")(errno)),
        }
        rustix::process::chdir("/").map_err(call("chdir(2)"))
    }
}

impl Kernel for Linux {
    fn perform(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::Scratch { dir } => {
                self.scratch.clone_from(&dir.0);
                Ok(())
            }
            Step::Overlay { lowers, upper } => {
                self.put(&super::overlay::make(lowers, upper.as_ref())?)
            }
            Step::Directory { from } => self.put(&clone(CWD, from.as_path())?),
            Step::New { fs, restrict: how } => {
                let mount = make(fs)?;
                restrict(&mount, *how)?;
                self.put(&mount)
            }
            Step::Write { name, from, uid, gid, mode } => {
                self.write(name, *from, (*uid, *gid), *mode)
            }
            Step::Lift { slot } => {
                // An attached mount: what takes it off its place is that it is put elsewhere.
                let mount = self.scratch_root()?;
                self.keep(*slot, mount);
                Ok(())
            }
            Step::Keep { slot, path } => {
                let root = self.scratch_root()?;
                let inside = super::target::resolve(&root, path).map_err(|errno| match errno {
                    rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
                        KernelError::NotFound(path.clone())
                    }
                    errno => call("openat2(2)")(errno),
                })?;
                let mount = clone(inside.as_fd(), "")?;
                self.keep(*slot, mount);
                Ok(())
            }
            Step::Clear => rustix::mount::unmount(&self.scratch, UnmountFlags::DETACH)
                .map_err(call("umount(2)")),
            Step::Take { slot, from } => {
                let mount = clone(CWD, from.as_path())?;
                self.keep(*slot, mount);
                Ok(())
            }
            Step::Root => {
                self.target = Some(Target::new(self.scratch_root()?)?);
                Ok(())
            }
            Step::Place { slot, at, restrict, litter } => {
                self.place(*slot, at, (*restrict, *litter))
            }
            Step::Mount { fs, at, restrict, litter } => self.mount(fs, at, (*restrict, *litter)),
            Step::Symlink { at, target } => self.target()?.symlink(at, target),
            Step::ReadOnly { at } => self.read_only(at),
            Step::Mask { at } => self.mask(at),
            Step::FreezeRoot => restrict(&self.target()?.root, Restrict::WRITE),
            Step::Hostname { name } => match rustix::system::sethostname(name.as_bytes()) {
                // Podman's filter refuses it even to those who own the namespace.
                Ok(()) | Err(rustix::io::Errno::PERM) => Ok(()),
                Err(errno) => Err(call("sethostname(2)")(errno)),
            },
            Step::Loopback => sys::loopback_up().map_err(io_call("bringing `lo` up")),
            Step::PivotRoot => self.pivot(),
        }
    }
}

/// Copies all of a file or pipe. Where a file was read to before does not matter: other steps may
/// read the same open file.
fn copy_all(from: &OwnedFd, to: &mut std::fs::File) -> io::Result<()> {
    use std::io::Write as _;
    let mut buffer = vec![0; 16 << 10];
    let mut at = 0;
    loop {
        let got = match rustix::io::pread(from, &mut buffer, at) {
            Err(rustix::io::Errno::SPIPE) => rustix::io::read(from, &mut buffer)?,
            other => other?,
        };
        if got == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..got])?;
        at += got as u64;
    }
}

/// A detached mount of a directory in which nothing can be made.
fn empty_directory() -> Result<OwnedFd, KernelError> {
    let empty = make(&NewFs::Tmpfs { size: 4096, mode: 0o755 })?;
    restrict(&empty, Restrict::ALL)?;
    Ok(empty)
}

/// A detached mount of a new file system. A `proc` or `sysfs` that the kernel refuses (because the
/// host's own is partly masked) becomes a copy of the host's, masks included.
fn make(fs: &NewFs) -> Result<OwnedFd, KernelError> {
    match fs {
        NewFs::Tmpfs { size, mode } => {
            let size = if *size == 0 { String::new() } else { size.to_string() };
            let mode = format!("{mode:o}");
            let mut options = vec![("mode", mode.as_str())];
            if !size.is_empty() {
                options.push(("size", &size));
            }
            new_mount("tmpfs", &options)
        }
        NewFs::Proc => new_mount("proc", &[]).or_else(|error| borrow(error, "/proc")),
        NewFs::Sysfs => new_mount("sysfs", &[]).or_else(|error| borrow(error, "/sys")),
        NewFs::Mqueue => new_mount("mqueue", &[]),
        NewFs::Devpts => {
            let common = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
            // Group 5 is `tty`; where only one id is mapped it cannot be set.
            new_mount("devpts", &common).or_else(|_| new_mount("devpts", &common[..2]))
        }
    }
}

/// Whether the kernel mounts a new `/proc`, rather than a copy of the host's.
///
/// # Errors
///
/// What it says.
pub(super) fn fresh_proc() -> Result<(), KernelError> {
    new_mount("proc", &[]).map(drop)
}

fn borrow(error: KernelError, path: &str) -> Result<OwnedFd, KernelError> {
    match &error {
        KernelError::Call { source, .. }
            if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) =>
        {
            clone(CWD, path)
        }
        KernelError::NotFound(_)
        | KernelError::MountPoint { .. }
        | KernelError::Dangling { .. }
        | KernelError::Call { .. }
        | KernelError::Plan(_) => Err(error),
    }
}
