//! The outside world of a build on the command line.

pub mod git;
mod git_program;
pub mod http;
pub mod images;
pub mod offers;
pub mod remote;
mod ssh;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_solver::session::{
    BoxFuture, Fetched, ImageLayer, Progress, Session, SessionError, SessionErrorKind,
};
use rbuild_solver::solve::SealOptions;
use rbuild_store::blobs::BlobWriter;
use rbuild_store::growing::Growing;
use rbuild_store::local::Store;
use rbuild_store::platform::Platform;
use rbuild_store::registry::{ErrorKind, RegistryError};

use self::images::Images;
use self::offers::Offers;
use self::remote::Remotes;
use crate::output::Ahead;
use crate::report::{Failure, Kind};

/// The outside world of one build: directories, secrets, agents, images.
#[derive(Debug)]
pub struct LocalSession {
    /// Directories by name of the local source; none for a context without files.
    pub directories: BTreeMap<String, Option<PathBuf>>,
    /// Secrets and agents.
    pub offers: Arc<Offers>,
    /// Images and registries.
    pub images: Arc<Images>,
    /// Git repositories and web servers.
    pub remotes: Arc<Remotes>,
    /// Where layers go while they are written, if they do.
    pub ahead: Option<Arc<Ahead>>,
}

pub use ssh::KeyAgents;

impl Session for LocalSession {
    fn local_dir(&self, name: &str) -> Result<Option<PathBuf>, SessionError> {
        self.directories.get(name).cloned().ok_or_else(|| SessionError {
            kind: SessionErrorKind::User,
            text: format!("there is no build context named `{name}`"),
            hint: None,
        })
    }

    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, SessionError> {
        self.offers.secret(id)
    }

    fn ssh_agent(&self, id: &str) -> Result<Option<PathBuf>, SessionError> {
        self.offers.ssh_agent(id)
    }

    fn image_layers<'a>(
        &'a self,
        identifier: &'a str,
        platform: Option<&'a Platform>,
    ) -> BoxFuture<'a, Result<Vec<ImageLayer>, SessionError>> {
        Box::pin(self.images.layers(identifier, platform))
    }

    fn fetch_blob<'a>(
        &'a self,
        identifier: &'a str,
        layer: &'a ImageLayer,
        into: BlobWriter,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<(), SessionError>> {
        Box::pin(self.images.fetch_blob(identifier, layer, into, progress))
    }

    fn fetch_http<'a>(
        &'a self,
        identifier: &'a str,
        attrs: &'a BTreeMap<String, String>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Fetched, SessionError>> {
        Box::pin(async move {
            let fetched = self.remotes.http(identifier, attrs, progress).await?;
            Ok(Fetched { dir: fetched.dir, identity: fetched.digest.to_string() })
        })
    }

    fn fetch_git<'a>(
        &'a self,
        identifier: &'a str,
        attrs: &'a BTreeMap<String, String>,
        _: Progress<'a>,
    ) -> BoxFuture<'a, Result<Fetched, SessionError>> {
        Box::pin(self.remotes.git(identifier, attrs))
    }

    fn follows(&self, options: &SealOptions) -> bool {
        self.ahead.as_ref().is_some_and(|it| it.wants(options))
    }

    fn follow(&self, layer: Growing) {
        if let Some(ahead) = &self.ahead {
            ahead.follow(&layer);
        }
    }
}

/// Where unfinished downloads go, away from other processes' hands.
fn scratch(store: &Store) -> Result<PathBuf, SessionError> {
    let dir = store.temp().dir();
    let kind = SessionErrorKind::Host;
    dir.map_err(|error| SessionError { kind, text: crate::report::chain(&error), hint: None })
}

/// A registry's failure as the session tells it.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else fails is the other side's")]
pub fn registry_error(error: &RegistryError) -> SessionError {
    let kind = match error.kind() {
        ErrorKind::Local | ErrorKind::Config => SessionErrorKind::Host,
        _ => SessionErrorKind::Remote,
    };
    SessionError { kind, text: error.to_string(), hint: error.hint().map(str::to_owned) }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let kind = match error.kind {
            SessionErrorKind::User => Kind::User,
            SessionErrorKind::Host => Kind::Host,
            SessionErrorKind::Remote => Kind::Remote,
        };
        Self { kind, text: error.text, excerpt: String::new(), hint: error.hint }
    }
}

impl From<rbuild_store::error::StoreError> for Failure {
    fn from(error: rbuild_store::error::StoreError) -> Self {
        Self::new(Kind::Host, crate::report::chain(&error))
    }
}
