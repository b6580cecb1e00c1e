//! The merged tree of a chain of layers.
//!
//! A [`View`] is made of listings only and is read component by component: a [`Node`] of a
//! directory knows which ranges of which listings still show through there, so that looking up a
//! child costs a binary search in the few layers that have anything in that directory.
//!
//! Symbolic links are followed only by [`View::resolve`]; all other methods take paths as they are.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use rbuild_store::entry::{Entry, Kind, Timestamp, Xattrs};

use super::listing::{Listing, compare, join, subtree};
use super::resolve::{ResolveError, Stat, Tree, resolve};

/// A directory that no layer describes, only what is in it.
static IMPLIED: Entry = Entry {
    path: Vec::new(),
    kind: Kind::Dir { opaque: false },
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: Timestamp { secs: 0, nanos: 0 },
    xattrs: Xattrs::new(),
};

/// The merged tree of listings, lowest first.
#[derive(Clone, Debug, Default)]
pub struct View {
    layers: Vec<Arc<Listing>>,
}

/// Something in a [`View`].
#[derive(Clone, Debug)]
pub struct Node<'v> {
    path: Vec<u8>,
    layer: usize,
    index: Option<usize>,
    inode: &'v Entry,
    /// Of a directory: what is below it, topmost layer first.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    layer: usize,
    range: Range<usize>,
}

impl<'v> Node<'v> {
    /// Path in the merged tree.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The last component of the path.
    pub fn name(&self) -> &[u8] {
        super::listing::split(&self.path).map_or(b"", |(_, name)| name)
    }

    /// Index of the layer that describes it and, for a regular file, holds its content.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Index of the inode's entry in its layer: with the layer, the identity of the inode. None for
    /// a directory that no layer describes.
    pub fn index(&self) -> Option<usize> {
        self.index
    }

    /// Metadata and type. Its path is where the layer has the content, which for a hard link is
    /// the first name.
    pub fn inode(&self) -> &'v Entry {
        self.inode
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.inode.is_dir()
    }
}

impl View {
    /// The view of a chain, lowest layer first.
    pub fn new(layers: Vec<Arc<Listing>>) -> Self {
        Self { layers }
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<Listing>] {
        &self.layers
    }

    /// The root directory.
    pub fn root(&self) -> Node<'_> {
        let mut node =
            Node { path: Vec::new(), layer: 0, index: None, inode: &IMPLIED, parts: Vec::new() };
        for (layer, listing) in self.layers.iter().enumerate().rev() {
            let range = listing.below(b"");
            let own = listing.entries().first().filter(|entry| entry.path.is_empty());
            if node.index.is_none()
                && let Some(entry) = own
            {
                (node.layer, node.index, node.inode) = (layer, Some(0), entry);
            }
            if !range.is_empty() {
                node.parts.push(Part { layer, range });
            }
            if matches!(own, Some(Entry { kind: Kind::Dir { opaque: true }, .. })) {
                break;
            }
        }
        node
    }

    /// What has this path; components are taken as they are, so that a path through a symbolic
    /// link leads nowhere.
    pub fn lookup(&self, path: &[u8]) -> Option<Node<'_>> {
        let mut node = self.root();
        if path.is_empty() {
            return Some(node);
        }
        for name in path.split(|&byte| byte == b'/') {
            node = self.child(&node, name)?;
        }
        Some(node)
    }

    /// An entry of a directory by its name.
    pub fn child<'v>(&'v self, dir: &Node<'v>, name: &[u8]) -> Option<Node<'v>> {
        let mut child = Child::new(self, join(&dir.path, name));
        for part in &dir.parts {
            let entries = &self.layers[part.layer].entries()[part.range.clone()];
            let at = entries
                .partition_point(|entry| compare(&entry.path, &child.path) == Ordering::Less);
            let own = entries.get(at).is_some_and(|entry| entry.path == child.path);
            let start = part.range.start + at;
            if !child.add(
                part.layer,
                own.then_some(start),
                part.range.end,
                start + usize::from(own),
            ) {
                break;
            }
        }
        child.finish()
    }

    /// The entries of a directory, sorted by name.
    pub fn children<'v>(&'v self, dir: &Node<'v>) -> Vec<Node<'v>> {
        let skip = if dir.path.is_empty() { 0 } else { dir.path.len() + 1 };
        let mut cursors: Vec<Range<usize>> =
            dir.parts.iter().map(|part| part.range.clone()).collect();
        let mut found = Vec::new();
        loop {
            // The next name: the least of all layers' next names.
            let next = dir.parts.iter().zip(&cursors).filter(|(_, cursor)| !cursor.is_empty());
            let next = next.map(|(part, cursor)| {
                first_name(&self.layers[part.layer].entries()[cursor.start].path, skip)
            });
            let Some(path) = next.min_by(|left, right| compare(left, right)) else { return found };
            let mut child = Child::new(self, path.to_vec());
            let mut open = true;
            for (part, cursor) in dir.parts.iter().zip(&mut cursors) {
                let entries = self.layers[part.layer].entries();
                let Some(entry) = entries[cursor.clone()].first() else { continue };
                if first_name(&entry.path, skip) != child.path {
                    continue;
                }
                let own = entry.path == child.path;
                let below = cursor.start + usize::from(own);
                let end = below + subtree(&entries[below..cursor.end], &child.path);
                open = open && child.add(part.layer, own.then_some(cursor.start), end, below);
                cursor.start = end;
            }
            found.extend(child.finish());
        }
    }

    /// The path that `path` leads to when symbolic links are followed within the tree; the last
    /// component only if `follow_last` is set. What does not exist is taken as it is written.
    ///
    /// # Errors
    ///
    /// If there are too many links, or the path goes through something that is no directory.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<u8>, ResolveError> {
        resolve(self, path, follow_last)
    }

    /// Visits a node and all that is below it, in the order of a listing, until `visit` says no
    /// for a directory: then what is in it is left out.
    pub fn walk<'v>(&'v self, node: &Node<'v>, visit: &mut impl FnMut(&Node<'v>) -> bool) {
        let mut stack = vec![node.clone()];
        while let Some(node) = stack.pop() {
            if visit(&node) && node.is_dir() {
                stack.extend(self.children(&node).into_iter().rev());
            }
        }
    }
}

