//! What steps select from trees, as digests for their keys.
//!
//! What is selected is [`crate::tree::select`]'s matter. Here are the digests of the contents:
//! those of layers come from the worker, those of contexts from files that are read or known.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use rbuild_store::digest::Digest;

use super::file::{input_tree, names_beneath, open_below, outside_tree};
use crate::cache::{ContentInput, content_inputs};
use crate::llb::op::{FileAction, FileActionKind, Op};
use crate::llb::{Vertex, VertexId};
use crate::solve::build::{Build, StepInputs};
use crate::solve::keys::{Selection, Selections};
use crate::solve::outside::Outside;
use crate::solve::{Layers, SolveError, blocking};
use crate::tree::fileop::Input;
use crate::tree::select::{self, File, SelectError, Selected};
use crate::tree::stat_cache::{FileHasher, Hashed, StatCache, Version};
use crate::worker::client::Worker;
use crate::worker::proto::{Content, LayerId, Root};

/// Threads that read files for their digests.
const HASH_THREADS: usize = 4;

/// Fewer files than this are read by one thread.
const FILES_PER_THREAD: usize = 16;

/// Selections of `needed` vertices from trees outside. Trees that are used as a whole (built upon,
/// mounted writable) have the number of the input after the contents.
///
/// # Errors
///
/// If a copy names what is not there; the error names the vertex.
pub async fn outside(build: &Build, needed: &[VertexId]) -> Result<Selections, SolveError> {
    let mut selections = Selections::new();
    for &id in needed {
        let vertex = &build.request.graph[id];
        let contents = content_inputs(vertex);
        for (number, content) in contents.iter().enumerate() {
            let producer = vertex.inputs[content.input()].vertex;
            if let Some(outside) = build.outside.get(&producer) {
                let selection = select(build, vertex, content, outside_tree(outside)).await;
                let selection = selection.map_err(|error| {
                    with_nearest(error, outside, copy_source(vertex, content)).at(id)
                });
                selections.insert((id, number), selection?);
            }
        }
        for (number, edge) in vertex.inputs.iter().enumerate() {
            let is_content = contents.iter().any(|content| content.input() == number);
            if let Some(outside) = build.outside.get(&edge.vertex).filter(|_| !is_content) {
                let whole = whole(build, outside_tree(outside), "").await;
                selections
                    .insert((id, contents.len() + number), whole.map_err(|error| error.at(id))?);
            }
        }
    }
    Ok(selections)
}

/// What a copy names in its source.
fn copy_source<'a>(vertex: &'a Vertex, content: &ContentInput<'_>) -> Option<&'a str> {
    let (ContentInput::Copy { action, .. }, Op::File(op)) = (*content, &vertex.op) else {
        return None;
    };
    match &op.actions[action].kind {
        FileActionKind::Copy(copy) => Some(&copy.src),
        FileActionKind::Mkdir { .. }
        | FileActionKind::Mkfile { .. }
        | FileActionKind::Rm { .. }
        | FileActionKind::Symlink { .. } => None,
    }
}

/// Says what was perhaps meant. The tree holds only what the build asked for, so this looks into
/// the directory itself, and what the tree knows of it does not count.
fn with_nearest(mut error: SolveError, outside: &Outside, source: Option<&str>) -> SolveError {
    let Some(source) = source else { return error };
    let names = |directory: &[u8]| names_beneath(&outside.dir, directory).ok();
    error.hint = select::missing_hint(source.as_bytes(), names);
    error
}

/// Selections of a vertex from the trees of its inputs, which are there.
///
/// # Errors
///
/// If a copy names what is not there.
pub async fn inside(
    build: &Build,
    id: VertexId,
    inputs: &StepInputs,
) -> Result<Selections, SolveError> {
    let vertex = &build.request.graph[id];
    let mut selections = Selections::new();
    for (number, content) in content_inputs(vertex).iter().enumerate() {
        let producer = vertex.inputs[content.input()].vertex;
        if build.outside.contains_key(&producer) {
            continue;
        }
        let tree = input_tree(build, id, inputs, content.input()).await?;
        selections.insert((id, number), select(build, vertex, content, tree).await?);
    }
    Ok(selections)
}

