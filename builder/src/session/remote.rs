//! Sources that others serve: git repositories and files of web servers, each fetched once a build.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_solver::llb::op::SourceOp;
use rbuild_solver::session::{Fetched, Progress, SessionError};
use rbuild_store::local::Store;
use tokio::sync::OnceCell;

use super::git::{self, GitSource};
use super::http::{self, HttpFile};
use super::images::Images;
use super::offers::Offers;
use crate::cli::remote::{CONTEXT_FILE, is_url};
use crate::context::archive;
use crate::report::Failure;

/// Fetches, and remembers what was fetched: a source means the same in all of a build.
#[derive(Debug)]
pub struct Remotes {
    /// Where downloads are kept.
    pub store: Arc<Store>,
    /// Has the connections.
    pub images: Arc<Images>,
    /// Credentials.
    pub offers: Arc<Offers>,
    git: Once<(PathBuf, String)>,
    http: Once<HttpFile>,
}

/// What a source is known by.
type Key = (String, BTreeMap<String, String>);

/// Results by source; the first who asks makes it.
type Once<T> = Mutex<BTreeMap<Key, Arc<OnceCell<T>>>>;

impl Remotes {
    /// Nothing is fetched yet.
    pub fn new(store: Arc<Store>, images: Arc<Images>, offers: Arc<Offers>) -> Self {
        Self { store, images, offers, git: Mutex::default(), http: Mutex::default() }
    }

    /// The time of a source in seconds: of a commit, of a file as its server says, of the newest file
    /// in an archive. `context` is where the main context is, if it is here.
    ///
    /// # Errors
    ///
    /// If the source cannot be fetched.
    pub async fn time(
        &self,
        source: &SourceOp,
        context: Option<&Path>,
    ) -> Result<Option<i64>, Failure> {
        if source.identifier.starts_with("git://") {
            let mut attrs = source.attrs.clone();
            attrs.insert("git.mtime".to_owned(), "commit".to_owned());
            let tree = self.store.root().join(self.git(&source.identifier, &attrs).await?.dir);
            let read = |error| Failure::host(&format!("look at {}", tree.display()), &error);
            return Ok(Some(tree.metadata().map_err(read)?.mtime()));
        }
        if is_url(&source.identifier) {
            let file = self.http(&source.identifier, &source.attrs, &|_, _, _, _| {}).await?;
            let newest = || archive::newest(&self.store.root().join(&file.dir).join(&file.name));
            return Ok(file.modified().or_else(newest));
        }
        Ok(context.and_then(|directory| archive::newest(&directory.join(CONTEXT_FILE))))
    }

    /// Fetches a `git://` source: a directory that holds the tree.
    ///
    /// # Errors
    ///
    /// See [`git::fetch`].
    pub async fn git(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Fetched, SessionError> {
        let cell = cell(&self.git, identifier, attrs);
        let source = GitSource::parse(identifier, attrs);
        let fetch = || git::fetch(&source, &self.store, &self.offers);
        let (dir, identity) = cell.get_or_try_init(fetch).await?.clone();
        Ok(Fetched { dir, identity })
    }

    /// Fetches a file.
    ///
    /// # Errors
    ///
    /// See [`http::fetch`].
    pub async fn http(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        progress: Progress<'_>,
    ) -> Result<HttpFile, SessionError> {
        let cell = cell(&self.http, identifier, attrs);
        let fetch = async || {
            let web = self.images.registry()?.web();
            http::fetch(&web, identifier, attrs, &self.store, progress).await
        };
        Ok(cell.get_or_try_init(fetch).await?.clone())
    }
}

fn cell<T>(all: &Once<T>, identifier: &str, attrs: &BTreeMap<String, String>) -> Arc<OnceCell<T>> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(all.entry((identifier.to_owned(), attrs.clone())).or_default())
}
