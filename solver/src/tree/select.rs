//! What a step reads of a tree, as digests for its key.
//!
//! As BuildKit's content digests: names, types, modes, owners, link targets, attributes and
//! contents count; times and the links between files do not. A copy's selection comes from
//! [`super::pick`], as the copy itself does, so the two cannot disagree. The directory whose
//! content is copied is not part of the selection: nothing of it but its time is copied.
//!
//! A selection is digested while it is walked; it is never in memory as a whole.

use std::sync::Arc;

use rbuild_store::digest::{Digest, Hasher};
use rbuild_store::entry::{Entry, Kind};

use super::fileop::source::{Roots, Source};
use super::fileop::{FileOpError, Input};
use super::pick::{self, Filter, PickError};
use super::view::View;
use crate::llb::op::FileCopy;
use crate::worker::proto::{Content, Root};

/// Longest difference of a name that is suggested for one that is missing: letters to change.
const MAX_TYPOS: usize = 2;

/// Why nothing can be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A path is not in the tree.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path, with a leading `/`.
        path: String,
        /// What was perhaps meant, or how far the path leads: a sentence.
        hint: Option<String>,
    },
    /// A pattern is none, or a path leads nowhere.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// The copy makes no sense.
    #[error(transparent)]
    Copy(#[from] FileOpError),
}

impl From<super::resolve::ResolveError> for SelectError {
    fn from(error: super::resolve::ResolveError) -> Self {
        Self::Pick(error.into())
    }
}

impl From<rbuild_store::pattern::PatternError> for SelectError {
    fn from(error: rbuild_store::pattern::PatternError) -> Self {
        Self::Pick(error.into())
    }
}

/// Paths that are gathered before the digests of their files are asked for.
const BATCH: usize = 4096;

/// What a step reads of a tree.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Of all of it.
    pub digest: Digest,
    /// Of each path but directories, to explain what changed; empty where there are more than
    /// [`MAX_EXPLAINED_PATHS`].
    pub paths: Vec<(String, Digest)>,
}

/// Most paths of one selection that are remembered for explanations.
pub const MAX_EXPLAINED_PATHS: usize = 2000;

/// A regular file whose digest the listing does not have.
#[derive(Clone, Debug)]
pub struct File {
    /// Where its bytes are; the root is one of those given with it.
    pub content: Content,
    /// Index of its entry in its layer.
    pub index: Option<usize>,
}

/// Gives the digests of files, in their order. Asked for a few thousand at a time.
pub type Digests<'a, E> = dyn FnMut(&[Root], &[File]) -> Result<Vec<Digest>, E> + 'a;

/// Selects what a copy takes of its source.
///
/// # Errors
///
/// If a source or a required path does not exist, or a digest cannot be had.
pub fn copied<E: From<SelectError>>(
    tree: &Input,
    op: &FileCopy,
    digests: &mut Digests<'_, E>,
) -> Result<Selected, E> {
    let mut roots = Roots::default();
    let source = Source::new(tree, &mut roots);
    let view = source.view();
    let filter =
        Filter::new(&op.include_patterns, &op.exclude_patterns).map_err(SelectError::from)?;
    let written = pick::clean_operand(&op.src);
    let sources = if op.allow_wildcard {
        pick::expand(&*view, &written, op.follow_symlink).map_err(SelectError::from)?
    } else {
        vec![written]
    };
    let is_filtered = !op.include_patterns.is_empty() || !op.exclude_patterns.is_empty();
    let follows = op.follow_symlink && is_filtered;
    // Sources as they were written, wildcards resolved: copies are named after them.
    let mut gather = Gather::new(source, roots, &sources, digests);
    let mut required: Vec<(&str, &[u8])> = op
        .required_paths
        .iter()
        .map(|path| (path.as_str(), path.trim_start_matches('/').as_bytes()))
        .collect();
    for source in &sources {
        let path =
            pick::source_path(&*view, source, op.follow_symlink).map_err(SelectError::from)?;
        let top = view.lookup(&path).ok_or_else(|| not_found(&view, source, &path))?;
        let without_top = op.dir_copy_contents && top.is_dir();
        pick::walk(&view, &top, &filter, |picked| {
            if picked.below.is_empty() && without_top {
                return Ok(());
            }
            // Of a whole tree BuildKit follows each link that a pattern lets through.
            let is_link = matches!(picked.node.inode().kind, Kind::Symlink { .. });
            if is_link && follows && path.is_empty() && !picked.below.contains(&b'/') {
                let link = String::from_utf8_lossy(picked.below);
                let led = pick::source_path(&*view, &link, true).map_err(SelectError::from)?;
                view.lookup(&led).ok_or_else(|| not_found(&view, &link, &led))?;
            }
            required.retain(|(_, wanted)| !picked.node.path().starts_with(wanted));
            gather.add(picked.node)
        })?;
    }
    if let Some((required, wanted)) = required.first() {
        return Err(not_found(&view, required, wanted).into());
    }
    gather.finish()
}

