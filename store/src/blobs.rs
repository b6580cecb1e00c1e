//! Bytes by digest: `blobs/sha256/<hex>`.
//!
//! A blob under its name is whole and has that digest: it was hashed while it was written, and
//! appeared only then. What a power failure may have cut short has the wrong size, which
//! [`Blobs::open`] checks against the size that the caller knows from a descriptor.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{BlobId, Digest, Hasher};
use crate::durable::{self, Durability};
use crate::error::{Result, StoreError};
use crate::layout::Layout;
use crate::temp::Temp;

/// Bytes read at a time when a file is hashed.
const BUFFER_BYTES: usize = 256 << 10;

/// The blobs of a store. Cheap to clone; may be used by several threads at once.
#[derive(Clone, Debug)]
pub struct Blobs {
    layout: Layout,
    temp: Arc<Temp>,
}

impl Blobs {
    /// The blobs below `layout`, with unfinished ones named by `temp`.
    pub(crate) fn new(layout: Layout, temp: Arc<Temp>) -> Self {
        Self { layout, temp }
    }

    /// Bytes of the blob, or none if it is not here.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn size(&self, id: &BlobId) -> Result<Option<u64>> {
        let path = self.layout.blob(id);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("look at", &path)(source)),
        }
    }

    /// Opens a blob of `size` bytes; none if it is not here. One that has another size (a power
    /// failure) is removed and counts as not here.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or removed.
    pub fn open(&self, id: &BlobId, size: u64) -> Result<Option<File>> {
        let Some((file, found)) = self.open_any(id)? else { return Ok(None) };
        if found == size {
            return Ok(Some(file));
        }
        self.remove(id)?;
        Ok(None)
    }

    /// Opens a blob whose size is not known; gives its size. None if it is not here.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open_any(&self, id: &BlobId) -> Result<Option<(File, u64)>> {
        let path = self.layout.blob(id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::io("open", &path)(source)),
        };
        let size = file.metadata().map_err(StoreError::io("look at", &path))?.len();
        Ok(Some((file, size)))
    }

    /// A whole blob of at most `limit` bytes (a configuration, a manifest), verified.
    ///
    /// # Errors
    ///
    /// It is not here, too large, or damaged (then it is removed, too).
    pub fn read(&self, id: &BlobId, limit: u64) -> Result<Vec<u8>> {
        let (mut file, size) = self.open_any(id)?.ok_or(StoreError::Missing(*id))?;
        if size > limit {
            return Err(StoreError::TooLarge { subject: format!("blob {id}"), found: size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(StoreError::io("read", &self.layout.blob(id)))?;
        let found = BlobId(Digest::of(&bytes));
        if found == *id {
            return Ok(bytes);
        }
        self.remove(id)?;
        Err(StoreError::WrongDigest { expected: *id, found })
    }

    /// Puts `bytes` into the store, unless they are there.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId> {
        let id = BlobId(Digest::of(bytes));
        if self.size(&id)? == Some(bytes.len() as u64) {
            return Ok(id);
        }
        let temp = self.temp.path("blob")?;
        durable::write(&temp, &self.layout.blob(&id), bytes, Durability::Process)?;
        Ok(id)
    }

    /// Starts a blob whose digest nobody knows yet.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn writer(&self) -> Result<BlobWriter> {
        let temp = self.temporary()?;
        let file = File::create_new(&temp).map_err(StoreError::io("create", &temp))?;
        Ok(self.begin(file, temp))
    }

    /// Starts a blob in the empty file at `path`, on the store's file system, which others read while
    /// it grows: [`Self::growing`] has made it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn writer_into(&self, path: PathBuf) -> Result<BlobWriter> {
        let file = File::options().write(true).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        Ok(self.begin(file, path))
    }

    fn begin(&self, file: File, temp: PathBuf) -> BlobWriter {
        let (layout, hasher) = (self.layout.clone(), Hasher::new());
        BlobWriter { layout, file, temp: Unfinished(temp), hasher, size: 0, expected: None }
    }

    /// Where a blob may be written before it has its name.
    pub(crate) fn temporary(&self) -> Result<PathBuf> {
        self.temp.path("blob")
    }

    /// Takes over a finished file (a resumed download) on the store's file system: hashes it, and
    /// renames it if it is `id`. Otherwise the file is removed.
    ///
    /// # Errors
    ///
    /// Size or digest differ, or the file cannot be read or renamed.
    pub fn adopt(&self, path: &Path, id: BlobId, size: u64) -> Result<()> {
        let unfinished = Unfinished(path.to_owned());
        let mut file = File::open(path).map_err(StoreError::io("open", path))?;
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; BUFFER_BYTES]);
        let mut found_size = 0;
        loop {
            let read = file.read(&mut buffer).map_err(StoreError::io("read", path))?;
            if read == 0 {
                break;
            }
            found_size += read as u64;
            hasher.update(&buffer[..read]);
        }
        check(hasher.finish(), found_size, Some((id, size)))?;
        durable::publish(path, &self.layout.blob(&id), Durability::Process)?;
        unfinished.keep();
        Ok(())
    }

    /// Removes a blob; fine if it is not there. Only for whoever holds the store exclusively, or
    /// knows that the blob is damaged.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn remove(&self, id: &BlobId) -> Result<()> {
        let path = self.layout.blob(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All blobs with their sizes, sorted by digest.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<(BlobId, u64)>> {
        let dir = self.layout.blobs();
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read the directory", &dir))? {
            let entry = entry.map_err(StoreError::io("read the directory", &dir))?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            if let (Some(id), Ok(metadata)) = (id, entry.metadata()) {
                all.push((BlobId(id), metadata.len()));
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// File of the blob, whether or not it is there: for exports by reference.
    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.layout.blob(id)
    }
}

/// Compares what came with what was announced.
fn check(found: Digest, size: u64, expected: Option<(BlobId, u64)>) -> Result<BlobId> {
    let found = BlobId(found);
    match expected {
        Some((blob, expected)) if expected != size => {
            Err(StoreError::WrongSize { blob, expected, found: size })
        }
        Some((expected, _)) if expected != found => {
            Err(StoreError::WrongDigest { expected, found })
        }
        Some(_) | None => Ok(found),
    }
}

/// A temporary file: removed when dropped, unless kept.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Unfinished {
    fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // A file that stays is swept by the next run.
            drop(fs::remove_file(&self.0));
        }
    }
}

