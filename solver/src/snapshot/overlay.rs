//! Trees by overlay: the lower directories in order, a fresh upper and work directory.
//!
//! A layer can have files in a directory that it does not describe. On disk such a directory needs
//! some metadata, and overlay shows the topmost directory's. So where it matters, directories with
//! the right metadata are put on top: in the upper, where an unchanged directory is no difference,
//! or in a directory of their own for a tree that nobody writes to.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use rbuild_store::digest::Hasher;
use rbuild_store::entry::{Entry, Kind, Timestamp};

use super::commit;
use super::dir;
use super::error::Error;
use super::files::WorkDir;
use super::grow::{self, Item};
use super::merged::merged_entry;
use super::place::{Placer, times};
use super::remove::remove_tree;
use super::{Access, LayerStore, Prepared, Rootfs, Upper};
use crate::tree::listing::compare;
use crate::tree::view::{Node, View};
use crate::worker::proto::LayerId;

/// Lower directories that one mount takes. Overlay has 500, but each makes the mount, and every
/// look-up of a name that is not there, slower.
const MAX_LOWERS: usize = 128;

/// Long chains are merged from below in multiples of this, so that the chains of the next steps
/// share the merged part.
const SQUASH_LAYERS: usize = 64;

impl LayerStore {
    /// What to mount for a chain whose layers are on disk.
    pub(crate) fn prepare_overlay(
        &self,
        chain: &[LayerId],
        view: &View,
        access: Access,
        work: &WorkDir,
    ) -> Result<Rootfs, Error> {
        if access == Access::Read
            && let [layer] = chain
            && self.is_self_contained(layer)?
        {
            return Ok(Rootfs::Dir(self.fs_path(layer)?));
        }
        let mut lowers: Vec<PathBuf> = Vec::with_capacity(chain.len() + 2);
        let tail = squashed_length(chain.len());
        for layer in chain[tail..].iter().rev() {
            lowers.push(self.fs_path(layer)?);
        }
        if tail > 0 {
            let merged = self.squash(&chain[..tail])?;
            lowers.push(self.fs_path(&merged)?);
        }
        let placer = Placer::new(self);
        let patches = self.patches(chain, view)?;
        let upper = match access {
            Access::Write => {
                let dir = work.make("fs")?;
                drop(work.make("work")?);
                put_patches(dir.as_fd(), placer, view, patches)?;
                Some(Upper { dir: work.path.join("fs"), work: work.path.join("work") })
            }
            Access::Read => {
                if !patches.is_empty() || lowers.len() < 2 {
                    let dir = work.make("patch")?;
                    put_patches(dir.as_fd(), placer, view, patches)?;
                    lowers.insert(0, work.path.join("patch"));
                }
                None
            }
        };
        // Overlay wants a lower directory, and two where there is no upper.
        let wanted = if upper.is_some() { 1 } else { 2 };
        while lowers.len() < wanted {
            let name = format!("empty{}", lowers.len());
            drop(work.make(&name)?);
            lowers.push(work.path.join(name));
        }
        Ok(Rootfs::Overlay { lowers, upper })
    }

    /// The difference that a step made in its upper directory.
    pub(crate) fn overlay_difference(
        &self,
        prepared: &Prepared,
        upper: BorrowedFd<'_>,
        owners: &super::owner::Table,
    ) -> Result<Vec<Entry>, Error> {
        let own = self.own();
        let open_lower = |layer: usize, path: &[u8]| {
            grow::open_source(self.open_fs(&prepared.chain[layer])?.as_fd(), path)
        };
        let difference = commit::difference(upper, &prepared.view, owners, own, &open_lower)?;
        for path in &difference.sockets {
            remove_quietly(upper, path)?;
        }
        Ok(difference.listing)
    }

    /// Whether a layer's directory is the tree, when nothing is below it.
    pub(crate) fn is_self_contained(&self, layer: &LayerId) -> Result<bool, Error> {
        let hides =
            |entry: &Entry| matches!(entry.kind, Kind::Whiteout | Kind::Dir { opaque: true });
        Ok(!self.listing(layer)?.entries().iter().any(hides))
    }

