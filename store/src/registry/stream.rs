//! Blobs that go to a registry while they are written.
//!
//! ```text
//! POST ─ 202, session ─ PATCH without a length, as the bytes are made ─ 202 ─ PUT with the digest ─ 201
//! ```
//!
//! What the blob is shows when its last byte is made: if much is still to be sent then, the registry
//! is asked whether it has it, and the session is given up if it does. This is an attempt: whatever
//! fails can be pushed from the store afterwards, the usual way ([`Registry::push_blob`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{self, HeaderMap};
use url::Url;

use super::auth::Scopes;
use super::client::{Call, Target};
use super::config::Endpoint;
use super::error::{ErrorKind, RegistryError};
use super::pull::drain;
use super::push::{Begun, Delivery, confirm, finished, session_url};
use super::transport::SILENCE_TIMEOUT;
use super::upload::Body;
use super::{Progress, Registry};
use crate::digest::BlobId;
use crate::growing::{Growing, GrowingError};
use crate::reference::Reference;

/// Blobs with fewer bytes are not worth a session of their own before their digest is known.
pub const MIN_STREAMED_BYTES: u64 = 1 << 20;
/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes still to be sent for which the registry is asked whether it needs them.
const MIN_SAVED_BYTES: u64 = 8 << 20;

impl Registry {
    /// Sends a blob that is being written to the repository of `target`, and tells `progress` what of
    /// it is out once its digest is known. None: it is not there, for
    /// the connection broke or the registry does not take blobs in this way; it may take it whole.
    ///
    /// # Errors
    ///
    /// If the writer gives up, or the registry cannot be reached or refuses uploads of any kind.
    pub async fn push_growing(
        &self,
        target: &Reference,
        growing: &Growing,
        progress: &Progress,
    ) -> Result<Option<Delivery>, RegistryError> {
        let action = || format!("push a layer to `{}`", target.familiar());
        let endpoint = &self.target(target)?;
        let scopes = Scopes::push(&endpoint.path);
        let begun = self.begin(endpoint, &scopes, None).await.map_err(|it| it.doing(action()))?;
        let Begun::Session { url, .. } = begun else { return Ok(None) };
        let sent = Arc::new(AtomicU64::new(0));
        let body = body(growing, &sent, progress);
        tokio::select! {
            result = self.send_growing(endpoint, url.clone(), growing, body) => match result {
                Ok(id) => {
                    self.client.note_present(endpoint, id);
                    Ok(Some(Delivery::Uploaded))
                }
                Err(error) if error.kind() == ErrorKind::Local => Err(error.doing(action())),
                Err(_) => {
                    self.give_up(endpoint, &scopes, url).await;
                    Ok(None)
                }
            },
            id = self.turns_out_present(endpoint, &scopes, growing, &sent) => {
                self.client.note_present(endpoint, id);
                self.give_up(endpoint, &scopes, url).await;
                Ok(Some(Delivery::Present))
            }
            () = silence(growing, &sent) => Ok(None),
        }
    }

    async fn send_growing(
        &self,
        endpoint: &Endpoint,
        url: Url,
        growing: &Growing,
        body: Body,
    ) -> Result<BlobId, RegistryError> {
        let response = self.upload(endpoint, Method::PATCH, url, body, None).await?;
        let (id, size) = growing.whole().await.map_err(lost)?;
        if let Some(taken) = taken(response.headers())
            && taken < size
        {
            let detail = format!("{} took {taken} of {size} bytes", endpoint.host);
            return Err(RegistryError::new(ErrorKind::Truncated, detail));
        }
        let url = finished(session_url(endpoint, &response)?, id);
        drain(response).await;
        let response = self.upload(endpoint, Method::PUT, url, Body::Empty, None).await?;
        confirm(endpoint, &response, id.0)?;
        drain(response).await;
        Ok(id)
    }

    /// The blob, if the registry has it and much is still to be sent when its digest is known; else
    /// waits forever.
    async fn turns_out_present(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        growing: &Growing,
        sent: &AtomicU64,
    ) -> BlobId {
        if let Ok((id, size)) = growing.whole().await
            && size.saturating_sub(sent.load(Ordering::Relaxed)) >= MIN_SAVED_BYTES
            && (self.client.is_present(endpoint, id)
                || self.has_blob(endpoint, scopes, id).await.unwrap_or(false))
        {
            return id;
        }
        std::future::pending().await
    }

    /// Tells the registry that a session is over; it finds out by itself where that is refused.
    async fn give_up(&self, endpoint: &Endpoint, scopes: &Scopes, url: Url) {
        let mut call = Call::new(Method::DELETE, String::new());
        call.target = Target::Given(url);
        if let Ok(response) = self.client.ask_any(endpoint, scopes, &call).await {
            drain(response).await;
        }
    }
}

/// The blob from its beginning, for each attempt anew.
fn body(growing: &Growing, sent: &Arc<AtomicU64>, progress: &Progress) -> Body {
    let all = (growing.clone(), Arc::clone(sent), Arc::clone(progress));
    let open = move || {
        all.1.store(0, Ordering::Relaxed);
        let pieces = futures_util::stream::try_unfold(all.clone(), async |all| {
            let (growing, sent, progress) = &all;
            let offset = sent.load(Ordering::Relaxed);
            let piece: Option<Bytes> = growing.read(offset, PIECE_BYTES).await.map_err(lost)?;
            let Some(piece) = piece else { return Ok::<_, RegistryError>(None) };
            let offset = offset + piece.len() as u64;
            sent.store(offset, Ordering::Relaxed);
            // The end is told when the registry has confirmed it.
            if let Some((id, size)) = growing.known().filter(|(_, size)| offset < *size) {
                progress(&id, offset, size);
            }
            Ok(Some((piece, all)))
        });
        let body = reqwest::Body::wrap_stream(pieces);
        Box::pin(std::future::ready(Ok(body))) as futures_util::future::BoxFuture<'static, _>
    };
    Body::Stream { length: None, open: Arc::new(open) }
}

/// Ends when the registry has taken nothing for a long time although there was something, or does not
/// answer.
async fn silence(growing: &Growing, sent: &AtomicU64) {
    let mut before = None;
    loop {
        tokio::time::sleep(SILENCE_TIMEOUT).await;
        let now = sent.load(Ordering::Relaxed);
        let waits = growing.known().is_some() || growing.bytes_so_far() > now;
        if waits && before == Some(now) {
            return;
        }
        before = waits.then_some(now);
    }
}

/// How many bytes a session has, where the answer says so (`Range: 0-1023`).
fn taken(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    last.trim().parse::<u64>().ok()?.checked_add(1)
}

fn lost(error: GrowingError) -> RegistryError {
    let detail = match &error {
        GrowingError::Abandoned => error.to_string(),
        GrowingError::Read(source) => format!("{error}: {source}"),
    };
    RegistryError::new(ErrorKind::Local, detail).with_source(error)
}
