//! Blobs of images become layers, or listings, or some files: by one process at a time, and side by
//! side unless a layer links to files of those below it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rbuild_store::digest::{BlobId, DiffId, Digest};
use rbuild_store::growing::Growing;
use rbuild_store::local::Store;
use rbuild_store::lock::KeyLock;
use rbuild_store::records::DiffRow;

use super::Layers;
use super::arrive::pipe_of;
use super::error::{SolveError, SolveErrorKind};
use super::layers::{Pulled, file_bytes};
use crate::event::EventKind;
use crate::tree::listing::Listing;
use crate::worker::proto::{Answer, Chain, LayerId, Request, Root};

/// As much of a layer as is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    /// What it says about paths.
    Listing,
    /// That, and its files.
    Files,
}

impl Part {
    fn shown(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Files => "extracting",
        }
    }
}

/// Most times that a blob is read for some of its files: another time it is unpacked.
const MAX_PASSES: usize = 2;

/// Between two looks whether another process is done.
const PAUSE: Duration = Duration::from_millis(10);

impl Layers {
    /// Waits until no other process works at something; nothing else is waited for meanwhile.
    pub(super) async fn alone(&self, what: &str) -> Result<KeyLock, SolveError> {
        let key = Digest::of(what.as_bytes());
        loop {
            if let Some(lock) = self.store.try_lock_key(&key)? {
                return Ok(lock);
            }
            // Not a thread that waits: it would outlive an interrupt.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes a layer of a blob: of one that is arriving, or of the store.
    ///
    /// # Errors
    ///
    /// If the blob is not what it should be, or the disk refuses.
    pub(super) async fn unpack(
        &self,
        id: &LayerId,
        blob: BlobId,
        diff_id: DiffId,
        part: Part,
        arriving: Option<(&Growing, u64)>,
    ) -> Result<(), SolveError> {
        if part == Part::Listing && self.read_listing(id).await?.is_some() {
            return Ok(());
        }
        let open = || -> Result<(OwnedFd, u64), SolveError> {
            if let Some((growing, size)) = arriving {
                return Ok((pipe_of(growing.clone(), size)?, size));
            }
            self.open_blob(blob)
        };
        let (stream, size) = open()?;
        let pulled = self.pulled(id);
        let show = |current: u64| {
            if let Some(Pulled { vertex, .. }) = &pulled {
                let id = format!("{} {blob}", part.shown());
                let kind = EventKind::Status { id, current, total: size, done: current == size };
                self.events.send(*vertex, kind);
            }
        };
        show(0);
        let below = pulled.as_ref().map(|it| it.below.clone()).unwrap_or_default();
        let like = match part {
            Part::Listing => self.like(id).await?,
            Part::Files => None,
        };
        let ask = async |stream: OwnedFd| {
            let (layer, below, stream) = (id.clone(), below.clone(), vec![stream]);
            let request = match part {
                Part::Files => Request::Unpack { layer, stream: 0, diff_id, below },
                Part::Listing => {
                    Request::List { layer, stream: 0, diff_id, below, like: like.clone() }
                }
            };
            self.worker.request(request, stream).await
        };
        let mut answer = ask(stream).await?;
        if matches!(answer, Answer::NeedsBelow) {
            match part {
                Part::Files => Box::pin(self.chain_on_disk(&below)).await?,
                Part::Listing => Box::pin(self.listings(&below)).await.map(drop)?,
            }
            answer = ask(open()?.0).await?;
        }
        let n_bytes = match (part, answer) {
            (Part::Files, Answer::Unpacked { size }) => size,
            (Part::Listing, Answer::Done) => 0,
            _ => {
                let text =
                    format!("layer {} links to files of layers below it, which are not here", id.0);
                return Err(SolveError::new(SolveErrorKind::Host, text));
            }
        };
        self.store.db()?.put_layer(&id.0, n_bytes, self.now)?;
        show(size);
        if let Some(Pulled { layer, .. }) = pulled {
            let row = DiffRow { diff_id, blob, size: layer.size, media_type: layer.media_type };
            self.store.db()?.put_diff(&row)?;
        }
        Ok(())
    }

    fn open_blob(&self, blob: BlobId) -> Result<(OwnedFd, u64), SolveError> {
        let found = self.store.blobs().open_any(&blob)?;
        let (file, size) = found.ok_or_else(|| {
            SolveError::new(SolveErrorKind::Host, format!("blob {blob} is not in the store"))
        })?;
        Ok((file.into(), size))
    }

    /// Where some files of a layer can be read, each at its path: the layer on disk, or a directory
    /// that has only files that were asked for. A large part of a layer is worth unpacking it.
    ///
    /// # Errors
    ///
    /// If the layer cannot be had, or the disk refuses.
    pub async fn files_of(
        &self,
        id: &LayerId,
        paths: impl FnOnce() -> Vec<Vec<u8>>,
    ) -> Result<Root, SolveError> {
        let layer = self.layer(id);
        if let Some(pulled) = &layer.pulled
            && !layer.on_disk.initialized()
            && !self.has_files(id)
        {
            let listing = self.listing(id).await?;
            let mut extracted = layer.extracted.lock().await;
            let missing = extracted.missing(&self.store, paths());
            if missing.is_empty() && extracted.dir.is_some() {
                return Ok(Root::Store(extracted.dir(&self.store)?));
            }
            if extracted.passes < MAX_PASSES && is_small(&listing, &missing) {
                self.arrived(&layer, pulled).await?;
                if self.extract(id, pulled, &mut extracted, missing).await? {
                    return Ok(Root::Store(extracted.dir(&self.store)?));
                }
            }
        }
        self.on_disk(id).await?;
        Ok(Root::Layer(id.clone()))
    }

    /// Whether the files could be had in this way.
    async fn extract(
        &self,
        id: &LayerId,
        pulled: &Pulled,
        extracted: &mut Extracted,
        files: Vec<Vec<u8>>,
    ) -> Result<bool, SolveError> {
        extracted.passes += 1;
        let (stream, _) = self.open_blob(pulled.layer.blob)?;
        let to = extracted.dir(&self.store)?;
        let (layer, diff_id) = (id.clone(), pulled.layer.diff_id);
        let request = Request::Extract { layer, stream: 0, diff_id, files, to };
        Ok(matches!(self.worker.request(request, vec![stream]).await?, Answer::Done))
    }

    /// Says what will probably be read of layers, by parts of paths, before they are listed.
    pub async fn expect_reads(&self, chain: &Chain, paths: &[Vec<u8>]) {
        for id in chain {
            let layer = self.layer(id);
            let mut extracted = layer.extracted.lock().await;
            extracted.like.extend(paths.iter().cloned());
        }
    }

    async fn like(&self, id: &LayerId) -> Result<Option<(Vec<Vec<u8>>, PathBuf)>, SolveError> {
        let layer = self.layer(id);
        let mut extracted = layer.extracted.lock().await;
        if extracted.like.is_empty() {
            return Ok(None);
        }
        Ok(Some((extracted.like.clone(), extracted.dir(&self.store)?)))
    }
}

/// Files of a layer that is not on disk.
#[derive(Debug, Default)]
pub(super) struct Extracted {
    /// Below the store's root. A file that is there is whole.
    dir: Option<PathBuf>,
    /// Parts of paths that are written while the layer is listed.
    like: Vec<Vec<u8>>,
    /// How often the blob has been read again for them.
    passes: usize,
}

impl Extracted {
    fn missing(&self, store: &Store, mut paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        if let Some(dir) = &self.dir {
            let dir = store.root().join(dir);
            let is_there =
                |path: &[u8]| dir.join(OsStr::from_bytes(path)).symlink_metadata().is_ok();
            paths.retain(|path| !is_there(path));
        }
        paths
    }

    /// The directory, made when it is first needed.
    fn dir(&mut self, store: &Store) -> Result<PathBuf, SolveError> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let dir = store.temp().path("extracted")?;
        std::fs::create_dir(&dir)
            .map_err(|error| SolveError::host(&format!("create {}", dir.display()), &error))?;
        let below = dir.strip_prefix(store.root()).map_or(dir.clone(), Into::into);
        Ok(self.dir.insert(below).clone())
    }
}

/// Whether files are less than half of a layer.
fn is_small(layer: &Listing, files: &[Vec<u8>]) -> bool {
    let size = |path: &Vec<u8>| {
        let entry = layer.position(path).and_then(|at| layer.entries().get(at));
        entry.and_then(|it| it.kind.file_size()).unwrap_or(0)
    };
    files.iter().map(size).sum::<u64>() < file_bytes(layer) / 2
}
