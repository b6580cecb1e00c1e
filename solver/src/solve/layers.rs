//! The layers that one build knows: where each comes from, and each made at most once.
//!
//! A layer is *pulled* (its blob is in a registry), *planned* (a copy that was worked out and not
//! written), or *kept* (in the store from an earlier step or build). Whatever it is, it can be
//! asked for its listing, for its files on disk and for its blob; who asks first does the work,
//! the others wait for it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_store::digest::Digest;
use rbuild_store::durable::{self, Durability};
use rbuild_store::growing::{Growing, Growth};
use rbuild_store::local::Store;
use rbuild_store::records::{DiffRow, SealedRow};
use tokio::sync::{OnceCell, watch};

use super::error::{SolveError, SolveErrorKind};
use super::events::EventSink;
use super::unpack::{Extracted, Part};
use crate::session::{ImageLayer, Session};
use crate::tree::fileop::Contents;
use crate::tree::listing::Listing;
use crate::worker::client::Worker;
use crate::worker::contents::ContentList;
use crate::worker::proto::{Answer, Chain, Compression, Content, LayerId, Request, Root, Sealed};

/// A layer that was worked out and not written.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its entries.
    pub listing: Arc<Listing>,
    /// Where the contents of its files are. Roots that are descriptors count the directories of
    /// [`Layers::host_root`].
    pub contents: Arc<Contents>,
}

/// How a layer becomes a blob.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SealOptions {
    /// How it is compressed.
    pub compression: Compression,
    /// Later times become this one, in seconds.
    pub clamp_mtime: Option<i64>,
}

/// Where a pulled layer comes from.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Identifier of the image's source operation.
    pub identifier: String,
    /// The vertex that the pull is shown under.
    pub vertex: Digest,
    /// The layer in its registry.
    pub layer: ImageLayer,
    /// The layers below it in the image, lowest first.
    pub below: Chain,
}

#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) pulled: Option<Pulled>,
    planned: Option<Planned>,
    listing: OnceCell<Arc<Listing>>,
    /// Set once the blob of a pulled layer is in the store.
    pub(super) blob: OnceCell<()>,
    /// That blob on its way.
    pub(super) arriving: watch::Sender<Option<Growing>>,
    pub(super) on_disk: OnceCell<()>,
    /// Whether its files can be had: see [`Layers::in_reach`].
    in_reach: OnceCell<bool>,
    pub(super) extracted: tokio::sync::Mutex<Extracted>,
    sealed: Mutex<HashMap<SealOptions, Arc<OnceCell<Sealed>>>>,
}

