//! Every file name below the store's root, and the format version.
//!
//! ```text
//! version                 decimal format number and a newline
//! lock                    shared by every build, exclusive for prune
//! db.sqlite, -wal, -shm   tags, records, sealed layers (rebuildable: a cache of facts)
//! blobs/sha256/<hex>      bytes by digest
//! layers/<id>/listing     what the layer means
//! layers/<id>/fs-<key>/   its files, written under the id mapping <key>
//! trees/                  working trees of the plain snapshot driver
//! cache-mounts/<key>/     directories of `RUN --mount=type=cache`
//! stat/                   stat caches of build contexts
//! downloads/              partial downloads, resumable
//! locks/<hex>             one per key that is being built right now
//! probes/                 what this place allows, each file with the facts under which it counts
//! mnt/                    where each worker mounts its scratch space; empty on disk
//! tmp/<pid>-<n>/          unfinished work of one process, with tmp/<pid>-<n>.lock held by it
//! ```
//!
//! Nothing here touches the disk except [`Layout::open_or_create`].

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::digest::{BlobId, Digest};
use crate::durable::{self, Durability};
use crate::error::{Result, StoreError};

/// The store format that this version reads and writes.
pub const FORMAT: u32 = 1;

/// What the name of an unfinished version file begins with; the maker's process id follows.
const NEW_VERSION: &str = "version.new-";

/// The version file is not read beyond this many bytes.
const MAX_VERSION_BYTES: usize = 64;

/// Longest name of a layer or of a cache mount.
const MAX_NAME_BYTES: usize = 128;

