//! The bytes of a blob on their way out: opened anew for each attempt, counted as they leave.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::error::{ErrorKind, RegistryError};
use super::push::BlobSource;
use super::{Progress, Registry};
use crate::descriptor::Descriptor;
use crate::digest::BlobId;

/// How much of a file is read at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Opens the body of an upload, once per attempt.
pub(crate) type OpenBody =
    Arc<dyn Fn() -> BoxFuture<'static, Result<reqwest::Body, RegistryError>> + Send + Sync>;

/// What is sent along with a request.
#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// Without a length it goes out in chunks, as it is made.
    Stream {
        length: Option<u64>,
        open: OpenBody,
    },
}

impl Body {
    /// Its bytes, if their number is known before.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Stream { length, .. } => *length,
        }
    }
}

/// A blob that can be sent, whole or in parts, any number of times.
#[derive(Clone)]
pub(super) struct Source {
    registry: Registry,
    descriptor: Descriptor,
    bytes: BlobSource,
    progress: Progress,
}

impl Source {
    pub(super) fn new(
        registry: &Registry,
        descriptor: &Descriptor,
        source: &BlobSource,
        progress: &Progress,
    ) -> Self {
        Self {
            registry: registry.clone(),
            descriptor: descriptor.clone(),
            bytes: source.clone(),
            progress: Arc::clone(progress),
        }
    }

    pub(super) fn id(&self) -> BlobId {
        self.descriptor.digest
    }

    pub(super) fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// Whether parts other than the whole can be sent.
    pub(super) fn can_start_anywhere(&self) -> bool {
        match self.bytes {
            BlobSource::File(_) | BlobSource::Bytes(_) => true,
            BlobSource::Registry(_) => false,
        }
    }

    /// The part of `length` bytes from `offset` on, which must be within the blob.
    pub(super) fn body(&self, offset: u64, length: u64) -> Body {
        let source = self.clone();
        Body::Stream {
            length: Some(length),
            open: Arc::new(move || {
                let source = source.clone();
                Box::pin(async move { source.open(offset, length).await })
            }),
        }
    }

    async fn open(self, offset: u64, length: u64) -> Result<reqwest::Body, RegistryError> {
        match &self.bytes {
            BlobSource::File(path) => {
                let failed = |it: std::io::Error| {
                    let detail = format!("{} cannot be read: {it}", path.display());
                    RegistryError::new(ErrorKind::Local, detail).with_source(it)
                };
                let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
                if offset > 0 {
                    file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
                }
                file.set_max_buf_size(READ_BYTES);
                let stream = ReaderStream::with_capacity(file.take(length), READ_BYTES);
                Ok(self.counted(offset, stream))
            }
            BlobSource::Bytes(bytes) => {
                let end = offset.saturating_add(length);
                let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
                let part = range.filter(|(_, end)| *end <= bytes.len());
                let part = part.map(|(start, end)| bytes.slice(start..end)).ok_or_else(|| {
                    RegistryError::new(ErrorKind::Local, "the blob is shorter than announced")
                })?;
                Ok(reqwest::Body::from(part))
            }
            BlobSource::Registry(reference) => {
                let download = self.registry.download(reference, &self.descriptor)?;
                let stream = download.into_stream();
                Ok(self.counted(0, stream))
            }
        }
    }

    fn counted<E>(
        &self,
        offset: u64,
        stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> reqwest::Body
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let sent = AtomicU64::new(offset);
        let progress = Arc::clone(&self.progress);
        let (id, size) = (self.id(), self.size());
        reqwest::Body::wrap_stream(stream.inspect(move |piece| {
            if let Ok(piece) = piece {
                let length = piece.len() as u64;
                let before = sent.fetch_add(length, Ordering::Relaxed);
                progress(&id, before + length, size);
            }
        }))
    }
}
