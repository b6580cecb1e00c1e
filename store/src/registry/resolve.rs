//! From the name of an image to its manifest and configuration.

use bytes::Bytes;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Response};

use super::Registry;
use super::auth::Scopes;
use super::body::read_limited;
use super::client::Call;
use super::config::{Endpoint, Purpose};
use super::error::{ErrorKind, RegistryError};
use super::manifest::{parse, select};
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, Digest};
use crate::image::manifest::{Document, Manifest};
use crate::media_type;
use crate::platform::Platform;
use crate::reference::Reference;

/// Largest manifest or index, in bytes; what registries themselves accept.
pub(super) const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Largest image configuration, in bytes.
pub(super) const MAX_CONFIG_BYTES: usize = 4 << 20;
/// How deep indexes may be within indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// The header in which registries tell the digest of a manifest.
const DIGEST_HEADER: &str = "docker-content-digest";

/// A question for an image.
#[derive(Clone, Copy)]
pub struct Resolve<'a> {
    /// Which image; without tag and digest, `latest`.
    pub reference: &'a Reference,
    /// For which platform.
    pub platform: &'a Platform,
    /// What the name stood for when it was last looked at: if it still does, nothing is fetched
    /// that `local` has.
    pub last_known: Option<BlobId>,
    /// Manifests and configurations at hand. What it returns is taken for the bytes of the digest.
    pub local: &'a (dyn Fn(&BlobId) -> Option<Vec<u8>> + Sync),
}

impl std::fmt::Debug for Resolve<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolve({} for {})", self.reference, self.platform)
    }
}

/// An image as its registry describes it. All bytes are verified.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the name stands for: an index, or the manifest itself.
    pub top: Descriptor,
    /// The index, where `top` is one.
    pub index: Option<Bytes>,
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// Its bytes.
    pub manifest_bytes: Bytes,
    /// The image configuration.
    pub config: Descriptor,
    /// Its bytes.
    pub config_bytes: Bytes,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A manifest and what it says.
struct Fetched {
    descriptor: Descriptor,
    bytes: Bytes,
    manifest: Document,
}

impl Registry {
    /// Finds the manifest and the configuration of an image for a platform.
    ///
    /// A name with a digest whose manifests are all at hand needs no request.
    ///
    /// # Errors
    ///
    /// If no registry has the image, it is not there for the platform, or what comes is not what
    /// was announced.
    pub async fn resolve(&self, question: Resolve<'_>) -> Result<Resolved, RegistryError> {
        let name = question.reference.familiar();
        self.resolve_image(question).await.map_err(|it| it.doing(format!("resolve `{name}`")))
    }

    async fn resolve_image(&self, question: Resolve<'_>) -> Result<Resolved, RegistryError> {
        let Resolve { reference, platform, local, .. } = question;
        let fetched = self.top(question).await?;
        let top = fetched.descriptor.clone();
        let index = match &fetched.manifest {
            Document::Index(_) => Some(fetched.bytes.clone()),
            Document::Manifest(_) => None,
        };
        let mut fetched = fetched;
        for _ in 0..=MAX_INDEX_DEPTH {
            let chosen = match &fetched.manifest {
                Document::Index(index) => select(index, platform)?.clone(),
                Document::Manifest(Manifest { config, layers, .. }) => {
                    let (config, layers) = (config.clone(), layers.clone());
                    let config_bytes = match local(&config.digest) {
                        Some(bytes) => Bytes::from(bytes),
                        None => self.blob_bytes(reference, &config, MAX_CONFIG_BYTES).await?,
                    };
                    return Ok(Resolved {
                        top,
                        index,
                        manifest: fetched.descriptor,
                        manifest_bytes: fetched.bytes,
                        config,
                        config_bytes,
                        layers,
                    });
                }
            };
            fetched = self.by_digest(reference, chosen.digest, Some(&chosen), local).await?;
        }
        let detail = format!("indexes are more than {MAX_INDEX_DEPTH} deep");
        Err(RegistryError::new(ErrorKind::Invalid, detail))
    }

    /// The digest that a name stands for now, by a HEAD request where that suffices.
    ///
    /// # Errors
    ///
    /// If no registry has the image.
    pub async fn digest(&self, reference: &Reference) -> Result<BlobId, RegistryError> {
        if let Some(digest) = reference.digest() {
            return Ok(BlobId(digest));
        }
        let action = format!("resolve `{}`", reference.familiar());
        let below = format!("manifests/{}", reference.version());
        let call = accepting_manifests(Call::new(Method::HEAD, below));
        let answered = self.first(reference, &call).await.map_err(|it| it.doing(&action));
        let header = match &answered {
            Ok((_, response)) => header_digest(response),
            // Some registries do not know HEAD; a GET tells why if it is something else.
            Err(it) if matches!(it.kind(), ErrorKind::Unreachable | ErrorKind::Tls) => {
                return Err(it.clone());
            }
            Err(_) => None,
        };
        if let Some(digest) = header {
            return Ok(BlobId(digest));
        }
        let fetched = self.manifest(reference, None).await.map_err(|it| it.doing(action))?;
        Ok(fetched.descriptor.digest)
    }

