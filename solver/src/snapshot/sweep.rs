//! Takes things off the disk, and says how much they are.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::PoisonError;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::LayerStore;
use super::dir::{DIR_FLAGS, MAX_DEPTH, on_deep_stack, open_beneath, open_dir, split, stat};
use super::error::{Error, show};
use super::scan;

/// Bytes of a block as `statx` counts them.
const BLOCK_BYTES: u64 = 512;

impl LayerStore {
    /// Removes files and directories of the store, given below its root (or absolute, in it); what
    /// is not there is no error. Each vanishes at once, however long its removal takes.
    ///
    /// # Errors
    ///
    /// If one cannot be removed or lies outside of the store.
    pub fn remove(&self, paths: &[PathBuf]) -> Result<(), Error> {
        let work = self.work_dir("removed")?;
        for (at, path) in paths.iter().enumerate() {
            let from = self.below(path)?;
            match fs::rename(&from, work.path.join(at.to_string())) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => {
                    let shown = from.as_os_str().as_encoded_bytes();
                    result.map_err(Error::io("remove", shown))?;
                }
            }
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).clear();
        work.remove()
    }

    /// Bytes on disk (allocated blocks, hard links counted once) of files and directories of the
    /// store, given as in [`Self::remove`].
    ///
    /// # Errors
    ///
    /// If the disk refuses to tell.
    pub fn size(&self, paths: &[PathBuf]) -> Result<u64, Error> {
        let root = super::files::open_path(self.store.root())?;
        let mut sum = Sum::default();
        for path in paths {
            let path = self.below(path)?;
            let path = path.strip_prefix(self.store.root()).unwrap_or(&path);
            let path = path.as_os_str().as_encoded_bytes();
            let (parent, name) = split(path);
            match open_beneath(root.as_fd(), parent, DIR_FLAGS) {
                Ok(dir) => on_deep_stack(|| sum.add(dir.as_fd(), name, 0))?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::io("open", path)(errno)),
            }
        }
        Ok(sum.bytes)
    }

    /// A path of the store as an absolute one.
    pub(crate) fn below(&self, path: &Path) -> Result<PathBuf, Error> {
        let relative = path.strip_prefix(self.store.root()).unwrap_or(path);
        let is_plain = |it: Component<'_>| matches!(it, Component::Normal(_));
        if relative.as_os_str().is_empty() || !relative.components().all(is_plain) {
            let path = show(path.as_os_str().as_encoded_bytes());
            return Err(Error::Bug(format!("`{path}` is not below the store")));
        }
        Ok(self.store.root().join(relative))
    }
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    /// Inodes with several names that have been counted.
    seen: HashSet<(u32, u32, u64)>,
}

impl Sum {
    fn add(&mut self, dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Error> {
        match stat(dir, name) {
            Ok(stat) => self.add_inode(dir, name, &stat, depth),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("look at", name)(errno)),
        }
    }

    fn add_inode(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        stat: &Statx,
        depth: usize,
    ) -> Result<(), Error> {
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let id = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        if is_dir || stat.stx_nlink == 1 || self.seen.insert(id) {
            self.bytes += stat.stx_blocks * BLOCK_BYTES;
        }
        // What may not be listed, and what is too deep, is counted as its directory alone.
        if !is_dir || depth > MAX_DEPTH {
            return Ok(());
        }
        let Ok(dir) = open_dir(dir, name) else { return Ok(()) };
        let items = scan::list(dir.as_fd()).map_err(Error::io("read the directory", name))?;
        items.iter().try_for_each(|it| self.add_inode(dir.as_fd(), &it.name, &it.stat, depth + 1))
    }
}
