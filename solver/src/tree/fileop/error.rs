//! Why a file operation cannot be done, in BuildKit's words.

use std::io;

use rbuild_store::pattern::PatternError;

use crate::tree::pick::PickError;
use crate::tree::resolve::ResolveError;

/// Largest `/etc/passwd` or `/etc/group` that is read; BuildKit's number.
pub(super) const MAX_BYTES: u64 = 10 << 20;

/// Why a file operation cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum FileOpError {
    /// A call that BuildKit would have made fails.
    #[error("{call} /{}: {why}", String::from_utf8_lossy(path))]
    Path {
        /// The call: `lstat`, `mkdir`, `open`, …
        call: &'static str,
        /// Path in the tree.
        path: Vec<u8>,
        /// What the system would have said.
        why: Why,
    },
    /// The destination's directory is missing and not to be made.
    #[error(
        "failed to stat {dest}: lstat /{}: no such file or directory",
        String::from_utf8_lossy(path)
    )]
    NoDestination {
        /// The destination as written.
        dest: String,
        /// The directory.
        path: Vec<u8>,
    },
    /// A wildcard matches nothing.
    #[error("{pattern} not found")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A directory is copied onto something else.
    #[error("cannot copy to non-directory: /{}", String::from_utf8_lossy(path))]
    OverNonDirectory {
        /// The destination.
        path: Vec<u8>,
    },
    /// A file is copied onto a directory.
    #[error("cannot replace to directory /{} with file", String::from_utf8_lossy(path))]
    OverDirectory {
        /// The destination.
        path: Vec<u8>,
    },
    /// A symbolic link is made where something is.
    #[error("symlink {target} /{}: file exists", String::from_utf8_lossy(path))]
    Exists {
        /// The link's target.
        target: String,
        /// Its path.
        path: Vec<u8>,
    },
    /// A source cannot be expanded.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// A path leads nowhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A filter is not a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A symbolic mode is not one.
    #[error("invalid mode `{mode}`: invalid syntax")]
    Mode {
        /// The mode.
        mode: String,
    },
    /// An owner is given by name where there is no tree to look it up in.
    #[error("invalid user index: -1")]
    OwnerOfNothing,
    /// `/etc/passwd` or `/etc/group` is not usable.
    #[error(
        "/{} is not a regular file of at most {} bytes",
        String::from_utf8_lossy(path),
        MAX_BYTES
    )]
    OwnerFile {
        /// Its path.
        path: Vec<u8>,
    },
    /// A content cannot be read.
    #[error("cannot read /{}", String::from_utf8_lossy(path))]
    Read {
        /// Path in the source.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// An archive is broken or hostile.
    #[error("cannot unpack /{}", String::from_utf8_lossy(path))]
    Unpack {
        /// Path of the archive in the source.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// The operation itself makes no sense.
    #[error("invalid file operation: {0}")]
    Graph(&'static str),
}

/// What the system would have said.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Why {
    /// ENOENT
    #[error("no such file or directory")]
    NotFound,
    /// ENOTDIR
    #[error("not a directory")]
    NotADirectory,
    /// EISDIR
    #[error("is a directory")]
    IsADirectory,
    /// EEXIST
    #[error("file exists")]
    Exists,
}

impl FileOpError {
    pub(super) fn path(call: &'static str, path: &[u8], why: Why) -> Self {
        Self::Path { call, path: path.to_vec(), why }
    }
}
