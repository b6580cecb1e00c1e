//! Images into a registry: blobs side by side, then manifests, the named one last.
//!
//! ```text
//! blob: known or HEAD ─ there ─────────────────────────────────────> Present
//!         └─ POST (mount from a repository that has it) ─ 201 ─────> Mounted
//!              └─ 202, session ─ PUT whole ─ 201 ──────────────────> Uploaded
//!                                 └─ 405, 413, … ─ PATCH in pieces, PUT
//! ```
//!
//! A session that breaks is given up and begun anew, as often as the retry policy says. Layers that
//! are still being written go ahead: see `stream.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::auth::Scopes;
use super::client::{Call, Target};
use super::config::{Endpoint, Purpose};
use super::error::{ErrorKind, RegistryError};
use super::pull::drain;
use super::resolve::mismatch;
use super::upload::{Body, Source};
use super::{Progress, Registry};
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, Digest};
use crate::reference::Reference;

/// Blobs that are on their way at the same time.
const MAX_PARALLEL: usize = 5;
/// Size of the pieces where a registry does not take a blob whole, in bytes.
const PIECE_BYTES: u64 = 16 << 20;
/// Largest piece that a registry can ask for, in bytes.
const MAX_PIECE_BYTES: u64 = 1 << 30;
/// Where a registry says how small pieces may be (distribution-spec, "Pushing a blob in chunks").
const MIN_PIECE_HEADER: &str = "oci-chunk-min-length";

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// In a file.
    File(PathBuf),
    /// Here.
    Bytes(Bytes),
    /// In the repository of an image: mounted where that is possible, else passed through.
    Registry(Reference),
}

/// A blob to push.
#[derive(Clone, Debug)]
pub struct PushBlob {
    /// Digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub source: BlobSource,
    /// Repositories that are known to have it; those on other registries are passed over.
    pub mount_from: Vec<Reference>,
}

/// A manifest or index to push.
#[derive(Clone, Debug)]
pub struct PushManifest {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// An image to push.
#[derive(Clone, Debug)]
pub struct PushImage {
    /// Configurations and layers; one that occurs twice is pushed once.
    pub blobs: Vec<PushBlob>,
    /// Manifests that `top` refers to, pushed by digest.
    pub manifests: Vec<PushManifest>,
    /// What the name will stand for.
    pub top: PushManifest,
}

/// What had to be done for a blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// Nothing, it was there.
    Present,
    /// It was taken over from another repository of the registry.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// An open session, or none needed.
pub(super) enum Begun {
    Mounted,
    Session { url: Url, min_piece: u64 },
}

impl Registry {
    /// Pushes an image; gives the digest that `target` stands for now.
    ///
    /// # Errors
    ///
    /// If the registry refuses or breaks, or a source does. What was pushed until then stays.
    pub async fn push(
        &self,
        target: &Reference,
        image: PushImage,
        progress: &Progress,
    ) -> Result<BlobId, RegistryError> {
        let mut unique = BTreeMap::new();
        let mut sources = Vec::new();
        for blob in image.blobs {
            sources.extend(mounts(&blob).cloned());
            unique.entry(blob.descriptor.digest).or_insert(blob);
        }
        let endpoint = self.target(target)?;
        let scopes = scopes(&endpoint, &sources);
        let (endpoint, scopes) = (&endpoint, &scopes);
        futures_util::stream::iter(unique.into_values())
            .map(
                |blob| async move { self.deliver(endpoint, scopes, target, &blob, progress).await },
            )
            .buffer_unordered(MAX_PARALLEL)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        for manifest in &image.manifests {
            let digest = Digest::of(&manifest.bytes);
            self.put_manifest(&target.clone().with_digest(digest), manifest).await?;
        }
        self.put_manifest(target, &image.top).await
    }

    /// Sees to it that the repository of `target` has a blob.
    ///
    /// # Errors
    ///
    /// If the registry refuses or breaks, or the source does.
    pub async fn push_blob(
        &self,
        target: &Reference,
        blob: &PushBlob,
        progress: &Progress,
    ) -> Result<Delivery, RegistryError> {
        let endpoint = self.target(target)?;
        let sources: Vec<Reference> = mounts(blob).cloned().collect();
        let scopes = scopes(&endpoint, &sources);
        self.deliver(&endpoint, &scopes, target, blob, progress).await
    }

