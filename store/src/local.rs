//! What one process has open of a store.
//!
//! Opening costs a handful of system calls: the version file and the shared lock. The database and
//! the directory for unfinished work are opened when they are first needed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::blobs::Blobs;
use crate::db::Db;
use crate::digest::Digest;
use crate::error::Result;
use crate::layout::Layout;
use crate::lock::{self, KeyLock, StoreLock};
use crate::temp::Temp;

/// An open store. `Send + Sync`; shared by reference or in an `Arc`.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    temp: Arc<Temp>,
    blobs: Blobs,
    db: OnceLock<Db>,
    _lock: Option<StoreLock>,
}

impl Store {
    /// Opens the store at `root` for a build, or makes an empty one. Waits while another process
    /// removes things from it.
    ///
    /// # Errors
    ///
    /// As [`Layout::open_or_create`]; or the file system has no locks.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let layout = Layout::open_or_create(root)?;
        let lock = StoreLock::shared(&layout)?;
        Ok(Self::with(layout, Some(lock)))
    }

    /// Opens the store at `root` to remove things from it: nobody else has it open meanwhile.
    ///
    /// # Errors
    ///
    /// [`crate::error::StoreError::Busy`] if somebody has; else as [`Store::open`].
    pub fn open_exclusive(root: impl Into<PathBuf>) -> Result<Self> {
        let layout = Layout::open_or_create(root)?;
        let lock = StoreLock::exclusive(&layout)?;
        Ok(Self::with(layout, Some(lock)))
    }

    /// Opens the store at `root` in a child of a process that has it open, and outlives the child
    /// (a worker): the parent's lock protects both.
    ///
    /// # Errors
    ///
    /// As [`Layout::open_or_create`].
    pub fn attach(root: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self::with(Layout::open_or_create(root)?, None))
    }

    fn with(layout: Layout, lock: Option<StoreLock>) -> Self {
        let temp = Arc::new(Temp::new(layout.clone()));
        let blobs = Blobs::new(layout.clone(), Arc::clone(&temp));
        Self { layout, temp, blobs, db: OnceLock::new(), _lock: lock }
    }

    /// Root of the store.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Names of the store's files.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The blobs.
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Names for unfinished files of this process.
    pub fn temp(&self) -> &Temp {
        &self.temp
    }

    /// The database, opened on first use.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or was written by a newer rbuild.
    pub fn db(&self) -> Result<&Db> {
        if let Some(db) = self.db.get() {
            return Ok(db);
        }
        let db = Db::open(&self.layout.database())?;
        Ok(self.db.get_or_init(|| db))
    }

    /// Waits for the right to build `key`; see [`KeyLock::wait`].
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub fn lock_key(&self, key: &Digest) -> Result<KeyLock> {
        KeyLock::wait(&self.layout, key)
    }

    /// Takes the right to build `key`, unless another process has it.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub fn try_lock_key(&self, key: &Digest) -> Result<Option<KeyLock>> {
        KeyLock::try_take(&self.layout, key)
    }

    /// Removes what dead processes left unfinished; returns the directories that only a worker can
    /// remove.
    ///
    /// # Errors
    ///
    /// `tmp/` cannot be read.
    pub fn sweep(&self) -> Result<Vec<PathBuf>> {
        lock::sweep(&self.layout)
    }
}
