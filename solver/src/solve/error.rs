//! Why a build failed, with the vertex it failed at.

use crate::llb::VertexId;
use crate::session::{SessionError, SessionErrorKind};
use crate::worker::proto::{Failure, FailureKind};

/// Why a build failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct SolveError {
    /// Whose turn it is.
    pub kind: SolveErrorKind,
    /// What could not be done and why.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The vertex that failed.
    pub vertex: Option<VertexId>,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SolveErrorKind {
    /// The Dockerfile's, or a command's.
    User,
    /// The host's.
    Host,
    /// A server's.
    Remote,
    /// Ours.
    Bug,
    /// The build was interrupted.
    Cancelled,
}

impl SolveError {
    /// An error without vertex and hint.
    pub fn new(kind: SolveErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), hint: None, vertex: None }
    }

    /// A fault of the Dockerfile.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(SolveErrorKind::User, text)
    }

    /// A fault of the host: what could not be done, and why.
    pub fn host(action: &str, error: &dyn std::error::Error) -> Self {
        Self::new(SolveErrorKind::Host, format!("cannot {action}: {}", crate::causes::chain(error)))
    }

    /// An interrupted build.
    pub fn cancelled() -> Self {
        Self::new(SolveErrorKind::Cancelled, "canceled")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds where it happened, unless that is known.
    #[must_use]
    pub fn at(mut self, vertex: VertexId) -> Self {
        self.vertex.get_or_insert(vertex);
        self
    }
}

impl From<SessionError> for SolveError {
    fn from(error: SessionError) -> Self {
        let kind = match error.kind {
            SessionErrorKind::User => SolveErrorKind::User,
            SessionErrorKind::Host => SolveErrorKind::Host,
            SessionErrorKind::Remote => SolveErrorKind::Remote,
        };
        Self { kind, text: error.text, hint: error.hint, vertex: None }
    }
}

impl From<Failure> for SolveError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::User => SolveErrorKind::User,
            FailureKind::Host => SolveErrorKind::Host,
            FailureKind::Remote => SolveErrorKind::Remote,
            FailureKind::Bug => SolveErrorKind::Bug,
        };
        Self::new(kind, failure.text)
    }
}

impl From<rbuild_store::error::StoreError> for SolveError {
    fn from(error: rbuild_store::error::StoreError) -> Self {
        Self::new(SolveErrorKind::Host, crate::causes::chain(&error))
    }
}

impl From<crate::snapshot::Error> for SolveError {
    fn from(error: crate::snapshot::Error) -> Self {
        error.to_failure().into()
    }
}
