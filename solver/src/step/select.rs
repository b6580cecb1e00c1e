//! What steps select from trees, as digests for their keys.
//!
//! What is selected is [`crate::tree::select`]'s matter. Here are the digests of the contents:
//! those of layers come from the worker, those of contexts from files that are read or known.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;

use rbuild_store::digest::Digest;

use super::file::{input_tree, names_beneath, open_beneath, outside_tree};
use crate::cache::{ContentInput, content_inputs};
use crate::llb::op::{FileAction, FileActionKind, Op};
use crate::llb::{Vertex, VertexId};
use crate::solve::build::{Build, StepInputs};
use crate::solve::keys::{MAX_EXPLAINED_PATHS, Selection, Selections};
use crate::solve::outside::Outside;
use crate::solve::{SolveError, blocking};
use crate::tree::fileop::Input;
use crate::tree::select::{self, File, SelectError};
use crate::tree::stat_cache::digest_file;
use crate::worker::proto::{Content, LayerId, Root};

/// Threads that read files for their digests.
const HASH_THREADS: usize = 4;

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
    let copy = copy.clone();
    let selected = blocking(move || select::copied(&tree, &copy).map_err(SolveError::from)).await?;
    digest(build, selected).await
}

/// All of a tree, or what is at `selector` in it.
async fn whole(build: &Build, tree: Input, selector: &str) -> Result<Selection, SolveError> {
    let selector = selector.to_owned();
    let gather = move || select::mounted(&tree, &selector).map_err(SolveError::from);
    digest(build, blocking(gather).await?).await
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

/// The digest of a selection with its contents.
async fn digest(build: &Build, selected: select::Selection) -> Result<Selection, SolveError> {
    let digests = file_digests(build, selected.roots(), selected.files()).await?;
    let explain = selected.len() <= MAX_EXPLAINED_PATHS;
    let (digest, paths) = selected.digest(&digests, explain);
    Ok(Selection { digest, paths })
}

/// Digests of contents, in their order.
async fn file_digests(
    build: &Build,
    roots: &[Root],
    files: &[File],
) -> Result<Vec<Digest>, SolveError> {
    let mut digests: Vec<Option<Digest>> = files.iter().map(|file| file.digest).collect();
    let (mut of_layers, mut of_directories) =
        (Vec::new(), BTreeMap::<usize, Vec<(usize, Vec<u8>)>>::new());
    let mut layers: Vec<LayerId> = Vec::new();
    for (at, file) in files.iter().enumerate().filter(|(_, file)| file.digest.is_none()) {
        match &file.content {
            Content::Inline(bytes) => digests[at] = Some(Digest::of(bytes)),
            Content::Tree { root, path } => match &roots[*root] {
                Root::Layer(layer) => {
                    if !layers.contains(layer) {
                        layers.push(layer.clone());
                    }
                    of_layers.push((at, (layer.clone(), path.clone())));
                }
                Root::Fd(_) | Root::Store(_) => {
                    of_directories.entry(*root).or_default().push((at, path.clone()));
                }
            },
        }
    }
    build.layers.chain_on_disk(&layers).await?;
    if !of_layers.is_empty() {
        let (numbers, paths): (Vec<usize>, Vec<(LayerId, Vec<u8>)>) = of_layers.into_iter().unzip();
        let found = build.solver.worker.hash_files(paths).await?;
        numbers.into_iter().zip(found).for_each(|(at, digest)| digests[at] = Some(digest));
    }
    for (root, paths) in of_directories {
        let (numbers, paths): (Vec<usize>, Vec<Vec<u8>>) = paths.into_iter().unzip();
        let root = &roots[root];
        let outside: Vec<Outside> =
            build.outside.values().filter(|it| same(&it.root, root)).cloned().collect();
        let directory = build.layers.directory(root).unwrap_or_default();
        let found = blocking(move || directory_digests(&outside, &directory, &paths)).await?;
        numbers.into_iter().zip(found).for_each(|(at, digest)| digests[at] = Some(digest));
    }
    Ok(digests.into_iter().map(|it| it.expect("each content was asked for")).collect())
}

/// Digests of files in a directory outside of the layers; unchanged ones are not read.
fn directory_digests(
    outside: &[Outside],
    directory: &Path,
    paths: &[Vec<u8>],
) -> Result<Vec<Digest>, SolveError> {
    let mut digests: Vec<Option<Digest>> = paths.iter().map(|path| known(outside, path)).collect();
    let unknown: Vec<usize> = (0..paths.len()).filter(|&at| digests[at].is_none()).collect();
    let per_thread = unknown.len().div_ceil(HASH_THREADS).max(1);
    let read = |at: usize| {
        let shown =
            || format!("read {}/{}", directory.display(), String::from_utf8_lossy(&paths[at]));
        let file = open_beneath(directory, &paths[at])
            .map_err(|error| SolveError::host(&shown(), &error))?;
        digest_file(&file).map_err(|error| SolveError::host(&shown(), &error))
    };
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = unknown
            .chunks(per_thread)
            .map(|chunk| {
                scope.spawn(move || {
                    chunk
                        .iter()
                        .map(|&at| Ok((at, read(at)?)))
                        .collect::<Result<Vec<_>, SolveError>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|it| it.join().expect("hashing does not panic"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    for (at, hashed) in found.into_iter().flatten() {
        digests[at] = Some(hashed.digest);
        if let Some(outside) = outside.first() {
            let mut cache = outside.digests.lock().unwrap_or_else(PoisonError::into_inner);
            cache.put(&paths[at], hashed.id, &hashed);
        }
    }
    Ok(digests.into_iter().map(|it| it.expect("each file was read")).collect())
}

/// The digest of a file that did not change since it was last read.
fn known(outside: &[Outside], path: &[u8]) -> Option<Digest> {
    outside.iter().find_map(|it| {
        let id = it.ids.get(it.listing.position(path)?)?;
        it.digests.lock().unwrap_or_else(PoisonError::into_inner).get(path, id)
    })
}