/// A blob that is being written: hashed on the way, visible only after [`BlobWriter::finish`].
/// Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Layout,
    file: File,
    temp: Unfinished,
    hasher: Hasher,
    size: u64,
    expected: Option<(BlobId, u64)>,
}

impl BlobWriter {
    /// From now on it must turn out to be `id`, of `size` bytes.
    #[must_use]
    pub fn expecting(mut self, id: BlobId, size: u64) -> Self {
        self.expected = Some((id, size));
        self
    }

    /// Bytes written so far.
    pub const fn written(&self) -> u64 {
        self.size
    }

    /// Verifies the blob and lets it appear; gives its digest and size.
    ///
    /// # Errors
    ///
    /// It is not the blob that was announced, or cannot be renamed. Nothing appears then.
    pub fn finish(self) -> Result<(BlobId, u64)> {
        let id = check(self.hasher.finish(), self.size, self.expected)?;
        durable::publish(&self.temp.0, &self.layout.blob(&id), Durability::Process)?;
        self.temp.keep();
        Ok((id, self.size))
    }
}

impl Write for BlobWriter {
    /// Fails as soon as there are more bytes than announced.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.size + bytes.len() as u64;
        if let Some((blob, expected)) = self.expected
            && size > expected
        {
            let error = StoreError::WrongSize { blob, expected, found: size };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size = size;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::tests::FailingDisk;
    use crate::local::Store;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(dir.path()).expect("opens");
        (dir, store)
    }

