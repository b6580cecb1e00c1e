//! From the bytes of a blob to a layer on disk, or to its listing alone, in one stream.
//!
//! ```text
//!  blob bytes ─ decoder ─┬─ blocks ─ hasher  (diff id)
//!   (this thread)        └─ blocks ─ applier (inodes, listing)
//! ```
//!
//! Blocks are shared, queues are bounded, so memory is bounded too. Nothing is visible before the
//! hash is right.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rbuild_store::compress;
use rbuild_store::digest::{DiffId, Hasher};
use rbuild_store::entry::Kind;

use super::LayerStore;
use super::apply::{Applied, Applier};
use super::archive::apply;
use super::dir::{DIR_FLAGS, open_beneath, split, stat};
use super::error::Error;
use super::files::open_path;
use super::ground::{Disk, Ground, Paper, Wish};
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
        self.check_below(layer, below)?;
        if self.is_on_disk(layer)? {
            return Ok(super::prepare::size_of(self.listing(layer)?.entries()));
        }
        let work = self.work_dir("unpack")?;
        let root = work.make("fs")?;
        let lower = Lower::new(self, below);
        let mut disk = Disk::new(root.as_fd(), Placer::new(self));
        let applied = read_archive(layer, stream, diff_id, &lower, &mut disk)?;
        self.publish(layer, &work, applied.listing, &applied.owners)?;
        if lower.was_used() {
            self.remember_below(layer, below)?;
        }
        Ok(applied.size)
    }

    /// Makes the listing of a layer from a stream of blob bytes: otherwise as [`Self::unpack`], and
    /// the listing is the same. Of the files only those like some paths are put below a directory,
    /// as by [`Self::extract`], and some of them may be missing.
    ///
    /// # Errors
    ///
    /// As [`Self::unpack`]; [`Error::NeedsBelow`] if layers below have no listing.
    pub fn list(
        &self,
        layer: &LayerId,
        stream: &mut (dyn Read + Send),
        diff_id: DiffId,
        below: &[LayerId],
        like: Option<(&[Vec<u8>], &Path)>,
    ) -> Result<(), Error> {
        self.check_below(layer, below)?;
        if self.has_listing(layer)? {
            return Ok(());
        }
        let lower = Lower::new(self, below);
        let to: Option<OwnedFd> = like.map(|(_, to)| open_path(&self.below(to)?)).transpose()?;
        let mut paper = match (like, &to) {
            (Some((paths, _)), Some(root)) => Paper::with(Wish::Like(paths), root.as_fd()),
            _ => Paper::default(),
        };
        let applied = read_archive(layer, stream, diff_id, &lower, &mut paper)?;
        self.publish_listing(layer, applied.listing)?;
        if lower.was_used() {
            self.remember_below(layer, below)?;
        }
        Ok(())
    }

    /// Puts regular files of a layer below a directory, at their paths, with nothing but their
    /// content, from a stream of blob bytes. The layer has a listing.
    ///
    /// # Errors
    ///
    /// As [`Self::unpack`]; [`Error::NeedsBelow`] if a content is a lower layer's.
    pub fn extract(
        &self,
        layer: &LayerId,
        stream: &mut (dyn Read + Send),
        diff_id: DiffId,
        files: &[Vec<u8>],
        to: &Path,
    ) -> Result<(), Error> {
        let (listing, below) = (self.listing(layer)?, self.remembered_below(layer)?);
        let firsts: BTreeSet<&[u8]> = files.iter().map(|path| &path[..]).collect();
        let mut names = firsts.clone();
        for entry in listing.entries() {
            if let Kind::Hardlink { target } = &entry.kind
                && firsts.contains(&target[..])
            {
                names.insert(&entry.path);
            }
        }
        let root = open_path(&self.below(to)?)?;
        let lower = Lower::new(self, &below);
        let mut paper = Paper::with(Wish::Names(names), root.as_fd());
        read_archive(layer, stream, diff_id, &lower, &mut paper)?;
        let is_there = |path: &&[u8]| {
            let (parent, name) = split(path);
            open_beneath(root.as_fd(), parent, DIR_FLAGS)
                .is_ok_and(|it| stat(it.as_fd(), name).is_ok())
        };
        if firsts.iter().all(is_there) { Ok(()) } else { Err(Error::NeedsBelow) }
    }
}

/// Applies an archive to a ground. What comes of it counts: the bytes were those of `diff_id`.
fn read_archive(
    layer: &LayerId,
    stream: &mut (dyn Read + Send),
    diff_id: DiffId,
    lower: &Lower<'_>,
    ground: &mut (dyn Ground + Send),
) -> Result<Applied, Error> {
    let stream_error = |source| Error::Stream { layer: layer.0.to_string(), source };
    let (to_hasher, blocks) = sync_channel(QUEUE_BLOCKS);
    let (to_applier, content) = sync_channel(QUEUE_BLOCKS);
    let (decoded, applied, found) = thread::scope(|scope| {
        let hasher = scope.spawn(move || hash(&blocks));
        let applier = scope.spawn(move || apply(Applier::new(ground, lower), content, layer));
        let decoded = decode(stream, &to_hasher, &to_applier);
        drop((to_hasher, to_applier));
        (decoded, join(applier), join(hasher))
    });
    // A stream that ends early is the cause of whatever else goes wrong.
    decoded.map_err(stream_error)?;
    let applied = applied?;
    if found != diff_id {
        return Err(Error::Mismatch { layer: layer.0.to_string(), expected: diff_id, found });
    }
    Ok(applied)
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
