//! A chain's merged tree with the place of each content: what is exported, copied or squashed.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_store::entry::{Entry, Kind, Timestamp};

use super::LayerStore;
use super::error::Error;
use super::files::open_path;
use super::grow::{Bytes, Item};
use crate::tree::listing::join;
use crate::tree::view::{Node, View};
use crate::worker::proto::LayerId;

/// A merged tree. Contents are named from the directory of all layers, so that a long chain needs
/// one handle and not one for each layer.
#[derive(Debug)]
pub(crate) struct Tree {
    /// In listing order, the root first; each with the path of its content.
    entries: Vec<(Entry, Vec<u8>)>,
    layers: OwnedFd,
}

impl Tree {
    /// Entries with their contents.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.entries.iter().map(|(entry, source)| {
            let bytes = || Bytes::File(self.layers.as_fd(), source);
            Item { entry, bytes: matches!(entry.kind, Kind::File { .. }).then(bytes) }
        })
    }

    /// The same, with one time for all; none keeps theirs.
    pub(crate) fn at(mut self, seconds: Option<i64>) -> Self {
        if let Some(seconds) = seconds {
            let time = Timestamp { secs: seconds, nanos: 0 };
            self.entries.iter_mut().for_each(|(entry, _)| entry.mtime = time);
        }
        self
    }

    /// The same in a new directory; an empty name changes nothing.
    pub(crate) fn below(mut self, directory: &str) -> Self {
        if directory.is_empty() {
            return self;
        }
        let directory = directory.as_bytes();
        for (entry, _) in &mut self.entries {
            entry.path = join(directory, &entry.path);
            if let Kind::Hardlink { target } = &mut entry.kind {
                *target = join(directory, target);
            }
        }
        self.entries.insert(0, (Entry::dir(directory, Timestamp::default()), Vec::new()));
        self
    }

    /// The entries alone.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries.into_iter().map(|(entry, _)| entry).collect()
    }
}

impl LayerStore {
    /// The merged tree of a chain whose layers are on disk. Each name is an inode of its own.
    pub(crate) fn merged(&self, chain: &[LayerId], view: &View) -> Result<Tree, Error> {
        let mut prefixes = Vec::with_capacity(chain.len());
        for layer in chain {
            prefixes.push(format!("{}/fs-{}", layer.0, self.mapkey.as_str()).into_bytes());
        }
        let mut entries = Vec::new();
        view.walk(&view.root(), &mut |node| {
            let prefix = prefixes.get(node.layer()).map_or(&[][..], |it| it);
            entries.push((merged_entry(node), join(prefix, &node.inode().path)));
            true
        });
        Ok(Tree { entries, layers: open_path(&self.layout().layers())? })
    }

    /// The same without the root, and with hard links between the names that are still there.
    pub(crate) fn merged_with_links(&self, chain: &[LayerId], view: &View) -> Result<Tree, Error> {
        let mut tree = self.merged(chain, view)?;
        // Of inodes whose first name is gone, the next one that is not.
        let mut heirs: HashMap<(usize, Option<usize>), Vec<u8>> = HashMap::new();
        tree.entries.retain_mut(|(entry, _)| {
            let Some(node) = view.lookup(&entry.path) else { return true };
            let first = &node.inode().path;
            let is_link = !node.is_dir() && *first != entry.path;
            if is_link && is_visible(view, first, &node) {
                entry.kind = Kind::Hardlink { target: first.clone() };
            } else if is_link {
                match heirs.entry((node.layer(), node.index())) {
                    Slot::Occupied(heir) => {
                        entry.kind = Kind::Hardlink { target: heir.get().clone() };
                    }
                    Slot::Vacant(slot) => drop(slot.insert(entry.path.clone())),
                }
            }
            !entry.path.is_empty()
        });
        Ok(tree)
    }
}

/// Whether the merged tree shows the inode of `node` at `path`.
fn is_visible(view: &View, path: &[u8], node: &Node<'_>) -> bool {
    let same = |it: Node<'_>| (it.layer(), it.index()) == (node.layer(), node.index());
    view.lookup(path).is_some_and(same)
}

/// An entry of a merged tree for which there are no layers: nothing is hidden, nothing is linked.
pub(crate) fn merged_entry(node: &Node<'_>) -> Entry {
    let mut entry = Entry { path: node.path().to_vec(), ..node.inode().clone() };
    if let Kind::Dir { opaque } = &mut entry.kind {
        *opaque = false;
    }
    entry
}
