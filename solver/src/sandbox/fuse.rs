//! Overlays by the helper `fuse-overlayfs`, where the kernel's own cannot be had.
//!
//! What it writes into an upper directory is put into the kernel's own terms when it has ended: nothing
//! else has to know who made an overlay.

use std::ffi::CStr;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::mount::UnmountFlags;

use super::helper;
use crate::causes::chain;
use crate::snapshot::{Rootfs, Upper};

/// What is refused where it does not work.
pub(crate) const CALL: &str = "an overlay by fuse-overlayfs";
/// The device that it needs.
const DEVICE: &str = "/dev/fuse";
/// How long it may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// `FUSE_SUPER_MAGIC`: what statfs(2) says of its mounts.
const MAGIC: u64 = 0x6573_5546;
/// Bytes of what it says that are shown.
const MAX_WORDS: u64 = 4096;
/// Deepest directory of an upper that is looked at.
const MAX_DEPTH: usize = 1000;

/// How it marks a directory that hides what is below it, beside files with these names.
const OPAQUE: &CStr = c"user.fuseoverlayfs.opaque";
const MARKS: [&CStr; 2] = [c".wh..wh..opq", c".wh..opq"];
/// How the kernel does.
const KERNELS_OPAQUE: &CStr = c"user.overlay.opaque";

/// A mounted overlay. Dropping it takes it off, whatever becomes of what was written.
#[derive(Debug)]
pub(super) struct Mounted {
    child: Child,
    at: PathBuf,
    upper: Option<PathBuf>,
}

/// Where the helper is, if it can work here.
///
/// # Errors
///
/// What is missing.
pub(crate) fn program() -> Result<PathBuf, String> {
    let found = helper::find("fuse-overlayfs").ok_or("fuse-overlayfs is not installed")?;
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| format!("{DEVICE}: {errno}"))?;
    Ok(found)
}