    #[test]
    fn what_is_put_comes_back() {
        let (_dir, store) = store();
        let blobs = store.blobs();
        let id = blobs.put(b"config").expect("puts");
        assert_eq!(id, BlobId(Digest::of(b"config")));
        assert_eq!(blobs.read(&id, 100).expect("reads"), b"config");
        assert_eq!(blobs.list().expect("lists"), [(id, 6)]);
        assert!(matches!(blobs.read(&id, 5), Err(StoreError::TooLarge { .. })));
        blobs.remove(&id).expect("removes");
        assert_eq!(blobs.size(&id).expect("asks"), None);
    }

    #[test]
    fn a_wrong_blob_leaves_no_trace() {
        let (dir, store) = store();
        let id = BlobId(Digest::of(b"layer"));
        for (bytes, what) in [(&b"laye"[..], "short"), (b"lover", "other"), (b"layers", "long")] {
            let mut writer = store.blobs().writer().expect("starts").expecting(id, 5);
            let written = writer.write_all(bytes);
            assert!(written.is_err() || writer.finish().is_err(), "{what}");
        }
        assert_eq!(store.blobs().list().expect("lists"), []);
        drop(store);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).expect("reads").count(), 0);
    }

    #[test]
    fn a_blob_cut_by_a_power_failure_is_missing() {
        let (_dir, store) = store();
        let id = store.blobs().put(b"layer").expect("puts");
        fs::write(store.blobs().path(&id), b"lay").expect("cuts");
        assert!(store.blobs().open(&id, 5).expect("opens").is_none());
        let id = store.blobs().put(b"manifest").expect("puts");
        fs::write(store.blobs().path(&id), b"mani\0\0\0\0").expect("damages");
        assert!(matches!(store.blobs().read(&id, 99), Err(StoreError::WrongDigest { .. })));
        assert_eq!(store.blobs().list().expect("lists"), []);
    }

    #[test]
    fn a_resumed_download_is_adopted_only_if_it_is_right() {
        let (dir, store) = store();
        let path = dir.path().join("downloads/part");
        let id = BlobId(Digest::of(b"layer"));
        fs::write(&path, b"lover").expect("writes");
        assert!(store.blobs().adopt(&path, id, 5).is_err());
        assert!(!path.exists());
        fs::write(&path, b"layer").expect("writes");
        store.blobs().adopt(&path, id, 5).expect("adopts");
        assert_eq!(store.blobs().read(&id, 5).expect("reads"), b"layer");
    }

    /// The writer is killed after each of its moves in turn (no destructor runs); then another
    /// process opens the store.
    #[test]
    fn killed_at_any_move_a_blob_is_whole_or_absent() {
        for killed_at in 0..=4 {
            let dir = tempfile::tempdir().expect("temporary directory");
            let layout = Layout::open_or_create(dir.path()).expect("creates");
            let temp = Arc::new(Temp::new(layout.clone()));
            let blobs = Blobs::new(layout.clone(), Arc::clone(&temp));
            let mut writer = blobs.writer().expect("starts");
            for part in [&b"first "[..], b"second "].iter().take(killed_at) {
                writer.write_all(part).expect("writes");
            }
            if killed_at > 2 {
                let id = BlobId(writer.hasher.clone().finish());
                let moves = durable::plan(&writer.temp.0, &layout.blob(&id), Durability::Process);
                let mut disk = FailingDisk { fail_at: killed_at - 3, done: 0 };
                let finished = durable::apply(&moves, &mut disk).is_ok();
                assert_eq!(finished, killed_at == 4);
            }
            std::mem::forget(writer.temp);
            temp.abandon();

            let store = Store::open(dir.path()).expect("opens");
            assert_eq!(store.sweep().expect("sweeps"), Vec::<PathBuf>::new());
            assert_eq!(fs::read_dir(layout.tmp()).expect("reads").count(), 0);
            let found = store.blobs().list().expect("lists");
            assert_eq!(found.len(), usize::from(killed_at == 4));
            for (id, size) in found {
                assert_eq!(store.blobs().read(&id, size).expect("reads"), b"first second ");
            }
        }
    }
}
