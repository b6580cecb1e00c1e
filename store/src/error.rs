//! What can go wrong with the local store, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::BlobId;

/// Result of an operation on the local store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why an operation on the local store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `open`, `write`, `rename`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store was written by a newer rbuild.
    #[error(
        "the store `{}` has format {found}, this rbuild knows formats up to {supported}: use a newer rbuild, or another store with `--root`",
        root.display()
    )]
    NewerFormat {
        /// Root of the store.
        root: PathBuf,
        /// Format found.
        found: u32,
        /// Newest format known here.
        supported: u32,
    },
    /// The directory has files, but none that says it is a store.
    #[error("`{}` is not empty and not a store of rbuild: choose another directory with `--root`", root.display())]
    NotAStore {
        /// The directory.
        root: PathBuf,
    },
    /// A file of the store does not hold what it must hold.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process uses the store in a way that excludes this operation.
    #[error("the store `{}` is in use by another rbuild: wait until it has ended", root.display())]
    Busy {
        /// Root of the store.
        root: PathBuf,
    },
    /// The blob is not here.
    #[error("blob {0} is not in the store")]
    Missing(BlobId),
    /// The bytes are not those that were announced.
    #[error("expected blob {expected}, but the bytes hash to {found}")]
    WrongDigest {
        /// Digest announced.
        expected: BlobId,
        /// Digest of the bytes.
        found: BlobId,
    },
    /// There are fewer or more bytes than announced.
    #[error("blob {blob} has {found} bytes, expected {expected}")]
    WrongSize {
        /// Digest announced.
        blob: BlobId,
        /// Bytes announced.
        expected: u64,
        /// Bytes there are, or came before reading stopped.
        found: u64,
    },
    /// A document that is read as a whole is too large.
    #[error("{subject} has {found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What.
        subject: String,
        /// Bytes.
        found: u64,
        /// Largest number of bytes that is read.
        limit: u64,
    },
    /// A name that becomes a file name has characters that must not be there.
    #[error("`{name}` cannot be the name of a {what}: only letters, digits, `-` and `_` can")]
    BadName {
        /// Of what: `layer`, `cache mount`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The database said no.
    #[error("cannot {action} the store's database")]
    Db {
        /// What was tried.
        action: &'static str,
        /// The database's answer.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Wraps the system's answer to `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Wraps the system's answer to `action` on `path`.
    pub(crate) fn errno(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { action, path: path.to_owned(), source: errno.into() }
    }

    /// Wraps the database's answer to `action`.
    pub(crate) fn db(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Db { action, source }
    }
}
