//! Trees from outside: build contexts, URLs, git repositories.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::SolveError;
use super::layers::{Layers, blocking};
use super::{EventSink, Solver};
use crate::cache::json_list;
use crate::event::EventKind;
use crate::llb::op::{Op, SourceOp};
use crate::llb::{Graph, VertexId};
use crate::tree::context::{self, Filter};
use crate::tree::listing::Listing;
use crate::tree::stat_cache::{StatCache, Version};
use crate::worker::proto::Root;

/// A tree that is not in the store's layers.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Its entries.
    pub listing: Arc<Listing>,
    /// Versions of its files, one for each entry.
    pub versions: Arc<Vec<Version>>,
    /// Where its files are, as plans name it.
    pub root: Root,
    /// Where its files are, on this host.
    pub dir: PathBuf,
    /// Digests of its files.
    pub digests: Arc<Mutex<StatCache>>,
}

/// Whether a vertex is a tree from outside.
pub(crate) fn is_outside(op: &Op) -> bool {
    matches!(op, Op::Source(source) if scheme(source) != "docker-image" && scheme(source) != "oci-layout")
}

fn scheme(source: &SourceOp) -> &str {
    source.identifier.split_once("://").map_or("", |(scheme, _)| scheme)
}

/// Finds all trees from outside that `needed` vertices of the graph name, side by side.
///
/// # Errors
///
/// If one cannot be had; the error names the vertex.
pub(crate) async fn find_all(
    solver: &Solver,
    graph: &Graph,
    needed: &[VertexId],
    layers: &Layers,
) -> Result<HashMap<VertexId, Outside>, SolveError> {
    let caches = StatCaches { solver, layers, open: Mutex::default() };
    let sources = needed
        .iter()
        .filter_map(|&id| Some((id, graph[id].op.source()?)))
        .filter(|(id, _)| is_outside(&graph[*id].op));
    let found = sources.map(async |(id, source)| {
        let vertex = graph[id].digest;
        solver.events.send(vertex, EventKind::Started);
        let result = find(solver, source, vertex, &caches).await;
        let error = result.as_ref().err().map(ToString::to_string);
        solver.events.send(vertex, EventKind::Completed { error });
        result.map(|outside| (id, outside)).map_err(|error| error.at(id))
    });
    let found = futures_util::future::try_join_all(found).await?;
    Ok(found.into_iter().collect())
}

/// Stat caches by directory, so that two sources of one directory share one.
struct StatCaches<'a> {
    solver: &'a Solver,
    layers: &'a Layers,
    open: Mutex<HashMap<PathBuf, Arc<Mutex<StatCache>>>>,
}

impl StatCaches<'_> {
    fn of(&self, dir: &std::path::Path) -> Arc<Mutex<StatCache>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = open.entry(dir.to_owned()).or_insert_with(|| {
            Arc::new(Mutex::new(StatCache::open(&self.solver.store.layout().stat(), dir)))
        });
        Arc::clone(cache)
    }
}

async fn find(
    solver: &Solver,
    source: &SourceOp,
    vertex: rbuild_store::digest::Digest,
    caches: &StatCaches<'_>,
) -> Result<Outside, SolveError> {
    let progress = progress(&solver.events, vertex);
    match scheme(source) {
        "local" => {
            let name = source.identifier.trim_start_matches("local://");
            let filter = Filter {
                follow_paths: json_list(&source.attrs, "local.followpaths"),
                include_patterns: json_list(&source.attrs, "local.includepattern"),
                exclude_patterns: json_list(&source.attrs, "local.excludepatterns"),
            };
            match solver.session.local_dir(name)? {
                Some(dir) => {
                    let root = caches.layers.host_root(&dir);
                    walk(dir, root, filter, caches).await
                }
                None => Ok(Outside {
                    listing: Arc::new(Listing::default()),
                    versions: Arc::default(),
                    root: Root::Store(PathBuf::from("tmp")),
                    dir: solver.store.root().to_owned(),
                    digests: caches.of(solver.store.root()),
                }),
            }
        }
        "http" | "https" => {
            let fetched =
                solver.session.fetch_http(&source.identifier, &source.attrs, &progress).await?;
            let dir = solver.store.root().join(&fetched.dir);
            walk(dir, Root::Store(fetched.dir), Filter::default(), caches).await
        }
        "git" => {
            let fetched =
                solver.session.fetch_git(&source.identifier, &source.attrs, &progress).await?;
            let dir = solver.store.root().join(&fetched.dir);
            walk(dir, Root::Store(fetched.dir), Filter::default(), caches).await
        }
        other => Err(SolveError::user(format!("sources of the kind `{other}` are not supported"))),
    }
}

fn progress(
    events: &EventSink,
    vertex: rbuild_store::digest::Digest,
) -> impl Fn(&str, u64, u64, bool) + Send + Sync + use<> {
    let events = events.clone();
    move |part, current, total, done| {
        events.send(vertex, EventKind::Status { id: part.to_owned(), current, total, done });
    }
}

async fn walk(
    dir: PathBuf,
    root: Root,
    filter: Filter,
    caches: &StatCaches<'_>,
) -> Result<Outside, SolveError> {
    let digests = caches.of(&dir);
    let walked = dir.clone();
    let (listing, versions) = blocking(move || {
        let found = context::walk(&walked, &filter).map_err(|error| {
            SolveError::host(&format!("read the context {}", walked.display()), &error)
        })?;
        let listing = Listing::new(found.entries).map_err(|error| {
            SolveError::host(&format!("list the context {}", walked.display()), &error)
        })?;
        Ok((listing, found.versions))
    })
    .await?;
    Ok(Outside { listing: Arc::new(listing), versions: Arc::new(versions), root, dir, digests })
}
