//! One HTTP request, done well: retries with back-off, redirects without leaks, time limits.
//!
//! Clients are made when first needed. The one for plain HTTP loads no certificates, so that a
//! build against a local registry does not pay for them; those for TLS are kept by their
//! settings. Proxies are given as values; the environment is not read here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::config::TlsSettings;
use super::error::{ErrorKind, RegistryError, printable, redact};
use super::upload::Body;

/// Most redirects that one request follows.
const MAX_REDIRECTS: usize = 10;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent: before the header of its answer, and within a body.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);
/// The slowest upload that is waited for, in bytes per second.
const MIN_UPLOAD_RATE: u64 = 16 * 1024;
/// How long an upload may take whose length is not known.
const MAX_UPLOAD: Duration = Duration::from_hours(24);
/// The longest wait that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);
/// Attempts at a host to which no connection can be made.
const CONNECT_ATTEMPTS: u32 = 2;

/// How often a failed request is repeated.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Most attempts, the first included; at least one is made.
    pub attempts: u32,
    /// The wait before the second attempt; doubled for each further one.
    pub base_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
}

impl RetryPolicy {
    /// For real networks.
    pub const NORMAL: Self = Self {
        attempts: 5,
        base_delay: Duration::from_millis(200),
        max_delay: Duration::from_secs(5),
    };

    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let doubled = self.base_delay.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        doubled.min(self.max_delay)
    }
}

/// Proxies, as `$http_proxy` and its relatives give them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For plain HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// For both, where there is none of its own.
    pub all: Option<String>,
    /// Hosts that are asked directly.
    pub no_proxy: Option<String>,
}

/// What all requests have in common.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// `User-Agent`.
    pub user_agent: String,
    /// Proxies.
    pub proxies: Proxies,
    /// Repetition.
    pub retry: RetryPolicy,
}

/// A request that can be repeated.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) tls: TlsSettings,
}

/// The HTTP clients of a process.
#[derive(Debug)]
pub(crate) struct Transport {
    settings: NetworkSettings,
    plain: OnceLock<Client>,
    tls: Mutex<BTreeMap<TlsSettings, Client>>,
}

/// A failed attempt, and how many are worth it.
struct Fault {
    error: RegistryError,
    attempts: u32,
}

impl Transport {
    pub(crate) fn new(settings: NetworkSettings) -> Self {
        Self { settings, plain: OnceLock::new(), tls: Mutex::default() }
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.settings.retry
    }

