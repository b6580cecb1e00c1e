//! Descriptors: media type, digest and size of a blob, and what is said about it.
//!
//! OCI image-spec, descriptor.md. Field order is `BuildKit`'s, so that the bytes of a manifest are
//! stable. Digests of other algorithms than SHA-256 are refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::BlobId;
use crate::platform::Platform;

/// Annotation of an index entry: the tag or name of the image.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Annotation of an index entry: the full name of the image, as containerd writes it.
pub const CONTAINERD_IMAGE_NAME: &str = "io.containerd.image.name";

/// What leads to a blob.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: BlobId,
    /// Its bytes.
    pub size: u64,
    /// Where else the blob can be had; written by Windows images only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What is said about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The platform of the image, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What kind of artifact the manifest describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Nothing but the three facts that every descriptor has.
    pub fn new(media_type: impl Into<String>, digest: BlobId, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// Whether both lead to the same bytes, read the same way; whatever else is said about them.
    pub fn same_content(&self, other: &Self) -> bool {
        (&self.media_type, self.digest, self.size) == (&other.media_type, other.digest, other.size)
    }
}