    /// Makes `target` stand for a manifest or index whose parts are there; gives its digest.
    ///
    /// # Errors
    ///
    /// If the registry refuses or breaks.
    pub async fn put_manifest(
        &self,
        target: &Reference,
        manifest: &PushManifest,
    ) -> Result<BlobId, RegistryError> {
        let action = format!("push `{}`", target.familiar());
        let endpoint = self.target(target)?;
        let mut call = Call::new(Method::PUT, format!("manifests/{}", target.version()));
        let media_type = HeaderValue::try_from(manifest.media_type.as_str()).map_err(|_| {
            RegistryError::new(ErrorKind::Invalid, "the media type is no header text")
        })?;
        call.headers.insert(header::CONTENT_TYPE, media_type);
        call.body = Body::Bytes(manifest.bytes.clone());
        let asked = self.client.ask(&endpoint, &Scopes::push(&endpoint.path), &call).await;
        let response = asked.map_err(|it| it.doing(&action))?;
        let digest = Digest::of(&manifest.bytes);
        confirm(&endpoint, &response, digest).map_err(|it| it.doing(&action))?;
        drain(response).await;
        Ok(BlobId(digest))
    }

    pub(super) fn target(&self, target: &Reference) -> Result<Endpoint, RegistryError> {
        let endpoints = self.client.endpoints(target, Purpose::Push);
        endpoints
            .and_then(|it| {
                it.into_iter()
                    .next()
                    .ok_or_else(|| RegistryError::new(ErrorKind::Config, "no registry to push to"))
            })
            .map_err(|it| it.doing(format!("push `{}`", target.familiar())))
    }

    async fn deliver(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        target: &Reference,
        blob: &PushBlob,
        progress: &Progress,
    ) -> Result<Delivery, RegistryError> {
        let id = blob.descriptor.digest;
        let delivery = self
            .deliver_blob(endpoint, scopes, blob, progress)
            .await
            .map_err(|it| it.doing(format!("push blob {id} to `{}`", target.familiar())))?;
        self.client.note_present(endpoint, id);
        progress(&id, blob.descriptor.size, blob.descriptor.size);
        Ok(delivery)
    }

