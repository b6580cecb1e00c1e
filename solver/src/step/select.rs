//! What steps select from trees, as digests for their keys.
//!
//! A copy's selection is found by working the copy out onto an empty tree: so the key and the copy
//! cannot disagree on what is taken. Owner and time are left out; what counts is names, types,
//! modes, links, attributes and contents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use rbuild_store::digest::{Digest, Hasher};
use rbuild_store::entry::{Entry, Kind, Timestamp};

use super::file::{LiveHost, empty_inline, input_tree, open_beneath, outside_tree};
use super::StepInputs;
use crate::cache::{ContentInput, content_inputs};
use crate::llb::op::{FileAction, FileActionKind, FileInput, FileOp, Op};
use crate::llb::{Vertex, VertexId};
use crate::solve::drive::Build;
use crate::solve::keys::{MAX_EXPLAINED_PATHS, Selection, Selections};
use crate::solve::outside::Outside;
use crate::solve::{SolveError, blocking};
use crate::tree::fileop::{self, Files, Input};
use crate::tree::stat_cache::digest_file;
use crate::tree::view::View;
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
                selections.insert((id, number), selection.map_err(|error| error.at(id))?);
            }
        }
        for (number, edge) in vertex.inputs.iter().enumerate() {
            let is_content = contents.iter().any(|content| content.input() == number);
            if let Some(outside) = build.outside.get(&edge.vertex).filter(|_| !is_content) {
                let whole = whole(build, outside_tree(outside), "").await;
                selections.insert((id, contents.len() + number), whole.map_err(|error| error.at(id))?);
            }
        }
    }
    Ok(selections)
}

/// Selections of a vertex from the trees of its inputs, which are there.
///
/// # Errors
///
/// If a copy names what is not there.
pub async fn inside(build: &Build, id: VertexId, inputs: &StepInputs) -> Result<Selections, SolveError> {
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
        (ContentInput::Copy { action, .. }, Op::File(op)) => copied(build, &op.actions[action], tree).await,
        (ContentInput::Bind { selector, .. }, _) => whole(build, tree, selector).await,
        (ContentInput::Copy { .. }, _) => whole(build, tree, "").await,
    }
}

/// What a copy takes.
async fn copied(build: &Build, action: &FileAction, tree: Input) -> Result<Selection, SolveError> {
    let FileActionKind::Copy(copy) = &action.kind else { return whole(build, tree, "").await };
    let mut copy = copy.clone();
    copy.owner = None;
    copy.mode = None;
    copy.attempt_unpack = false;
    copy.timestamp = Some(0);
    let action = FileAction {
        input: FileInput::Scratch,
        secondary: Some(FileInput::Input(0)),
        output: Some(0),
        kind: FileActionKind::Copy(copy),
    };
    let op = FileOp { actions: vec![action], platform: None };
    let host = LiveHost::new(build);
    let evaluated =
        blocking(move || fileop::evaluate(&op, &[tree], &host, Timestamp::default()).map_err(SolveError::from)).await?;
    let Some(output) = evaluated.into_iter().next() else { return digest(build, Vec::new(), &[], Vec::new()).await };
    let mut contents = output.plan.contents;
    empty_inline(&output.plan.listing, &mut contents);
    digest(build, output.plan.listing.into_entries(), &contents.roots, contents.files).await
}

/// All of a tree, or what is at `selector` in it.
async fn whole(build: &Build, tree: Input, selector: &str) -> Result<Selection, SolveError> {
    let selector = selector.to_owned();
    let gather = move || {
        let view = View::new(tree.layers.iter().map(|layer| Arc::clone(&layer.listing)).collect());
        let start = view
            .resolve(selector.as_bytes(), true)
            .map_err(|error| SolveError::user(format!("{selector}: {error}")))?;
        let node = view
            .lookup(&start)
            .ok_or_else(|| SolveError::user(format!("failed to compute cache key: {selector:?}: not found")))?;
        let (mut entries, mut roots, mut files) = (Vec::new(), Vec::new(), Vec::new());
        view.walk(&node, &mut |node| {
            let mut entry = node.inode().clone();
            entry.path = node.path().strip_prefix(start.as_slice()).unwrap_or(node.path()).to_vec();
            if matches!(entry.kind, Kind::File { size: 0, .. }) {
                files.push(Content::Inline(Vec::new()));
            } else if matches!(entry.kind, Kind::File { .. }) {
                files.push(content(&tree, node.layer(), node.index(), &mut roots));
            }
            entries.push(entry);
            true
        });
        Ok((entries, roots, files))
    };
    let (entries, roots, files) = blocking(gather).await?;
    digest(build, entries, &roots, files).await
}

/// Where the content of entry number `index` of a layer is.
fn content(tree: &Input, layer: usize, index: Option<usize>, roots: &mut Vec<Root>) -> Content {
    let layer = &tree.layers[layer];
    let entries = layer.listing.entries();
    let at = index.map_or(0, |index| layer.listing.inode(index));
    let mut root = |root: &Root| {
        let known = roots.iter().position(|it| same(it, root));
        known.unwrap_or_else(|| {
            roots.push(root.clone());
            roots.len() - 1
        })
    };
    match &layer.files {
        Files::Root(files) => Content::Tree { root: root(files), path: entries[at].path.clone() },
        Files::Planned(contents) => {
            let before = entries[..at].iter().filter(|entry| matches!(entry.kind, Kind::File { .. })).count();
            match &contents.files[before] {
                Content::Inline(bytes) => Content::Inline(bytes.clone()),
                Content::Tree { root: number, path } => {
                    Content::Tree { root: root(&contents.roots[*number]), path: path.clone() }
                }
            }
        }
    }
}

