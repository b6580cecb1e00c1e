//! Blobs of images on their way into the store: unpacked or listed while they come.
//!
//! ```text
//! session ─ blob, hashed ─────────────────────────> store
//!              └ as far as it is there ─ pipe ─> worker: decompress ─ hash, apply ─> layer
//! ```
//!
//! The last byte goes through the pipe only when the blob has been verified, so that no layer is
//! ever finished of a blob that is cut short or another one.

use std::os::fd::OwnedFd;

use rbuild_store::growing::{Growing, GrowingError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;

use super::error::SolveError;
use super::layers::{Layer, Layers, Pulled};
use super::unpack::Part;
use crate::event::EventKind;
use crate::worker::proto::LayerId;

/// Bytes that go from the blob into the pipe at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes that the pipe holds, if it may.
const PIPE_BYTES: usize = 1 << 20;

impl Layers {
    /// Brings the blob of a pulled layer into the store.
    pub(super) async fn arrived(&self, layer: &Layer, pulled: &Pulled) -> Result<(), SolveError> {
        let Pulled { identifier, vertex, layer: wanted, .. } = pulled;
        let fetched = layer.blob.get_or_try_init(async || {
            let blobs = self.store.blobs();
            if blobs.size(&wanted.blob)?.is_some() {
                return Ok::<_, SolveError>(());
            }
            // Another process may be at it, and then it is here afterwards.
            let _alone = self.alone(&format!("blob {}", wanted.blob)).await?;
            if blobs.size(&wanted.blob)?.is_some() {
                return Ok(());
            }
            let progress = |part: &str, current: u64, total: u64, done: bool| {
                let id = part.to_owned();
                self.events.send(*vertex, EventKind::Status { id, current, total, done });
            };
            let (writer, growth, growing) = blobs.arriving(wanted.blob, wanted.size)?;
            layer.arriving.send_replace(Some(growing));
            self.session.fetch_blob(identifier, wanted, writer, &progress).await?;
            growth.finish(wanted.blob, wanted.size);
            Ok(())
        });
        fetched.await.map(drop)
    }

    /// Takes a pulled layer apart as far as it is needed, while its blob comes or from the store.
    pub(super) async fn pulled_apart(
        &self,
        id: &LayerId,
        layer: &Layer,
        pulled: &Pulled,
        part: Part,
    ) -> Result<(), SolveError> {
        let wanted = &pulled.layer;
        let mut arriving = layer.arriving.subscribe();
        let arrived = self.arrived(layer, pulled);
        tokio::pin!(arrived);
        let growing = tokio::select! {
            biased;
            Ok(growing) = arriving.wait_for(Option::is_some) => growing.clone(),
            arrived = &mut arrived => {
                arrived?;
                None
            }
        };
        let unpack = async |from: Option<(&Growing, u64)>| {
            // The worker does nothing if another process was faster.
            let _alone = self.alone(&format!("layer {}", id.0)).await?;
            self.unpack(id, wanted.blob, wanted.diff_id, part, from).await
        };
        let Some(growing) = growing else { return unpack(None).await };
        let unpacked = async {
            let unpacked = unpack(Some((&growing, wanted.size))).await;
            if unpacked.is_err() && growing.is_abandoned() {
                // What became of the blob is the cause, and about to be told.
                std::future::pending::<()>().await;
            }
            unpacked
        };
        tokio::try_join!(arrived, unpacked).map(drop)
    }
}

/// A pipe that yields the `size` bytes of a blob as they come, and its last one when it is verified.
/// It ends early if the blob is given up.
pub(super) fn pipe_of(growing: Growing, size: u64) -> Result<OwnedFd, SolveError> {
    let failed = |error: std::io::Error| SolveError::host("make a pipe", &error);
    let (mut sender, receiver) = pipe::pipe().map_err(failed)?;
    // Where a user has too many large ones it stays a small one, with more turns of the two sides.
    let _ = rustix::pipe::fcntl_setpipe_size(&sender, PIPE_BYTES);
    tokio::spawn(async move {
        // Who reads notices that the end is missing, or has stopped reading.
        drop(feed(&growing, size, &mut sender).await);
    });
    receiver.into_blocking_fd().map_err(failed)
}

async fn feed(growing: &Growing, size: u64, pipe: &mut pipe::Sender) -> Result<(), GrowingError> {
    let mut offset = 0;
    loop {
        let most =
            if growing.known().is_some() { u64::MAX } else { size.saturating_sub(offset + 1) };
        if most == 0 {
            growing.whole().await?;
            continue;
        }
        let limit = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let Some(piece) = growing.read(offset, limit).await? else { return Ok(()) };
        pipe.write_all(&piece).await.map_err(GrowingError::Read)?;
        offset += piece.len() as u64;
    }
}
