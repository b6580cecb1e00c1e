//! From trees and configurations to an image: layers as blobs, configuration, manifest, index.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rbuild_solver::solve::SealOptions;
use rbuild_solver::worker::proto::LayerId;
use rbuild_store::descriptor::Descriptor;
use rbuild_store::digest::DiffId;
use rbuild_store::image::config::{History, ImageConfig, RootFs};
use rbuild_store::image::manifest::{Index, Written};
use rbuild_store::image::{Image, SealedImage};
use rbuild_store::media_type::Family;
use rbuild_store::reference::Reference;

use super::annotations::{self, Annotation, Subject};
use super::{Exporter, Product, Response, seal_options};
use crate::cli::output::{ImageOptions, Output};
use crate::report::{Failure, Kind};

/// Layers that are written as blobs at the same time.
const MAX_SEALED_AT_ONCE: usize = 4;

/// Annotation of a layer whose times were set back, with the epoch (BuildKit's).
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// An image, complete but for its layers' way to where it goes.
#[derive(Debug)]
pub struct Assembled {
    /// One for each platform.
    pub images: Vec<SealedImage>,
    /// Layers of all of them.
    pub layers: Vec<AssembledLayer>,
    /// What names stand for: the manifest, or the index of several.
    pub top: Written,
    /// Annotations of the entry in an OCI layout.
    pub entry_annotations: BTreeMap<String, String>,
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct AssembledLayer {
    /// Its name in the build.
    pub id: LayerId,
    /// What the manifest says about it.
    pub descriptor: Descriptor,
}

impl Exporter {
    /// Makes the image and keeps its documents in the store.
    pub(super) async fn assemble(
        &self,
        options: &ImageOptions,
        products: &[Product],
        oci: bool,
    ) -> Result<Assembled, Failure> {
        let family =
            if options.oci_mediatypes.unwrap_or(oci) { Family::Oci } else { Family::Docker };
        let said = options.annotations.iter().chain(&self.annotations);
        let said: Vec<Annotation> =
            said.map(|(key, value)| annotations::parse(key, value)).collect::<Result<_, _>>()?;
        let (mut images, mut layers, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for product in products {
            let (image, own) = self.assemble_one(options, product, family).await?;
            let sealed = image.seal(family, |manifest| {
                manifest.annotations.extend(annotations::about(
                    &said,
                    Subject::Manifest,
                    Some(&product.platform),
                ));
            });
            sealed.put(self.store.blobs())?;
            let mut entry = sealed.manifest.descriptor.clone();
            entry.platform = Some(product.platform.clone());
            entry.annotations.extend(annotations::about(
                &said,
                Subject::ManifestDescriptor,
                Some(&product.platform),
            ));
            entries.push(entry);
            images.push(sealed);
            layers.extend(own);
        }
        let single = images.len() == 1 && !self.multi_platform;
        let top = if let (true, [only]) = (single, images.as_slice()) {
            only.manifest.clone()
        } else {
            let mut index = Index::new(family, entries);
            index.annotations.extend(annotations::about(&said, Subject::Index, None));
            let written = index.write();
            self.store.blobs().put(&written.bytes)?;
            written
        };
        let subject = if single { Subject::ManifestDescriptor } else { Subject::IndexDescriptor };
        let entry_annotations = annotations::about(&said, subject, None).collect();
        Ok(Assembled { images, layers, top, entry_annotations })
    }

    async fn assemble_one(
        &self,
        options: &ImageOptions,
        product: &Product,
        family: Family,
    ) -> Result<(Image, Vec<AssembledLayer>), Failure> {
        let seal = seal_options(options, product.epoch);
        let mut layers = Vec::with_capacity(product.chain.len());
        let mut diff_ids = Vec::with_capacity(product.chain.len());
        let made = product.chain.iter().map(async |id| {
            let layer = self.layer(id, seal, options.force_compression, family).await?;
            Ok::<_, Failure>((id.clone(), layer))
        });
        let mut made = stream::iter(made).buffered(MAX_SEALED_AT_ONCE);
        while let Some((id, (diff_id, descriptor))) = made.try_next().await? {
            diff_ids.push(diff_id);
            layers.push(AssembledLayer { id, descriptor });
        }
        let mut config = product.config.clone();
        let times = self.layer_times(product)?;
        complete(&mut config, diff_ids, &product.origins, &times, product.epoch);
        let descriptors = layers.iter().map(|it| it.descriptor.clone()).collect();
        let image = Image::new(config, descriptors)
            .map_err(|error| Failure::new(Kind::Bug, crate::report::chain(&error)))?;
        Ok((image, layers))
    }

    async fn layer(
        &self,
        id: &LayerId,
        seal: SealOptions,
        force: bool,
        family: Family,
    ) -> Result<(DiffId, Descriptor), Failure> {
        let pulled = self.layers.pulled(id);
        if let Some(pulled) = pulled.as_ref().filter(|_| !force) {
            let layer = &pulled.layer;
            let media_type = family.convert_layer(&layer.media_type).unwrap_or(&layer.media_type);
            return Ok((layer.diff_id, Descriptor::new(media_type, layer.blob, layer.size)));
        }
        // The times of a base image are not this build's to change.
        let clamp_mtime = seal.clamp_mtime.filter(|_| pulled.is_none());
        let sealed = self.layers.sealed(id, SealOptions { clamp_mtime, ..seal }).await?;
        let media_type = family.layer(sealed.compression);
        let mut descriptor = Descriptor::new(media_type, sealed.blob, sealed.size);
        if let Some(time) = clamp_mtime {
            descriptor.annotations.insert(REWRITTEN.to_owned(), time.to_string());
        }
        Ok((sealed.diff_id, descriptor))
    }

    /// When each layer was made, in seconds; none for a layer of a base image.
    fn layer_times(&self, product: &Product) -> Result<Vec<Option<i64>>, Failure> {
        let ids: Vec<&str> = product.chain.iter().map(|id| &*id.0).collect();
        let times = self.store.db()?.layer_times(&ids)?;
        let own = product.chain.iter().zip(times);
        Ok(own.map(|(id, time)| time.filter(|_| self.layers.pulled(id).is_none())).collect())
    }

    /// An image in the store, under its names, and in registries.
    pub(super) async fn image(
        &self,
        output: &Output,
        push: bool,
        products: &[Product],
        response: &mut Response,
    ) -> Result<(), Failure> {
        let names = self.names(&output.image)?;
        if push && names.is_empty() {
            return Err(Failure::usage("nothing to push to: the image has no name")
                .hint("give one with -t"));
        }
        let task = self.events.task("exporting to image");
        let work = async {
            let image = self.assemble(&output.image, products, true).await?;
            task.done_part("exporting layers");
            task.done_part(&format!("exporting manifest {}", image.top.descriptor.digest));
            if !push {
                // An image of the store is whole: what only a registry has is fetched.
                self.fetch_all(&image).await?;
            }
            if output.image.store {
                let texts = stored_names(&names, &output.image, &image.top.descriptor);
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                self.store.db()?.put_tags(&texts, &image.top.descriptor, self.now)?;
                for name in texts {
                    task.done_part(&format!("naming to {name}"));
                }
            }
            if push {
                self.push(&task, &image, &names, &output.image).await?;
            }
            Ok::<_, Failure>(image)
        };
        let image = work.await;
        let image = task.end(image)?;
        Self::note(&image, &names, response);
        Ok(())
    }

    /// Brings the blobs of base layers into the store.
    pub(super) async fn fetch_all(&self, image: &Assembled) -> Result<(), Failure> {
        let all = image.layers.iter().map(|layer| self.layers.fetched(&layer.id));
        futures_util::future::try_join_all(all).await?;
        Ok(())
    }
}

/// What an image is called in the store: its names, unless it is pushed by digest only; its names
/// with its digest, and the prefix with its digest, where that is asked for.
fn stored_names(names: &[Reference], options: &ImageOptions, top: &Descriptor) -> Vec<String> {
    let digest = top.digest;
    let plain = names.iter().filter(|_| !options.push_by_digest).map(ToString::to_string);
    let canonical = names
        .iter()
        .filter(|_| options.name_canonical)
        .map(|name| name.clone().with_digest(digest.0).to_string());
    let prefix = options.dangling_prefix.as_ref();
    let dangling = prefix
        .filter(|_| names.is_empty() || !options.dangling_empty_only)
        .map(|prefix| format!("{prefix}@{digest}"));
    plain.chain(canonical).chain(dangling).collect()
}

/// Products whose images are from `epoch`, or older.
pub(super) fn dated(products: &[Product], epoch: i64) -> Vec<Product> {
    let later = |created: &Option<String>| {
        let seconds = created.as_ref().and_then(|it| it.parse::<jiff::Timestamp>().ok());
        seconds.is_none_or(|it| it.as_second() > epoch)
    };
    let mut products = products.to_vec();
    for product in &mut products {
        product.epoch = Some(epoch);
        product.config.created = Some(rfc3339(epoch));
        for entry in product.config.history.iter_mut().filter(|it| later(&it.created)) {
            entry.created = Some(rfc3339(epoch));
        }
    }
    products
}

/// Fills in what only the exporter knows: layers, and times where there is no epoch. A step's time
/// is that of its layer, so that a build from the cache gives the same image again.
fn complete(
    config: &mut ImageConfig,
    diff_ids: Vec<DiffId>,
    origins: &[String],
    times: &[Option<i64>],
    epoch: Option<i64>,
) {
    level(&mut config.history, origins);
    let mut layers = times.iter();
    for entry in &mut config.history {
        let own = if entry.empty_layer { None } else { layers.next().copied().flatten() };
        entry.created = entry.created.take().or_else(|| own.or(epoch).map(rfc3339));
    }
    date(&mut config.history);
    if config.created.is_none() {
        let latest = config.history.iter().rev().find_map(|entry| entry.created.clone());
        config.created = latest.or_else(|| epoch.map(rfc3339));
    }
    config.rootfs = RootFs { diff_ids, ..RootFs::default() };
}

/// Gives times to the entries that have none: the time of the entry before; the first ones that
/// have none, the time of the entry after them, for they are of this build and not as old as its
/// base. Where nothing has a time there is none: that of the build would make each build another.
fn date(history: &mut [History]) {
    let is_dated = |entry: &History| entry.created.is_some();
    let undated = history.iter().position(|entry| !is_dated(entry)).unwrap_or(history.len());
    let after = history[undated..].iter().find_map(|entry| entry.created.clone());
    let mut known =
        after.or_else(|| history[..undated].last().and_then(|entry| entry.created.clone()));
    for entry in &mut history[undated..] {
        match &entry.created {
            Some(created) => known = Some(created.clone()),
            None => entry.created.clone_from(&known),
        }
    }
}

/// Makes the history have as many entries with a layer as there are layers: one that lacks some gets
/// entries at its end that say where the topmost layers come from; in one that has too many the
/// last ones count as empty.
fn level(history: &mut Vec<History>, origins: &[String]) {
    let mut described = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        entry.empty_layer = described == origins.len();
        described += usize::from(!entry.empty_layer);
    }
    history.extend(origins[described..].iter().map(|origin| History {
        created_by: Some(origin.clone()),
        comment: Some("buildkit.exporter.image.v0".to_owned()),
        ..History::default()
    }));
}

/// `2024-01-02T03:04:05Z`.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> Vec<History> {
        text.chars().map(|it| History { empty_layer: it == 'e', ..History::default() }).collect()
    }

    fn shape(history: &[History]) -> String {
        history.iter().map(|it| if it.empty_layer { 'e' } else { 'l' }).collect()
    }

    #[track_caller]
    fn check(before: &str, layers: usize, after: &str) {
        let mut it = history(before);
        level(&mut it, &vec!["a step".to_owned(); layers]);
        assert_eq!(shape(&it), after);
    }

    #[test]
    fn history_and_layers_agree() {
        check("lel", 2, "lel");
        check("el", 3, "elll");
        check("lll", 2, "lle");
        check("", 0, "");
    }

    /// Times before and behind, seconds; `-` is none.
    #[track_caller]
    fn check_times(shape: &str, times: &[Option<i64>], epoch: Option<i64>, want: &str) {
        let mut config = ImageConfig { history: history(shape), ..ImageConfig::default() };
        let diff_ids = vec![DiffId(rbuild_store::digest::Digest::of(b"")); times.len()];
        let origins = vec![String::new(); times.len()];
        complete(&mut config, diff_ids, &origins, times, epoch);
        let all = config.history.iter().map(|it| &it.created).chain([&config.created]);
        let shown = all.map(|it| {
            let seconds = it.as_ref().map(|it| it.parse::<jiff::Timestamp>().expect("a time"));
            seconds.map_or("-".to_owned(), |it| it.as_second().to_string())
        });
        assert_eq!(shown.collect::<Vec<String>>().join(" "), want);
    }

    #[test]
    fn a_step_has_the_time_of_its_layer() {
        check_times("lel", &[Some(1), Some(2)], None, "1 2 2 2");
        check_times("lelee", &[Some(1), Some(2)], None, "1 2 2 2 2 2");
        check_times("le", &[Some(1)], None, "1 1 1");
    }

    #[test]
    fn a_base_without_times_has_those_of_the_first_layer_that_is_new() {
        check_times("llel", &[None, None, Some(5)], None, "5 5 5 5 5");
        check_times("le", &[None], None, "- - -");
        check_times("le", &[None], Some(7), "7 7 7");
        check_times("", &[], None, "-");
        check_times("", &[], Some(7), "7");
    }
}
