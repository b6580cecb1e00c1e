//! What the frontend asks of the world, and what it is told.

use rbuild_solver::llb::op::SourceOp;
use rbuild_store::image::config::ImageConfig;
use rbuild_store::platform::Platform;

/// An image that a Dockerfile names.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ImageRequest {
    /// The name in full form: `docker.io/library/busybox:latest`, or `oci-layout://…` of a named
    /// context.
    pub reference: String,
    /// For which platform.
    pub platform: Platform,
    /// What progress calls the question: `[internal] load metadata for …`.
    pub name: String,
}

/// What an image is.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The reference with the digest of the manifest (or index) that it stands for now; goes into
    /// the graph: `docker-image://docker.io/library/busybox:latest@sha256:…`.
    pub pinned: String,
    /// Its configuration.
    pub config: ImageConfig,
    /// The platform it is really for.
    pub platform: Platform,
}

/// A question failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct GatewayError {
    /// Which kind: decides the exit code.
    pub kind: GatewayErrorKind,
    /// What could not be done and why.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Kinds of failed questions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GatewayErrorKind {
    /// It does not exist.
    NotFound,
    /// The registry refused or could not be reached.
    Remote,
    /// The disk failed.
    Host,
}

/// The world as the frontend sees it. Everything else about a build is in
/// [`crate::options::BuildOptions`].
pub trait Gateway {
    /// Resolves images, all at once so that the requests can overlap. The answers are in the order
    /// of the questions; each fails on its own, and a failed one only matters if a stage that is
    /// needed uses it.
    fn resolve_images(&self, requests: &[ImageRequest])
    -> Vec<Result<ResolvedImage, GatewayError>>;

    /// Reads a file of a build context: `.dockerignore`. `context` is `context` for the main one,
    /// `dockerfile` for the directory of the Dockerfile, else the name of a local source
    /// ([`crate::options::NamedContext::Local`]). None if it does not exist.
    ///
    /// # Errors
    ///
    /// If it exists and cannot be read.
    fn read_context_file(&self, context: &str, path: &str)
    -> Result<Option<Vec<u8>>, GatewayError>;

    /// The time of a source, in seconds: of a commit, of a file of a web server, of the newest file
    /// of an archive. None if it has none.
    ///
    /// # Errors
    ///
    /// If the source cannot be had.
    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, GatewayError>;
}
