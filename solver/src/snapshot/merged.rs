//! A chain of listings seen as one tree, directory by directory.
//!
//! A [`View`] is one directory of the merged tree: for each layer that contributes to it, the run
//! of listing entries below it. Going to a child narrows each run by binary search, so a walk costs
//! what it looks at, and a directory that no layer has costs nothing.
//!
//! A layer can mention `a/b` without mentioning `a`. Such an *implied* directory keeps the
//! metadata that lower layers give it, and is root's with mode 0755 where none does.

use std::cmp::Ordering;
use std::sync::Arc;

use rbuild_store::entry::{Entry, Kind, Timestamp};

/// Compares paths as listings are sorted: component by component.
pub(crate) fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rank = |path: &[u8]| match path.get(same) {
        None => 0,
        Some(b'/') => 1,
        Some(byte) => u16::from(*byte) + 2,
    };
    rank(a).cmp(&rank(b))
}

/// A path that sorts as listings do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PathKey(pub(crate) Vec<u8>);

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.0, &other.0)
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The layers of a chain, lowest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers(pub(crate) Vec<Arc<Vec<Entry>>>);

/// What the merged tree has at a path.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// Its metadata; none for an implied directory that no layer describes.
    pub(crate) entry: Option<&'a Entry>,
    /// Index of the layer that the entry (or the topmost mention) comes from.
    pub(crate) layer: usize,
    /// Whether a layer above that of `entry` implies the directory.
    pub(crate) implied: bool,
    /// What is below it: of no layer if it is no directory.
    pub(crate) view: View<'a>,
}

impl Node<'_> {
    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.entry.is_none_or(Entry::is_dir)
    }

    /// The metadata, made up for an implied directory.
    pub(crate) fn entry_at(&self, path: &[u8]) -> Entry {
        self.entry.cloned().unwrap_or_else(|| Entry::dir(path, Timestamp::default()))
    }
}

/// One directory of the merged tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct View<'a> {
    /// Bytes of the paths below that belong to the directory, with the slash.
    base: usize,
    /// Contributing layers, topmost first: index, and the entries strictly below the directory.
    parts: Vec<(usize, &'a [Entry])>,
}

impl Layers {
    /// The root directory.
    pub(crate) fn root(&self) -> Node<'_> {
        let mut root = Node { entry: None, layer: 0, implied: false, view: View::default() };
        for (layer, entries) in self.0.iter().enumerate().rev() {
            let below = match entries.first() {
                Some(first) if first.path.is_empty() => {
                    if root.entry.is_none() {
                        (root.entry, root.layer) = (Some(first), layer);
                    }
                    &entries[1..]
                }
                Some(_) | None => entries,
            };
            root.view.parts.push((layer, below));
        }
        root
    }

    /// What is at `path`, without following links.
    pub(crate) fn find(&self, path: &[u8]) -> Option<Node<'_>> {
        let mut node = self.root();
        for end in ends(path) {
            node = node.view.child(&path[..end])?;
        }
        Some(node)
    }

    /// The entry that describes the inode of `entry`: another one for a hard link.
    pub(crate) fn inode<'a>(&'a self, layer: usize, entry: &'a Entry) -> &'a Entry {
        let Kind::Hardlink { target } = &entry.kind else { return entry };
        let entries = &self.0[layer];
        match entries.binary_search_by(|it| compare_paths(&it.path, target)) {
            Ok(at) => &entries[at],
            Err(_) => entry,
        }
    }

    /// Visits the merged tree in listing order, parents first, the root left out.
    pub(crate) fn walk<E>(
        &self,
        visit: &mut dyn FnMut(&[u8], &Node<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let root = self.root().view;
        let mut stack = vec![(Vec::new(), root.names().into_iter(), root)];
        while let Some((path, names, view)) = stack.last_mut() {
            let Some(name) = names.next() else {
                stack.pop();
                continue;
            };
            let path = join(path, name);
            let Some(node) = view.child(&path) else { continue };
            visit(&path, &node)?;
            if node.is_dir() {
                stack.push((path, node.view.names().into_iter(), node.view));
            }
        }
        Ok(())
    }
}

