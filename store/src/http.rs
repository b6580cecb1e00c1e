//! Files from web servers, for `ADD https://…`: revalidated, resumed, verified.
//!
//! Meaning is BuildKit's: a file that a server says is unchanged is not fetched again, its time is
//! that of `Last-Modified`, its name that of `Content-Disposition` or of the address. Retries,
//! redirects, proxies and time limits are those of registries ([`crate::registry`]).

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use url::Url;

use crate::digest::{Digest, Hasher};
use crate::registry::body::{next_piece, refusal};
use crate::registry::config::TlsSettings;
use crate::registry::error::redact;
use crate::registry::transport::{Request, Transport};
use crate::registry::upload::Body;
use crate::registry::{ErrorKind, NetworkSettings, RegistryError};

/// The name of a file of which nothing else is known.
const DEFAULT_FILE_NAME: &str = "download";
/// Longest name of a file, in bytes (`NAME_MAX` of Linux).
const MAX_FILE_NAME_BYTES: usize = 255;

/// Web servers, as one user on one machine sees them.
#[derive(Clone, Debug)]
pub struct Web {
    transport: Arc<Transport>,
}

/// By what a server recognises that a file is unchanged.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Validators {
    /// `ETag`, as the server wrote it.
    pub etag: Option<String>,
    /// `Last-Modified`, as the server wrote it.
    pub last_modified: Option<String>,
}

/// What a server says about a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WebHead {
    /// By what it recognises that the file is unchanged.
    pub validators: Validators,
    /// Time of the last change, in seconds since 1970.
    pub modified: Option<i64>,
    /// Length in bytes, if it says so.
    pub size: Option<u64>,
    /// The name that it gives the file, the last component of what it wrote.
    pub file_name: Option<String>,
}

/// A question for a file.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    /// Its address.
    pub url: &'a Url,
    /// Further headers, `Authorization` for instance; that one is not sent to other hosts.
    pub headers: &'a [(String, String)],
    /// Those of an earlier answer: if the file is unchanged it is not sent again.
    pub known: Option<&'a Validators>,
    /// What it must be.
    pub checksum: Option<Digest>,
    /// Most bytes that are accepted.
    pub limit: u64,
}

/// What came of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fetched {
    /// It is as it was.
    NotModified,
    /// It is in the file that was given.
    File {
        /// What the server said about it.
        head: WebHead,
        /// Its digest.
        digest: Digest,
        /// Its bytes.
        size: u64,
    },
}

/// Called as bytes come: bytes so far, bytes in all if known.
pub type WebProgress<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

impl Web {
    /// Prepares; does not connect.
    pub fn new(network: NetworkSettings) -> Self {
        Self::over(Arc::new(Transport::new(network)))
    }

    pub(crate) fn over(transport: Arc<Transport>) -> Self {
        Self { transport }
    }

    /// What the server says about a file, without the file; none if it does not answer such
    /// questions, or the file is as `known` says.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or the file does not exist.
    pub async fn head(&self, fetch: &Fetch<'_>) -> Result<Option<WebHead>, RegistryError> {
        let action = format!("look at {}", redact(fetch.url));
        let request = request(Method::HEAD, fetch).map_err(|it| it.doing(&action))?;
        let response = self.transport.send(&request).await.map_err(|it| it.doing(&action))?;
        match response.status().as_u16() {
            200..=299 => Ok(Some(head_of(&response))),
            304 | 400 | 403 | 405 | 500..=599 => Ok(None),
            _ => Err(refusal(response).await.doing(action)),
        }
    }

    /// Fetches a file into `file`, which is emptied first. After an error its contents are
    /// unverified and should be thrown away.
    ///
    /// # Errors
    ///
    /// If the server refuses or cannot be reached, the file is larger than the limit or other than
    /// the checksum, or a write fails.
    pub async fn fetch(
        &self,
        fetch: &Fetch<'_>,
        file: &mut File,
        progress: WebProgress<'_>,
    ) -> Result<Fetched, RegistryError> {
        let action = format!("fetch {}", redact(fetch.url));
        self.fetch_file(fetch, file, progress).await.map_err(|it| it.doing(action))
    }

