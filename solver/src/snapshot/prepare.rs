//! Trees for steps: made before, kept or thrown away after.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rbuild_store::entry::Entry;

use super::error::Error;
use super::files::{WorkDir, open_path, read_owners};
use super::owner::Table;
use super::stamps::Stamps;
use super::{Access, Driver, LayerStore, Rootfs};
use crate::tree::view::View;
use crate::worker::proto::{Committed, LayerId};

/// A tree that can be mounted, until it is committed or discarded. Dropping it discards it as well,
/// silently.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) rootfs: Rootfs,
    pub(crate) chain: Vec<LayerId>,
    pub(crate) view: View,
    pub(crate) access: Access,
    /// Of a tree of the plain driver.
    pub(crate) stamps: Option<Stamps>,
    pub(crate) work: WorkDir,
}

impl Prepared {
    /// What to mount.
    pub fn rootfs(&self) -> &Rootfs {
        &self.rootfs
    }

    /// Makes an empty directory beside the tree, on the same file system, which goes with it.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf, Error> {
        self.work.make(name)?;
        Ok(self.work.path.join(name))
    }

    /// Whether it is mounted as an overlay.
    pub fn is_overlay(&self) -> bool {
        matches!(self.rootfs, Rootfs::Overlay { .. })
    }
}

impl LayerStore {
    /// Makes a tree that can be mounted. Layers without files on disk are unpacked from their
    /// sealed blobs first.
    ///
    /// # Errors
    ///
    /// If a layer is neither on disk nor sealed, or the disk refuses.
    pub fn prepare(&self, chain: &[LayerId], access: Access) -> Result<Prepared, Error> {
        chain.iter().try_for_each(|layer| self.require(layer))?;
        let view = self.view(chain)?;
        let work = self.work_dir("step")?;
        let (rootfs, stamps) = match self.driver {
            Driver::Overlay => (self.prepare_overlay(chain, &view, access, &work)?, None),
            Driver::Plain => {
                if let (Access::Read, [layer]) = (access, chain)
                    && self.is_self_contained(layer)?
                {
                    (Rootfs::Dir(self.fs_path(layer)?), None)
                } else {
                    let (tree, stamps) = self.take_tree(chain, &view, &work)?;
                    (Rootfs::Dir(tree.join("root")), Some(stamps))
                }
            }
        };
        Ok(Prepared { rootfs, chain: chain.to_vec(), view, access, stamps, work })
    }

    /// Keeps what was written to a tree as `layer`. The tree must no longer be mounted.
    ///
    /// # Errors
    ///
    /// If the disk refuses; nothing is kept then.
    pub fn commit(&self, prepared: Prepared, layer: &LayerId) -> Result<Committed, Error> {
        let committed = self.commit_tree(&prepared, layer)?;
        // The layer is there: what is left of the work may go now or with the next sweep.
        drop(prepared);
        Ok(committed)
    }

    fn commit_tree(&self, prepared: &Prepared, layer: &LayerId) -> Result<Committed, Error> {
        let recorded = read_owners(&prepared.work.path.join("owners"))?;
        match (&prepared.rootfs, &prepared.stamps) {
            (Rootfs::Overlay { upper: Some(upper), .. }, None) => {
                let upper = open_path(&upper.dir)?;
                let listing = self.overlay_difference(prepared, upper.as_fd(), &recorded)?;
                self.keep(layer, prepared, listing, &recorded)
            }
            (Rootfs::Dir(_), Some(stamps)) if prepared.access == Access::Write => {
                let found = self.plain_difference(prepared, &recorded, stamps)?;
                let committed = self.keep(layer, prepared, found.listing, &found.owners)?;
                if let Some(stamps) = found.stamps {
                    let chain = [&prepared.chain[..], std::slice::from_ref(layer)].concat();
                    self.give_tree_back(&prepared.work, &chain, &stamps)?;
                }
                Ok(committed)
            }
            (Rootfs::Overlay { .. } | Rootfs::Dir(_), _) => {
                Err(Error::Bug("a tree nobody writes to was committed".to_owned()))
            }
        }
    }

    fn keep(
        &self,
        layer: &LayerId,
        prepared: &Prepared,
        listing: Vec<Entry>,
        owners: &Table,
    ) -> Result<Committed, Error> {
        let (size, entries) = (size_of(&listing), listing.len() as u64);
        self.publish(layer, &prepared.work, listing, owners)?;
        Ok(Committed { layer: layer.clone(), size, entries })
    }

    /// Throws away what was written to a tree. The tree must no longer be mounted.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn discard(&self, prepared: Prepared) -> Result<(), Error> {
        if let (Access::Read, Some(stamps)) = (prepared.access, &prepared.stamps) {
            self.give_tree_back(&prepared.work, &prepared.chain, stamps)?;
        }
        prepared.work.remove()
    }
}

/// Bytes of the regular files of a listing.
pub(crate) fn size_of(listing: &[Entry]) -> u64 {
    listing.iter().filter_map(|entry| entry.kind.file_size()).sum()
}
