//! Blobs out of a registry: streamed, verified, resumed where the connection broke.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::auth::Scopes;
use super::body::{next_piece, read_limited};
use super::client::{Call, Client};
use super::config::{Endpoint, Purpose};
use super::error::{ErrorKind, RegistryError, redact};
use super::resolve::{last_of, mismatch};
use super::{Progress, Registry};
use crate::blobs::BlobWriter;
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, Hasher};
use crate::error::StoreError;
use crate::reference::Reference;

/// Pieces that wait between the network and a [`BlobReader`]; each has at most some 100 KiB.
const READER_PIECES: usize = 16;

/// A blob on its way.
///
/// Bytes are handed out before the digest is known to be right: only when [`Download::next`] has
/// returned none were they what the digest names.
#[derive(Debug)]
pub struct Download {
    client: Arc<Client>,
    endpoints: Vec<Endpoint>,
    action: String,
    id: BlobId,
    size: u64,
    /// Bytes handed out.
    offset: u64,
    hasher: Option<Hasher>,
    connection: Option<Connection>,
    /// Whom the last piece came from.
    host: String,
    /// Failures since the last byte.
    failures: u32,
}

#[derive(Debug)]
struct Connection {
    response: Response,
    host: String,
    /// Bytes to pass over: the server did not start where it was asked to.
    skip: u64,
}

impl Registry {
    /// Prepares to fetch a blob; the first request is made by [`Download::next`].
    ///
    /// # Errors
    ///
    /// If the configuration blocks the registry.
    pub fn download(
        &self,
        reference: &Reference,
        blob: &Descriptor,
    ) -> Result<Download, RegistryError> {
        let action = format!("fetch blob {} of `{}`", blob.digest, reference.familiar());
        let endpoints = self.client.endpoints(reference, Purpose::Pull);
        Ok(Download {
            client: Arc::clone(&self.client),
            endpoints: endpoints.map_err(|it| it.doing(&action))?,
            action,
            id: blob.digest,
            size: blob.size,
            offset: 0,
            hasher: Some(Hasher::new()),
            connection: None,
            host: String::new(),
            failures: 0,
        })
    }