/// Selects all that is at a path of a tree, as a mount shows it.
///
/// # Errors
///
/// If nothing is there, or a digest cannot be had.
pub fn mounted<E: From<SelectError>>(
    tree: &Input,
    selector: &str,
    digests: &mut Digests<'_, E>,
) -> Result<Selected, E> {
    let mut roots = Roots::default();
    let source = Source::new(tree, &mut roots);
    let view = source.view();
    let path = pick::source_path(&*view, selector, true).map_err(SelectError::from)?;
    let top = view.lookup(&path).ok_or_else(|| not_found(&view, selector, &path))?;
    let mut gather = Gather { skip: path.len(), ..Gather::new(source, roots, &[], digests) };
    let mut result = Ok(());
    view.walk(&top, &mut |node| {
        if result.is_ok() {
            result = gather.add(node);
        }
        result.is_ok()
    });
    result?;
    gather.finish()
}

/// A selection in the making. No more than [`BATCH`] paths of it are in memory.
struct Gather<'d, 'f, E> {
    source: Source,
    roots: Roots,
    digests: &'d mut Digests<'f, E>,
    all: Hasher,
    /// What is not in the digest yet, by path in the tree, and the files among it that were not
    /// read before.
    entries: Vec<Entry>,
    files: Vec<File>,
    /// Bytes at the front of paths that do not count: the path of what is mounted.
    skip: usize,
    /// How many paths there were.
    count: usize,
    paths: Vec<(String, Digest)>,
}

impl<'d, 'f, E> Gather<'d, 'f, E> {
    fn new(
        source: Source,
        roots: Roots,
        sources: &[String],
        digests: &'d mut Digests<'f, E>,
    ) -> Self {
        let mut all = Hasher::new();
        all.number(sources.len() as u64);
        for source in sources {
            all.field(source.as_bytes());
        }
        let (entries, files, paths) = (Vec::new(), Vec::new(), Vec::new());
        Self { source, roots, digests, all, entries, files, skip: 0, count: 0, paths }
    }

    fn add(&mut self, node: &super::view::Node<'_>) -> Result<(), E> {
        let mut entry = node.inode().clone();
        entry.path = node.path().to_vec();
        if let Kind::File { digest: None, .. } = entry.kind {
            let content = self.source.content(node, &mut self.roots);
            self.files.push(File { content, index: node.index() });
        }
        self.entries.push(entry);
        if self.entries.len() < BATCH { Ok(()) } else { self.settle() }
    }

