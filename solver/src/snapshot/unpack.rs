//! From the bytes of a blob to a layer on disk, in one stream.
//!
//! ```text
//!  blob bytes ─ decoder ─┬─ blocks ─ hasher  (diff id)
//!   (this thread)        └─ blocks ─ applier (inodes, listing)
//! ```
//!
//! Blocks are shared, queues are bounded, so memory is bounded too. Nothing is visible before the
//! hash is right.

use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rbuild_store::compress;
use rbuild_store::digest::{DiffId, Hasher};

use super::LayerStore;
use super::apply::{Applied, Applier};
use super::archive::apply;
use super::error::Error;
use super::lower::Lower;
use super::place::Placer;
use crate::worker::proto::LayerId;

/// Bytes of tar that are handed on at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks that may wait in each queue.
const QUEUE_BLOCKS: usize = 8;

type Block = Arc<Vec<u8>>;

impl LayerStore {
    /// Unpacks a layer from a stream of blob bytes (the compression is detected), and returns the
    /// bytes of its regular files. A layer that is there already is left as it is, and the stream
    /// is not read. `below` are the layers below it in its image: few archives need them.
    ///
    /// # Errors
    ///
    /// If the archive is broken, hostile, or does not hash to `diff_id`; if the disk refuses;
    /// [`Error::NeedsBelow`] if it links to files of layers that are not on disk.
    pub fn unpack(
        &self,
        layer: &LayerId,
        stream: &mut (dyn Read + Send),
        diff_id: DiffId,
        below: &[LayerId],
    ) -> Result<u64, Error> {
        if self.is_on_disk(layer)? {
            self.check_below(layer, below)?;
            return Ok(super::prepare::size_of(self.listing(layer)?.entries()));
        }
        let work = self.work_dir("unpack")?;
        let root = work.make("fs")?;
        let placer = Placer::new(self);
        let lower = Lower::new(self, below);
        let stream_error = |source| Error::Stream { layer: layer.0.to_string(), source };
        let (to_hasher, blocks) = sync_channel(QUEUE_BLOCKS);
        let (to_applier, content) = sync_channel(QUEUE_BLOCKS);
        let (decoded, applied, found) = thread::scope(|scope| {
            let hasher = scope.spawn(move || hash(&blocks));
            let (root, lower) = (root.as_fd(), &lower);
            let applier =
                scope.spawn(move || apply(Applier::new(root, placer, lower), content, layer));
            let decoded = decode(stream, &to_hasher, &to_applier);
            drop((to_hasher, to_applier));
            (decoded, join(applier), join(hasher))
        });
        // A stream that ends early is the cause of whatever else goes wrong.
        decoded.map_err(stream_error)?;
        let Applied { listing, owners, size } = applied?;
        if found != diff_id {
            return Err(Error::Mismatch { layer: layer.0.to_string(), expected: diff_id, found });
        }
        self.publish(layer, &work, listing, &owners)?;
        if lower.was_used() {
            self.remember_below(layer, below)?;
        }
        Ok(size)
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Decompresses the stream and hands the blocks on; ends early if the applier has given up.
fn decode(
    stream: &mut (dyn Read + Send),
    to_hasher: &SyncSender<Block>,
    to_applier: &SyncSender<Block>,
) -> io::Result<()> {
    let (_, mut tar) = compress::decoder(stream)?;
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        (&mut tar).take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let is_last = block.len() < BLOCK_BYTES;
        let block = Arc::new(block);
        let applies = to_applier.send(Arc::clone(&block)).is_ok();
        if to_hasher.send(block).is_err() || !applies || is_last {
            return Ok(());
        }
    }
}

fn hash(blocks: &Receiver<Block>) -> DiffId {
    let mut hasher = Hasher::new();
    while let Ok(block) = blocks.recv() {
        hasher.update(&block);
    }
    DiffId(hasher.finish())
}
