//! The facts that the database holds, as data.
//!
//! Times are seconds since the epoch, given by the caller.

use crate::compress::Compression;
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, DiffId, Digest};

mod tree;

pub use tree::{Tree, TreeId};

/// A name for an image of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Full name: `docker.io/library/app:1`.
    pub name: String,
    /// Manifest or index.
    pub target: Descriptor,
    /// When it was set.
    pub updated: i64,
}

/// What a finished step left behind, under one of its keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The key it is found by.
    pub key: Digest,
    /// The key under which the result was really made, where this one only leads to it.
    pub real_key: Option<Digest>,
    /// Versioned JSON; only the solver reads it.
    pub value: String,
    /// The results: their layers live as long as the record does.
    pub trees: Vec<Tree>,
    /// Blobs that the value names.
    pub blobs: Vec<BlobId>,
    /// When it was made.
    pub created: i64,
    /// When it was last hit, to within [`crate::db::TOUCH_SECONDS`].
    pub last_used: i64,
}

/// What a step leaves: kept or lost as one.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Layers, and the bytes of their regular files.
    pub layers: Vec<(String, u64)>,
    /// Its result, under each of its keys.
    pub records: Vec<Record>,
    /// The named parts of its key, as text of the caller's, by the identity of the step.
    pub parts: Option<(Digest, String)>,
}

/// A layer of the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LayerRow {
    /// Name of its directory.
    pub id: String,
    /// Bytes of its regular files.
    pub size: u64,
    /// When it was made.
    pub created: i64,
    /// When it was last used, to within [`crate::db::TOUCH_SECONDS`].
    pub last_used: i64,
}

/// A layer written as a blob.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedRow {
    /// The layer.
    pub layer: String,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Later times that became this one, in seconds (part of what the blob depends on).
    pub clamp_mtime: Option<i64>,
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobId,
    /// Bytes of the blob.
    pub size: u64,
}

/// A blob known to hold a certain tar.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiffRow {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
}

/// What an image name stood for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvedRow {
    /// The digest it was pinned to.
    pub digest: Digest,
    /// When that was asked.
    pub at: i64,
}
