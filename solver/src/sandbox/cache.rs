//! The directories of `RUN --mount=type=cache`.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rbuild_store::lent;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::fuse::Mounted;
use super::tree_copy;
use crate::snapshot::{Access, LayerStore, Prepared, Rootfs};
use crate::worker::proto::LayerId;

/// What a new cache directory is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'a> {
    /// Its content: a tree; empty for none.
    pub(super) base: &'a [LayerId],
    /// Path in `base`.
    pub(super) selector: &'a str,
    /// Permission bits, where there is no `base`.
    pub(super) mode: u32,
    /// Owner, where there is no `base`.
    pub(super) uid: u32,
    /// Group, where there is no `base`.
    pub(super) gid: u32,
}

/// Why a cache directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    /// The path leads out of the store.
    #[error("the cache directory `{0}` is not below the store")]
    Outside(PathBuf),
    /// The host refused.
    #[error("cannot make the cache directory `{path}`")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody knows whether it is lent.
    #[error(transparent)]
    Store(#[from] rbuild_store::error::StoreError),
    /// Its first content is not there.
    #[error("cannot fill the cache directory")]
    Base(#[from] crate::snapshot::Error),
}

/// The directory `dir` below `store`, made as `new` says if it is missing and not lent to a step of
/// this process.
///
/// It appears whole or not at all; if two processes make it at the same time, one of them wins.
///
/// # Errors
///
/// If it cannot be made.
pub(super) fn open(
    layers: &LayerStore,
    store: &Path,
    dir: &Path,
    new: &New<'_>,
    is_lent: impl Fn(&Path) -> bool,
    show: impl FnOnce(&Prepared) -> io::Result<(Rootfs, Option<Mounted>)>,
) -> Result<PathBuf, CacheError> {
    if !dir.components().all(|it| matches!(it, Component::Normal(_))) || dir.as_os_str().is_empty()
    {
        return Err(CacheError::Outside(dir.to_owned()));
    }
    let path = store.join(dir);
    let error = |source| CacheError::Io { path: path.clone(), source };
    if path.is_dir() || is_lent(&path) {
        return Ok(path);
    }
    // It may be in the tree of a step of another process that runs without mounts.
    drop(lent::wait_for(layers.store(), &path)?);
    if path.is_dir() {
        return Ok(path);
    }
    let parent = path.parent().unwrap_or(store);
    fs::create_dir_all(parent).map_err(error)?;
    let temp = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).map_err(error)?;
    let inner = temp.path().join("dir");
    if new.base.is_empty() {
        fs::create_dir(&inner).map_err(error)?;
        fs::set_permissions(&inner, fs::Permissions::from_mode(new.mode)).map_err(error)?;
        let handle = fs::File::open(&inner).map_err(error)?;
        let given = crate::snapshot::owner::give(handle.as_fd(), new.uid, new.gid);
        given.map_err(|errno| error(errno.into()))?;
    } else {
        let prepared = layers.prepare(new.base, Access::Read)?;
        let copied = show(&prepared).and_then(|(rootfs, mounted)| {
            tree_copy::copy(&rootfs, new.selector, &inner)?;
            mounted.map_or(Ok(()), Mounted::end)
        });
        layers.discard(prepared)?;
        copied.map_err(error)?;
    }
    match rename_new(&inner, &path) {
        Ok(()) => Ok(path),
        // Somebody else was faster.
        Err(_) if path.is_dir() => Ok(path),
        Err(errno) => Err(error(errno.into())),
    }
}

/// Gives a directory a name that nothing has: an ordinary rename would put it in the place of an
/// empty one, which another step has taken already.
fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system has that.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(from, to),
        result => result,
    }
}
