//! Layers that go to registries while they are written and the rest still builds.
//!
//! An attempt: what fails here is pushed when the image is, and then whoever builds hears of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rbuild_solver::solve::SealOptions;
use rbuild_store::descriptor::Descriptor;
use rbuild_store::digest::BlobId;
use rbuild_store::growing::Growing;
use rbuild_store::local::Store;
use rbuild_store::media_type;
use rbuild_store::reference::Reference;
use rbuild_store::registry::{BlobSource, MIN_STREAMED_BYTES, Progress, PushBlob, Registry};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::session::images::Images;

/// Layers on their way to one registry at the same time.
const MAX_PARALLEL: usize = 4;

/// What goes ahead: the layers of one output, to one repository of each registry.
#[derive(Debug)]
pub struct Ahead {
    store: Arc<Store>,
    images: Arc<Images>,
    options: SealOptions,
    targets: Vec<Arc<Target>>,
    under_way: Mutex<JoinSet<()>>,
    shown: Shown,
}

/// Where progress goes, once somebody wants to see it.
#[derive(Clone, Default)]
struct Shown(Arc<OnceLock<Progress>>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Target {
    name: Reference,
    room: Semaphore,
    /// Whether the registry has shown that it does not take blobs in this way.
    refuses: AtomicBool,
}

impl Ahead {
    /// Prepares to send layers that are written as `options` say to the registries of `names`.
    pub fn new(
        store: Arc<Store>,
        images: Arc<Images>,
        options: SealOptions,
        names: &[Reference],
    ) -> Self {
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for name in names {
            // Further repositories of a registry get the layers from the first one.
            if targets.iter().all(|it| it.name.domain() != name.domain()) {
                let (name, room) = (name.clone(), Semaphore::new(MAX_PARALLEL));
                targets.push(Arc::new(Target { name, room, refuses: AtomicBool::new(false) }));
            }
        }
        let (under_way, shown) = (Mutex::default(), Shown::default());
        Self { store, images, options, targets, under_way, shown }
    }

    /// Whether layers that are written so belong to the output.
    pub fn wants(&self, options: &SealOptions) -> bool {
        // The times of base layers stay as they are.
        let times = [self.options.clamp_mtime, None];
        options.compression == self.options.compression && times.contains(&options.clamp_mtime)
    }

    /// Sends a layer, in the background.
    pub fn follow(&self, layer: &Growing) {
        let Ok(registry) = self.images.registry() else { return };
        let shown = self.shown.clone();
        let progress: Progress = Arc::new(move |id, done, all| {
            // Ends are told by the push of the image.
            if let Some(progress) = shown.0.get().filter(|_| done < all) {
                progress(id, done, all);
            }
        });
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for target in &self.targets {
            let (store, registry) = (Arc::clone(&self.store), registry.clone());
            let (target, layer, progress) =
                (Arc::clone(target), layer.clone(), Arc::clone(&progress));
            under_way.spawn(async move {
                let Ok(_room) = target.room.acquire().await else { return };
                target.send(&store, &registry, &layer, &progress).await;
            });
        }
    }

    /// Waits until all that was given has been sent, or has failed; tells `progress` meanwhile.
    pub async fn finish(&self, progress: Progress) {
        // The first one stays: they all show the same.
        drop(self.shown.0.set(progress));
        let mut under_way = {
            let mut all = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all)
        };
        while under_way.join_next().await.is_some() {}
    }
}

impl Target {
    async fn send(&self, store: &Store, registry: &Registry, layer: &Growing, progress: &Progress) {
        let refuses = || self.refuses.load(Ordering::Relaxed);
        if !refuses() {
            if layer.grown_to(MIN_STREAMED_BYTES).await.is_err() {
                return;
            }
            if layer.known().is_none() && !refuses() {
                let sent = registry.push_growing(&self.name, layer, progress).await;
                let Ok(None) = sent else { return };
                self.refuses.store(true, Ordering::Relaxed);
            }
        }
        let Ok((id, size)) = layer.whole().await else { return };
        // Whatever goes wrong shows when the image is pushed.
        drop(registry.push_blob(&self.name, &whole(store, id, size), progress).await);
    }
}

fn whole(store: &Store, id: BlobId, size: u64) -> PushBlob {
    PushBlob {
        descriptor: Descriptor::new(media_type::OCI_LAYER, id, size),
        source: BlobSource::File(store.blobs().path(&id)),
        mount_from: Vec::new(),
    }
}
