//! Why an image could not be read, made or written.

use std::io;
use std::path::PathBuf;

use crate::digest::{BlobId, DiffId};
use crate::error::StoreError;
use crate::tar::write::WriteError;

/// Why an image could not be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document is not what its media type says.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which: `manifest sha256:…`, `/layout/index.json`.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A blob does not have the digest or the size that its descriptor states.
    #[error("blob {blob} of the image is damaged: {why}")]
    Blob {
        /// Digest that the descriptor states.
        blob: BlobId,
        /// What is wrong with it.
        why: String,
    },
    /// A layer holds another tar than the configuration states.
    #[error("layer {blob} holds the tar {found}, but the configuration states {expected}")]
    DiffId {
        /// The layer's blob.
        blob: BlobId,
        /// What the configuration states.
        expected: DiffId,
        /// What the layer holds.
        found: DiffId,
    },
    /// Nothing has that name.
    #[error("`{name}` is not in `{}`, which has {}", place.display(), or_nothing(available))]
    NotFound {
        /// Name or digest asked for.
        name: String,
        /// Where.
        place: PathBuf,
        /// What there is instead.
        available: Vec<String>,
    },
    /// The directory is not an OCI layout.
    #[error("`{}` is not an OCI layout: {why}", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The file system said no, outside of the store.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A blob could not be read to its end.
    #[error("cannot read blob {blob}")]
    Read {
        /// Which.
        blob: BlobId,
        /// Why.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error(transparent)]
    Archive(#[from] WriteError),
}

fn or_nothing(names: &[String]) -> String {
    if names.is_empty() { "nothing with a name".to_owned() } else { names.join(", ") }
}

impl ImageError {
    /// Wraps the system's answer to `action` on `path`.
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