impl Tree for View {
    fn stat(&self, path: &[u8]) -> Option<Stat> {
        self.lookup(path).map(|node| Stat::of(&node.inode.kind))
    }

    fn names(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        let Some(node) = self.lookup(dir) else { return Vec::new() };
        self.children(&node).iter().map(|child| child.name().to_vec()).collect()
    }
}

/// The part of a path up to the end of the component that starts at `skip`.
fn first_name(path: &[u8], skip: usize) -> &[u8] {
    memchr::memchr(b'/', &path[skip..]).map_or(path, |length| &path[..skip + length])
}

/// One name while its layers are put together, topmost first.
struct Child<'v> {
    view: &'v View,
    path: Vec<u8>,
    found: Option<(usize, Option<usize>, &'v Entry)>,
    parts: Vec<Part>,
}

impl<'v> Child<'v> {
    fn new(view: &'v View, path: Vec<u8>) -> Self {
        Self { view, path, found: None, parts: Vec::new() }
    }

    /// Adds what the next lower layer has: its entry for the path, if any, and what is below it,
    /// which starts at `below` and ends no later than `end`. Says whether lower layers show through.
    fn add(&mut self, layer: usize, own: Option<usize>, end: usize, below: usize) -> bool {
        let listing = &self.view.layers[layer];
        let entry = own.map(|at| &listing.entries()[at]);
        let below = below..below + subtree(&listing.entries()[below..end], &self.path);
        match entry.map(|entry| &entry.kind) {
            Some(Kind::Dir { opaque }) => {
                let opaque = *opaque;
                if self.found.is_none_or(|(_, index, _)| index.is_none()) {
                    self.found = own.zip(entry).map(|(at, entry)| (layer, Some(at), entry));
                }
                self.parts.push(Part { layer, range: below });
                !opaque
            }
            Some(Kind::Whiteout) => false,
            Some(_) => {
                // A directory above it stays what it is.
                if self.found.is_none() {
                    self.found = own.map(|at| {
                        let inode = listing.inode(at);
                        (layer, Some(inode), &listing.entries()[inode])
                    });
                }
                false
            }
            None if below.is_empty() => true,
            None => {
                if self.found.is_none() {
                    self.found = Some((layer, None, &IMPLIED));
                }
                self.parts.push(Part { layer, range: below });
                true
            }
        }
    }

    fn finish(self) -> Option<Node<'v>> {
        let (layer, index, inode) = self.found?;
        Some(Node { path: self.path, layer, index, inode, parts: self.parts })
    }
}

#[cfg(test)]
mod tests;
