//! Trees as the user gets them: files of the user's own below a directory.

use std::os::fd::BorrowedFd;

use super::LayerStore;
use super::dir::Cursor;
use super::error::Error;
use super::grow::{self, Item};
use super::merged::Tree;
use super::place::Placer;
use crate::worker::proto::LayerId;

impl LayerStore {
    /// The tree of a chain as an output has it.
    pub(crate) fn output(&self, chain: &[LayerId]) -> Result<Tree, Error> {
        chain.iter().try_for_each(|layer| self.require(layer))?;
        self.merged_with_links(chain, &self.view(chain)?)
    }

    /// Writes a merged tree below `dest` as the caller's own files. What is there already is
    /// replaced where the tree has something of the same name, and left otherwise.
    ///
    /// # Errors
    ///
    /// If the disk refuses; device nodes, which only root may make.
    pub fn export_dir(&self, chain: &[LayerId], dest: BorrowedFd<'_>) -> Result<(), Error> {
        let tree = self.output(chain)?;
        let items: Vec<Item<'_>> = tree.items().collect();
        let mut cursor = Cursor::new(dest);
        items.iter().try_for_each(|item| grow::make_room(&mut cursor, item.entry))?;
        drop(cursor);
        grow::grow_below(dest, Placer::as_caller(self.umask), &items).map(drop)
    }
}