    /// Sends `request`, again and again if the server or the network fails, and follows
    /// redirects. Any status may come back, 5xx and 429 too once all attempts are used up.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, RegistryError> {
        let retry = self.settings.retry;
        // What a broken upload left behind is for the caller to find out.
        let attempts = match request.body {
            Body::Empty | Body::Bytes(_) => retry.attempts,
            Body::Stream { .. } => 1,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut wait = retry.delay(attempt);
            match self.follow(request).await {
                Ok(response) if attempt >= attempts || !is_transient(response.status()) => {
                    return Ok(response);
                }
                Ok(response) => {
                    if let Some(asked) = retry_after(response.headers()) {
                        if asked > MAX_RETRY_AFTER {
                            return Ok(response);
                        }
                        wait = wait.max(asked);
                    }
                }
                Err(fault) if attempt >= attempts.min(fault.attempts) => {
                    return Err(fault.error);
                }
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow(&self, request: &Request) -> Result<Response, Fault> {
        let mut url = request.url.clone();
        let mut headers = request.headers.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(request, &url, &headers).await?;
            let safe = matches!(request.method, Method::GET | Method::HEAD);
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !(safe && redirect) {
                return Ok(response);
            }
            let next = location(&response).map_err(Fault::last)?;
            if origin(&next) != origin(&url) {
                headers.remove(header::AUTHORIZATION);
                headers.remove(header::COOKIE);
            }
            url = next;
        }
        let detail = format!("more than {MAX_REDIRECTS} redirects from {}", redact(&request.url));
        Err(Fault::last(RegistryError::new(ErrorKind::Invalid, detail)))
    }

    async fn once(
        &self,
        request: &Request,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response, Fault> {
        let client = self.client(url, &request.tls).await.map_err(Fault::last)?;
        let mut builder = client.request(request.method.clone(), url.clone());
        builder = builder.headers(headers.clone());
        match &request.body {
            Body::Empty if request.method == Method::GET || request.method == Method::HEAD => {}
            Body::Empty => builder = builder.header(header::CONTENT_LENGTH, 0),
            Body::Bytes(bytes) => builder = builder.body(bytes.clone()),
            Body::Stream { length, open } => {
                let body = open().await.map_err(Fault::last)?;
                if let Some(length) = length {
                    builder = builder.header(header::CONTENT_LENGTH, *length);
                }
                builder = builder.body(body);
            }
        }
        // Whoever sends what is still being made watches over it.
        let seconds = request.body.length().map(|it| it / MIN_UPLOAD_RATE);
        let patience = SILENCE_TIMEOUT + seconds.map_or(MAX_UPLOAD, Duration::from_secs);
        match tokio::time::timeout(patience, builder.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(fault(&error, url)),
            Err(_) => {
                let detail = format!("{} is silent for {} s", host(url), patience.as_secs());
                let error = RegistryError::new(ErrorKind::Unreachable, detail);
                Err(Fault { error, attempts: CONNECT_ATTEMPTS })
            }
        }
    }

    async fn client(&self, url: &Url, tls: &TlsSettings) -> Result<Client, RegistryError> {
        let proxies = &self.settings.proxies;
        let proxy = proxies.http.as_ref().or(proxies.all.as_ref());
        let proxy_needs_tls = proxy.is_some_and(|it| it.starts_with("https:"));
        match url.scheme() {
            "http" if !proxy_needs_tls => {
                if let Some(client) = self.plain.get() {
                    return Ok(client.clone());
                }
                // No certificates at all: none can be needed.
                let client = self.build(Client::builder().tls_certs_only([]))?;
                Ok(self.plain.get_or_init(|| client).clone())
            }
            "http" | "https" => {
                let mut clients = self.tls.lock().await;
                if let Some(client) = clients.get(tls) {
                    return Ok(client.clone());
                }
                let builder = tls_builder(tls.clone()).await?;
                let client = self.build(builder)?;
                clients.insert(tls.clone(), client.clone());
                Ok(client)
            }
            other => {
                let detail = format!("scheme `{other}` is neither http nor https");
                Err(RegistryError::new(ErrorKind::Unsupported, detail))
            }
        }
    }

    fn build(&self, builder: reqwest::ClientBuilder) -> Result<Client, RegistryError> {
        let mut builder = builder
            .user_agent(self.settings.user_agent.clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_adaptive_window(true)
            .no_proxy();
        let proxies = &self.settings.proxies;
        let exceptions = proxies.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        let bad = |it: reqwest::Error| {
            let detail = format!("a proxy setting is wrong: {}", root_cause(&it));
            RegistryError::new(ErrorKind::Config, detail)
        };
        if let Some(address) = proxies.http.as_ref().or(proxies.all.as_ref()) {
            let proxy = reqwest::Proxy::http(address.as_str()).map_err(bad)?;
            builder = builder.proxy(proxy.no_proxy(exceptions.clone()));
        }
        if let Some(address) = proxies.https.as_ref().or(proxies.all.as_ref()) {
            let proxy = reqwest::Proxy::https(address.as_str()).map_err(bad)?;
            builder = builder.proxy(proxy.no_proxy(exceptions));
        }
        builder.build().map_err(|it| {
            let detail = format!("no HTTP client can be made: {}", root_cause(&it));
            RegistryError::new(ErrorKind::Config, detail)
        })
    }
}

/// Reads the certificates of `tls`; the system's own are read when the client is built.
async fn tls_builder(tls: TlsSettings) -> Result<reqwest::ClientBuilder, RegistryError> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut builder = Client::builder();
        if tls.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let mut authorities = tls.authorities;
        let mut key_pairs = tls.key_pairs;
        for directory in &tls.directories {
            list_certificates(directory, &mut authorities, &mut key_pairs);
        }
        let mut certificates = Vec::new();
        for path in authorities {
            let pem = read_pem(&path)?;
            let bundle = reqwest::Certificate::from_pem_bundle(&pem);
            certificates.extend(bundle.map_err(|it| bad_pem(&path, &it))?);
        }
        if !certificates.is_empty() {
            builder = builder.tls_certs_merge(certificates);
        }
        // rustls presents one identity.
        if let Some((key, certificate)) = key_pairs.into_iter().next() {
            let mut pem = read_pem(&key)?;
            pem.push(b'\n');
            pem.extend(read_pem(&certificate)?);
            let identity = reqwest::Identity::from_pem(&pem).map_err(|it| bad_pem(&key, &it))?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    });
    reading.await.unwrap_or_else(|it| {
        Err(RegistryError::new(ErrorKind::Local, format!("certificates cannot be read: {it}")))
    })
}

/// `*.crt` are authorities, `*.cert` with `*.key` a key pair; as Docker has it.
fn list_certificates(
    directory: &Path,
    authorities: &mut Vec<std::path::PathBuf>,
    key_pairs: &mut Vec<(std::path::PathBuf, std::path::PathBuf)>,
) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|it| it.path()).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|it| it.to_str()) {
            Some("crt") => authorities.push(path),
            Some("cert") => key_pairs.push((path.with_extension("key"), path)),
            Some(_) | None => {}
        }
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let text = super::config_file::read(path)?;
    text.map(String::into_bytes).ok_or_else(|| {
        let detail = format!("{} does not exist", path.display());
        RegistryError::new(ErrorKind::Config, detail)
    })
}

