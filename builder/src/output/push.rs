//! Images into registries.

use std::sync::Arc;

use rbuild_solver::solve::Task;
use rbuild_store::descriptor::Descriptor;
use rbuild_store::digest::BlobId;
use rbuild_store::image::manifest::{Document, Written};
use rbuild_store::image::source::document;
use rbuild_store::local::Store;
use rbuild_store::reference::Reference;
use rbuild_store::registry::{BlobSource, Progress, PushBlob, PushImage, PushManifest};

use super::Exporter;
use super::image::Assembled;
use crate::cli::output::ImageOptions;
use crate::report::{Failure, Kind};
use crate::session::images::{Images, Origin};
use crate::session::registry_error;

/// Deepest index in an index.
const MAX_DEPTH: usize = 4;

impl Exporter {
    /// Pushes an image under all its names. Base layers are mounted from where they came from, or
    /// passed through if they were never fetched.
    pub(super) async fn push(
        &self,
        task: &Task,
        image: &Assembled,
        names: &[Reference],
        options: &ImageOptions,
    ) -> Result<(), Failure> {
        let mut blobs = Vec::new();
        for layer in &image.layers {
            blobs.push(self.push_blob(layer)?);
        }
        for one in &image.images {
            blobs.push(document_blob(&one.config));
        }
        let manifest = |written: &Written| PushManifest {
            media_type: written.descriptor.media_type.clone(),
            bytes: written.bytes.clone().into(),
        };
        let own = image.images.iter().map(|it| &it.manifest);
        let below = own
            .filter(|it| it.descriptor.digest != image.top.descriptor.digest)
            .map(manifest)
            .collect();
        let mut push = PushImage { blobs, manifests: below, top: manifest(&image.top) };
        if let Some(ahead) = &self.ahead {
            ahead.finish(progress(task)).await;
        }
        for name in names {
            let target = if options.push_by_digest {
                name.clone().with_digest(image.top.descriptor.digest.0)
            } else {
                name.clone()
            };
            send(&self.images, task, &target, push.clone()).await?;
            // Other repositories of the registry take from this one.
            for blob in &mut push.blobs {
                blob.mount_from.push(name.clone());
            }
        }
        Ok(())
    }

    fn push_blob(&self, layer: &super::image::AssembledLayer) -> Result<PushBlob, Failure> {
        let descriptor = layer.descriptor.clone();
        let known =
            self.layers.pulled(&layer.id).and_then(|pulled| self.images.known(&pulled.identifier));
        let origin = known.and_then(|known| match &known.origin {
            Origin::Registry(reference) => Some(reference.clone()),
            Origin::Store | Origin::Layout(_) => None,
        });
        let blobs = self.store.blobs();
        let here = blobs.size(&descriptor.digest)?.is_some();
        let source = match &origin {
            Some(reference) if !here => BlobSource::Registry(reference.clone()),
            Some(_) | None => BlobSource::File(blobs.path(&descriptor.digest)),
        };
        Ok(PushBlob { descriptor, source, mount_from: origin.into_iter().collect() })
    }
}

fn document_blob(written: &Written) -> PushBlob {
    PushBlob {
        descriptor: written.descriptor.clone(),
        source: BlobSource::Bytes(written.bytes.clone().into()),
        mount_from: Vec::new(),
    }
}

fn progress(task: &Task) -> Progress {
    let shown = task.clone();
    Arc::new(move |id: &BlobId, done, total| {
        shown.status(&format!("pushing {id}"), done, total, done == total);
    })
}

async fn send(
    images: &Images,
    task: &Task,
    target: &Reference,
    image: PushImage,
) -> Result<(), Failure> {
    let registry = images.registry().map_err(Failure::from)?;
    let pushed = registry
        .push(target, image, &progress(task))
        .await
        .map_err(|error| Failure::from(registry_error(&error)))?;
    task.done_part(&format!("pushing manifest for {target}@{pushed}"));
    Ok(())
}

/// Pushes an image of the store.
///
/// # Errors
///
/// If it is not whole, or the registry refuses.
pub async fn push_stored(
    store: &Store,
    images: &Images,
    task: &Task,
    target: &Reference,
    top: &Descriptor,
) -> Result<(), Failure> {
    let mut collected = Collected::default();
    collected.add(store, top, 0)?;
    let top = collected
        .manifests
        .pop()
        .ok_or_else(|| Failure::new(Kind::Bug, "an image without a manifest"))?;
    let push = PushImage { blobs: collected.blobs, manifests: collected.manifests, top };
    send(images, task, target, push).await
}

/// What an image consists of; manifests after those that they lead to.
#[derive(Default)]
struct Collected {
    blobs: Vec<PushBlob>,
    manifests: Vec<PushManifest>,
}

impl Collected {
    fn add(&mut self, store: &Store, descriptor: &Descriptor, depth: usize) -> Result<(), Failure> {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::new(Kind::Host, format!("the image in the store is not whole: {error}"))
        };
        let blobs = store.blobs();
        match document(blobs, descriptor).map_err(|error| broken(&error))? {
            Document::Manifest(manifest) => {
                for blob in manifest.layers.into_iter().chain([manifest.config]) {
                    let source = BlobSource::File(blobs.path(&blob.digest));
                    self.blobs.push(PushBlob { descriptor: blob, source, mount_from: Vec::new() });
                }
            }
            Document::Index(_) if depth >= MAX_DEPTH => {
                return Err(broken(&"its indexes are nested too deeply"));
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    self.add(store, entry, depth + 1)?;
                }
            }
        }
        let bytes = blobs.read(&descriptor.digest, 4 << 20)?;
        self.manifests
            .push(PushManifest { media_type: descriptor.media_type.clone(), bytes: bytes.into() });
        Ok(())
    }
}
