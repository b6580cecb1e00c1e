//! Layers as blobs, trees as archives.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rbuild_store::compress::Compression as Written;
use rbuild_store::entry::Kind;
use rbuild_store::layer::{self, LayerOptions};
use rbuild_store::tar::write::TarWriter;

use super::error::Error;
use super::grow::{Bytes, Item, open_source};
use super::{LayerStore, Source};
use crate::worker::contents::ContentList;
use crate::worker::proto::{Chain, Compression, Content, LayerId, Sealed};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

impl LayerStore {
    /// Writes a layer as a blob of the store, from the files on disk or, where `contents` is not
    /// empty, from the planned contents. A layer that has been sealed so before is not written
    /// again. The unfinished blob is in the file `blob` below the store's root, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::materialise`].
    pub fn seal(
        &self,
        layer: &LayerId,
        sources: &[Source<'_>],
        contents: &ContentList,
        compression: Compression,
        clamp_mtime: Option<i64>,
        blob: Option<&Path>,
    ) -> Result<Sealed, Error> {
        let listing = self.listing(layer)?;
        let files = listing.entries().iter().filter(|it| matches!(it.kind, Kind::File { .. }));
        let files = files.count();
        let on_disk = contents.is_empty() && files > 0;
        if !on_disk && contents.len() != files {
            return Err(Error::Bug("a layer has not as many contents as files".to_owned()));
        }
        let fs_dir = if on_disk {
            self.require(layer)?;
            Some(self.open_fs(layer)?)
        } else {
            None
        };
        let opened = self.open_sources(sources)?;
        let options = LayerOptions {
            compression: written(compression),
            clamp_mtime,
            threads: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
        };
        let failed = |source| Error::Seal { layer: layer.0.to_string(), source };
        let blobs = self.store.blobs();
        let blob = match blob {
            Some(path) => blobs.writer_into(self.store.root().join(path)),
            None => blobs.writer(),
        };
        let blob = blob.map_err(|error| failed(error.into()))?;
        // A file's content comes up when the file does.
        let (mut contents, current) = (contents.iter(), Cell::new(None));
        let entries = listing.entries().iter().inspect(|entry| {
            if !on_disk && matches!(entry.kind, Kind::File { .. }) {
                current.set(contents.next());
            }
        });
        let made = layer::write_layer(blob, &options, entries, |entry| match &fs_dir {
            Some(fs_dir) => open_file(fs_dir.as_fd(), &entry.path),
            None => match current.take() {
                Some(Content::Inline(bytes)) => Ok(Body::Owned(io::Cursor::new(bytes))),
                Some(content @ Content::Tree { .. }) => {
                    match opened.bytes(&content).map_err(io::Error::other)? {
                        Bytes::File(dir, path) | Bytes::Link(dir, path) => open_file(dir, path),
                        Bytes::Inline(_) => Err(io::Error::other("its content is not in a file")),
                    }
                }
                None => Err(io::Error::other("it has no content")),
            },
        })
        .map_err(failed)?;
        let sealed =
            Sealed { diff_id: made.diff_id, blob: made.blob, size: made.size, compression };
        if clamp_mtime.is_none() {
            self.remember_sealed(layer, &sealed)?;
        }
        Ok(sealed)
    }

    /// Writes merged trees as one tar, each in the directory that goes with it (none if the name is
    /// empty); with `mtime`, everything is from that second.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or `out` not be written.
    pub fn export_tar(
        &self,
        trees: &[(String, Chain)],
        out: &mut dyn Write,
        mtime: Option<i64>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Seal { layer: "merged".to_owned(), source };
        let mut tar = TarWriter::new(BufWriter::with_capacity(BUFFER_BYTES, out), None);
        for (directory, chain) in trees {
            let tree = self.output(chain)?.below(directory).at(mtime);
            for item in tree.items() {
                let result = if has_body(&item) {
                    let body = body(&item).map_err(Error::io("open", &item.entry.path))?;
                    tar.append(item.entry, body)
                } else {
                    tar.append_bodiless(item.entry)
                };
                result.map_err(|error| failed(error.into()))?;
            }
        }
        let mut out = tar.finish().map_err(|error| failed(error.into()))?;
        out.flush().map_err(Error::io("write", "the archive"))
    }
}

/// Whether the tar has bytes of the item.
fn has_body(item: &Item<'_>) -> bool {
    matches!(item.entry.kind, Kind::File { size: 1.., .. })
}

/// What a regular file's bytes are read from.
enum Body<'a> {
    Inline(&'a [u8]),
    Owned(io::Cursor<Vec<u8>>),
    File(File),
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Inline(bytes) => bytes.read(buffer),
            Self::Owned(bytes) => bytes.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

fn body<'a>(item: &Item<'a>) -> io::Result<Body<'a>> {
    match item.bytes {
        Some(Bytes::Inline(bytes)) => Ok(Body::Inline(bytes)),
        Some(Bytes::File(dir, path) | Bytes::Link(dir, path)) => open_file(dir, path),
        None => Err(io::Error::other("it has no content")),
    }
}

fn open_file<'a>(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<Body<'a>> {
    open_source(dir, path).map(Body::File).map_err(|error| {
        if let Error::Io { source, .. } = error { source } else { io::Error::other(error) }
    })
}

/// The store's name of a compression.
fn written(compression: Compression) -> Written {
    match compression {
        Compression::None => Written::None,
        Compression::Gzip(level) => Written::Gzip(level),
        Compression::Zstd(level) => Written::Zstd(level),
    }
}
