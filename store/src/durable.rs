//! The only way to make a file of the store appear: write it elsewhere, verify it, rename it.
//!
//! A process that is killed at any instant leaves either nothing, or unfinished files below
//! `tmp/`, which the next run sweeps. What a *power failure* can do is decided per file:
//!
//! - nothing that can be made again is synced ([`Durability::Process`]): an empty version file is
//!   one of a store that was new, and syncing gigabytes of blobs would cost more than making them
//!   again. A blob that lost its end has the wrong size and counts as missing
//!   ([`crate::blobs::Blobs::open`]); documents are hashed again whenever they are read;
//! - the database syncs itself.
//!
//! What to do is decided by `plan`, a pure function; a [`Disk`] does it, and tests fail it at
//! each move in turn.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Result, StoreError};

/// What a file survives once it has appeared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// The death of any process.
    Process,
    /// A power failure, too.
    Power,
}

/// One move of making a file appear.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Move {
    /// Bring the file's bytes to the disk.
    Sync(PathBuf),
    /// Let the file appear.
    Rename { from: PathBuf, to: PathBuf },
    /// Bring the directory's entries to the disk.
    SyncDir(PathBuf),
}

/// Whatever performs moves: the file system, or a test that fails one of them.
pub(crate) trait Disk {
    /// Performs one move.
    fn perform(&mut self, step: &Move) -> Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn perform(&mut self, step: &Move) -> Result<()> {
        match step {
            Move::Sync(path) | Move::SyncDir(path) => File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(StoreError::io("sync", path)),
            Move::Rename { from, to } => fs::rename(from, to).map_err(StoreError::io("create", to)),
        }
    }
}

/// The moves that make `temp` appear as `dest`.
pub(crate) fn plan(temp: &Path, dest: &Path, durability: Durability) -> Vec<Move> {
    let rename = Move::Rename { from: temp.to_owned(), to: dest.to_owned() };
    match durability {
        Durability::Process => vec![rename],
        Durability::Power => {
            let parent = dest.parent().unwrap_or_else(|| Path::new("/"));
            vec![Move::Sync(temp.to_owned()), rename, Move::SyncDir(parent.to_owned())]
        }
    }
}

/// Makes the finished file `temp` appear as `dest`, on the same file system, over whatever is
/// there.
///
/// # Errors
///
/// Names the move that failed; `temp` may still be there then.
pub fn publish(temp: &Path, dest: &Path, durability: Durability) -> Result<()> {
    apply(&plan(temp, dest, durability), &mut RealDisk)
}

/// Performs `moves` in order, and stops at the first failure.
pub(crate) fn apply(moves: &[Move], disk: &mut dyn Disk) -> Result<()> {
    moves.iter().try_for_each(|step| disk.perform(step))
}

/// Writes a small file: `bytes` go to `temp`, which then appears as `dest`.
///
/// # Errors
///
/// Names the file that could not be written.
pub fn write(temp: &Path, dest: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    File::create_new(temp)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(StoreError::io("write", temp))?;
    publish(temp, dest, durability)
}

/// Brings everything written below `dir`'s file system to the disk, with one call.
///
/// # Errors
///
/// The device failed.
pub fn sync_file_system(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(StoreError::io("open", dir))?;
    rustix::fs::syncfs(&file).map_err(StoreError::errno("sync", dir))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Performs moves until the `fail_at`-th.
    #[derive(Debug)]
    pub(crate) struct FailingDisk {
        pub(crate) fail_at: usize,
        pub(crate) done: usize,
    }

    impl Disk for FailingDisk {
        fn perform(&mut self, step: &Move) -> Result<()> {
            if self.done == self.fail_at {
                let error = std::io::Error::other("injected");
                return Err(StoreError::io("perform", Path::new("move"))(error));
            }
            self.done += 1;
            RealDisk.perform(step)
        }
    }

    #[test]
    fn whole_or_absent_whichever_move_fails() {
        for fail_at in 0..=3 {
            let dir = tempfile::tempdir().expect("temporary directory");
            let (temp, dest) = (dir.path().join("temp"), dir.path().join("dest"));
            fs::write(&temp, "whole").expect("write");
            let moves = plan(&temp, &dest, Durability::Power);
            let result = apply(&moves, &mut FailingDisk { fail_at, done: 0 });
            assert_eq!(result.is_ok(), fail_at == moves.len());
            match fs::read_to_string(&dest) {
                Ok(text) => assert_eq!((text.as_str(), fail_at >= 2), ("whole", true)),
                Err(_) => assert!(fail_at < 2),
            }
        }
    }
}
