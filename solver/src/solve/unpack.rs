//! Blobs of images become layers on disk: by one process at a time, and side by side unless a layer
//! links to files of those below it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rbuild_store::digest::{BlobId, DiffId, Digest};
use rbuild_store::growing::Growing;
use rbuild_store::lock::KeyLock;
use rbuild_store::records::DiffRow;

use super::Layers;
use super::arrive::pipe_of;
use super::error::{SolveError, SolveErrorKind};
use super::layers::Pulled;
use crate::event::EventKind;
use crate::worker::proto::{Answer, LayerId, Request};

/// Between two looks whether another process is done.
const PAUSE: Duration = Duration::from_millis(10);

impl Layers {
    /// Waits until no other process works at something; nothing else is waited for meanwhile.
    pub(super) async fn alone(&self, what: &str) -> Result<KeyLock, SolveError> {
        let key = Digest::of(what.as_bytes());
        loop {
            if let Some(lock) = self.store.try_lock_key(&key)? {
                return Ok(lock);
            }
            // Not a thread that waits: it would outlive an interrupt.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Puts the files of a blob on disk as a layer: of one that is arriving, or of the store.
    ///
    /// # Errors
    ///
    /// If the blob is not what it should be, or the disk refuses.
    pub(super) async fn unpack(
        &self,
        id: &LayerId,
        blob: BlobId,
        diff_id: DiffId,
        arriving: Option<(&Growing, u64)>,
    ) -> Result<(), SolveError> {
        let open = || -> Result<(OwnedFd, u64), SolveError> {
            if let Some((growing, size)) = arriving {
                return Ok((pipe_of(growing.clone(), size)?, size));
            }
            let found = self.store.blobs().open_any(&blob)?;
            let (file, size) = found.ok_or_else(|| {
                let text = format!("blob {blob} is not in the store");
                SolveError::new(SolveErrorKind::Host, text)
            })?;
            Ok((file.into(), size))
        };
        let (stream, size) = open()?;
        let pulled = self.pulled(id);
        if let Some(Pulled { vertex, .. }) = pulled {
            let part = format!("extracting {blob}");
            let kind = EventKind::Status { id: part, current: 0, total: size, done: false };
            self.events.send(vertex, kind);
        }
        let below = pulled.as_ref().map(|it| it.below.clone()).unwrap_or_default();
        let ask = async |stream: OwnedFd| {
            let (layer, below) = (id.clone(), below.clone());
            let request = Request::Unpack { layer, stream: 0, diff_id, below };
            self.worker.request(request, vec![stream]).await
        };
        let mut answer = ask(stream).await?;
        if matches!(answer, Answer::NeedsBelow) {
            Box::pin(self.chain_on_disk(&below)).await?;
            answer = ask(open()?.0).await?;
        }
        let Answer::Unpacked { size: n_bytes } = answer else {
            let text =
                format!("layer {} links to files of layers below it, which are not here", id.0);
            return Err(SolveError::new(SolveErrorKind::Host, text));
        };
        self.store.db()?.put_layer(&id.0, n_bytes, self.now)?;
        if let Some(Pulled { vertex, layer, .. }) = pulled {
            let part = format!("extracting {blob}");
            let kind = EventKind::Status { id: part, current: size, total: size, done: true };
            self.events.send(vertex, kind);
            let row = DiffRow { diff_id, blob, size: layer.size, media_type: layer.media_type };
            self.store.db()?.put_diff(&row)?;
        }
        Ok(())
    }
}