fn same(left: &Root, right: &Root) -> bool {
    match (left, right) {
        (Root::Fd(left), Root::Fd(right)) => left == right,
        (Root::Layer(left), Root::Layer(right)) => left == right,
        (Root::Store(left), Root::Store(right)) => left == right,
        (Root::Fd(_) | Root::Layer(_) | Root::Store(_), _) => false,
    }
}

/// The digest of entries with their contents.
async fn digest(
    build: &Build,
    entries: Vec<Entry>,
    roots: &[Root],
    files: Vec<Content>,
) -> Result<Selection, SolveError> {
    let digests = file_digests(build, roots, files).await?;
    let mut digests = digests.into_iter();
    let mut all = Hasher::new();
    let explained = entries.len() <= MAX_EXPLAINED_PATHS;
    let mut paths = Vec::new();
    for entry in &entries {
        let content = match entry.kind {
            Kind::File { .. } => digests.next(),
            _ => None,
        };
        let one = entry_digest(entry, content.as_ref());
        all.field(&entry.path);
        all.field(one.as_bytes());
        if explained && !entry.is_dir() {
            paths.push((String::from_utf8_lossy(&entry.path).into_owned(), one));
        }
    }
    Ok(Selection { digest: all.finish(), paths })
}

/// What of an entry decides a result: all but its name, which the caller adds, and its time.
fn entry_digest(entry: &Entry, content: Option<&Digest>) -> Digest {
    let Entry { path: _, kind, mode, uid, gid, mtime: _, xattrs } = entry;
    let mut hasher = Hasher::new();
    match kind {
        Kind::File { size, digest: _ } => {
            hasher.field(b"file");
            hasher.number(*size);
        }
        Kind::Dir { opaque } => {
            hasher.field(b"dir");
            hasher.number(u64::from(*opaque));
        }
        Kind::Symlink { target } => {
            hasher.field(b"symlink");
            hasher.field(target);
        }
        Kind::Hardlink { target } => {
            hasher.field(b"hardlink");
            hasher.field(target);
        }
        Kind::Char { major, minor } => {
            hasher.field(b"char");
            hasher.number(u64::from(*major) << 32 | u64::from(*minor));
        }
        Kind::Block { major, minor } => {
            hasher.field(b"block");
            hasher.number(u64::from(*major) << 32 | u64::from(*minor));
        }
        Kind::Fifo => hasher.field(b"fifo"),
        Kind::Whiteout => hasher.field(b"whiteout"),
    }
    for number in [mode, uid, gid] {
        hasher.number(u64::from(*number));
    }
    for (name, value) in xattrs {
        hasher.field(name);
        hasher.field(value);
    }
    if let Some(content) = content {
        hasher.field(content.as_bytes());
    }
    hasher.finish()
}

/// Digests of contents, in their order.
async fn file_digests(build: &Build, roots: &[Root], files: Vec<Content>) -> Result<Vec<Digest>, SolveError> {
    let mut digests: Vec<Option<Digest>> = vec![None; files.len()];
    let (mut of_layers, mut of_directories) = (Vec::new(), BTreeMap::<usize, Vec<(usize, Vec<u8>)>>::new());
    let mut layers: Vec<LayerId> = Vec::new();
    for (at, content) in files.into_iter().enumerate() {
        match content {
            Content::Inline(bytes) => digests[at] = Some(Digest::of(&bytes)),
            Content::Tree { root, path } => match &roots[root] {
                Root::Layer(layer) => {
                    if !layers.contains(layer) {
                        layers.push(layer.clone());
                    }
                    of_layers.push((at, (layer.clone(), path)));
                }
                Root::Fd(_) | Root::Store(_) => of_directories.entry(root).or_default().push((at, path)),
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
        let outside: Vec<Outside> = build.outside.values().filter(|it| same(&it.root, root)).cloned().collect();
        let directory = build.layers.directory(root).unwrap_or_default();
        let found = blocking(move || directory_digests(&outside, &directory, &paths)).await?;
        numbers.into_iter().zip(found).for_each(|(at, digest)| digests[at] = Some(digest));
    }
    Ok(digests.into_iter().map(|it| it.expect("each content was asked for")).collect())
}

/// Digests of files in a directory outside of the layers; unchanged ones are not read.
fn directory_digests(outside: &[Outside], directory: &Path, paths: &[Vec<u8>]) -> Result<Vec<Digest>, SolveError> {
    let mut digests: Vec<Option<Digest>> = paths.iter().map(|path| known(outside, path)).collect();
    let unknown: Vec<usize> = (0..paths.len()).filter(|&at| digests[at].is_none()).collect();
    let per_thread = unknown.len().div_ceil(HASH_THREADS).max(1);
    let read = |at: usize| {
        let shown = || format!("read {}/{}", directory.display(), String::from_utf8_lossy(&paths[at]));
        let file = open_beneath(directory, &paths[at]).map_err(|error| SolveError::host(&shown(), &error))?;
        digest_file(&file).map_err(|error| SolveError::host(&shown(), &error))
    };
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = unknown
            .chunks(per_thread)
            .map(|chunk| scope.spawn(move || chunk.iter().map(|&at| Ok((at, read(at)?))).collect::<Result<Vec<_>, SolveError>>()))
            .collect();
        threads.into_iter().map(|it| it.join().expect("hashing does not panic")).collect::<Result<Vec<_>, _>>()
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
