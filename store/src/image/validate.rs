//! Recomputing everything that an image claims: every writer's test ends with it.

use std::collections::BTreeSet;
use std::io;

use super::assemble::Image;
use super::config::ImageConfig;
use super::error::ImageError;
use super::manifest::{Document, MAX_CONFIG_BYTES, Manifest};
use super::source::{Source, document};
use crate::compress::decoder;
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, DiffId, Hasher};
use crate::media_type;
use crate::tar::TarReader;
use crate::verify::VerifyReader;

/// Checks an image, or all images of an index: digest and size of every blob, the diff id of every
/// layer, that layers can be read, that counts agree. Reads everything.
///
/// # Errors
///
/// The first claim that is false.
pub fn validate(source: &dyn Source, root: &Descriptor) -> Result<(), ImageError> {
    let mut checked = BTreeSet::new();
    let mut to_check = vec![root.clone()];
    while let Some(descriptor) = to_check.pop() {
        if !checked.insert(descriptor.digest) {
            continue;
        }
        match document(source, &descriptor)? {
            Document::Index(index) => to_check.extend(index.manifests),
            Document::Manifest(manifest) => image(source, &manifest, &mut checked)?,
        }
    }
    Ok(())
}

fn image(
    source: &dyn Source,
    manifest: &Manifest,
    checked: &mut BTreeSet<BlobId>,
) -> Result<(), ImageError> {
    if !manifest.layers.iter().all(|layer| media_type::is_layer(&layer.media_type)) {
        // An artifact: nothing is known about its parts but their digests.
        return manifest.layers.iter().try_for_each(|part| bytes(source, part));
    }
    let text = source.read(&manifest.config, MAX_CONFIG_BYTES)?;
    if text.len() as u64 != manifest.config.size {
        let why = format!("it has {} bytes, not {}", text.len(), manifest.config.size);
        return Err(ImageError::Blob { blob: manifest.config.digest, why });
    }
    let config: ImageConfig = serde_json::from_slice(&text).map_err(|error| {
        let what = format!("image configuration {}", manifest.config.digest);
        ImageError::Malformed { what, why: error.to_string() }
    })?;
    let image = Image::new(config, manifest.layers.clone())?;
    for (descriptor, diff_id) in image.layers().iter().zip(&image.config().rootfs.diff_ids) {
        if checked.insert(descriptor.digest) {
            layer(source, descriptor, *diff_id)?;
        }
    }
    Ok(())
}

fn layer(source: &dyn Source, descriptor: &Descriptor, expected: DiffId) -> Result<(), ImageError> {
    let blob = descriptor.digest;
    let damaged = |error: &dyn std::error::Error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        ImageError::Blob { blob, why }
    };
    let stream = VerifyReader::new(source.open(descriptor)?, blob.0, descriptor.size);
    let (_, stream) = decoder(stream).map_err(|error| damaged(&error))?;
    let mut hashing = HashingReader { inner: stream, hasher: Hasher::new() };
    let mut tar = TarReader::new(&mut hashing);
    while tar.next().map_err(|error| damaged(&error))?.is_some() {}
    let found = DiffId(hashing.hasher.finish());
    if found == expected { Ok(()) } else { Err(ImageError::DiffId { blob, expected, found }) }
}

fn bytes(source: &dyn Source, descriptor: &Descriptor) -> Result<(), ImageError> {
    let blob = descriptor.digest;
    let mut stream = VerifyReader::new(source.open(descriptor)?, blob.0, descriptor.size);
    io::copy(&mut stream, &mut io::sink())
        .map(drop)
        .map_err(|error| ImageError::Blob { blob, why: error.to_string() })
}

/// Hashes what passes.
struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
