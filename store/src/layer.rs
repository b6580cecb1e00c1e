//! Entries to a layer: tar, compression, and both digests, in one pass into the blob store.
//!
//! ```text
//! caller's thread          second thread                      gzip threads
//! contents -> tar -> chunks -> digest of the tar -> blocks -> deflate
//!                                                  <- pieces, in order -> digest, blob file
//! ```
//!
//! The queue between the first two is short, so memory stays constant. A failure anywhere leaves
//! no blob.

use std::borrow::{Borrow, Cow};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::blobs::BlobWriter;
use crate::compress::Compression;
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, DiffId, Hasher};
use crate::entry::Entry;
use crate::error::StoreError;
use crate::gzip::GzipWriter;
use crate::media_type::Family;
use crate::tar::write::{TarWriter, WriteError};

/// Bytes of a tar that go from one thread to the next at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that may wait between the threads.
const MAX_CHUNKS: usize = 8;

/// A layer in the blob store: both digests come from the same pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layer {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

impl Layer {
    /// The descriptor for a manifest.
    pub fn descriptor(&self, family: Family) -> Descriptor {
        Descriptor::new(family.layer(self.compression), self.blob, self.size)
    }
}

/// How a layer is written.
#[derive(Clone, Copy, Debug)]
pub struct LayerOptions {
    /// Compression of the blob.
    pub compression: Compression,
    /// Times later than this (seconds since the epoch) become it; none leaves them.
    pub clamp_mtime: Option<i64>,
    /// Threads that compress. The blob does not depend on it.
    pub threads: NonZeroUsize,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry could not be written.
    #[error(transparent)]
    Entry(#[from] WriteError),
    /// Compression failed, or its output could not be written.
    #[error("cannot compress the layer")]
    Compress(#[source] io::Error),
    /// The tar that is to be compressed anew could not be read.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The blob could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a layer as a blob from its entries, in the order they come; the listing of a layer has the
/// right one. `open` gives the content of each regular file, when its turn comes.
///
/// An entry for the root itself is left out, as in `BuildKit`'s layers, and of extended attributes
/// only `security.capability` is kept.
///
/// # Errors
///
/// See [`LayerError`]; nothing is left behind then.
pub fn write_layer<E, R>(
    blob: BlobWriter,
    options: &LayerOptions,
    entries: impl IntoIterator<Item = E>,
    mut open: impl FnMut(&Entry) -> io::Result<R>,
) -> Result<Layer, LayerError>
where
    E: Borrow<Entry>,
    R: Read,
{
    seal(blob, options, |out| {
        let mut tar = TarWriter::new(out, options.clamp_mtime);
        for entry in entries {
            let entry = entry.borrow();
            if entry.path.is_empty() {
                continue;
            }
            let kept = without_foreign_attributes(entry);
            let entry = kept.as_ref();
            if matches!(entry.kind, crate::entry::Kind::File { size: 1.., .. }) {
                let body = open(entry)
                    .map_err(|source| WriteError::Read { path: entry.path.clone(), source })?;
                tar.append(entry, body)?;
            } else {
                tar.append_bodiless(entry)?;
            }
        }
        tar.finish().map(drop).map_err(LayerError::from)
    })
}

/// The entry with no other extended attribute than the file's capabilities: what containerd's
/// writer, and so `BuildKit`, puts into layers.
fn without_foreign_attributes(entry: &Entry) -> Cow<'_, Entry> {
    const KEPT: &[u8] = b"security.capability";
    if entry.xattrs.keys().all(|name| name == KEPT) {
        return Cow::Borrowed(entry);
    }
    let mut entry = entry.clone();
    entry.xattrs.retain(|name| name == KEPT);
    Cow::Owned(entry)
}

/// Writes an existing tar (decompressed) as a layer: for another compression.
///
/// # Errors
///
/// See [`LayerError`]; nothing is left behind then.
pub fn write_tar(
    blob: BlobWriter,
    options: &LayerOptions,
    mut tar: impl Read,
) -> Result<Layer, LayerError> {
    seal(blob, options, |out| {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match tar.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => out
                    .write_all(&buffer[..read])
                    .map_err(|error| LayerError::Entry(WriteError::Output(error)))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
    })
}

/// Runs `produce` on this thread, and hashes and compresses what it writes on others.
fn seal(
    blob: BlobWriter,
    options: &LayerOptions,
    produce: impl FnOnce(&mut Chunks) -> Result<(), LayerError>,
) -> Result<Layer, LayerError> {
    let (sender, receiver) = sync_channel(MAX_CHUNKS);
    thread::scope(|scope| {
        let sealing = thread::Builder::new()
            .name("seal".to_owned())
            .spawn_scoped(scope, move || consume(&receiver, blob, options))
            .map_err(LayerError::Compress)?;
        let mut chunks = Chunks { sender, chunk: Vec::with_capacity(CHUNK_BYTES) };
        let produced = produce(&mut chunks)
            .and_then(|()| chunks.finish().map_err(|error| WriteError::Output(error).into()));
        drop(chunks);
        let sealed = match sealing.join() {
            Ok(sealed) => sealed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (produced, sealed) {
            // The other side ended first, and knows why.
            (Err(LayerError::Entry(WriteError::Output(_))), Err(error)) => Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(unfinished)) => unfinished.finish(),
        }
    })
}

/// Gathers what is written into chunks and sends them on.
#[derive(Debug)]
struct Chunks {
    sender: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        self.sender.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A layer whose blob is written, but not yet visible: the tar may turn out to be incomplete.
struct Unfinished {
    blob: BlobWriter,
    diff_id: Option<DiffId>,
    compression: Compression,
}

impl Unfinished {
    fn finish(self) -> Result<Layer, LayerError> {
        let (blob, size) = self.blob.finish()?;
        // An uncompressed blob is the tar.
        let diff_id = self.diff_id.unwrap_or(DiffId(blob.0));
        Ok(Layer { diff_id, blob, size, compression: self.compression })
    }
}

/// Hashes and compresses chunks until there are no more.
fn consume(
    chunks: &Receiver<Vec<u8>>,
    blob: BlobWriter,
    options: &LayerOptions,
) -> Result<Unfinished, LayerError> {
    let compression = options.compression;
    let (blob, diff_id) = match compression {
        Compression::None => (plain(chunks, blob).map_err(LayerError::Compress)?, None),
        Compression::Gzip(level) => {
            let writer = GzipWriter::new(blob, level, options.threads);
            let (writer, diff_id) = compress(chunks, writer).map_err(LayerError::Compress)?;
            (writer.finish().map_err(LayerError::Compress)?, Some(diff_id))
        }
        Compression::Zstd(level) => {
            let writer = zstd_writer(blob, level, options.threads);
            let (writer, diff_id) = compress(chunks, writer).map_err(LayerError::Compress)?;
            (writer.finish().map_err(LayerError::Compress)?, Some(diff_id))
        }
    };
    Ok(Unfinished { blob, diff_id, compression })
}

fn plain(chunks: &Receiver<Vec<u8>>, mut blob: BlobWriter) -> io::Result<BlobWriter> {
    for chunk in chunks {
        blob.write_all(&chunk)?;
    }
    Ok(blob)
}

fn compress<W: Write>(
    chunks: &Receiver<Vec<u8>>,
    writer: io::Result<W>,
) -> io::Result<(W, DiffId)> {
    let (mut writer, mut hasher) = (writer?, Hasher::new());
    for chunk in chunks {
        writer.write_all(&chunk)?;
        hasher.update(&chunk);
    }
    Ok((writer, DiffId(hasher.finish())))
}

/// Bytes of input that zstd compresses at a time and per thread; its own choice would be 8 MiB, of
/// which it holds several.
const ZSTD_JOB_BYTES: u32 = 2 << 20;

/// Always with workers: with none, zstd cuts its input differently and gives other bytes.
fn zstd_writer<W: Write>(
    inner: W,
    level: i32,
    threads: NonZeroUsize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(inner, level)?;
    encoder.multithread(u32::try_from(threads.get()).unwrap_or(u32::MAX))?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB_BYTES))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::{Format, decoder};
    use crate::digest::Digest;
    use crate::entry::{Kind, Timestamp};
    use crate::local::Store;

    const CONTENT: &[u8] = b"line of text\n";

    fn entries() -> Vec<Entry> {
        let time = Timestamp::from_secs(1000);
        let file = |path: &str, size| Entry {
            kind: Kind::File { size, digest: None },
            ..Entry::dir(path, time)
        };
        vec![
            Entry::dir("", time),
            Entry::dir("a", time),
            file("a/empty", 0),
            file("a/large", 3_000_000),
            file("b", 13),
        ]
    }

    fn content(entry: &Entry) -> io::Result<impl Read + use<>> {
        let Kind::File { size, .. } = entry.kind else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut bytes = CONTENT.repeat(1 + usize::try_from(size).expect("small") / CONTENT.len());
        bytes.truncate(usize::try_from(size).expect("small"));
        Ok(io::Cursor::new(bytes))
    }

    fn options(compression: Compression, threads: usize) -> LayerOptions {
        let threads = NonZeroUsize::new(threads).expect("at least one");
        LayerOptions { compression, clamp_mtime: None, threads }
    }

    fn new_blob(store: &Store) -> BlobWriter {
        store.blobs().writer().expect("starts")
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(dir.path()).expect("opens");
        (dir, store)
    }

    #[test]
    fn both_digests_are_true_and_independent_of_threads() {
        let (_dir, store) = store();
        let mut diff_ids = Vec::new();
        for (compression, format) in [
            (Compression::None, Format::Plain),
            (Compression::Gzip(6), Format::Gzip),
            (Compression::Zstd(3), Format::Zstd),
        ] {
            let write = |threads| {
                write_layer(new_blob(&store), &options(compression, threads), entries(), content)
                    .expect("writes")
            };
            let layer = write(1);
            assert_eq!(write(2), layer);
            assert_eq!(write(5), layer);
            let blob = store.blobs().read(&layer.blob, 10_000_000).expect("reads");
            assert_eq!(blob.len() as u64, layer.size);
            let (found, mut reader) = decoder(blob.as_slice()).expect("starts");
            let mut tar = Vec::new();
            reader.read_to_end(&mut tar).expect("decodes");
            assert_eq!((found, DiffId(Digest::of(&tar))), (format, layer.diff_id));
            diff_ids.push(layer.diff_id);

            let again = write_tar(new_blob(&store), &options(compression, 2), tar.as_slice());
            assert_eq!(again.expect("writes"), layer);
        }
        assert_eq!(diff_ids[0], diff_ids[1]);
        assert_eq!(diff_ids[1], diff_ids[2]);
    }

    #[test]
    fn a_failure_leaves_no_blob() {
        let (_dir, store) = store();
        for compression in [Compression::None, Compression::Gzip(1), Compression::Zstd(1)] {
            let result =
                write_layer(new_blob(&store), &options(compression, 2), entries(), |entry| {
                    if entry.path == b"b" {
                        Err(io::ErrorKind::NotFound.into())
                    } else {
                        content(entry)
                    }
                });
            let error = result.expect_err("fails").to_string();
            assert_eq!(error, "cannot read `b`");
        }
        assert_eq!(store.blobs().list().expect("lists"), []);
    }

    #[test]
    fn an_empty_layer_is_the_one_docker_knows() {
        let (_dir, store) = store();
        let entries = Vec::<Entry>::new();
        let layer = write_layer(new_blob(&store), &options(Compression::None, 1), entries, content);
        assert_eq!(
            layer.expect("writes").diff_id.to_string(),
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
    }
}
