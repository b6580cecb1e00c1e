//! Layers as blobs.

use std::io::Write;

use super::error::Error;
use super::{LayerStore, Source};
use crate::worker::proto::{Compression, Content, LayerId, Sealed};

impl LayerStore {
    /// Writes a layer as a blob of the store, from the files on disk or, where `contents` is not
    /// empty, from the planned contents.
    ///
    /// # Errors
    ///
    /// As [`Self::materialise`].
    pub fn seal(
        &self,
        layer: &LayerId,
        sources: &[Source<'_>],
        contents: &[Content],
        compression: Compression,
        clamp_mtime: Option<i64>,
    ) -> Result<Sealed, Error> {
        let _ = (layer, sources, contents, compression, clamp_mtime);
        Err(Error::Bug("seal is not there yet".into()))
    }

    /// Writes a merged tree as a tar.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or `out` not be written.
    pub fn export_tar(
        &self,
        chain: &[LayerId],
        out: &mut dyn Write,
        clamp_mtime: Option<i64>,
    ) -> Result<(), Error> {
        let _ = (chain, out, clamp_mtime);
        Err(Error::Bug("export_tar is not there yet".into()))
    }
}