fn bad_pem(path: &Path, error: &reqwest::Error) -> RegistryError {
    let detail = format!("{} is not a usable PEM file: {}", path.display(), root_cause(error));
    RegistryError::new(ErrorKind::Config, detail)
}

impl Fault {
    /// Another attempt would end the same way.
    fn last(error: RegistryError) -> Self {
        Self { error, attempts: 1 }
    }
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The wait that the server asks for; a date counts from the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = headers.get(header::DATE)?.to_str().ok()?;
    let (until, now) =
        (httpdate::parse_http_date(text).ok()?, httpdate::parse_http_date(now).ok()?);
    Some(until.duration_since(now).unwrap_or_default())
}

fn location(response: &Response) -> Result<Url, RegistryError> {
    let from = response.url();
    let target = response
        .headers()
        .get(header::LOCATION)
        .and_then(|it: &HeaderValue| it.to_str().ok())
        .and_then(|it| from.join(it).ok());
    target.ok_or_else(|| {
        let detail = format!("{} redirects to nowhere", redact(from));
        RegistryError::new(ErrorKind::Invalid, detail)
    })
}

/// What credentials are for.
pub(crate) fn origin(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

fn fault(error: &reqwest::Error, url: &Url) -> Fault {
    let cause = printable(&root_cause(error));
    let host = host(url);
    if is_tls(error) {
        let detail = format!("no safe connection to {host}: {cause}");
        let hint = if cause.contains("InvalidContentType") || cause.contains("corrupt message") {
            format!("the server may speak plain HTTP: set `http = true` in `[registry.\"{host}\"]`")
        } else {
            format!("give its certificate authority as `ca` in `[registry.\"{host}\"]`")
        };
        return Fault::last(RegistryError::new(ErrorKind::Tls, detail).with_hint(hint));
    }
    if let Some(local) = find::<RegistryError>(error) {
        return Fault::last(local.clone());
    }
    let refused = find::<std::io::Error>(error)
        .is_some_and(|it| it.kind() == std::io::ErrorKind::ConnectionRefused);
    let attempts = match (refused, error.is_connect()) {
        (true, _) => 1,
        (false, true) => CONNECT_ATTEMPTS,
        (false, false) => u32::MAX,
    };
    let detail = if error.is_connect() {
        format!("{host} cannot be reached: {cause}")
    } else {
        format!("the connection to {host} broke: {cause}")
    };
    let error = RegistryError::new(ErrorKind::Unreachable, detail)
        .with_hint("check the name, the network and the proxy settings");
    Fault { error, attempts }
}

/// A broken connection within a body.
pub(crate) fn broken(error: &reqwest::Error, url: &Url) -> RegistryError {
    fault(error, url).error
}

fn is_tls(error: &reqwest::Error) -> bool {
    find::<rustls::Error>(error).is_some()
}

/// The first cause of type `E`, looking into I/O errors as well.
fn find<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    causes(error).find_map(|it| it.downcast_ref())
}

fn root_cause(error: &reqwest::Error) -> String {
    // The outermost text has the whole address in it.
    causes(error).skip(1).last().map_or_else(|| "failed".to_owned(), ToString::to_string)
}

/// An error and its causes; an I/O error that carries another counts as caused by it.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |it| {
        match it.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => it.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        let retry = RetryPolicy::NORMAL;
        let all: Vec<_> = (1..=7).map(|it| retry.delay(it).as_millis()).collect();
        assert_eq!(all, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn waits_that_servers_ask_for() {
        let check = |after: &'static str, date: &'static str, want: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after));
            if !date.is_empty() {
                headers.insert(header::DATE, HeaderValue::from_static(date));
            }
            assert_eq!(retry_after(&headers), want.map(Duration::from_secs));
        };
        check("7", "", Some(7));
        check("soon", "", None);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        check("Sun, 06 Nov 1994 08:49:47 GMT", date, Some(10));
        check("Sun, 06 Nov 1994 08:49:27 GMT", date, Some(0));
        check("Sun, 06 Nov 1994 08:49:27 GMT", "", None);
    }

    #[test]
    fn credentials_are_for_one_origin() {
        let same =
            |a: &str, b: &str| origin(&Url::parse(a).unwrap()) == origin(&Url::parse(b).unwrap());
        assert!(same("https://h/a", "https://h:443/b"));
        assert!(!same("https://h/a", "http://h/a"));
        assert!(!same("https://h/a", "https://h:444/a"));
        assert!(!same("https://h/a", "https://i.h/a"));
    }
}
