//! Locks between processes: the store, a key, unfinished work.
//!
//! All are `flock(2)` locks: they belong to an open file, so they end with the process however
//! it ends, and children that do not inherit the file do not hold them. Lock files that are
//! removed again (keys, unfinished work) are only trusted if, once locked, they still have their
//! name: otherwise the holder before us has removed it, and somebody else may lock a new one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Result, StoreError};
use crate::layout::Layout;

/// Gives up looking for a free name below `tmp/` after this many.
const MAX_NAMES: u32 = 100_000;

/// The store as a whole: shared by builds, exclusive for removal. Released when dropped.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Waits until nobody holds the store exclusively, then shares it.
    ///
    /// # Errors
    ///
    /// The lock file cannot be opened, or the file system has no locks.
    pub fn shared(layout: &Layout) -> Result<Self> {
        let path = layout.lock();
        let file = open_lock(&path)?;
        flock(&file, FlockOperation::LockShared, &path)?;
        Ok(Self { _file: file })
    }

    /// Takes the store for itself.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if somebody else uses it right now.
    pub fn exclusive(layout: &Layout) -> Result<Self> {
        let path = layout.lock();
        let file = open_lock(&path)?;
        if try_flock(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
            Ok(Self { _file: file })
        } else {
            Err(StoreError::Busy { root: layout.root().to_owned() })
        }
    }
}

/// The right to build one key. Whoever waits for it looks the key up again once it has it.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl KeyLock {
    /// Waits until no other process builds `key`.
    ///
    /// A process must not wait while it holds another key's lock, or two of them can wait for
    /// each other.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made, or the file system has no locks.
    pub fn wait(layout: &Layout, key: &Digest) -> Result<Self> {
        let path = layout.key_lock(key);
        loop {
            let file = open_lock(&path)?;
            flock(&file, FlockOperation::LockExclusive, &path)?;
            if has_its_name(&file, &path) {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// Takes the right if no other process builds `key` right now.
    ///
    /// # Errors
    ///
    /// As [`KeyLock::wait`].
    pub fn try_take(layout: &Layout, key: &Digest) -> Result<Option<Self>> {
        let path = layout.key_lock(key);
        loop {
            let file = open_lock(&path)?;
            if !try_flock(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
                return Ok(None);
            }
            if has_its_name(&file, &path) {
                return Ok(Some(Self { path, _file: file }));
            }
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While still locked, so that nobody else's file is removed. A name that stays is harmless.
        drop(fs::remove_file(&self.path));
    }
}

/// A directory below `tmp/` for unfinished work of this process; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    lock: PathBuf,
    held: Option<File>,
}

impl Scratch {
    /// Makes a directory that other processes leave alone as long as this one lives.
    ///
    /// # Errors
    ///
    /// It cannot be made, or the file system has no locks.
    pub fn create(layout: &Layout) -> Result<Self> {
        let pid = std::process::id();
        for number in 0..MAX_NAMES {
            let lock = layout.tmp().join(format!("{pid}-{number}.lock"));
            let file = match File::create_new(&lock) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(StoreError::io("create", &lock)(source)),
            };
            flock(&file, FlockOperation::LockExclusive, &lock)?;
            if !has_its_name(&file, &lock) {
                continue;
            }
            let dir = lock.with_extension("");
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(Self { dir, lock, held: Some(file) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StoreError::io("create the directory", &dir)(source)),
            }
        }
        Err(StoreError::Damaged {
            path: layout.tmp(),
            what: format!("it holds more than {MAX_NAMES} unfinished pieces of work"),
        })
    }

    /// The directory, empty at first.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lets go as the death of the process would: the lock is free, the files stay.
    #[cfg(test)]
    pub(crate) fn abandon(mut self) {
        drop(self.held.take());
        std::mem::forget(self);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed here (files of subordinate ids) keeps its lock file, unlocked, and
        // the next sweep hands it to a worker.
        if fs::remove_dir_all(&self.dir).is_ok() {
            drop(fs::remove_file(&self.lock));
        }
        // Last: until now nobody else touches the directory.
        drop(self.held.take());
    }
}

/// Removes what dead processes left below `tmp/`; returns the directories that this process may
/// not remove (files of subordinate ids): a worker can.
///
/// # Errors
///
/// `tmp/` cannot be read.
pub fn sweep(layout: &Layout) -> Result<Vec<PathBuf>> {
    let tmp = layout.tmp();
    let mut left = Vec::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(&tmp).map_err(StoreError::io("read the directory", &tmp))? {
        let name = entry.map_err(StoreError::io("read the directory", &tmp))?.file_name();
        names.push(PathBuf::from(name).with_extension(""));
    }
    names.sort();
    names.dedup();
    for name in names {
        let dir = tmp.join(name);
        let lock = dir.with_extension("lock");
        // The lock file is made before the directory: without it, the maker is dead.
        let held = match File::open(&lock) {
            Ok(file) => {
                if !try_flock(&file, FlockOperation::NonBlockingLockExclusive, &lock)? {
                    continue;
                }
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(StoreError::io("open", &lock)(source)),
        };
        crate::lent::put_back(layout.root(), &dir);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => left.push(dir),
            Ok(()) | Err(_) => drop(fs::remove_file(&lock)),
        }
        drop(held);
    }
    Ok(left)
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(StoreError::io("open", path))
}

fn flock(file: &File, operation: FlockOperation, path: &Path) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation))
        .map_err(StoreError::errno("lock", path))
}