/// Mounts an overlay at `at`, which is made: `lowers` topmost first.
///
/// # Errors
///
/// What the helper says.
pub(super) fn mount(
    program: &Path,
    lowers: &[PathBuf],
    upper: Option<&Upper>,
    at: PathBuf,
) -> io::Result<Mounted> {
    std::fs::create_dir_all(&at)?;
    let all = lowers.iter().chain(upper.iter().flat_map(|it| [&it.dir, &it.work]));
    for path in all {
        if path.as_os_str().as_encoded_bytes().iter().any(|it| b",:\\\"".contains(it)) {
            let text = format!("fuse-overlayfs has no name for `{}`", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    let names: Vec<_> = lowers.iter().map(|it| it.to_string_lossy()).collect();
    let mut options = format!("fsync=0,lowerdir={}", names.join(":"));
    if let Some(Upper { dir, work }) = upper {
        options.extend([",upperdir=", &dir.to_string_lossy()]);
        options.extend([",workdir=", &work.to_string_lossy()]);
    }
    let arguments =
        ["-f", "-o", &options, &at.to_string_lossy()].into_iter().map(str::to_owned).collect();
    let nothing = std::fs::File::open("/dev/null")?;
    let child = helper::start(program, arguments, nothing.as_fd())?;
    let upper = upper.map(|it| it.dir.clone());
    let mut mounted = Mounted { child, at, upper };
    mounted.wait()?;
    Ok(mounted)
}

impl Mounted {
    /// Where it is.
    pub(super) fn at(&self) -> &Path {
        &self.at
    }

    fn is_there(&self) -> bool {
        rustix::fs::statfs(&self.at)
            .is_ok_and(|it| u64::try_from(it.f_type).is_ok_and(|it| it == MAGIC))
    }

    fn wait(&mut self) -> io::Result<()> {
        let began = Instant::now();
        while !self.is_there() {
            if self.child.try_wait()?.is_some() || began.elapsed() > LIMIT {
                drop(self.child.kill());
                let mut said = String::new();
                if let Some(words) = self.child.stderr.take() {
                    words.take(MAX_WORDS).read_to_string(&mut said)?;
                }
                let last = said.lines().rfind(|it| !it.trim().is_empty()).unwrap_or("no word");
                return Err(io::Error::other(format!("fuse-overlayfs: {}", last.trim())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Takes it off, when no step has it any more, and puts what was written into the kernel's terms.
    ///
    /// # Errors
    ///
    /// If the host refuses.
    pub(super) fn end(mut self) -> io::Result<()> {
        let root = rustix::fs::open(&self.at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::syncfs(&root)?;
        drop(root);
        rustix::mount::unmount(&self.at, UnmountFlags::DETACH)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() && began.elapsed() < LIMIT {
            std::thread::sleep(LOOK);
        }
        // All that was written is written: it has nothing more to do.
        drop(self.child.kill());
        self.child.wait()?;
        let Some(upper) = self.upper.take() else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        translate(&rustix::fs::open(&upper, flags, Mode::empty())?, MAX_DEPTH)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Marks directories of an upper as the kernel would, and removes the helper's own marks.
fn translate(dir: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    let stat = rustix::fs::fstat(dir)?;
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if MARKS.contains(&name) {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        } else if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            translate(&rustix::fs::openat(dir, name, flags, Mode::empty())?, depth - 1)?;
        }
    }
    let mut value = [0; 8];
    if rustix::fs::fgetxattr(dir, OPAQUE, &mut value).is_ok_and(|it| &value[..it] == b"y") {
        rustix::fs::fsetxattr(dir, KERNELS_OPAQUE, b"y", XattrFlags::empty())?;
        rustix::fs::fremovexattr(dir, OPAQUE)?;
    }
    Ok(rustix::fs::futimens(dir, &super::target::times(&stat))?)
}

/// What of a prepared tree can be used as it is: an overlay is mounted at `at` if there is a helper.
///
/// # Errors
///
/// As [`mount`].
pub(super) fn shown(
    helper: Option<&Path>,
    rootfs: &Rootfs,
    at: impl FnOnce() -> PathBuf,
) -> io::Result<(Rootfs, Option<Mounted>)> {
    match (helper, rootfs) {
        (Some(program), Rootfs::Overlay { lowers, upper }) => {
            let mounted = mount(program, lowers, upper.as_ref(), at())?;
            Ok((Rootfs::Dir(mounted.at.clone()), Some(mounted)))
        }
        (_, rootfs) => Ok((rootfs.clone(), None)),
    }
}

/// A helper that works.
#[derive(Debug)]
pub(crate) struct Helper {
    /// Its program.
    pub(crate) program: PathBuf,
    /// What it does otherwise than the kernel, so that images are others.
    pub(crate) flaw: Option<&'static str>,
}

/// Whether an overlay below `dir` does what snapshots need of it.
///
/// # Errors
///
/// Why not.
pub(crate) fn works_in(dir: &Path) -> Result<Helper, String> {
    let program = program()?;
    let result = try_in(&program, dir);
    // What stays is in a directory of unfinished work.
    drop(std::fs::remove_dir_all(dir));
    match result {
        Ok((true, keeps)) => {
            let flaw = "the installed fuse-overlayfs loses set-user-id bits, and makes files of pipes, \
                where a step moves what lower layers have";
            Ok(Helper { program, flaw: Some(flaw).filter(|_| !keeps) })
        }
        Ok((false, _)) => Err("fuse-overlayfs does not keep what a layer hides".to_owned()),
        Err(error) => Err(chain(&error)),
    }
}

/// Whether it keeps what layers hide, and the modes of files that it copies.
fn try_in(program: &Path, dir: &Path) -> io::Result<(bool, bool)> {
    for name in ["lower/d/e", "lower/o/hidden", "second/o", "upper", "work"] {
        std::fs::create_dir_all(dir.join(name))?;
    }
    std::fs::write(dir.join("lower/f"), "x")?;
    std::fs::write(dir.join("lower/s"), "x")?;
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, dir.join("lower/p"), FileType::Fifo, mode, 0)?;
    rustix::fs::chmod(dir.join("lower/s"), Mode::from_raw_mode(0o6755))?;
    rustix::fs::setxattr(dir.join("second/o"), KERNELS_OPAQUE, b"y", XattrFlags::empty())?;
    let upper = Upper { dir: dir.join("upper"), work: dir.join("work") };
    let lowers = [dir.join("second"), dir.join("lower")];
    let mounted = mount(program, &lowers, Some(&upper), dir.join("at"))?;
    let at = mounted.at().to_owned();
    let hides = !at.join("o/hidden").exists();
    std::fs::write(at.join("f"), "y")?;
    std::fs::remove_file(at.join("f"))?;
    std::fs::remove_dir(at.join("d/e"))?;
    std::fs::remove_dir(at.join("d"))?;
    std::fs::create_dir(at.join("d"))?;
    std::fs::rename(at.join("s"), at.join("moved"))?;
    std::fs::rename(at.join("p"), at.join("pipe"))?;
    mounted.end()?;
    let moved = rustix::fs::lstat(dir.join("upper/moved"))?;
    let pipe = rustix::fs::lstat(dir.join("upper/pipe"))?;
    let keeps =
        moved.st_mode & 0o7777 == 0o6755 && FileType::from_raw_mode(pipe.st_mode) == FileType::Fifo;
    let mut value = [0; 8];
    let opaque = rustix::fs::getxattr(dir.join("upper/d"), KERNELS_OPAQUE, &mut value)?;
    let gone = rustix::fs::lstat(dir.join("upper/f"))?;
    let is_whiteout = FileType::from_raw_mode(gone.st_mode) == FileType::CharacterDevice;
    let is_told = hides && is_whiteout && &value[..opaque] == b"y";
    Ok((is_told, keeps))
}