impl<'a> View<'a> {
    /// Whether no layer has anything here.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|(_, entries)| entries.is_empty())
    }

    /// The child whose whole path is `path`; none where it is missing or whited out.
    pub(crate) fn child(&self, path: &[u8]) -> Option<Node<'a>> {
        let mut found: Option<Node<'a>> = None;
        for &(layer, entries) in &self.parts {
            let start = entries.partition_point(|it| compare_paths(&it.path, path).is_lt());
            let own = entries.get(start).filter(|it| it.path == path);
            let rest = &entries[start + usize::from(own.is_some())..];
            let below = &rest[..rest.partition_point(|it| is_below(&it.path, path))];
            let is_dir = own.map_or(!below.is_empty(), Entry::is_dir);
            if own.is_none() && !is_dir {
                continue;
            }
            if !is_dir {
                // A whiteout or something that is no directory: it is what the path is, or, below
                // a directory, the end of what can be merged.
                let is_there = own.is_some_and(|it| it.kind != Kind::Whiteout);
                return found.or_else(|| is_there.then(|| Node::leaf(own, layer)));
            }
            let node = found.get_or_insert_with(|| Node {
                entry: None,
                layer,
                implied: false,
                view: View { base: path.len() + 1, parts: Vec::new() },
            });
            node.view.parts.push((layer, below));
            match own {
                Some(own) if node.entry.is_none() => {
                    node.entry = Some(own);
                    node.layer = layer;
                }
                Some(_) => {}
                None => node.implied |= node.entry.is_none(),
            }
            if own.is_some_and(|it| matches!(it.kind, Kind::Dir { opaque: true })) {
                break;
            }
        }
        found
    }

    /// Names that some layer mentions directly below, sorted; a name can be a whiteout.
    pub(crate) fn names(&self) -> Vec<&'a [u8]> {
        let mut names = Vec::new();
        for (_, entries) in &self.parts {
            let mut rest = *entries;
            while let Some(first) = rest.first() {
                let tail = &first.path[self.base..];
                let length = memchr::memchr(b'/', tail).unwrap_or(tail.len());
                let child = &first.path[..self.base + length];
                names.push(&tail[..length]);
                let run = rest.partition_point(|it| it.path == child || is_below(&it.path, child));
                rest = &rest[run.max(1)..];
            }
        }
        if self.parts.len() > 1 {
            names.sort_unstable();
            names.dedup();
        }
        names
    }
}

impl<'a> Node<'a> {
    fn leaf(entry: Option<&'a Entry>, layer: usize) -> Self {
        Self { entry, layer, implied: false, view: View::default() }
    }
}

/// Whether `path` is strictly below `dir`.
pub(crate) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.len() > dir.len() && path[dir.len()] == b'/' && path.starts_with(dir)
}

/// `name` in `dir`.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Where each component of a path ends.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let last = (!path.is_empty()).then_some(path.len());
    memchr::memchr_iter(b'/', path).chain(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One layer from words: `a` file, `a/` directory, `a/!` opaque directory, `-a` whiteout.
    fn layer(text: &str) -> Arc<Vec<Entry>> {
        let entry = |word: &str| {
            let path = word.trim_start_matches('-').trim_end_matches('!').trim_end_matches('/');
            let mut entry = Entry::dir(path, Timestamp::default());
            entry.kind = match word {
                _ if word.starts_with('-') => Kind::Whiteout,
                _ if word.ends_with('!') => Kind::Dir { opaque: true },
                _ if word.ends_with('/') => Kind::Dir { opaque: false },
                _ => Kind::File { size: 0, digest: None },
            };
            entry
        };
        let mut list: Vec<Entry> = text.split_whitespace().map(entry).collect();
        list.sort_by(|a, b| compare_paths(&a.path, &b.path));
        Arc::new(list)
    }

    #[track_caller]
    fn check(layers: &[&str], want: &str) {
        let layers = Layers(layers.iter().map(|it| layer(it)).collect());
        let mut found = Vec::new();
        layers
            .walk::<()>(&mut |path, node| {
                let slash = if node.is_dir() { "/" } else { "" };
                let implied = if node.implied { "?" } else { "" };
                let path = std::str::from_utf8(path).expect("text");
                found.push(format!("{path}{slash}{implied}:{}", node.layer));
                Ok(())
            })
            .expect("never fails");
        assert_eq!(found.join(" "), want);
    }

    #[test]
    fn merges() {
        check(&["a/ a/x a/y b", "a/ a/z -b"], "a/:1 a/x:0 a/y:0 a/z:1");
        check(&["a/ a/x a/y", "a/! a/z"], "a/:1 a/z:1");
        check(&["a/ a/x", "-a", "a/ a/y"], "a/:2 a/y:2");
        check(&["a/ a/x", "a"], "a:1");
        check(&["a", "a/ a/x"], "a/:1 a/x:1");
        check(&["a/ a/x a.b a-b"], "a/:0 a/x:0 a-b:0 a.b:0");
        check(&[], "");
    }

    #[test]
    fn implied_directories_take_what_is_below() {
        check(&["a/ a/x", "a/y"], "a/?:0 a/x:0 a/y:1");
        check(&["a/y"], "a/?:0 a/y:0");
        check(&["a/ a/x", "a/y", "a/z"], "a/?:0 a/x:0 a/y:1 a/z:2");
        check(&["a/ a/x", "a/y", "a/ a/z"], "a/:2 a/x:0 a/y:1 a/z:2");
        check(&["a", "a/y"], "a/?:1 a/y:1");
    }

    #[test]
    fn finds() {
        let layers = Layers(vec![layer("a/ a/b/ a/b/c"), layer("-a/b/c")]);
        assert!(layers.find(b"a/b").is_some_and(|it| it.is_dir()));
        assert!(layers.find(b"a/b/c").is_none());
        assert!(layers.find(b"a/b/c/d").is_none());
        assert!(layers.find(b"").is_some_and(|it| it.is_dir()));
    }
}