/// The names of a store's files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The names below `root`, whether or not anything is there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Opens the store at `root`, or makes an empty one where there is nothing.
    ///
    /// # Errors
    ///
    /// A newer format, a directory with other files, a damaged version file, or no permission.
    pub fn open_or_create(root: impl Into<PathBuf>) -> Result<Self> {
        let layout = Self::new(root);
        let path = layout.version();
        match fs::read(&path) {
            // A power failure right after the store was made.
            Ok(bytes) if bytes.is_empty() => layout.write_version()?,
            Ok(bytes) => layout.check_version(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => layout.create_or_find()?,
            Err(source) => return Err(StoreError::io("read", &path)(source)),
        }
        Ok(layout)
    }

    fn check_version(&self, bytes: &[u8]) -> Result<()> {
        let found = std::str::from_utf8(bytes)
            .ok()
            .filter(|text| text.len() <= MAX_VERSION_BYTES)
            .and_then(|text| text.trim_end().parse::<u32>().ok());
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(StoreError::NewerFormat { root: self.root.clone(), found, supported: FORMAT })
            }
            Some(_) | None => Err(StoreError::Damaged {
                path: self.version(),
                what: "it does not hold a format number".to_owned(),
            }),
        }
    }

    /// Makes the store, unless another process makes it at the same time.
    fn create_or_find(&self) -> Result<()> {
        self.create().or_else(|error| match fs::read(self.version()) {
            Ok(bytes) => self.check_version(&bytes),
            Err(_) => Err(error),
        })
    }

    /// Makes the directories, then the version file: a store without it is an unfinished one, and
    /// making it again is harmless.
    fn create(&self) -> Result<()> {
        if !self.is_vacant()? {
            return Err(StoreError::NotAStore { root: self.root.clone() });
        }
        // Files of images can have set-user-id bits: nobody else is to get at them.
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        for dir in self.directories() {
            private.create(&dir).map_err(StoreError::io("create the directory", &dir))?;
        }
        self.write_version()
    }

    fn write_version(&self) -> Result<()> {
        let temp = self.root.join(format!("{NEW_VERSION}{}", std::process::id()));
        let text = format!("{FORMAT}\n");
        fs::write(&temp, text).map_err(StoreError::io("write", &temp))?;
        durable::publish(&temp, &self.version(), Durability::Process)
    }

    /// Whether the root is missing, empty, or holds only what `create` makes before the version
    /// file.
    fn is_vacant(&self) -> Result<bool> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(source) => return Err(StoreError::io("read the directory", &self.root)(source)),
        };
        let mut own: Vec<_> =
            self.directories().iter().filter_map(|dir| self.top(dir)).collect::<Vec<_>>();
        own.extend(["version".into(), "lock".into(), "lost+found".into()]);
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read the directory", &self.root))?;
            let name = entry.file_name();
            let unfinished = name.to_str().is_some_and(|name| name.starts_with(NEW_VERSION));
            if !unfinished && !own.contains(&name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn top(&self, dir: &Path) -> Option<std::ffi::OsString> {
        let first = dir.strip_prefix(&self.root).ok()?.components().next()?;
        Some(first.as_os_str().to_owned())
    }

    fn directories(&self) -> [PathBuf; 10] {
        [
            self.blobs(),
            self.layers(),
            self.trees(),
            self.cache_mounts(),
            self.stat(),
            self.downloads(),
            self.locks(),
            self.probes(),
            self.mnt(),
            self.tmp(),
        ]
    }

    /// Where a worker mounts what only lives as long as itself: on disk it stays empty.
    pub fn mnt(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// What this place allows, as found out before.
    pub fn probes(&self) -> PathBuf {
        self.root.join("probes")
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// File with the format number.
    pub fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    /// File that is locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("db.sqlite")
    }

    /// Directory of the blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// One blob.
    pub fn blob(&self, id: &BlobId) -> PathBuf {
        let mut path = self.root.join("blobs/sha256/");
        path.push(id.0.hex());
        path
    }

    /// Directory of the layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Directory of one layer.
    ///
    /// # Errors
    ///
    /// The id is not a plain name.
    pub fn layer(&self, id: &str) -> Result<PathBuf> {
        plain_name("layer", id)?;
        Ok(self.layers().join(id))
    }

    /// The listing of one layer.
    ///
    /// # Errors
    ///
    /// The id is not a plain name.
    pub fn layer_listing(&self, id: &str) -> Result<PathBuf> {
        Ok(self.layer(id)?.join("listing"))
    }

    /// The files of one layer, as written under the id mapping `map_key`.
    ///
    /// # Errors
    ///
    /// The id or the key is not a plain name.
    pub fn layer_files(&self, id: &str, map_key: &str) -> Result<PathBuf> {
        plain_name("id mapping", map_key)?;
        Ok(self.layer(id)?.join(format!("fs-{map_key}")))
    }

    /// Working trees of the plain snapshot driver.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    /// Directory of the cache mounts.
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    /// One cache mount.
    ///
    /// # Errors
    ///
    /// The key is not a plain name (use the digest of the user's id).
    pub fn cache_mount(&self, key: &str) -> Result<PathBuf> {
        plain_name("cache mount", key)?;
        Ok(self.cache_mounts().join(key))
    }

    /// Stat caches.
    pub fn stat(&self) -> PathBuf {
        self.root.join("stat")
    }

    /// Partial downloads.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Directory of the locks of keys.
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// The lock of one key.
    pub fn key_lock(&self, key: &Digest) -> PathBuf {
        self.locks().join(key.hex())
    }

    /// Unfinished work.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// Refuses whatever could be more than one path component, or a hidden file.
fn plain_name(what: &'static str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(StoreError::BadName { what, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_then_opens() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("a/b");
        let layout = Layout::open_or_create(&root).expect("creates");
        assert_eq!(fs::read_to_string(layout.version()).expect("version"), "1\n");
        assert_eq!(Layout::open_or_create(&root).expect("opens"), layout);
    }

    #[test]
    fn creation_cut_short_is_done_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("layers")).expect("mkdir");
        fs::write(dir.path().join("version.new-1"), "").expect("write");
        Layout::open_or_create(dir.path()).expect("creates");
    }

    #[test]
    fn an_empty_version_file_is_written_anew() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout::open_or_create(dir.path()).expect("creates");
        fs::write(layout.version(), "").expect("write");
        fs::write(layout.database(), "").expect("write");
        Layout::open_or_create(dir.path()).expect("opens");
        assert_eq!(fs::read_to_string(layout.version()).expect("version"), "1\n");
    }

    #[test]
    fn newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("version"), "7\n").expect("write");
        let error = Layout::open_or_create(dir.path()).expect_err("refuses").to_string();
        assert!(error.contains("has format 7, this rbuild knows formats up to 1"), "{error}");
    }

    #[test]
    fn other_directories_are_left_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("thesis.tex"), "").expect("write");
        let error = Layout::open_or_create(dir.path()).expect_err("refuses");
        assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    }

    #[test]
    fn names_cannot_leave_the_store() {
        let layout = Layout::new("/store");
        for name in ["", ".", "..", "a/b", "../x", "a\0"] {
            assert!(layout.layer(name).is_err(), "{name}");
        }
        assert_eq!(layout.layer("ab12").expect("plain"), Path::new("/store/layers/ab12"));
    }
}