/// The layers of one build.
pub struct Layers {
    pub(super) store: Arc<Store>,
    pub(super) worker: Worker,
    pub(super) session: Arc<dyn Session>,
    pub(super) events: EventSink,
    pub(super) now: i64,
    known: Mutex<HashMap<LayerId, Arc<Layer>>>,
    directories: Mutex<Vec<PathBuf>>,
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Layers {
    /// None are known yet.
    pub fn new(
        store: Arc<Store>,
        worker: Worker,
        session: Arc<dyn Session>,
        events: EventSink,
        now: i64,
    ) -> Self {
        Self {
            store,
            worker,
            session,
            events,
            now,
            known: Mutex::default(),
            directories: Mutex::default(),
        }
    }

    /// A name that no layer has.
    pub fn new_id() -> LayerId {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel has random numbers");
        LayerId(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }

    /// A layer of an image: named after its diff id, so that images share it. `below` are those
    /// below it.
    pub fn add_pulled(
        &self,
        identifier: &str,
        vertex: Digest,
        layer: ImageLayer,
        below: Chain,
    ) -> LayerId {
        let id = LayerId(layer.diff_id.0.hex().into());
        let mut known = lock(&self.known);
        known.entry(id.clone()).or_insert_with(|| {
            let pulled = Pulled { identifier: identifier.to_owned(), vertex, layer, below };
            Arc::new(Layer { pulled: Some(pulled), ..Layer::default() })
        });
        id
    }

    /// A layer that was worked out.
    pub fn add_planned(&self, id: &LayerId, planned: Planned) {
        let layer = Layer {
            listing: OnceCell::new_with(Some(Arc::clone(&planned.listing))),
            planned: Some(planned),
            ..Layer::default()
        };
        lock(&self.known).insert(id.clone(), Arc::new(layer));
    }

    pub(super) fn layer(&self, id: &LayerId) -> Arc<Layer> {
        Arc::clone(lock(&self.known).entry(id.clone()).or_default())
    }

    /// Where a pulled layer comes from.
    pub fn pulled(&self, id: &LayerId) -> Option<Pulled> {
        self.layer(id).pulled.clone()
    }

    /// Whether the layer can be had: it is on disk or a blob, or in a registry, or was worked out.
    pub fn is_here(&self, id: &LayerId) -> bool {
        let layer = self.layer(id);
        if layer.pulled.is_some() || layer.planned.is_some() {
            return true;
        }
        self.has_files(id) || self.sealed_somehow(id).is_ok_and(|row| row.is_some())
    }

    /// Whether its files are on disk, under this or another id mapping.
    pub(super) fn has_files(&self, id: &LayerId) -> bool {
        let Ok(directory) = self.store.layout().layer(&id.0) else { return false };
        let Ok(entries) = std::fs::read_dir(directory) else { return false };
        let mut names = entries.filter_map(|it| Some(it.ok()?.file_name()));
        names.any(|name| name.as_encoded_bytes().starts_with(b"fs-"))
    }

    /// Whether the files of a layer can be had by this build. Those of an earlier build's layer that
    /// is no blob lie on a disk alone, and may belong to ids that this build has not: then the
    /// worker tells, who takes them over if it may read them.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or the worker cannot tell.
    pub async fn in_reach(&self, id: &LayerId) -> Result<bool, SolveError> {
        let layer = self.layer(id);
        if layer.pulled.is_some() || layer.planned.is_some() {
            return Ok(true);
        }
        let ask = async || {
            if self.sealed_somehow(id)?.is_some() {
                return Ok(true);
            }
            let answer = self.worker.request(Request::Have { layer: id.clone() }, vec![]).await?;
            Ok::<_, SolveError>(matches!(answer, Answer::Had(true)))
        };
        layer.in_reach.get_or_try_init(ask).await.copied()
    }

    /// What was worked out of a layer that is not on disk.
    pub fn planned(&self, id: &LayerId) -> Option<Planned> {
        let layer = self.layer(id);
        layer.planned.clone().filter(|_| !layer.on_disk.initialized())
    }

    /// Brings the blob of a pulled layer into the store.
    ///
    /// # Errors
    ///
    /// If it cannot be had.
    pub async fn fetched(&self, id: &LayerId) -> Result<(), SolveError> {
        let layer = self.layer(id);
        match &layer.pulled {
            Some(pulled) => self.arrived(&layer, pulled).await,
            None => Ok(()),
        }
    }

    /// The listing of a layer.
    ///
    /// # Errors
    ///
    /// If a pulled layer cannot be had, or the disk refuses.
    pub async fn listing(&self, id: &LayerId) -> Result<Arc<Listing>, SolveError> {
        let layer = self.layer(id);
        let listing = layer
            .listing
            .get_or_try_init(async || {
                if let Some(listing) = self.read_listing(id).await? {
                    return Ok(listing);
                }
                match &layer.pulled {
                    Some(pulled) => self.pulled_apart(id, &layer, pulled, Part::Listing).await?,
                    None => self.on_disk(id).await?,
                }
                self.read_listing(id).await?.ok_or_else(|| missing(id))
            })
            .await?;
        Ok(Arc::clone(listing))
    }

    pub(super) async fn read_listing(
        &self,
        id: &LayerId,
    ) -> Result<Option<Arc<Listing>>, SolveError> {
        let path = self.store.layout().layer_listing(&id.0)?;
        blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Listing::decode(&bytes).map(|it| Some(Arc::new(it))).map_err(|error| {
                SolveError::new(
                    SolveErrorKind::Host,
                    format!("{} is damaged: {error}", path.display()),
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SolveError::host(&format!("read {}", path.display()), &error)),
        })
        .await
    }

    /// The listings of a tree, lowest first.
    ///
    /// # Errors
    ///
    /// As [`Self::listing`].
    pub async fn listings(&self, chain: &Chain) -> Result<Vec<Arc<Listing>>, SolveError> {
        let all = chain.iter().map(|id| self.listing(id));
        futures_util::future::try_join_all(all).await
    }

    /// Puts the files of a layer on disk.
    ///
    /// # Errors
    ///
    /// If its content cannot be had, or the disk refuses.
    pub async fn on_disk(&self, id: &LayerId) -> Result<(), SolveError> {
        let layer = self.layer(id);
        layer
            .on_disk
            .get_or_try_init(async || {
                if let Some(planned) = &layer.planned {
                    return self.materialise(id, planned).await;
                }
                if let Some(pulled) = &layer.pulled {
                    return self.pulled_apart(id, &layer, pulled, Part::Files).await;
                }
                // A layer of an earlier build: under this id mapping, or from its blob.
                match self.sealed_somehow(id)? {
                    Some(row) => self.unpack(id, row.blob, row.diff_id, Part::Files, None).await,
                    None => Ok(()),
                }
            })
            .await?;
        Ok(())
    }

    /// Puts all layers of a tree on disk, side by side.
    ///
    /// # Errors
    ///
    /// As [`Self::on_disk`].
    pub async fn chain_on_disk(&self, chain: &Chain) -> Result<(), SolveError> {
        let missing: Vec<_> = {
            let known = lock(&self.known);
            // A long chain has a layer of each step before: for most of them a look is enough.
            let there = |id| known.get(id).is_some_and(|it| it.on_disk.initialized());
            chain.iter().filter(|id| !there(*id)).collect()
        };
        futures_util::future::try_join_all(missing.iter().map(|id| self.on_disk(id))).await?;
        Ok(())
    }

    fn sealed_somehow(&self, id: &LayerId) -> Result<Option<DiffRow>, SolveError> {
        let rows = self.store.db()?.sealed_unclamped(&id.0)?;
        Ok(rows
            .into_iter()
            .find(|row| self.store.blobs().size(&row.blob).is_ok_and(|size| size.is_some())))
    }

    async fn materialise(&self, id: &LayerId, planned: &Planned) -> Result<(), SolveError> {
        self.keep_listing(id, planned).await?;
        let (roots, fds) = self.open_roots(planned).await?;
        let contents = planned.contents.files.clone();
        let request = Request::Materialise { layer: id.clone(), roots, contents };
        self.worker.request(request, fds).await?;
        Ok(())
    }

    /// Writes the listing of a planned layer into the store.
    async fn keep_listing(&self, id: &LayerId, planned: &Planned) -> Result<(), SolveError> {
        let path = self.store.layout().layer_listing(&id.0)?;
        let (store, listing) = (Arc::clone(&self.store), Arc::clone(&planned.listing));
        let size = blocking(move || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| {
                    SolveError::host(&format!("create {}", parent.display()), &error)
                })?;
            }
            let temporary = store.temp().path("listing")?;
            durable::write(&temporary, &path, &listing.encode(), Durability::Process)?;
            Ok(file_bytes(&listing))
        })
        .await?;
        self.store.db()?.put_layer(&id.0, size, self.now)?;
        Ok(())
    }

    /// The root of a directory outside of the store, for plans.
    pub fn host_root(&self, path: &Path) -> Root {
        let mut directories = lock(&self.directories);
        let at = directories.iter().position(|it| it == path).unwrap_or_else(|| {
            directories.push(path.to_owned());
            directories.len() - 1
        });
        Root::Fd(at)
    }

    /// The directory that a root of a plan names; none for a layer.
    pub fn directory(&self, root: &Root) -> Option<PathBuf> {
        match root {
            Root::Fd(at) => lock(&self.directories).get(*at).cloned(),
            Root::Store(path) => Some(self.store.root().join(path)),
            Root::Layer(_) => None,
        }
    }

    /// The roots of planned contents as the worker knows them, with the files that are read.
    async fn open_roots(&self, planned: &Planned) -> Result<(Vec<Root>, Vec<OwnedFd>), SolveError> {
        let mut roots = Vec::with_capacity(planned.contents.roots.len());
        let mut fds: Vec<OwnedFd> = Vec::new();
        for (number, root) in planned.contents.roots.iter().enumerate() {
            roots.push(match root {
                Root::Fd(_) => {
                    let path = self.directory(root).unwrap_or_default();
                    let directory = File::open(&path).map_err(|error| {
                        SolveError::host(&format!("open {}", path.display()), &error)
                    })?;
                    fds.push(directory.into());
                    Root::Fd(fds.len() - 1)
                }
                Root::Layer(id) => {
                    let contents = planned.contents.files.iter();
                    let read = contents.filter_map(|content| match content {
                        Content::Tree { root, path } if root == number => Some(path),
                        Content::Tree { .. } | Content::Inline(_) => None,
                    });
                    Box::pin(self.files_of(id, || read.collect())).await?
                }
                Root::Store(path) => Root::Store(path.clone()),
            });
        }
        Ok((roots, fds))
    }

    /// The blob of a layer, written if it is not there. A pulled layer's blob is its own.
    ///
    /// # Errors
    ///
    /// If its content cannot be had, or the disk refuses.
    pub async fn sealed(&self, id: &LayerId, options: SealOptions) -> Result<Sealed, SolveError> {
        let layer = self.layer(id);
        let cell = Arc::clone(lock(&layer.sealed).entry(options).or_default());
        let sealed = cell
            .get_or_try_init(async || {
                if let Some(row) =
                    self.store.db()?.sealed(&id.0, options.compression, options.clamp_mtime)?
                    && self.store.blobs().size(&row.blob)?.is_some()
                {
                    let SealedRow { diff_id, blob, size, .. } = row;
                    if self.session.follows(&options) {
                        self.session.follow(self.store.blobs().grown(blob)?);
                    }
                    return Ok(Sealed { diff_id, blob, size, compression: options.compression });
                }
                self.seal(id, &layer, options).await
            })
            .await?;
        Ok(*sealed)
    }

    async fn seal(
        &self,
        id: &LayerId,
        layer: &Layer,
        options: SealOptions,
    ) -> Result<Sealed, SolveError> {
        let (roots, contents, fds) = match &layer.planned {
            Some(planned) if !layer.on_disk.initialized() => {
                self.keep_listing(id, planned).await?;
                let (roots, fds) = self.open_roots(planned).await?;
                (roots, planned.contents.files.clone(), fds)
            }
            Some(_) | None => {
                self.on_disk(id).await?;
                (Vec::new(), ContentList::default(), Vec::new())
            }
        };
        let SealOptions { compression, clamp_mtime } = options;
        let (blob, growth) = self.announce(&options)?.unzip();
        let layer = id.clone();
        let request = Request::Seal { layer, roots, contents, compression, clamp_mtime, blob };
        let Answer::Sealed(sealed) = self.worker.request(request, fds).await? else {
            return Err(SolveError::new(
                SolveErrorKind::Bug,
                "sealing a layer was answered by something else",
            ));
        };
        if let Some(growth) = growth {
            growth.finish(sealed.blob, sealed.size);
        }
        self.store.db()?.put_sealed(&SealedRow {
            layer: id.0.to_string(),
            compression,
            clamp_mtime,
            diff_id: sealed.diff_id,
            blob: sealed.blob,
            size: sealed.size,
        })?;
        Ok(sealed)
    }

    /// Lets the session read a blob that is about to be written, if it wants to: the file below the
    /// store's root, and the end of it that is to be told.
    fn announce(&self, options: &SealOptions) -> Result<Option<(PathBuf, Growth)>, SolveError> {
        if !self.session.follows(options) {
            return Ok(None);
        }
        let (path, growth, growing) = self.store.blobs().growing()?;
        self.session.follow(growing);
        let below = path.strip_prefix(self.store.root()).map(Path::to_owned).unwrap_or(path);
        Ok(Some((below, growth)))
    }
}

/// Bytes of the regular files of a listing.
pub(super) fn file_bytes(listing: &Listing) -> u64 {
    listing.entries().iter().filter_map(|entry| entry.kind.file_size()).sum()
}

fn missing(id: &LayerId) -> SolveError {
    SolveError::new(SolveErrorKind::Host, format!("layer {} is not in the store", id.0))
}

/// Runs `work` where it may block.
///
/// # Errors
///
/// Those of `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SolveError> + Send + 'static,
) -> Result<T, SolveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(SolveError::new(SolveErrorKind::Bug, format!("a worker thread failed: {error}")))
        }
    }
}