    async fn deliver_blob(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        blob: &PushBlob,
        progress: &Progress,
    ) -> Result<Delivery, RegistryError> {
        let id = blob.descriptor.digest;
        if self.client.is_present(endpoint, id) || self.has_blob(endpoint, scopes, id).await? {
            return Ok(Delivery::Present);
        }
        let mut session = None;
        for source in mounts(blob).filter(|it| is_neighbour(endpoint, it)) {
            match self.begin(endpoint, scopes, Some((id, source.path()))).await {
                Ok(Begun::Mounted) => return Ok(Delivery::Mounted),
                Ok(begun @ Begun::Session { .. }) => {
                    session = Some(begun);
                    break;
                }
                // A refused mount must not spoil a push that is allowed.
                Err(_) => {}
            }
        }
        let source = Source::new(self, &blob.descriptor, &blob.source, progress);
        let retry = *self.client.transport.retry();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let begun = match session.take() {
                Some(begun) => begun,
                None => self.begin(endpoint, &Scopes::push(&endpoint.path), None).await?,
            };
            let Begun::Session { url, min_piece } = begun else { return Ok(Delivery::Mounted) };
            match self.send_whole(endpoint, url, &source).await {
                Ok(()) => return Ok(Delivery::Uploaded),
                Err(it)
                    if matches!(it.kind(), ErrorKind::TooLarge | ErrorKind::Unsupported)
                        && source.can_start_anywhere() =>
                {
                    let begun = self.begin(endpoint, &Scopes::push(&endpoint.path), None).await?;
                    let Begun::Session { url, .. } = begun else { return Ok(Delivery::Mounted) };
                    self.send_in_pieces(endpoint, url, min_piece, &source).await?;
                    return Ok(Delivery::Uploaded);
                }
                Err(error) if attempt < retry.attempts && may_pass(&error) => {
                    tokio::time::sleep(retry.delay(attempt)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn has_blob(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        id: BlobId,
    ) -> Result<bool, RegistryError> {
        let call = Call::new(Method::HEAD, format!("blobs/{id}"));
        let response = self.client.ask_any(endpoint, scopes, &call).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.client.refused(endpoint, response).await),
        }
    }

    /// Opens an upload session, or mounts a blob from the repository `from`.
    pub(super) async fn begin(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        mount: Option<(BlobId, &str)>,
    ) -> Result<Begun, RegistryError> {
        let below = match mount {
            Some((id, from)) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                query.append_pair("mount", &id.to_string()).append_pair("from", from);
                format!("blobs/uploads/?{}", query.finish())
            }
            None => "blobs/uploads/".to_owned(),
        };
        let response = self.client.ask(endpoint, scopes, &Call::new(Method::POST, below)).await?;
        if response.status() == StatusCode::CREATED && mount.is_some() {
            drain(response).await;
            return Ok(Begun::Mounted);
        }
        let min_piece = response.headers().get(MIN_PIECE_HEADER);
        let min_piece = min_piece.and_then(|it| it.to_str().ok()?.parse().ok()).unwrap_or(0);
        let url = session_url(endpoint, &response)?;
        drain(response).await;
        Ok(Begun::Session { url, min_piece })
    }

    async fn send_whole(
        &self,
        endpoint: &Endpoint,
        url: Url,
        source: &Source,
    ) -> Result<(), RegistryError> {
        let body = source.body(0, source.size());
        let response = self.upload(endpoint, Method::PUT, finished(url, source.id()), body, None);
        let response = response.await?;
        confirm(endpoint, &response, source.id().0)?;
        drain(response).await;
        Ok(())
    }

    async fn send_in_pieces(
        &self,
        endpoint: &Endpoint,
        mut url: Url,
        min_piece: u64,
        source: &Source,
    ) -> Result<(), RegistryError> {
        let piece = PIECE_BYTES.max(min_piece).min(MAX_PIECE_BYTES);
        let mut offset = 0;
        while offset < source.size() {
            let end = source.size().min(offset + piece);
            let body = source.body(offset, end - offset);
            let range = Some((offset, end - 1));
            let response = self.upload(endpoint, Method::PATCH, url, body, range).await?;
            url = session_url(endpoint, &response)?;
            drain(response).await;
            offset = end;
        }
        let url = finished(url, source.id());
        let response = self.upload(endpoint, Method::PUT, url, Body::Empty, None).await?;
        confirm(endpoint, &response, source.id().0)?;
        drain(response).await;
        Ok(())
    }

    pub(super) async fn upload(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: Url,
        body: Body,
        range: Option<(u64, u64)>,
    ) -> Result<Response, RegistryError> {
        let mut call = Call::new(method, String::new());
        call.target = Target::Given(url);
        call.body = body;
        let binary = HeaderValue::from_static("application/octet-stream");
        call.headers.insert(header::CONTENT_TYPE, binary);
        if let Some((first, last)) = range {
            let range = HeaderValue::try_from(format!("{first}-{last}"));
            call.headers.insert(header::CONTENT_RANGE, range.expect("digits are header text"));
        }
        self.client.ask(endpoint, &Scopes::push(&endpoint.path), &call).await
    }
}

/// Repositories from which `blob` may be mounted.
fn mounts(blob: &PushBlob) -> impl Iterator<Item = &Reference> {
    let own = match &blob.source {
        BlobSource::Registry(reference) => Some(reference),
        BlobSource::File(_) | BlobSource::Bytes(_) => None,
    };
    blob.mount_from.iter().chain(own)
}

fn is_neighbour(endpoint: &Endpoint, source: &Reference) -> bool {
    source.domain() == endpoint.domain && source.path() != endpoint.path
}

fn scopes(endpoint: &Endpoint, sources: &[Reference]) -> Scopes {
    let near = sources.iter().filter(|it| is_neighbour(endpoint, it));
    near.fold(Scopes::push(&endpoint.path), |scopes, it| scopes.and_pull(it.path()))
}

/// Whether another session may fare better.
fn may_pass(error: &RegistryError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::Server | ErrorKind::NotFound | ErrorKind::RateLimited
    )
}

/// Where a session goes on.
pub(super) fn session_url(endpoint: &Endpoint, response: &Response) -> Result<Url, RegistryError> {
    let from = response.url();
    let mut url = response
        .headers()
        .get(header::LOCATION)
        .and_then(|it| it.to_str().ok())
        .and_then(|it| from.join(it).ok())
        .ok_or_else(|| {
            let detail = format!("{} opened an upload and does not say where", endpoint.host);
            RegistryError::new(ErrorKind::Invalid, detail)
        })?;
    // Registries behind a proxy that adds TLS often do not know of it.
    let downgraded = from.scheme() == "https" && url.scheme() == "http";
    if downgraded && url.host_str() == from.host_str() {
        let port = from.port();
        if url.set_scheme("https").is_err() || url.set_port(port).is_err() {
            return Err(RegistryError::new(
                ErrorKind::Invalid,
                "the upload address makes no sense",
            ));
        }
    }
    Ok(url)
}

pub(super) fn finished(mut url: Url, id: BlobId) -> Url {
    url.query_pairs_mut().append_pair("digest", &id.to_string());
    url
}

/// Compares the digest that the registry confirms, where it does.
pub(super) fn confirm(
    endpoint: &Endpoint,
    response: &Response,
    wanted: Digest,
) -> Result<(), RegistryError> {
    let told = response.headers().get("docker-content-digest");
    match told.and_then(|it| it.to_str().ok()?.parse::<Digest>().ok()) {
        Some(found) if found != wanted => {
            Err(mismatch(&endpoint.host, "confirmation", wanted, found))
        }
        Some(_) | None => Ok(()),
    }
}
