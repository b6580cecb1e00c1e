//! Mounts without mount(2): what a step sees at a path is exchanged with what is there.
//!
//! Each exchange is one rename(2), and leaves the times of the directory around as they were. What
//! the tree had lies in the step's own holding directory, beside the tree, until the exchange is
//! undone; then it is the other way round, whatever the step did in the meantime: what it put in
//! place of a mount goes where the mount went.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::sandbox::apply::KernelError;
use crate::sandbox::mount_api::call;
use crate::sandbox::plan::{Litter, Stub};
use crate::sandbox::target::{self, Target};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What was put into a tree, until it is taken out again. Dropping it takes everything out.
#[derive(Debug)]
pub(super) struct Arrangement {
    target: Target,
    root: PathBuf,
    hold: PathBuf,
    swaps: Vec<Swap>,
}

/// Something in the tree that lies there instead of something else.
#[derive(Debug)]
struct Swap {
    /// Its directory, in the root, symbolic links resolved: no leading `/`.
    parent: PathBuf,
    name: OsString,
    /// Where what was there lies now.
    held: PathBuf,
    /// What was put there.
    given: OwnedFd,
    /// When that was changed last, then.
    changed: (i64, i64),
}

/// A thing in its place.
#[derive(Debug)]
pub(super) struct Placed {
    /// Where it really lies in the root: no leading `/`.
    pub(super) path: PathBuf,
    /// Its inode.
    pub(super) inode: u64,
}

impl Arrangement {
    /// Works on the tree at `root`, with the empty directory `hold` on the same file system.
    ///
    /// # Errors
    ///
    /// If the tree cannot be opened.
    pub(super) fn new(root: &Path, hold: &Path) -> Result<Self, KernelError> {
        let opened =
            rustix::fs::open(root, DIRECTORY, Mode::empty()).map_err(call("open(2) of a tree"))?;
        let real = target::real_path(&opened)?;
        let (target, hold, swaps) = (Target::new(opened)?, hold.to_owned(), Vec::new());
        Ok(Self { target, root: real, hold, swaps })
    }

    /// A path in the holding directory.
    pub(super) fn held(&self, name: &str) -> PathBuf {
        self.hold.join(name)
    }

    /// Mount points that were made and have to go when all is undone.
    pub(super) fn stubs(&self) -> Vec<Stub> {
        self.target.stubs.clone()
    }

    /// Whether there is something at `at`.
    pub(super) fn is_there(&self, at: &str) -> bool {
        matches!(self.target.existing(at), Ok(Some(_)))
    }

