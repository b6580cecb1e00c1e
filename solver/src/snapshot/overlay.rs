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
use super::error::Error;
use super::files::WorkDir;
use super::grow::{self, Bytes, Item};
use super::merged::Layers;
use super::place::Placer;
use super::{Access, LayerStore, Rootfs, Upper};
use crate::worker::proto::LayerId;

/// Lower directories that one mount takes: overlay has 500, of which some are ours.
const MAX_LOWERS: usize = 480;

/// Long chains are merged from below in multiples of this, so that the chains of the next steps
/// share the merged part.
const SQUASH_LAYERS: usize = 240;

impl LayerStore {
    /// What to mount for a chain whose layers are on disk.
    pub(crate) fn prepare_overlay(
        &self,
        chain: &[LayerId],
        layers: &Layers,
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
        let patches = self.patches(chain, layers)?;
        let upper = match access {
            Access::Write => {
                let dir = work.make("fs")?;
                drop(work.make("work")?);
                put_patches(dir.as_fd(), placer, layers, patches)?;
                Some(Upper { dir: work.path.join("fs"), work: work.path.join("work") })
            }
            Access::Read => {
                if !patches.is_empty() || lowers.len() < 2 {
                    let dir = work.make("patch")?;
                    put_patches(dir.as_fd(), placer, layers, patches)?;
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
        chain: &[LayerId],
        layers: &Layers,
        upper: BorrowedFd<'_>,
        owners: &super::owner::Table,
    ) -> Result<Vec<Entry>, Error> {
        let open_lower = |layer: usize, path: &[u8]| {
            grow::open_source(self.open_fs(&chain[layer])?.as_fd(), path)
        };
        commit::difference(upper, layers, owners, self.own(), &open_lower)
    }

    /// Whether a layer's directory is the tree, when nothing is below it.
    pub(crate) fn is_self_contained(&self, layer: &LayerId) -> Result<bool, Error> {
        let hides =
            |entry: &Entry| matches!(entry.kind, Kind::Whiteout | Kind::Dir { opaque: true });
        Ok(!self.known(layer)?.listing.iter().any(hides))
    }

    /// Directories that the disk shows with wrong metadata, parents first.
    fn patches(&self, chain: &[LayerId], layers: &Layers) -> Result<Vec<Entry>, Error> {
        let mut patches = Vec::new();
        for layer in chain {
            for path in &self.known(layer)?.implied {
                let Some(node) = layers.find(path) else { continue };
                let plain = Entry::dir(&path[..], Timestamp::default());
                if node.implied && node.is_dir() && node.entry.is_some_and(|it| *it != plain) {
                    patches.push(Entry { kind: plain.kind, ..node.entry_at(path) });
                }
            }
        }
        patches.sort_by(|a, b| super::merged::compare_paths(&a.path, &b.path));
        patches.dedup_by(|a, b| a.path == b.path);
        Ok(patches)
    }

    /// One layer that is all of `chain`: its files are the layers' own, by hard link.
    fn squash(&self, chain: &[LayerId]) -> Result<LayerId, Error> {
        let mut hasher = Hasher::new();
        chain.iter().for_each(|layer| hasher.field(layer.0.as_bytes()));
        let merged = LayerId(format!("q{}", hasher.finish().hex()));
        if self.is_on_disk(&merged)? {
            return Ok(merged);
        }
        let layers = self.layers(chain)?;
        let dirs = chain.iter().map(|it| self.open_fs(it)).collect::<Result<Vec<_>, _>>()?;
        let mut entries: Vec<(Entry, usize)> = Vec::new();
        layers.walk::<Error>(&mut |path, node| {
            entries.push((merged_entry(&layers, path, node), node.layer));
            Ok(())
        })?;
        let work = self.work_dir("squash")?;
        let root = work.make("fs")?;
        let items: Vec<Item<'_>> = entries
            .iter()
            .map(|(entry, layer)| {
                let link = || Bytes::Link(dirs[*layer].as_fd(), &entry.path);
                let is_file = matches!(entry.kind, Kind::File { .. });
                Item { entry, bytes: is_file.then(link) }
            })
            .collect();
        let owners = grow::grow(root.as_fd(), Placer::new(self), &items)?;
        drop(items);
        let listing = entries.into_iter().map(|(entry, _)| entry).collect();
        self.publish(&merged, &work, listing, &owners)?;
        Ok(merged)
    }
}

/// How many of the lowest layers of a chain are merged into one directory.
fn squashed_length(layers: usize) -> usize {
    if layers <= MAX_LOWERS {
        return 0;
    }
    // As many as leave room for the layers of the next steps.
    (layers - MAX_LOWERS / 2) / SQUASH_LAYERS * SQUASH_LAYERS
}

/// An entry of a merged tree for which there are no layers: nothing is hidden, nothing is linked.
pub(crate) fn merged_entry(layers: &Layers, path: &[u8], node: &super::merged::Node<'_>) -> Entry {
    let mut entry = node.entry_at(path);
    match entry.kind {
        Kind::Dir { .. } => entry.kind = Kind::Dir { opaque: false },
        Kind::Hardlink { .. } => {
            let inode = node.entry.map(|it| layers.inode(node.layer, it));
            entry.kind = inode.map_or(entry.kind, |it| it.kind.clone());
        }
        Kind::File { .. }
        | Kind::Symlink { .. }
        | Kind::Char { .. }
        | Kind::Block { .. }
        | Kind::Fifo
        | Kind::Whiteout => {}
    }
    entry
}

/// Makes the root and the directories of `patches`, with all parents, as the merged tree has them.
fn put_patches(
    root: BorrowedFd<'_>,
    placer: Placer,
    layers: &Layers,
    patches: Vec<Entry>,
) -> Result<(), Error> {
    let mut all = vec![Entry { kind: Kind::Dir { opaque: false }, ..layers.root().entry_at(b"") }];
    for patch in patches {
        let parents = memchr::memchr_iter(b'/', &patch.path).map(|end| &patch.path[..end]);
        for parent in parents {
            if !all.iter().any(|it| it.path == parent)
                && let Some(node) = layers.find(parent)
            {
                all.push(merged_entry(layers, parent, &node));
            }
        }
        all.push(patch);
    }
    all.sort_by(|a, b| super::merged::compare_paths(&a.path, &b.path));
    all.dedup_by(|a, b| a.path == b.path);
    let items: Vec<Item<'_>> = all.iter().map(|entry| Item { entry, bytes: None }).collect();
    grow::grow(root, placer, &items).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_share_their_merged_part() {
        assert_eq!(squashed_length(480), 0);
        assert_eq!(squashed_length(481), 240);
        assert_eq!(squashed_length(719), 240);
        assert_eq!(squashed_length(720), 480);
        for layers in 0..3000 {
            assert!(layers - squashed_length(layers) + 1 <= MAX_LOWERS + 1, "{layers}");
        }
    }
}