    async fn top(&self, question: Resolve<'_>) -> Result<Fetched, RegistryError> {
        let Resolve { reference, last_known, local, .. } = question;
        if let Some(digest) = reference.digest() {
            return self.by_digest(reference, BlobId(digest), None, local).await;
        }
        if let Some(last) = last_known.filter(|it| local(it).is_some()) {
            let now = self.digest(reference).await?;
            if now == last {
                return self.by_digest(reference, now, None, local).await;
            }
        }
        self.manifest(reference, None).await
    }

    async fn by_digest(
        &self,
        reference: &Reference,
        digest: BlobId,
        expected: Option<&Descriptor>,
        local: &(dyn Fn(&BlobId) -> Option<Vec<u8>> + Sync),
    ) -> Result<Fetched, RegistryError> {
        if let Some(bytes) = local(&digest) {
            let kind = expected.map(|it| it.media_type.as_str());
            if let Ok((kind, manifest)) = parse(&bytes, kind) {
                let descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
                return Ok(Fetched { descriptor, bytes: Bytes::from(bytes), manifest });
            }
        }
        self.manifest(&reference.clone().with_digest(digest.0), expected).await
    }

    /// Fetches the manifest of `reference` and compares it with its digest.
    async fn manifest(
        &self,
        reference: &Reference,
        expected: Option<&Descriptor>,
    ) -> Result<Fetched, RegistryError> {
        let below = format!("manifests/{}", reference.version());
        let call = accepting_manifests(Call::new(Method::GET, below));
        let (endpoint, response) = self.first(reference, &call).await?;
        let told = header_digest(&response);
        let content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|it| it.to_str().ok())
            .map(str::to_owned);
        let bytes = read_limited(response, MAX_MANIFEST_BYTES).await?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = reference.digest().or(told)
            && wanted != digest
        {
            return Err(mismatch(&endpoint.host, "manifest", wanted, digest));
        }
        if let Some(expected) = expected
            && expected.size != bytes.len() as u64
        {
            let detail = format!(
                "manifest {digest} has {} bytes, the index says {}",
                bytes.len(),
                expected.size
            );
            return Err(RegistryError::new(ErrorKind::Truncated, detail));
        }
        let (kind, manifest) = parse(&bytes, content_type.as_deref())?;
        let descriptor = Descriptor::new(kind, BlobId(digest), bytes.len() as u64);
        Ok(Fetched { descriptor, bytes, manifest })
    }

    /// The first answer of success: mirrors in order, then the registry.
    async fn first(
        &self,
        reference: &Reference,
        call: &Call,
    ) -> Result<(Endpoint, Response), RegistryError> {
        let mut failed: Vec<(String, RegistryError)> = Vec::new();
        for endpoint in self.client.endpoints(reference, Purpose::Pull)? {
            let scopes = Scopes::pull(&endpoint.path);
            match self.client.ask(&endpoint, &scopes, call).await {
                Ok(response) => return Ok((endpoint, response)),
                Err(error) => {
                    self.client.note_failure(&endpoint, &error);
                    failed.push((endpoint.host, error));
                }
            }
        }
        Err(last_of(failed))
    }
}

/// The error of the last endpoint, with what the others said.
pub(super) fn last_of(mut failed: Vec<(String, RegistryError)>) -> RegistryError {
    match failed.pop() {
        Some((_, error)) => error.after(&failed),
        None => RegistryError::new(ErrorKind::Config, "no registry to ask"),
    }
}

pub(super) fn mismatch(host: &str, what: &str, wanted: Digest, found: Digest) -> RegistryError {
    let detail = format!("{host} gave a {what} with digest {found} for {wanted}");
    RegistryError::new(ErrorKind::DigestMismatch, detail).with_hint(
        "the registry, a mirror or a proxy changed it: try again, or leave that host out",
    )
}

fn accepting_manifests(mut call: Call) -> Call {
    let value = HeaderValue::try_from(media_type::MANIFESTS.join(", "));
    call.headers.insert(header::ACCEPT, value.expect("media types are header text"));
    call
}

fn header_digest(response: &Response) -> Option<Digest> {
    response.headers().get(DIGEST_HEADER)?.to_str().ok()?.parse().ok()
}
