//! Blobs that are read while they are written.
//!
//! A writer (perhaps another process) fills a file of the store from front to back; whoever reads
//! it follows, and hears in the end what it turned out to be. The writer never waits for a reader,
//! and a reader can begin anew at any time, for nothing is consumed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::blobs::{BlobWriter, Blobs};
use crate::digest::BlobId;
use crate::error::{Result, StoreError};

/// Between two looks whether the file has grown: the first time, and once nothing came for a while.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(5)];

/// A blob on its way into the store, for readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Growing {
    file: Arc<File>,
    end: watch::Receiver<Option<(BlobId, u64)>>,
}

/// The end of a [`Growing`], for whoever knows of it. Dropped without [`Growth::finish`], the blob
/// counts as failed.
#[derive(Debug)]
pub struct Growth(watch::Sender<Option<(BlobId, u64)>>);

/// The writer gave up, or the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GrowingError {
    /// The blob was not finished.
    #[error("the blob was not finished")]
    Abandoned,
    /// The file cannot be read.
    #[error("cannot read a blob")]
    Read(#[source] std::io::Error),
}

impl Blobs {
    /// Makes the file for a blob that is to be read while it is written: by whoever is given the
    /// path (see [`Blobs::writer_into`]), who also removes or renames it.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn growing(&self) -> Result<(PathBuf, Growth, Growing)> {
        let path = self.temporary()?;
        let options = File::options().read(true).write(true).create_new(true).open(&path);
        let file = options.map_err(StoreError::io("create", &path))?;
        let (sender, end) = watch::channel(None);
        Ok((path, Growth(sender), Growing { file: Arc::new(file), end }))
    }

    /// Starts the blob `id`, of `size` bytes, which is read while it comes.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn arriving(&self, id: BlobId, size: u64) -> Result<(BlobWriter, Growth, Growing)> {
        let (path, growth, growing) = self.growing()?;
        Ok((self.writer_into(path)?.expecting(id, size), growth, growing))
    }

    /// A blob of the store that is whole already, for those who also follow others.
    ///
    /// # Errors
    ///
    /// It is not here.
    pub fn grown(&self, id: BlobId) -> Result<Growing> {
        let (file, size) = self.open_any(&id)?.ok_or(StoreError::Missing(id))?;
        let (_, end) = watch::channel(Some((id, size)));
        Ok(Growing { file: Arc::new(file), end })
    }
}

impl Growth {
    /// Tells the readers what the blob is.
    pub fn finish(self, id: BlobId, size: u64) {
        self.0.send_replace(Some((id, size)));
    }
}

impl Growing {
    /// What the blob is, if that is known already.
    pub fn known(&self) -> Option<(BlobId, u64)> {
        *self.end.borrow()
    }

    /// Whether it will never be whole.
    pub fn is_abandoned(&self) -> bool {
        self.end.has_changed().is_err() && self.known().is_none()
    }

    /// Bytes that are there; all of them once [`Self::known`] gives something.
    pub fn bytes_so_far(&self) -> u64 {
        self.file.metadata().map_or(0, |it| it.len())
    }

    /// Waits until the blob is whole.
    ///
    /// # Errors
    ///
    /// [`GrowingError::Abandoned`].
    pub async fn whole(&self) -> std::result::Result<(BlobId, u64), GrowingError> {
        let mut end = self.end.clone();
        let known = end.wait_for(Option::is_some).await;
        known.ok().and_then(|it| *it).ok_or(GrowingError::Abandoned)
    }

    /// Waits until the blob has `bytes`, or is whole with fewer.
    ///
    /// # Errors
    ///
    /// [`GrowingError::Abandoned`].
    pub async fn grown_to(&self, bytes: u64) -> std::result::Result<(), GrowingError> {
        while self.known().is_none() && self.bytes_so_far() < bytes {
            self.pause(PAUSES[1]).await?;
        }
        Ok(())
    }

    /// At most `limit` bytes from `offset` on, as soon as there are some; none at the end.
    ///
    /// # Errors
    ///
    /// See [`GrowingError`].
    pub async fn read(
        &self,
        offset: u64,
        limit: usize,
    ) -> std::result::Result<Option<Bytes>, GrowingError> {
        let mut pause = PAUSES[0];
        loop {
            // Asked before the read: what is whole has all its bytes.
            let known = self.known();
            let file = Arc::clone(&self.file);
            let read = move || {
                let mut piece = vec![0; limit];
                file.read_at(&mut piece, offset).map(|read| {
                    piece.truncate(read);
                    piece
                })
            };
            let read = tokio::task::spawn_blocking(read).await;
            let piece = read.map_err(|_| GrowingError::Abandoned)?.map_err(GrowingError::Read)?;
            match known {
                _ if !piece.is_empty() => return Ok(Some(piece.into())),
                Some((_, size)) if offset >= size => return Ok(None),
                Some(_) => return Err(GrowingError::Abandoned),
                None => {
                    self.pause(pause).await?;
                    pause = PAUSES[1].min(pause * 2);
                }
            }
        }
    }

    /// Lets the writer work; fails if there is none any more.
    async fn pause(&self, time: Duration) -> std::result::Result<(), GrowingError> {
        let mut end = self.end.clone();
        match tokio::time::timeout(time, end.wait_for(Option::is_some)).await {
            Ok(Err(_)) => Err(GrowingError::Abandoned),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::digest::Digest;
    use crate::local::Store;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(dir.path()).expect("opens");
        (dir, store)
    }

    #[tokio::test]
    async fn a_reader_follows_the_writer() {
        let (_dir, store) = store();
        let (path, growth, growing) = store.blobs().growing().expect("starts");
        let mut writer = store.blobs().writer_into(path).expect("opens");
        writer.write_all(b"first ").expect("writes");
        assert_eq!(growing.read(0, 100).await.expect("reads").as_deref(), Some(&b"first "[..]));
        let other = growing.clone();
        let rest = tokio::spawn(async move { other.read(6, 100).await });
        writer.write_all(b"second").expect("writes");
        assert_eq!(rest.await.expect("ends").expect("reads").as_deref(), Some(&b"second"[..]));
        let (id, size) = writer.finish().expect("finishes");
        growth.finish(id, size);
        assert_eq!(
            growing.whole().await.expect("is whole"),
            (BlobId(Digest::of(b"first second")), 12)
        );
        assert_eq!(growing.read(12, 100).await.expect("reads"), None);
        let again = store.blobs().grown(id).expect("is there");
        assert_eq!(again.read(3, 3).await.expect("reads").as_deref(), Some(&b"st "[..]));
    }

    #[tokio::test]
    async fn a_writer_that_gives_up_is_noticed() {
        let (_dir, store) = store();
        let (path, growth, growing) = store.blobs().growing().expect("starts");
        let mut writer = store.blobs().writer_into(path.clone()).expect("opens");
        writer.write_all(b"first ").expect("writes");
        drop(writer);
        assert!(!path.exists());
        let other = growing.clone();
        let waiting = tokio::spawn(async move { other.read(6, 100).await });
        drop(growth);
        assert!(matches!(waiting.await.expect("ends"), Err(GrowingError::Abandoned)));
        assert!(growing.whole().await.is_err());
    }
}
