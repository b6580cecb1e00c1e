//! Trees without overlay: one directory with all of a chain's files.
//!
//! ```text
//! trees/<chain>-<mapkey>/root/     the tree
//! trees/<chain>-<mapkey>/stamps    what its files looked like, see [`super::stamps`]
//! ```
//!
//! A tree belongs to whoever has renamed it away, and comes back under the name of the chain that it
//! then shows: along a linear chain one tree moves forward in place. Where there is no tree of the
//! chain, that of the longest known part of it is moved forward, else a new one is made, by shared
//! extents or copy. Files of a tree have one name each: a step that changes one of two hard-linked
//! files changes the other only if it made the link itself, as on overlay.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use rbuild_store::digest::Hasher;
use rbuild_store::entry::{Entry, Kind};

use super::commit::{self, Difference};
use super::dir::{Cursor, split, stat};
use super::error::Error;
use super::files::{WorkDir, open_path, read_small};
use super::grow::{self, Bytes, Item};
use super::merged::merged_entry;
use super::owner::Table;
use super::place::{Placer, times};
use super::remove::remove_tree;
use super::stamps::Stamps;
use super::{LayerStore, Prepared};
use crate::tree::listing::{Listing, compare};
use crate::tree::view::{Node, View};
use crate::worker::proto::LayerId;

/// Largest file of stamps that is read.
const MAX_STAMPS_BYTES: u64 = 4 << 30;

/// Most trees that are kept for later steps: each can be as large as an image.
const MAX_IDLE_TREES: usize = 8;

/// What a step has changed in a tree.
#[derive(Debug)]
pub(crate) struct PlainDifference {
    /// In listing order.
    pub(crate) listing: Vec<Entry>,
    /// What the inodes of the layer's files could not carry.
    pub(crate) owners: Table,
    /// What the tree's files look like now, if it shows what the layer makes of it.
    pub(crate) stamps: Option<Stamps>,
}

impl LayerStore {
    /// A tree of `chain`, in `work`.
    pub(crate) fn take_tree(
        &self,
        chain: &[LayerId],
        view: &View,
        work: &WorkDir,
    ) -> Result<(PathBuf, Stamps), Error> {
        let tree = work.path.join("tree");
        for length in (1..=chain.len()).rev() {
            let from = self.tree_path(&chain[..length]);
            if fs::rename(&from, &tree).is_err() {
                continue;
            }
            let known = read_small(&tree.join("stamps"), MAX_STAMPS_BYTES)?;
            if let Some(stamps) = known.and_then(|it| Stamps::parse(&it)) {
                if length == chain.len() {
                    return Ok((tree, stamps));
                }
                let root = open_path(&tree.join("root"))?;
                self.move_forward(root.as_fd(), &chain[length..], length, view)?;
                let stamps = Stamps::take(root.as_fd())?;
                return Ok((tree, stamps));
            }
            remove_tree(work.dir.as_fd(), b"tree")?;
        }
        drop(work.make("tree")?);
        let root = work.make("tree/root")?;
        self.grow_tree(root.as_fd(), chain, view)?;
        let stamps = Stamps::take(root.as_fd())?;
        Ok((tree, stamps))
    }

    /// Gives a tree back that shows `chain`.
    pub(crate) fn give_tree_back(
        &self,
        work: &WorkDir,
        chain: &[LayerId],
        stamps: &Stamps,
    ) -> Result<(), Error> {
        if chain.is_empty() {
            return Ok(());
        }
        work.write("tree/stamps", &stamps.to_bytes())?;
        // Another step may have made the same tree: one is enough.
        drop(fs::rename(work.path.join("tree"), self.tree_path(chain)));
        self.forget_old_trees()
    }

    /// Removes the trees that have waited longest for a step, if there are many.
    fn forget_old_trees(&self) -> Result<(), Error> {
        let trees = self.layout().trees();
        let entries = fs::read_dir(&trees)
            .map_err(Error::io("read the directory", trees.as_os_str().as_encoded_bytes()))?;
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let surplus = paths.len().saturating_sub(MAX_IDLE_TREES);
        if surplus == 0 {
            return Ok(());
        }
        // The stamps are written when a tree is given back.
        let age =
            |path: &PathBuf| fs::metadata(path.join("stamps")).and_then(|it| it.modified()).ok();
        let mut by_age: Vec<_> = paths.into_iter().map(|path| (age(&path), path)).collect();
        by_age.sort();
        let old = self.work_dir("old")?;
        for (number, (_, path)) in by_age[..surplus].iter().enumerate() {
            // Whoever has renamed it away needs it.
            drop(fs::rename(path, old.path.join(number.to_string())));
        }
        // No step waits for that; what this process does not get to the next one sweeps.
        let thread = std::thread::Builder::new().name("old trees".to_owned());
        drop(thread.spawn(move || drop(old)));
        Ok(())
    }

