//! What can go wrong with layers on disk, by what the caller can do about it.

use std::io;

use rbuild_store::digest::DiffId;
use rbuild_store::error::StoreError;
use rbuild_store::layer::LayerError;
use rbuild_store::tar::read::ReadError;

use crate::worker::proto::{Failure, FailureKind};

/// Why a layer could not be put on disk, read, or taken off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused a file operation.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what, below the directory that was worked on.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The stream that a layer came from ended early or could not be read.
    #[error("cannot read the stream of layer `{layer}`")]
    Stream {
        /// The layer.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// A layer's archive is damaged.
    #[error("cannot unpack layer `{layer}`")]
    Unreadable {
        /// The layer.
        layer: String,
        /// Why.
        source: ReadError,
    },
    /// An archive says something that it must not.
    #[error("layer archive is not acceptable: `{path}` {why}")]
    Archive {
        /// The entry.
        path: String,
        /// What is wrong with it: completes the sentence.
        why: &'static str,
    },
    /// An archive links to a file of a layer below it that is not on disk (yet).
    #[error("a layer links to files of layers below it, which are not on disk")]
    NeedsBelow,
    /// A layer was unpacked over other layers than those that it is wanted on.
    #[error(
        "layer `{layer}` links to files of the layers below it, and is in the store with those of another image: \
         only one of the two images can be used from this store"
    )]
    OtherBelow {
        /// The layer.
        layer: String,
    },
    /// The bytes are not those that were promised.
    #[error(
        "layer `{layer}` does not match its digest: expected diff id {expected}, found {found}"
    )]
    Mismatch {
        /// The layer.
        layer: String,
        /// The promise.
        expected: DiffId,
        /// What the bytes hash to.
        found: DiffId,
    },
    /// A layer could not be written as a blob, or a tree as an archive.
    #[error("cannot write layer `{layer}`")]
    Seal {
        /// The layer.
        layer: String,
        /// Why.
        source: LayerError,
    },
    /// A layer that should be in the store is not.
    #[error("layer `{layer}` is not in the store: {what}")]
    Missing {
        /// The layer.
        layer: String,
        /// Which part of it is missing.
        what: &'static str,
    },
    /// A file of the store does not say what it should.
    #[error("`{path}` in the store is damaged: {why}")]
    Damaged {
        /// The file, below the store's root.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something exceeds a limit.
    #[error("`{path}` is over the limit: {what} is at most {limit}")]
    Limit {
        /// What is too big.
        path: String,
        /// What is counted.
        what: &'static str,
        /// The most that is accepted.
        limit: u64,
    },
    /// The caller asked for something that the types allow but the contract does not.
    #[error("this is a bug in rbuild, please report it: {0}")]
    Bug(String),
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<[u8]>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: show(path), source: source.into() }
    }

    /// An [`Error::Archive`].
    pub(crate) fn archive(path: impl AsRef<[u8]>, why: &'static str) -> Self {
        Self::Archive { path: show(path), why }
    }

    /// The error as it goes over the wire: kind, and the text with its causes.
    pub fn to_failure(&self) -> Failure {
        let kind = match self {
            Self::Io { .. }
            | Self::Limit { .. }
            | Self::Seal { .. }
            | Self::Store(_)
            | Self::NeedsBelow
            | Self::OtherBelow { .. } => FailureKind::Host,
            Self::Stream { .. }
            | Self::Unreadable { .. }
            | Self::Archive { .. }
            | Self::Mismatch { .. } => FailureKind::Remote,
            Self::Missing { .. } | Self::Damaged { .. } => FailureKind::Host,
            Self::Bug(_) => FailureKind::Bug,
        };
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Failure { kind, text }
    }
}

/// A path as a message shows it: the root is `/`, strange bytes are replaced, nothing is longer
/// than [`SHOWN_BYTES`].
pub(crate) fn show(path: impl AsRef<[u8]>) -> String {
    let path = path.as_ref();
    if path.is_empty() {
        return "/".to_owned();
    }
    let text = String::from_utf8_lossy(&path[..path.len().min(SHOWN_BYTES)]);
    text.escape_debug().to_string()
}

/// Bytes of a path that a message shows at most.
const SHOWN_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_cause_once() {
        let error =
            Error::io("create", b"etc/\xffpasswd")(io::Error::from_raw_os_error(libc::ENOSPC));
        let failure = error.to_failure();
        assert_eq!(failure.kind, FailureKind::Host);
        assert_eq!(
            failure.text,
            "cannot create `etc/\u{fffd}passwd`: No space left on device (os error 28)"
        );
    }

    #[test]
    fn root_is_shown_as_a_slash() {
        assert_eq!(show(b""), "/");
        assert_eq!(show(vec![b'a'; 9999]).len(), SHOWN_BYTES);
    }
}