    /// Puts `item` of the holding directory at `at`, which is made if it is missing.
    pub(super) fn put(
        &mut self,
        at: &str,
        item: &Path,
        litter: Litter,
    ) -> Result<Placed, KernelError> {
        let failed =
            |errno: Errno| KernelError::MountPoint { at: at.to_owned(), source: errno.into() };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let given = rustix::fs::open(item, flags, Mode::empty()).map_err(call("open(2)"))?;
        let stat = rustix::fs::fstat(&given).map_err(call("stat(2)"))?;
        let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let made = self.target.stubs.len();
        let point = self.target.mount_point(at, is_dir, litter)?;
        self.forget_what_is_covered(made);
        let there = rustix::fs::fstat(&point).map_err(failed)?;
        if rustix::fs::FileType::from_raw_mode(there.st_mode).is_dir() != is_dir {
            return Err(failed(if is_dir { Errno::NOTDIR } else { Errno::ISDIR }));
        }
        let real = target::real_path(&point)?;
        let path = real.strip_prefix(&self.root).unwrap_or(Path::new("")).to_owned();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(Errno::BUSY));
        };
        let dir = self.open(parent).map_err(failed)?;
        let before = rustix::fs::fstat(&dir).map_err(failed)?;
        exchange(item, &dir, Path::new(name)).map_err(failed)?;
        target::restore_times(&dir, &before).map_err(failed)?;
        let (parent, name, held) = (parent.to_owned(), name.to_owned(), item.to_owned());
        let changed = changed(&given).map_err(failed)?;
        self.swaps.push(Swap { parent, name, held, given, changed });
        Ok(Placed { path, inode: stat.st_ino })
    }

    /// What is made in something of ours goes with it, or stays in it.
    fn forget_what_is_covered(&mut self, first: usize) {
        let swaps = &self.swaps;
        let mut index = 0;
        self.target.stubs.retain(|stub| {
            index += 1;
            index <= first
                || !swaps.iter().any(|swap| stub.path.starts_with(swap.parent.join(&swap.name)))
        });
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.target.root, path, DIRECTORY, Mode::empty(), beneath)
    }

    /// Whether nothing was done to what was put into the tree from below `held`; directories in it
    /// have not been looked into.
    pub(super) fn untouched(&self, held: &Path) -> bool {
        let mut own = self.swaps.iter().filter(|it| it.held.starts_with(held));
        own.all(|it| changed(&it.given) == Ok(it.changed))
    }

    /// Takes everything out of the tree, last in, first out.
    pub(super) fn undo(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        while let Some(swap) = self.swaps.pop() {
            if let Err(error) = self.take_out(&swap) {
                result = Err(error);
            }
        }
        result
    }

    fn take_out(&self, swap: &Swap) -> io::Result<()> {
        if let Ok(dir) = self.open(&swap.parent) {
            let before = rustix::fs::fstat(&dir)?;
            match exchange(&swap.held, &dir, Path::new(&swap.name)) {
                // The step removed it, which it could not have with a mount.
                Err(Errno::NOENT) => {
                    rustix::fs::renameat(CWD, &swap.held, &dir, Path::new(&swap.name))?;
                }
                result => result?,
            }
            target::restore_times(&dir, &before)?;
        }
        // The step moved it, or a directory around it, elsewhere.
        let now = target::real_path(&swap.given).map_err(io::Error::other)?;
        if now != swap.held && now.starts_with(&self.root) && now != self.root {
            let taken = swap.held.with_extension("moved");
            match fs::rename(&now, &taken) {
                Ok(()) => replace(&taken, &swap.held)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Arrangement {
    fn drop(&mut self) {
        // Whoever wants to know has undone it.
        drop(self.undo());
    }
}

/// When an inode was changed last, which nobody can set.
#[expect(clippy::useless_conversion, reason = "types differ between C libraries")]
fn changed(fd: &OwnedFd) -> Result<(i64, i64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_ctime.into(), i64::try_from(stat.st_ctime_nsec).unwrap_or_default()))
}

/// Puts `new` in place of `old`, which goes.
fn replace(new: &Path, old: &Path) -> io::Result<()> {
    match fs::symlink_metadata(old) {
        Ok(it) if it.is_dir() => fs::remove_dir_all(old)?,
        Ok(_) => fs::remove_file(old)?,
        Err(_) => {}
    }
    fs::rename(new, old)
}

/// Exchanges `item` with `name` in `dir`.
fn exchange(item: &Path, dir: &OwnedFd, name: &Path) -> Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, item, dir, name, RenameFlags::EXCHANGE) {
        // A file system that has no such call.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        result => return result,
    }
    let aside = item.with_extension("aside");
    rustix::fs::renameat(dir, name, CWD, &aside)?;
    rustix::fs::renameat(CWD, item, dir, name)?;
    rustix::fs::renameat(CWD, &aside, CWD, item)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    struct Space {
        _dir: tempfile::TempDir,
        root: PathBuf,
        hold: PathBuf,
    }

    fn space() -> Space {
        let dir = tempfile::tempdir().unwrap();
        let (root, hold) = (dir.path().join("root"), dir.path().join("hold"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&hold).unwrap();
        fs::write(root.join("etc/hosts"), "image").unwrap();
        Space { _dir: dir, root, hold }
    }

    fn put(all: &mut Arrangement, at: &str, text: &str) -> PathBuf {
        let item = all.held("item");
        fs::write(&item, text).unwrap();
        all.put(at, &item, Litter::RemoveWithParents).unwrap();
        item
    }

    #[test]
    fn a_file_is_there_and_gone_again() {
        let space = space();
        let before = fs::metadata(space.root.join("etc")).unwrap().mtime_nsec();
        let mut all = Arrangement::new(&space.root, &space.hold).unwrap();
        put(&mut all, "/etc/hosts", "ours");
        assert_eq!(fs::read_to_string(space.root.join("etc/hosts")).unwrap(), "ours");
        all.undo().unwrap();
        assert_eq!(fs::read_to_string(space.root.join("etc/hosts")).unwrap(), "image");
        assert_eq!(fs::metadata(space.root.join("etc")).unwrap().mtime_nsec(), before);
        assert!(all.stubs().is_empty());
    }

    #[test]
    fn what_the_step_removes_moves_and_replaces() {
        let space = space();
        let mut all = Arrangement::new(&space.root, &space.hold).unwrap();
        let item = put(&mut all, "/etc/hosts", "ours");
        fs::write(space.root.join("new"), "theirs").unwrap();
        fs::rename(space.root.join("new"), space.root.join("etc/hosts")).unwrap();
        all.undo().unwrap();
        assert_eq!(fs::read_to_string(space.root.join("etc/hosts")).unwrap(), "image");
        assert_eq!(fs::read_to_string(&item).unwrap(), "theirs");

        put(&mut all, "/etc/hosts", "ours");
        fs::remove_file(space.root.join("etc/hosts")).unwrap();
        all.undo().unwrap();
        assert_eq!(fs::read_to_string(space.root.join("etc/hosts")).unwrap(), "image");

        put(&mut all, "/etc/hosts", "ours");
        fs::rename(space.root.join("etc/hosts"), space.root.join("away")).unwrap();
        all.undo().unwrap();
        assert_eq!(fs::read_to_string(space.root.join("etc/hosts")).unwrap(), "image");
        assert!(!space.root.join("away").exists());
        assert_eq!(fs::read_to_string(&item).unwrap(), "ours");
    }

    #[test]
    fn what_is_made_within_a_mount_is_no_litter_of_the_tree() {
        let space = space();
        let mut all = Arrangement::new(&space.root, &space.hold).unwrap();
        let (outer, inner) = (all.held("outer"), all.held("inner"));
        fs::create_dir(&outer).unwrap();
        fs::write(&inner, "x").unwrap();
        all.put("/run/outer", &outer, Litter::RemoveWithParents).unwrap();
        all.put("/run/outer/deep/inner", &inner, Litter::RemoveWithParents).unwrap();
        let stubs: Vec<_> = all.stubs().into_iter().map(|it| it.path).collect();
        assert_eq!(stubs, [Path::new("run"), Path::new("run/outer")]);
        all.undo().unwrap();
        assert!(outer.join("deep/inner").exists() && inner.exists());
    }

    #[test]
    fn a_directory_cannot_lie_on_a_file() {
        let space = space();
        let mut all = Arrangement::new(&space.root, &space.hold).unwrap();
        let item = all.held("dir");
        fs::create_dir(&item).unwrap();
        let error = all.put("/etc/hosts", &item, Litter::Remove).unwrap_err();
        assert!(error.to_string().contains("/etc/hosts"), "{error}");
    }
}
