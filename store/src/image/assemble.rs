//! An image while it is made: configuration and layers, changed by pure functions.

use super::config::{History, ImageConfig};
use super::error::ImageError;
use super::manifest::{Manifest, Written};
use crate::blobs::Blobs;
use crate::descriptor::Descriptor;
use crate::digest::DiffId;
use crate::error::StoreError;
use crate::layer::Layer;
use crate::media_type::Family;

/// A configuration and its layers. There are as many layers as the configuration has diff ids, and
/// as many as its history says, if it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    config: ImageConfig,
    layers: Vec<Descriptor>,
}

/// An image as documents: what is stored and pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedImage {
    /// The configuration.
    pub config: Written,
    /// The manifest.
    pub manifest: Written,
}

impl Image {
    /// Puts together what was read.
    ///
    /// # Errors
    ///
    /// There are not as many layers as the configuration says.
    pub fn new(config: ImageConfig, layers: Vec<Descriptor>) -> Result<Self, ImageError> {
        let malformed = |why| ImageError::Malformed { what: "image configuration".to_owned(), why };
        let (found, expected) = (layers.len(), config.rootfs.diff_ids.len());
        if found != expected {
            let why = format!("it has {expected} diff ids, the manifest has {found} layers");
            return Err(malformed(why));
        }
        let in_history = config.history.iter().filter(|line| !line.empty_layer).count();
        if !config.history.is_empty() && in_history != expected {
            let why = format!("its history has {in_history} layers, it has {expected} diff ids");
            return Err(malformed(why));
        }
        Ok(Self { config, layers })
    }

    /// Adds a layer on top, with the line of history that made it.
    pub fn append(&mut self, diff_id: DiffId, layer: Descriptor, history: History) {
        self.config.rootfs.diff_ids.push(diff_id);
        self.layers.push(layer);
        self.config.history.push(History { empty_layer: false, ..history });
    }

    /// Adds a layer that was just written.
    pub fn append_layer(&mut self, layer: &Layer, family: Family, history: History) {
        self.append(layer.diff_id, layer.descriptor(family), history);
    }

    /// Adds a line of history that made no layer.
    pub fn append_history(&mut self, history: History) {
        self.config.history.push(History { empty_layer: true, ..history });
    }

    /// The configuration.
    pub const fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// Prints configuration and manifest; layers get the media types of `family`. `annotate` may
    /// add to the manifest.
    pub fn seal(&self, family: Family, annotate: impl FnOnce(&mut Manifest)) -> SealedImage {
        let bytes = serde_json::to_vec(&self.config)
            .expect("a configuration has only texts, numbers and maps with text keys");
        let config = Written::new(family.config(), bytes);
        let convert = |layer: &Descriptor| Descriptor {
            media_type: family
                .convert_layer(&layer.media_type)
                .unwrap_or(&layer.media_type)
                .to_owned(),
            ..layer.clone()
        };
        let layers = self.layers.iter().map(convert).collect();
        let mut manifest = Manifest::new(family, config.descriptor.clone(), layers);
        annotate(&mut manifest);
        SealedImage { config, manifest: manifest.write() }
    }
}

impl SealedImage {
    /// Puts both documents into the store, the configuration first: what a document leads to is
    /// there before the document is.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn put(&self, blobs: &Blobs) -> Result<(), StoreError> {
        blobs.put(&self.config.bytes)?;
        blobs.put(&self.manifest.bytes)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Compression;
    use crate::digest::{BlobId, Digest};
    use crate::media_type;

    #[test]
    fn layers_and_history_grow_together() {
        let mut image = Image::new(ImageConfig::default(), vec![]).expect("empty");
        let line = |text: &str| History { created_by: Some(text.to_owned()), ..History::default() };
        image.append_history(line("ENV a=b"));
        let layer = Layer {
            diff_id: DiffId(Digest::of(b"tar")),
            blob: BlobId(Digest::of(b"gzip")),
            size: 4,
            compression: Compression::Gzip(6),
        };
        image.append_layer(&layer, Family::Oci, line("RUN make"));
        let again = Image::new(image.config().clone(), image.layers().to_vec());
        assert_eq!(again.expect("consistent"), image);
        let sealed = image.seal(Family::Docker, |_| {});
        let manifest: Manifest = serde_json::from_slice(&sealed.manifest.bytes).expect("parses");
        assert_eq!(manifest.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
        assert_eq!(manifest.config, sealed.config.descriptor);

        let error = Image::new(image.config().clone(), vec![]).expect_err("inconsistent");
        assert!(error.to_string().contains("1 diff ids, the manifest has 0 layers"), "{error}");
    }
}