async fn select(
    build: &Build,
    vertex: &Vertex,
    content: &ContentInput<'_>,
    tree: Input,
) -> Result<Selection, SolveError> {
    match (*content, &vertex.op) {
        (ContentInput::Copy { action, .. }, Op::File(op)) => {
            copied(build, &op.actions[action], tree).await
        }
        (ContentInput::Bind { selector, .. }, _) => whole(build, tree, selector).await,
        (ContentInput::Copy { .. }, _) => whole(build, tree, "").await,
    }
}

/// What a copy takes.
async fn copied(build: &Build, action: &FileAction, tree: Input) -> Result<Selection, SolveError> {
    let FileActionKind::Copy(copy) = &action.kind else { return whole(build, tree, "").await };
    let (copy, reader) = (copy.clone(), Reader::new(build));
    let select =
        move || select::copied(&tree, &copy, &mut |roots, files| reader.digests(roots, files));
    blocking(select).await.map(Selection::from)
}

/// All of a tree, or what is at `selector` in it.
async fn whole(build: &Build, tree: Input, selector: &str) -> Result<Selection, SolveError> {
    let (selector, reader) = (selector.to_owned(), Reader::new(build));
    let select =
        move || select::mounted(&tree, &selector, &mut |roots, files| reader.digests(roots, files));
    blocking(select).await.map(Selection::from)
}

impl From<Selected> for Selection {
    fn from(Selected { digest, paths }: Selected) -> Self {
        Self { digest, paths }
    }
}

impl From<SelectError> for SolveError {
    fn from(error: SelectError) -> Self {
        let shown = Self::user(format!("failed to compute cache key: {error}"));
        match error {
            SelectError::NotFound { hint: Some(hint), .. } => shown.with_hint(hint),
            SelectError::NotFound { .. } => shown,
            SelectError::Pick(error) => Self::user(error.to_string()),
            SelectError::Copy(error) => error.into(),
        }
    }
}

/// Whether two roots are one.
fn same(left: &Root, right: &Root) -> bool {
    match (left, right) {
        (Root::Fd(left), Root::Fd(right)) => left == right,
        (Root::Layer(left), Root::Layer(right)) => left == right,
        (Root::Store(left), Root::Store(right)) => left == right,
        (Root::Fd(_) | Root::Layer(_) | Root::Store(_), _) => false,
    }
}

/// Reads the files of selections, on a thread that may block.
struct Reader {
    layers: Arc<Layers>,
    worker: Worker,
    outside: Vec<Outside>,
    runtime: tokio::runtime::Handle,
}