    async fn fetch_file(
        &self,
        fetch: &Fetch<'_>,
        file: &mut File,
        progress: WebProgress<'_>,
    ) -> Result<Fetched, RegistryError> {
        let mut request = request(Method::GET, fetch)?;
        let response = self.transport.send(&request).await?;
        if response.status() == StatusCode::NOT_MODIFIED && fetch.known.is_some() {
            return Ok(Fetched::NotModified);
        }
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let head = head_of(&response);
        let mut body = Receiving { file, fetch, progress, hasher: Hasher::new(), size: 0 };
        body.restart().await?;
        let mut failures = 0;
        let mut response = response;
        loop {
            let before = body.size;
            match body.take(&mut response, head.size).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Unreachable => {
                    failures = if body.size > before { 1 } else { failures + 1 };
                    let retry = *self.transport.retry();
                    if failures >= retry.attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(retry.delay(failures)).await;
                }
                Err(error) => return Err(error),
            }
            ask_for_rest(&mut request.headers, &head.validators, body.size);
            response = self.transport.send(&request).await?;
            let goes_on =
                response.status() == StatusCode::PARTIAL_CONTENT && starts_at(&response, body.size);
            if !goes_on {
                if !response.status().is_success() {
                    return Err(refusal(response).await);
                }
                body.restart().await?;
            }
        }
        body.finish(head).await
    }
}

/// A file on its way.
struct Receiving<'a> {
    file: &'a mut File,
    fetch: &'a Fetch<'a>,
    progress: WebProgress<'a>,
    hasher: Hasher,
    size: u64,
}

impl Receiving<'_> {
    async fn restart(&mut self) -> Result<(), RegistryError> {
        self.file.rewind().await.map_err(write_failed)?;
        self.file.set_len(0).await.map_err(write_failed)?;
        (self.hasher, self.size) = (Hasher::new(), 0);
        Ok(())
    }

    async fn take(
        &mut self,
        response: &mut Response,
        total: Option<u64>,
    ) -> Result<(), RegistryError> {
        let limit = self.fetch.limit;
        let announced = response.content_length().unwrap_or(0);
        if announced.saturating_add(self.size) > limit {
            return Err(too_large(limit));
        }
        while let Some(piece) = next_piece(response).await? {
            if self.size + piece.len() as u64 > limit {
                return Err(too_large(limit));
            }
            self.hasher.update(&piece);
            self.file.write_all(&piece).await.map_err(write_failed)?;
            self.size += piece.len() as u64;
            (self.progress)(self.size, total);
        }
        Ok(())
    }

    async fn finish(self, head: WebHead) -> Result<Fetched, RegistryError> {
        self.file.flush().await.map_err(write_failed)?;
        let digest = self.hasher.finish();
        if let Some(wanted) = self.fetch.checksum
            && wanted != digest
        {
            let detail = format!("digest mismatch: it is {digest}, wanted is {wanted}");
            return Err(RegistryError::new(ErrorKind::DigestMismatch, detail)
                .with_hint("the file has changed, or the checksum is that of another one"));
        }
        Ok(Fetched::File { head, digest, size: self.size })
    }
}

fn write_failed(error: std::io::Error) -> RegistryError {
    let detail = format!("a write failed: {error}");
    RegistryError::new(ErrorKind::Local, detail).with_source(error)
}

fn too_large(limit: u64) -> RegistryError {
    RegistryError::new(ErrorKind::TooLarge, format!("it has more than {limit} bytes"))
}