    fn settle(&mut self) -> Result<(), E> {
        let read = match &self.files[..] {
            [] => Vec::new(),
            files => (self.digests)(self.roots.list(), files)?,
        };
        self.files.clear();
        let mut read = read.iter();
        self.count += self.entries.len();
        if self.count > MAX_EXPLAINED_PATHS {
            self.paths = Vec::new();
        }
        for entry in self.entries.drain(..) {
            let content = match &entry.kind {
                Kind::File { digest: Some(digest), .. } => Some(&**digest),
                Kind::File { digest: None, .. } => read.next(),
                Kind::Dir { .. }
                | Kind::Symlink { .. }
                | Kind::Hardlink { .. }
                | Kind::Char { .. }
                | Kind::Block { .. }
                | Kind::Fifo
                | Kind::Whiteout => None,
            };
            let one = entry_digest(&entry, content);
            self.all.field(&entry.path[self.skip..]);
            self.all.update(one.as_bytes());
            if self.count <= MAX_EXPLAINED_PATHS && !entry.is_dir() {
                self.paths.push((String::from_utf8_lossy(&entry.path).into_owned(), one));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Selected, E> {
        self.settle()?;
        Ok(Selected { digest: self.all.finish(), paths: self.paths })
    }
}

/// What of an entry decides a result: all but its name, which the caller adds, and its time.
fn entry_digest(entry: &Entry, content: Option<&Digest>) -> Digest {
    let Entry { path: _, kind, mode, uid, gid, mtime: _, xattrs } = entry;
    let mut hasher = Hasher::new();
    let (tag, first, second): (u8, u64, u64) = match kind {
        Kind::File { size, digest: _ } => (b'f', *size, 0),
        Kind::Dir { opaque: _ } => (b'd', 0, 0),
        Kind::Symlink { target } => (b'l', target.len() as u64, 0),
        Kind::Hardlink { target } => (b'h', target.len() as u64, 0),
        Kind::Char { major, minor } => (b'c', u64::from(*major), u64::from(*minor)),
        Kind::Block { major, minor } => (b'b', u64::from(*major), u64::from(*minor)),
        Kind::Fifo => (b'p', 0, 0),
        Kind::Whiteout => (b'w', 0, 0),
    };
    // A symbolic link's mode means nothing.
    let mode = if tag == b'l' { 0o777 } else { *mode };
    hasher.update(&[tag]);
    for number in [first, second, u64::from(mode), u64::from(*uid), u64::from(*gid)] {
        hasher.number(number);
    }
    if let Kind::Symlink { target } | Kind::Hardlink { target } = kind {
        hasher.update(target);
    }
    if let Some(content) = content {
        hasher.update(content.as_bytes());
    }
    for (name, value) in xattrs {
        hasher.field(name);
        hasher.field(value);
    }
    hasher.finish()
}

fn not_found(view: &Arc<View>, written: &str, path: &[u8]) -> SelectError {
    let written = format!("/{}", written.trim_start_matches('/'));
    let names = |directory: &[u8]| {
        let children = view.children(&view.lookup(directory)?);
        let names = children.iter().map(|it| String::from_utf8_lossy(it.name()).into_owned());
        Some(names.collect())
    };
    SelectError::NotFound { path: written, hint: missing_hint(path, names) }
}

/// What to say about a path that is not there: the path that was perhaps meant, or the first
/// directory on the way that is missing. `names` lists a directory; none if it is not there.
pub(crate) fn missing_hint(
    path: &[u8],
    names: impl Fn(&[u8]) -> Option<Vec<String>>,
) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?.trim_matches('/');
    let mut start = 0;
    while start < path.len() {
        let end = path[start..].find('/').map_or(path.len(), |length| start + length);
        let (parent, name, rest) = (&path[..start], &path[start..end], &path[end..]);
        let names = names(parent.trim_end_matches('/').as_bytes())?;
        if !names.iter().any(|it| it == name) {
            return match nearest(name, names) {
                Some(nearest) => Some(format!("did you mean `/{parent}{nearest}{rest}`?")),
                None if rest.is_empty() => None,
                None => Some(format!("there is no directory `/{parent}{name}`")),
            };
        }
        start = end + 1;
    }
    None
}

/// The name that was perhaps meant.
fn nearest(name: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let candidates = names.into_iter().filter_map(|candidate| {
        let same = candidate.to_lowercase() == name.to_lowercase();
        let typos = if same { 0 } else { typos(&candidate, name) };
        (typos <= MAX_TYPOS && typos < name.chars().count()).then_some((typos, candidate))
    });
    candidates.min_by_key(|(typos, _)| *typos).map(|(_, nearest)| nearest)
}

/// Letters to insert, remove or replace to make one name of the other.
fn typos(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in right.iter().enumerate() {
            let replace = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replace.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests;
