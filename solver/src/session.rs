//! Where a build's outside things come from.
//!
//! The solver takes local files, secrets, ssh agents and images through [`Session`]. The command
//! line has a local implementation; the API will have one that asks its client. Everything is
//! selected by name.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use rbuild_store::blobs::BlobWriter;
use rbuild_store::digest::{BlobId, DiffId};
use rbuild_store::growing::Growing;
use rbuild_store::platform::Platform;

use crate::solve::SealOptions;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A layer of an image that exists already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageLayer {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type, as the manifest has it.
    pub media_type: String,
}

/// An outside thing could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct SessionError {
    /// Whose fault it is.
    pub kind: SessionErrorKind,
    /// What could not be had and why.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SessionError {
    /// It was not offered, or does not exist.
    pub const fn user(text: String) -> Self {
        Self { kind: SessionErrorKind::User, text, hint: None }
    }

    /// A server refused or lied.
    pub const fn remote(text: String) -> Self {
        Self { kind: SessionErrorKind::Remote, text, hint: None }
    }

    /// The disk did not let us do something (`read`, for example) with the file at `path`.
    pub fn disk(action: &str, path: &Path, error: &io::Error) -> Self {
        let text = format!("cannot {action} {}: {error}", path.display());
        Self { kind: SessionErrorKind::Host, text, hint: None }
    }
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionErrorKind {
    /// It was not offered, or does not exist.
    User,
    /// The disk failed.
    Host,
    /// A server refused or lied.
    Remote,
}

/// A file or tree that was fetched: where it lies below the store's root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// Directory below the store's root that holds it.
    pub dir: PathBuf,
    /// What identifies the content: a commit, a checksum.
    pub identity: String,
}

/// Progress of a transfer: name of the part, units done, units in all, whether it ended.
pub type Progress<'a> = &'a (dyn Fn(&str, u64, u64, bool) + Send + Sync);

/// The outside world of one build.
pub trait Session: Send + Sync {
    /// The directory behind `local://name`; none for a context without files.
    ///
    /// # Errors
    ///
    /// If no such directory was offered.
    fn local_dir(&self, name: &str) -> Result<Option<PathBuf>, SessionError>;

    /// The value of a secret; none if it was not offered.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SessionError>;

    /// The socket of an ssh agent; none if it was not offered.
    ///
    /// # Errors
    ///
    /// If keys cannot be served.
    fn ssh_agent(&self, id: &str) -> Result<Option<PathBuf>, SessionError>;

    /// The layers of an image, lowest first. The identifier is that of a source operation, with
    /// the digest.
    fn image_layers<'a>(
        &'a self,
        identifier: &'a str,
        platform: Option<&'a Platform>,
    ) -> BoxFuture<'a, Result<Vec<ImageLayer>, SessionError>>;

    /// Writes a layer's blob to `into` and finishes it, verified.
    fn fetch_blob<'a>(
        &'a self,
        identifier: &'a str,
        layer: &'a ImageLayer,
        into: BlobWriter,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<(), SessionError>>;

    /// Fetches an `http://` or `https://` source: the directory holds one file.
    fn fetch_http<'a>(
        &'a self,
        identifier: &'a str,
        attrs: &'a std::collections::BTreeMap<String, String>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Fetched, SessionError>>;

    /// Fetches a `git://` source: the directory holds the tree.
    fn fetch_git<'a>(
        &'a self,
        identifier: &'a str,
        attrs: &'a std::collections::BTreeMap<String, String>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Fetched, SessionError>>;

    /// Whether layers that are written so are sent somewhere while they are: then
    /// [`Self::follow`] is called with each.
    fn follows(&self, _options: &SealOptions) -> bool {
        false
    }

    /// A layer of the result that is being written, or is in the store already. Who is told must not
    /// wait; what becomes of it is no matter of the build.
    fn follow(&self, _layer: Growing) {}
}