    /// Fetches a small blob whole.
    ///
    /// # Errors
    ///
    /// As [`Download::next`]; or if it has more than `limit` bytes.
    pub async fn blob_bytes(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        limit: usize,
    ) -> Result<Bytes, RegistryError> {
        let mut download = self.download(reference, blob)?;
        if blob.size > limit as u64 {
            let detail = format!("it has {} bytes, the limit is {limit}", blob.size);
            return Err(
                RegistryError::new(ErrorKind::TooLarge, detail).doing(download.action.clone())
            );
        }
        let mut all = Vec::new();
        while let Some(piece) = download.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}

impl Download {
    /// The next piece; none when all are out and the digest is right.
    ///
    /// # Errors
    ///
    /// If no registry has the blob, the connection broke too often, or size or digest are wrong.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        match self.advance().await {
            Ok(piece) => Ok(piece),
            Err(error) => Err(error.doing(self.action.clone())),
        }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.open().await?,
            };
            let host = connection.host.clone();
            self.host.clone_from(&host);
            match connection.next().await {
                Ok(Some(piece)) => {
                    self.connection = Some(connection);
                    if piece.is_empty() {
                        continue;
                    }
                    return self.accept(&host, piece).map(Some);
                }
                // All is here; whether the connection ended well does not matter.
                Ok(None) | Err(_) if self.offset == self.size => return self.finish(&host),
                Ok(None) => {
                    let detail = format!("{host} gave {} of {} bytes", self.offset, self.size);
                    self.again(RegistryError::new(ErrorKind::Truncated, detail)).await?;
                }
                Err(error) => self.again(error).await?,
            }
        }
    }

    fn accept(&mut self, host: &str, piece: Bytes) -> Result<Bytes, RegistryError> {
        let offset = self.offset + piece.len() as u64;
        if offset > self.size {
            let detail = format!("{host} gave more than the {} bytes announced", self.size);
            return Err(RegistryError::new(ErrorKind::Truncated, detail));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        self.offset = offset;
        self.failures = 0;
        Ok(piece)
    }

    fn finish(&mut self, host: &str) -> Result<Option<Bytes>, RegistryError> {
        if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.id.0 {
                return Err(mismatch(host, "blob", self.id.0, found));
            }
        }
        self.connection = None;
        Ok(None)
    }

    /// Waits before another attempt, or gives up with `error`.
    async fn again(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        let retry = *self.client.transport.retry();
        if self.failures >= retry.attempts {
            return Err(error);
        }
        tokio::time::sleep(retry.delay(self.failures)).await;
        Ok(())
    }

    /// Asks one endpoint after the other for what is missing.
    async fn open(&self) -> Result<Connection, RegistryError> {
        let mut call = Call::new(Method::GET, format!("blobs/{}", self.id));
        if self.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.offset));
            call.headers.insert(header::RANGE, range.expect("digits are header text"));
        }
        let mut failed = Vec::new();
        for endpoint in &self.endpoints {
            let scopes = Scopes::pull(&endpoint.path);
            let answered = self.client.ask(endpoint, &scopes, &call).await;
            match answered.and_then(|it| self.connection(endpoint, it)) {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    self.client.note_failure(endpoint, &error);
                    failed.push((endpoint.host.clone(), error));
                }
            }
        }
        Err(last_of(failed))
    }

    /// Checks where an answer starts and how long it is.
    fn connection(
        &self,
        endpoint: &Endpoint,
        response: Response,
    ) -> Result<Connection, RegistryError> {
        let start = if response.status() == StatusCode::PARTIAL_CONTENT {
            range_start(&response).filter(|it| *it <= self.offset).ok_or_else(|| {
                let from = redact(response.url());
                let detail = format!("{from} gave another part than it was asked for");
                RegistryError::new(ErrorKind::Invalid, detail)
            })?
        } else {
            0
        };
        if let Some(length) = response.content_length()
            && start + length != self.size
        {
            let detail = format!(
                "{} announces {} bytes, the manifest says {}",
                endpoint.host,
                start + length,
                self.size
            );
            return Err(RegistryError::new(ErrorKind::Truncated, detail));
        }
        Ok(Connection { response, host: endpoint.host.clone(), skip: self.offset - start })
    }

    /// Writes all of it to `writer`, and tells `progress` about it. Does not flush.
    ///
    /// # Errors
    ///
    /// As [`Download::next`]; or if `writer` fails.
    pub async fn copy_to(
        mut self,
        writer: &mut (dyn AsyncWrite + Send + Unpin),
        progress: &Progress,
    ) -> Result<(), RegistryError> {
        while let Some(piece) = self.next().await? {
            writer.write_all(&piece).await.map_err(|it| {
                RegistryError::new(ErrorKind::Local, format!("a write failed: {it}"))
                    .doing(&self.action)
                    .with_source(it)
            })?;
            progress(&self.id, self.offset, self.size);
        }
        Ok(())
    }

    /// Writes all of it into a blob of the store, which is there afterwards, and tells `progress`.
    ///
    /// # Errors
    ///
    /// As [`Download::next`]; or if the store fails.
    pub async fn save(
        mut self,
        blob: BlobWriter,
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<(), RegistryError> {
        // Once is enough: the store hashes what is written.
        self.hasher = None;
        let (action, id) = (self.action.clone(), self.id);
        let mut blob = blob.expecting(id, self.size);
        let local = |error: &dyn std::fmt::Display| {
            let detail = format!("blob {id} cannot be written: {error}");
            RegistryError::new(ErrorKind::Local, detail).doing(&action)
        };
        while let Some(piece) = self.next().await? {
            // A piece is some kilobytes, written to the page cache.
            io::Write::write_all(&mut blob, &piece).map_err(|it| local(&it))?;
            progress(self.offset, self.size);
        }
        blob.finish().map(drop).map_err(|error| {
            if let StoreError::WrongDigest { found, .. } = error {
                return mismatch(&self.host, "blob", id.0, found.0).doing(&action);
            }
            local(&error)
        })
    }

    /// The pieces as a stream, which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, RegistryError>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |download| async {
            let mut download = download?;
            match download.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(download))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// A reader for a thread outside of the runtime, fed by a task of it. Its errors carry a
    /// [`RegistryError`]; its end means that the digest is right.
    ///
    /// Must be called within a tokio runtime.
    pub fn into_reader(mut self, progress: Progress) -> BlobReader {
        let (sender, receiver) = mpsc::channel(READER_PIECES);
        tokio::spawn(async move {
            loop {
                let next = self.next().await;
                progress(&self.id, self.offset, self.size);
                let last = !matches!(next, Ok(Some(_)));
                if sender.send(next).await.is_err() || last {
                    return;
                }
            }
        });
        BlobReader { receiver, piece: Bytes::new(), ended: false }
    }
}

impl Connection {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(mut piece) = next_piece(&mut self.response).await? else { return Ok(None) };
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        piece.advance(usize::try_from(skipped).unwrap_or(piece.len()));
        Ok(Some(piece))
    }
}

fn range_start(response: &Response) -> Option<u64> {
    let text = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = text.trim().strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}

/// A blob as [`io::Read`], for threads outside of the runtime.
#[derive(Debug)]
pub struct BlobReader {
    receiver: mpsc::Receiver<Result<Option<Bytes>, RegistryError>>,
    piece: Bytes,
    ended: bool,
}

impl io::Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Err(io::Error::other("the download was given up")),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Reads a whole small body; used where there is no digest to compare with.
pub(super) async fn drain(response: Response) {
    // An answer that is read to its end lets the connection be used again.
    const MAX_DRAINED_BYTES: usize = 64 * 1024;
    drop(read_limited(response, MAX_DRAINED_BYTES).await);
}
