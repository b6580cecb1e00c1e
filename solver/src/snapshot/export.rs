//! Trees as the user gets them: files of the user's own below a directory, or a tar.

use std::os::fd::{AsFd as _, BorrowedFd};

use rbuild_store::entry::{Entry, Kind};

use super::LayerStore;
use super::dir::Cursor;
use super::error::Error;
use super::grow::{self, Bytes, Item};
use super::overlay::merged_entry;
use super::place::Placer;
use crate::tree::view::View;
use crate::worker::proto::LayerId;

/// A merged tree: entries in listing order, each with the layer and the path of its content.
pub(crate) struct Tree {
    pub(crate) entries: Vec<(Entry, usize, Vec<u8>)>,
    dirs: Vec<std::os::fd::OwnedFd>,
}

impl Tree {
    /// Entries with their contents.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.entries.iter().map(|(entry, layer, source)| {
            let bytes = || Bytes::File(self.dirs[*layer].as_fd(), source);
            Item { entry, bytes: matches!(entry.kind, Kind::File { .. }).then(bytes) }
        })
    }
}

impl LayerStore {
    /// The merged tree of a chain, with hard links where both names are still there. The root is
    /// left out.
    pub(crate) fn tree(&self, chain: &[LayerId]) -> Result<Tree, Error> {
        chain.iter().try_for_each(|layer| self.require(layer))?;
        let view = self.view(chain)?;
        let mut entries = Vec::new();
        view.walk(&view.root(), &mut |node| {
            let mut entry = merged_entry(node);
            let source = &node.inode().path;
            let is_link = !node.is_dir() && *source != entry.path;
            if is_link && is_visible(&view, source, node.layer(), node.index()) {
                entry.kind = Kind::Hardlink { target: source.clone() };
            }
            if !entry.path.is_empty() {
                entries.push((entry, node.layer(), source.clone()));
            }
            true
        });
        Ok(Tree { entries, dirs: self.open_all(chain)? })
    }

    /// Writes a merged tree below `dest` as the caller's own files. What is there already is
    /// replaced where the tree has something of the same name, and left otherwise.
    ///
    /// # Errors
    ///
    /// If the disk refuses; device nodes, which only root may make.
    pub fn export_dir(&self, chain: &[LayerId], dest: BorrowedFd<'_>) -> Result<(), Error> {
        let tree = self.tree(chain)?;
        let items: Vec<Item<'_>> = tree.items().collect();
        let mut cursor = Cursor::new(dest);
        items.iter().try_for_each(|item| grow::make_room(&mut cursor, item.entry))?;
        drop(cursor);
        grow::grow_below(dest, Placer::as_caller(self.umask), &items).map(drop)
    }
}

/// Whether the merged tree shows this inode at `path`.
fn is_visible(view: &View, path: &[u8], layer: usize, index: Option<usize>) -> bool {
    view.lookup(path).is_some_and(|node| (node.layer(), node.index()) == (layer, index))
}