impl Reader {
    /// Must be made on the runtime.
    fn new(build: &Build) -> Self {
        Self {
            layers: Arc::clone(&build.layers),
            worker: build.solver.worker.clone(),
            outside: build.outside.values().cloned().collect(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Digests of contents, in their order.
    fn digests(&self, roots: &[Root], files: &[File]) -> Result<Vec<Digest>, SolveError> {
        let mut digests: Vec<Option<Digest>> = vec![None; files.len()];
        let (mut of_layers, mut of_directories) =
            (Vec::new(), BTreeMap::<usize, Vec<(usize, &[u8])>>::new());
        for (at, file) in files.iter().enumerate() {
            match &file.content {
                Content::Inline(bytes) => digests[at] = Some(Digest::of(bytes)),
                Content::Tree { root, path } => match &roots[*root] {
                    Root::Layer(layer) => of_layers.push((at, (layer.clone(), path.clone()))),
                    Root::Fd(_) | Root::Store(_) => {
                        of_directories.entry(*root).or_default().push((at, path));
                    }
                },
            }
        }
        let (numbers, paths): (Vec<usize>, Vec<(LayerId, Vec<u8>)>) = of_layers.into_iter().unzip();
        if !paths.is_empty() {
            let found = self.runtime.block_on(self.layer_digests(paths))?;
            numbers.into_iter().zip(found).for_each(|(at, digest)| digests[at] = Some(digest));
        }
        for (root, paths) in of_directories {
            let root = &roots[root];
            let outside: Vec<&Outside> =
                self.outside.iter().filter(|it| same(&it.root, root)).collect();
            let directory = self.layers.directory(root).unwrap_or_default();
            let paths: Vec<(usize, &[u8])> = paths
                .into_iter()
                .filter(|(at, path)| {
                    digests[*at] = known(&outside, path, files[*at].index);
                    digests[*at].is_none()
                })
                .collect();
            for (at, hashed) in hash_files(&directory, &paths)? {
                digests[at] = Some(hashed.digest);
                let Content::Tree { path, .. } = &files[at].content else { continue };
                if let Some((outside, version)) = listed(&outside, path, files[at].index).next() {
                    lock(outside).put(version, &hashed);
                }
            }
        }
        Ok(digests.into_iter().map(|it| it.expect("each content was asked for")).collect())
    }

    /// Digests of files of layers. Those of a layer that is not unpacked for them are read here.
    async fn layer_digests(
        &self,
        files: Vec<(LayerId, Vec<u8>)>,
    ) -> Result<Vec<Digest>, SolveError> {
        let mut layers: Vec<(LayerId, Vec<usize>)> = Vec::new();
        for (at, (layer, _)) in files.iter().enumerate() {
            match layers.iter_mut().rev().find(|(it, _)| it == layer) {
                Some((_, numbers)) => numbers.push(at),
                None => layers.push((layer.clone(), vec![at])),
            }
        }
        let parts = layers.iter().map(async |(layer, numbers)| {
            let paths: Vec<Vec<u8>> = numbers.iter().map(|at| files[*at].1.clone()).collect();
            let root = self.layers.files_of(layer, || paths.clone()).await?;
            let digests = if let Some(directory) = self.layers.directory(&root) {
                let hash = move || {
                    let paths: Vec<_> = paths.iter().map(|path| &path[..]).enumerate().collect();
                    hash_files(&directory, &paths)
                };
                let mut found = blocking(hash).await?;
                found.sort_unstable_by_key(|(at, _)| *at);
                found.into_iter().map(|(_, hashed)| hashed.digest).collect()
            } else {
                let files = paths.into_iter().map(|path| (layer.clone(), path)).collect();
                self.worker.hash_files(files).await?
            };
            Ok::<Vec<Digest>, SolveError>(digests)
        });
        let parts = futures_util::future::try_join_all(parts).await?;
        let mut all: Vec<(usize, Digest)> = Vec::with_capacity(files.len());
        for ((_, numbers), digests) in layers.iter().zip(parts) {
            all.extend(numbers.iter().copied().zip(digests));
        }
        all.sort_unstable_by_key(|(at, _)| *at);
        Ok(all.into_iter().map(|(_, digest)| digest).collect())
    }
}

fn lock(outside: &Outside) -> MutexGuard<'_, StatCache> {
    outside.digests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The trees that list a path, and the version they saw. `index` is where it probably is.
fn listed<'a>(
    outside: &'a [&Outside],
    path: &'a [u8],
    index: Option<usize>,
) -> impl Iterator<Item = (&'a Outside, Version)> {
    outside.iter().filter_map(move |it| {
        let here = |at: &usize| it.listing.entries().get(*at).is_some_and(|it| it.path == path);
        let at = index.filter(here).or_else(|| it.listing.position(path))?;
        Some((*it, *it.versions.get(at)?))
    })
}

/// The digest of a file that did not change since it was last read.
fn known(outside: &[&Outside], path: &[u8], index: Option<usize>) -> Option<Digest> {
    listed(outside, path, index).find_map(|(outside, version)| lock(outside).get(&version))
}

/// Reads files below a directory, by several threads; each comes back with its number.
fn hash_files(
    directory: &Path,
    files: &[(usize, &[u8])],
) -> Result<Vec<(usize, Hashed)>, SolveError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |path: &[u8], error: &std::io::Error| {
        let shown = format!("read {}/{}", directory.display(), String::from_utf8_lossy(path));
        SolveError::host(&shown, error)
    };
    let root = std::fs::File::open(directory).map_err(|error| failed(b"", &error))?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut hasher = FileHasher::default();
        let mut found = Vec::new();
        while let Some(&(at, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hashed = open_below(root.as_fd(), path).and_then(|file| hasher.hash(&file));
            found.push((at, hashed.map_err(|error| failed(path, &error))?));
        }
        Ok(found)
    };
    let threads = HASH_THREADS.min(files.len().div_ceil(FILES_PER_THREAD));
    let found = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|it| it.join().expect("hashing does not panic"));
        std::iter::once(own).chain(others).collect::<Result<Vec<_>, SolveError>>()
    })?;
    Ok(found.into_iter().flatten().collect())
}
