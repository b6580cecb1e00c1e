//! The layers below one that is unpacked: few archives link to their files, and those bring a copy
//! of the file up, as overlay does when such an archive is applied on it.
//!
//! A layer that did so is no longer the same over other layers. It remembers which were below it
//! (`below`, beside its listing), and is refused over others.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_store::entry::Entry;

use super::LayerStore;
use super::error::Error;
use super::files::read_small;
use super::grow::open_source;
use crate::worker::proto::LayerId;

/// Largest list of layers.
const MAX_BYTES: u64 = 1 << 20;

/// Name of the list in a layer's directory.
const NAME: &str = "below";

/// The layers below.
#[derive(Debug)]
pub(crate) struct Lower<'a> {
    layers: &'a LayerStore,
    chain: &'a [LayerId],
    used: AtomicBool,
}

impl<'a> Lower<'a> {
    /// Nothing is looked at yet.
    pub(crate) const fn new(layers: &'a LayerStore, chain: &'a [LayerId]) -> Self {
        Self { layers, chain, used: AtomicBool::new(false) }
    }

    /// Whether something was found in them.
    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// What is at a path, if it can be linked to. Links in the middle of the path are followed.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsBelow`] if the layers have no listings; or if the disk refuses.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<Found>, Error> {
        let view = self.layers.view(self.chain).map_err(|error| {
            if let Error::Missing { .. } = error { Error::NeedsBelow } else { error }
        })?;
        let Ok(real) = view.resolve(path, false) else { return Ok(None) };
        let Some(node) = view.lookup(&real).filter(|node| !node.is_dir()) else { return Ok(None) };
        self.used.store(true, Ordering::Relaxed);
        let entry = Entry { path: real, ..node.inode().clone() };
        Ok(Some(Found { entry, layer: node.layer(), path: node.inode().path.clone() }))
    }

    /// The content of a regular file that was found.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsBelow`] if its layer is not on disk; or if the disk refuses.
    pub(crate) fn open(&self, found: &Found) -> Result<File, Error> {
        let layer = &self.chain[found.layer];
        if !self.layers.is_on_disk(layer)? {
            return Err(Error::NeedsBelow);
        }
        open_source(self.layers.open_fs(layer)?.as_fd(), &found.path)
    }
}

/// Something in a layer below.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it is, at its real path.
    pub(crate) entry: Entry,
    /// Number of the layer.
    layer: usize,
    /// Where the layer has its content.
    path: Vec<u8>,
}

impl LayerStore {
    /// Remembers that a layer has files of those below it.
    pub(super) fn remember_below(&self, layer: &LayerId, below: &[LayerId]) -> Result<(), Error> {
        let work = self.work_dir(NAME)?;
        work.write(NAME, list(below).as_bytes())?;
        let to = self.layout().layer(&layer.0)?.join(NAME);
        std::fs::rename(work.path.join(NAME), &to)
            .map_err(Error::io("create", to.as_os_str().as_encoded_bytes()))
    }

    /// Refuses a layer that has files of other layers than `below`.
    pub(super) fn check_below(&self, layer: &LayerId, below: &[LayerId]) -> Result<(), Error> {
        let path = self.layout().layer(&layer.0)?.join(NAME);
        match read_small(&path, MAX_BYTES)? {
            Some(bytes) if bytes != list(below).as_bytes() => {
                Err(Error::OtherBelow { layer: layer.0.to_string() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The layers that a layer has files of; empty for most.
    pub(super) fn remembered_below(&self, layer: &LayerId) -> Result<Vec<LayerId>, Error> {
        let path = self.layout().layer(&layer.0)?.join(NAME);
        let bytes = read_small(&path, MAX_BYTES)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().map(|line| LayerId(line.into())).collect())
    }
}

/// One line for each layer.
fn list(chain: &[LayerId]) -> String {
    chain.iter().flat_map(|layer| [&*layer.0, "\n"]).collect()
}