fn request(method: Method, fetch: &Fetch<'_>) -> Result<Request, RegistryError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fetch.headers {
        let pair = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value).ok());
        let (name, mut value) = pair.ok_or_else(|| {
            let detail =
                format!("header `{}` has characters that none can have", name.escape_debug());
            RegistryError::new(ErrorKind::Config, detail)
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    if let Some(known) = fetch.known {
        let mut set = |name, value: &Option<String>| {
            if let Some(value) = value.as_ref().and_then(|it| HeaderValue::try_from(it).ok()) {
                headers.insert(name, value);
            }
        };
        set(header::IF_NONE_MATCH, &known.etag);
        if known.etag.is_none() {
            set(header::IF_MODIFIED_SINCE, &known.last_modified);
        }
    }
    let (url, body, tls) = (fetch.url.clone(), Body::Empty, TlsSettings::default());
    Ok(Request { method, url, headers, body, tls })
}

/// Asks for what is missing of the very same file; without a strong validator, for all of it.
fn ask_for_rest(headers: &mut HeaderMap, validators: &Validators, size: u64) {
    headers.remove(header::IF_NONE_MATCH);
    headers.remove(header::IF_MODIFIED_SINCE);
    headers.remove(header::RANGE);
    let strong = validators.etag.as_ref().filter(|it| !it.starts_with("W/"));
    let Some(etag) = strong.and_then(|it| HeaderValue::try_from(it).ok()) else { return };
    if size > 0 {
        let range = HeaderValue::try_from(format!("bytes={size}-"));
        headers.insert(header::RANGE, range.expect("digits are header text"));
        headers.insert(header::IF_RANGE, etag);
    }
}

fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|it| it.to_str().ok());
    range.is_some_and(|it| it.starts_with(&format!("bytes {offset}-")))
}

fn head_of(response: &Response) -> WebHead {
    let text = |name: HeaderName| {
        response.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned)
    };
    let last_modified = text(header::LAST_MODIFIED);
    let modified = last_modified.as_deref().and_then(|it| httpdate::parse_http_date(it).ok());
    let modified = modified.and_then(|it| it.duration_since(UNIX_EPOCH).ok());
    WebHead {
        modified: modified.and_then(|it| i64::try_from(it.as_secs()).ok()),
        size: text(header::CONTENT_LENGTH).and_then(|it| it.parse().ok()),
        file_name: text(header::CONTENT_DISPOSITION).and_then(|it| disposition_name(&it)),
        validators: Validators { etag: text(header::ETAG), last_modified },
    }
}

/// The name of the file at `url`: `wanted` if given, else what the server calls it, else the last
/// component of the address, else `download`.
pub fn file_name(wanted: Option<&str>, head: Option<&WebHead>, url: &Url) -> String {
    if let Some(wanted) = wanted.filter(|it| !it.is_empty()) {
        return wanted.to_owned();
    }
    head.and_then(|it| it.file_name.clone())
        .or_else(|| base(&percent_decoded(url.path())))
        .unwrap_or_else(|| DEFAULT_FILE_NAME.to_owned())
}

/// `filename` of a `Content-Disposition` header (RFC 6266); the extended form counts first.
fn disposition_name(header: &str) -> Option<String> {
    let mut plain = None;
    let mut rest = header.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = after.strip_prefix('"').map_or_else(|| bare(after), unquote);
        let name = name.trim();
        if name.eq_ignore_ascii_case("filename*") {
            if let Some((charset, encoded)) = value.split_once('\'')
                && charset.eq_ignore_ascii_case("utf-8")
                && let Some((_, encoded)) = encoded.split_once('\'')
            {
                return proper(&percent_decoded(encoded));
            }
        } else if name.eq_ignore_ascii_case("filename") {
            plain = proper(&value);
        }
        match after.split_once(';') {
            Some((_, after)) if !after.trim().is_empty() => rest = after,
            Some(_) | None => return plain,
        }
    }
}

fn bare(text: &str) -> (String, &str) {
    let end = text.find(';').unwrap_or(text.len());
    (text[..end].trim().to_owned(), &text[end..])
}

/// A quoted string (RFC 9110 section 5.6.4) behind its first quote, and what follows it.
pub(crate) fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, it)) = chars.next() {
        match it {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(chars.next().map(|(_, it)| it)),
            it => value.push(it),
        }
    }
    (value, "")
}

/// The last component, unless the server means a directory.
fn proper(name: &str) -> Option<String> {
    if name.ends_with('/') { None } else { base(name) }
}

/// The last component of a path, if a file can have that name.
fn base(path: &str) -> Option<String> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    let usable = !matches!(name, "" | "." | "..")
        && name.len() <= MAX_FILE_NAME_BYTES
        && !name.contains('\0');
    usable.then(|| name.to_owned())
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = (byte == b'%').then(|| digit(at + 1).zip(digit(at + 2))).flatten();
        let escaped = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests;
