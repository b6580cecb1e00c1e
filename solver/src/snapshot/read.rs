//! Reads files of layers.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;

use rbuild_store::digest::{Digest, Hasher};

use super::LayerStore;
use super::error::{Error, show};
use super::grow::open_source;
use crate::worker::proto::LayerId;

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

impl LayerStore {
    /// Digests of the contents of files, in the order asked.
    ///
    /// # Errors
    ///
    /// If one is not a regular file of its layer.
    pub fn hash_files(&self, files: &[(LayerId, Vec<u8>)]) -> Result<Vec<Digest>, Error> {
        let mut digests = Vec::with_capacity(files.len());
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut open: Option<(&LayerId, std::os::fd::OwnedFd)> = None;
        for (layer, path) in files {
            let fs_dir = match &open {
                Some((held, fs_dir)) if *held == layer => fs_dir,
                Some(_) | None => {
                    self.require(layer)?;
                    &open.insert((layer, self.open_fs(layer)?)).1
                }
            };
            let mut file = open_source(fs_dir.as_fd(), path)?;
            let mut hasher = Hasher::new();
            loop {
                let length = file.read(&mut buffer).map_err(Error::io("read", path))?;
                if length == 0 {
                    break;
                }
                hasher.update(&buffer[..length]);
            }
            digests.push(hasher.finish());
        }
        Ok(digests)
    }

    /// The bytes of a regular file of a layer. No symbolic link is followed.
    ///
    /// # Errors
    ///
    /// If it is not a regular file, or larger than `limit` bytes.
    pub fn read_file(&self, layer: &LayerId, path: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
        let file = self.open_file(layer, path)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > limit {
            return Err(Error::Limit { path: show(path), what: "its size in bytes", limit });
        }
        Ok(bytes)
    }

    /// Opens a regular file of a layer for reading. No symbolic link is followed.
    ///
    /// # Errors
    ///
    /// If it is not a regular file.
    pub fn open_file(&self, layer: &LayerId, path: &[u8]) -> Result<File, Error> {
        self.require(layer)?;
        open_source(self.open_fs(layer)?.as_fd(), path)
    }
}
