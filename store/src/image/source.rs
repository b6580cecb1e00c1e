//! Where the blobs of an image are, and walking from a manifest to all of them.

use std::collections::BTreeSet;
use std::io::Read;

use super::error::ImageError;
use super::manifest::{Document, MAX_MANIFEST_BYTES};
use crate::blobs::Blobs;
use crate::descriptor::Descriptor;
use crate::digest::BlobId;
use crate::error::StoreError;
use crate::media_type;

/// Indexes in indexes deeper than this are refused.
const MAX_DEPTH: usize = 4;

/// Most blobs that one index may lead to.
const MAX_BLOBS: usize = 100_000;

/// A place that has blobs: the store, an OCI layout.
pub trait Source {
    /// A whole blob, verified.
    ///
    /// # Errors
    ///
    /// It is not there, larger than `limit`, or damaged.
    fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError>;

    /// A blob as a stream of as many bytes as the descriptor states.
    ///
    /// # Errors
    ///
    /// It is not there, or has another size.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, ImageError>;
}

impl Source for Blobs {
    fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
        Ok(Self::read(self, &descriptor.digest, limit)?)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, ImageError> {
        let file = Self::open(self, &descriptor.digest, descriptor.size)?;
        Ok(Box::new(file.ok_or(StoreError::Missing(descriptor.digest))?))
    }
}

/// Reads a manifest or an index.
///
/// # Errors
///
/// It is not there, or is malformed.
pub fn document(source: &dyn Source, descriptor: &Descriptor) -> Result<Document, ImageError> {
    let bytes = source.read(descriptor, MAX_MANIFEST_BYTES)?;
    Document::parse(&bytes, &descriptor.media_type)
}

/// All blobs that `roots` lead to, the roots included; each once, and each after those that it
/// leads to: in this order they can be copied at any pace without a dangling document.
///
/// # Errors
///
/// A manifest or index is not there or malformed; or there are too many, too deep.
pub fn closure(source: &dyn Source, roots: &[Descriptor]) -> Result<Vec<Descriptor>, ImageError> {
    let mut walk = Walk { source, seen: BTreeSet::new(), all: Vec::new() };
    for root in roots {
        walk.visit(root, 0)?;
    }
    Ok(walk.all)
}

struct Walk<'a> {
    source: &'a dyn Source,
    seen: BTreeSet<BlobId>,
    all: Vec<Descriptor>,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), ImageError> {
        let malformed = |why: &str| ImageError::Malformed {
            what: format!("index {}", descriptor.digest),
            why: why.to_owned(),
        };
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        if self.seen.len() > MAX_BLOBS {
            return Err(malformed("it leads to too many blobs"));
        }
        if media_type::is_manifest(&descriptor.media_type)
            || media_type::is_index(&descriptor.media_type)
        {
            if depth > MAX_DEPTH {
                return Err(malformed("it is nested too deeply"));
            }
            let document = document(self.source, descriptor)?;
            for child in document.children() {
                self.visit(child, depth + 1)?;
            }
        }
        self.all.push(descriptor.clone());
        Ok(())
    }
}