    /// The difference that a step made, copied to the directory `fs` of the work directory.
    pub(crate) fn plain_difference(
        &self,
        prepared: &Prepared,
        owners: &Table,
        stamps: &Stamps,
    ) -> Result<PlainDifference, Error> {
        let tree = open_path(&prepared.work.path.join("tree/root"))?;
        let open_lower = |layer: usize, path: &[u8]| {
            grow::open_source(self.open_fs(&prepared.chain[layer])?.as_fd(), path)
        };
        let (view, own) = (&prepared.view, self.own());
        let Difference { listing, sockets, stamps } =
            commit::difference_of_tree(tree.as_fd(), view, owners, own, &open_lower, stamps)?;
        let fs_dir = prepared.work.make("fs")?;
        let root = merged_entry(&view.root());
        let items: Vec<Item<'_>> = std::iter::once(&root)
            .chain(&listing)
            .map(|entry| content(entry, Bytes::File(tree.as_fd(), &entry.path)))
            .collect();
        let owners = grow::grow(fs_dir.as_fd(), Placer::new(self), &items)?;
        let stamps = self.part_links(tree.as_fd(), fs_dir.as_fd(), &listing, stamps)?;
        Ok(PlainDifference { listing, owners, stamps: sockets.is_empty().then_some(stamps) })
    }

    /// Gives each name of a changed file an inode of its own, from the layer's copy; `stamps` are
    /// those of the tree before, returned is what they are now.
    fn part_links(
        &self,
        tree: BorrowedFd<'_>,
        copy: BorrowedFd<'_>,
        listing: &[Entry],
        mut stamps: Stamps,
    ) -> Result<Stamps, Error> {
        let mut cursor = Cursor::new(tree);
        for entry in listing {
            let Some(own) = first_name(listing, entry) else { continue };
            let (parent, name) = split(&entry.path);
            let dir = grow::enter(&mut cursor, parent)?;
            if let Ok(alone) = stat(dir, name)
                && alone.stx_nlink == 1
            {
                stamps.put(entry.path.clone(), &alone);
                continue;
            }
            let parent_stat = stat(dir, b"").map_err(Error::io("look at", parent))?;
            remove_tree(dir, name)?;
            let own = Entry { path: entry.path.clone(), ..own.clone() };
            let item = content(&own, Bytes::File(copy, &own.path));
            grow::write_file(dir, name, Placer::new(self), &item)?;
            rustix::fs::futimens(dir, &times(commit::mtime(&parent_stat)))
                .map_err(Error::io("set the metadata of", parent))?;
            let now = stat(dir, name).map_err(Error::io("look at", &entry.path))?;
            stamps.put(entry.path.clone(), &now);
        }
        Ok(stamps)
    }

    /// Makes the tree of a whole chain.
    fn grow_tree(&self, root: BorrowedFd<'_>, chain: &[LayerId], view: &View) -> Result<(), Error> {
        let tree = self.merged(chain, view)?;
        let items: Vec<Item<'_>> = tree.items().collect();
        grow::grow(root, Placer::new(self), &items).map(drop)
    }

    /// Applies `added`, the layers from `first` on, to the tree of the layers below.
    fn move_forward(
        &self,
        root: BorrowedFd<'_>,
        added: &[LayerId],
        first: usize,
        view: &View,
    ) -> Result<(), Error> {
        let mut touched = BTreeSet::new();
        for (at, layer) in added.iter().enumerate() {
            let listing = &view.layers()[first + at];
            let fs_dir = self.open_fs(layer)?;
            let mut cursor = Cursor::new(root);
            for entry in listing.entries() {
                grow::make_room(&mut cursor, entry)?;
                let parents = memchr::memchr_iter(b'/', &entry.path).map(|end| &entry.path[..end]);
                touched.extend(parents.map(<[u8]>::to_vec));
                if entry.is_dir() {
                    touched.insert(entry.path.clone());
                }
            }
            let entries = unlinked(listing);
            let items: Vec<Item<'_>> = entries
                .iter()
                .map(|entry| content(entry, Bytes::File(fs_dir.as_fd(), &entry.path)))
                .collect();
            grow::grow(root, Placer::new(self), &items)?;
        }
        touched.insert(Vec::new());
        let dirs: Vec<Entry> = touched
            .iter()
            .filter_map(|path| {
                let node = view.lookup(path).filter(Node::is_dir)?;
                Some(merged_entry(&node))
            })
            .collect();
        grow::finish_dirs(root, Placer::new(self), dirs.iter())
    }

    fn tree_path(&self, chain: &[LayerId]) -> PathBuf {
        let mut hasher = Hasher::new();
        for layer in chain {
            hasher.field(layer.0.as_bytes());
        }
        let name = format!("{}-{}", hasher.finish().hex(), self.mapkey.as_str());
        self.layout().trees().join(name)
    }
}

/// The entry of the regular file that `entry` is a name of.
fn first_name<'a>(listing: &'a [Entry], entry: &'a Entry) -> Option<&'a Entry> {
    let first = if let Kind::Hardlink { target } = &entry.kind {
        let at = listing.binary_search_by(|it| compare(&it.path, target)).ok()?;
        &listing[at]
    } else {
        entry
    };
    matches!(first.kind, Kind::File { .. }).then_some(first)
}

/// An item with content if it is a regular file.
fn content<'a>(entry: &'a Entry, bytes: Bytes<'a>) -> Item<'a> {
    Item { entry, bytes: matches!(entry.kind, Kind::File { .. }).then_some(bytes) }
}

/// The entries of a layer that something is there for, each with an inode of its own.
fn unlinked(listing: &Listing) -> Vec<Entry> {
    let inode = |at: usize, entry: &Entry| {
        let inode = listing.entries()[listing.inode(at)].clone();
        Entry { path: entry.path.clone(), ..inode }
    };
    let entries = listing.entries().iter().enumerate();
    entries
        .filter(|(_, entry)| entry.kind != Kind::Whiteout)
        .map(|(at, entry)| inode(at, entry))
        .collect()
}