/// Whether the lock was free.
fn try_flock(file: &File, operation: FlockOperation, path: &Path) -> Result<bool> {
    match rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(StoreError::errno("lock", path)(errno)),
    }
}

/// Whether `path` still is the name of `file`.
fn has_its_name(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout::open_or_create(dir.path()).expect("creates");
        (dir, layout)
    }

    #[test]
    fn removal_excludes_builds() {
        let (_dir, layout) = store();
        let one = StoreLock::shared(&layout).expect("first build");
        let two = StoreLock::shared(&layout).expect("second build");
        assert!(matches!(StoreLock::exclusive(&layout), Err(StoreError::Busy { .. })));
        drop((one, two));
        StoreLock::exclusive(&layout).expect("nobody left");
    }

    #[test]
    fn a_key_is_built_by_one() {
        let (_dir, layout) = store();
        let key = Digest::of(b"key");
        let lock = KeyLock::wait(&layout, &key).expect("locks");
        assert!(KeyLock::try_take(&layout, &key).expect("asks").is_none());
        let waiter = std::thread::spawn({
            let layout = layout.clone();
            move || KeyLock::wait(&layout, &key).is_ok()
        });
        drop(lock);
        assert!(waiter.join().expect("thread"));
        assert_eq!(fs::read_dir(layout.locks()).expect("reads").count(), 0);
    }

    #[test]
    fn sweeps_the_dead_and_spares_the_living() {
        let (_dir, layout) = store();
        let living = Scratch::create(&layout).expect("creates");
        fs::write(living.dir().join("half"), "").expect("write");
        let dead = layout.tmp().join("1-0");
        fs::create_dir(&dead).expect("mkdir");
        fs::write(dead.join("half"), "").expect("write");
        fs::write(layout.tmp().join("1-0.lock"), "").expect("write");
        fs::create_dir(layout.tmp().join("2-0")).expect("mkdir");

        assert_eq!(sweep(&layout).expect("sweeps"), Vec::<PathBuf>::new());
        assert!(living.dir().join("half").exists());
        assert_eq!(fs::read_dir(layout.tmp()).expect("reads").count(), 2);
        drop(living);
        assert_eq!(fs::read_dir(layout.tmp()).expect("reads").count(), 0);
    }
}