    /// Directories that the disk shows with wrong metadata, parents first.
    fn patches(&self, chain: &[LayerId], view: &View) -> Result<Vec<Entry>, Error> {
        let mut patches = Vec::new();
        for (at, layer) in chain.iter().enumerate() {
            for path in &self.known(layer)?.implied {
                let Some(node) = view.lookup(path).filter(Node::is_dir) else { continue };
                let entry = merged_entry(&node);
                let plain = Entry::dir(&path[..], Timestamp::default());
                if node.layer() < at && node.index().is_some() && entry != plain {
                    patches.push(entry);
                }
            }
        }
        patches.sort_by(|a, b| compare(&a.path, &b.path));
        patches.dedup_by(|a, b| a.path == b.path);
        Ok(patches)
    }

    /// One layer that is all of `chain`: its files are the layers' own, by hard link. What has
    /// been merged for a shorter chain is the base of it.
    fn squash(&self, chain: &[LayerId]) -> Result<LayerId, Error> {
        let mut hasher = Hasher::new();
        for layer in chain {
            hasher.field(layer.0.as_bytes());
        }
        let merged = LayerId(format!("q{}", hasher.finish().hex()).into());
        if self.is_on_disk(&merged)? {
            return Ok(merged);
        }
        let mut parts = chain.to_vec();
        if chain.len() > SQUASH_LAYERS {
            let (below, above) = chain.split_at(chain.len() - SQUASH_LAYERS);
            parts = [&[self.squash(below)?], above].concat();
        }
        let tree = self.merged(&parts, &self.view(&parts)?)?;
        let work = self.work_dir("squash")?;
        let root = work.make("fs")?;
        let items: Vec<Item<'_>> = tree.items().map(Item::linked).collect();
        let owners = grow::grow(root.as_fd(), Placer::new(self), &items)?;
        drop(items);
        self.publish(&merged, &work, tree.into_entries(), &owners)?;
        Ok(merged)
    }
}

/// Removes a name; its directory keeps its time.
fn remove_quietly(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
    let (parent, name) = dir::split(path);
    let dir = dir::open_beneath(root, parent, dir::DIR_FLAGS).map_err(Error::io("open", parent))?;
    let stat = dir::stat(dir.as_fd(), b"").map_err(Error::io("look at", parent))?;
    remove_tree(dir.as_fd(), name)?;
    rustix::fs::futimens(&dir, &times(commit::mtime(&stat)))
        .map_err(Error::io("set the time of", parent))
}

/// How many of the lowest layers of a chain are merged into one directory.
fn squashed_length(layers: usize) -> usize {
    if layers <= MAX_LOWERS {
        return 0;
    }
    // As many as leave room for the layers of the next steps.
    (layers - MAX_LOWERS / 2) / SQUASH_LAYERS * SQUASH_LAYERS
}

/// Makes the root and the directories of `patches`, with all parents, as the merged tree has them.
fn put_patches(
    root: BorrowedFd<'_>,
    placer: Placer,
    view: &View,
    patches: Vec<Entry>,
) -> Result<(), Error> {
    let mut all = vec![merged_entry(&view.root())];
    for patch in patches {
        let parents = memchr::memchr_iter(b'/', &patch.path).map(|end| &patch.path[..end]);
        for parent in parents {
            if !all.iter().any(|it| it.path == parent)
                && let Some(node) = view.lookup(parent)
            {
                all.push(merged_entry(&node));
            }
        }
        all.push(patch);
    }
    all.sort_by(|a, b| compare(&a.path, &b.path));
    all.dedup_by(|a, b| a.path == b.path);
    let items: Vec<Item<'_>> = all.iter().map(|entry| Item { entry, bytes: None }).collect();
    grow::grow(root, placer, &items).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_share_their_merged_part() {
        assert_eq!(squashed_length(128), 0);
        assert_eq!(squashed_length(129), 64);
        assert_eq!(squashed_length(191), 64);
        assert_eq!(squashed_length(192), 128);
        for layers in 0..3000 {
            assert!(layers - squashed_length(layers) <= MAX_LOWERS, "{layers}");
        }
    }
}
