//! One question to one endpoint: its address, its credentials, its scheme.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::auth::{Authenticator, Scopes};
use super::body::refusal;
use super::config::{Endpoint, Hosts, Purpose, Scheme};
use super::error::{ErrorKind, RegistryError};
use super::transport::{Request, Transport, origin};
use super::upload::Body;
use crate::digest::BlobId;
use crate::reference::Reference;

/// A header that registries send with every answer.
const API_HEADER: &str = "docker-distribution-api-version";

/// What a call is for.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// What a call is addressed to.
#[derive(Clone)]
pub(crate) enum Target {
    /// Below the repository: `manifests/latest`.
    Below(String),
    /// An address that the registry gave.
    Given(Url),
}

impl Call {
    pub(crate) fn new(method: Method, below: impl Into<String>) -> Self {
        Self {
            method,
            target: Target::Below(below.into()),
            headers: HeaderMap::new(),
            body: Body::Empty,
        }
    }
}

/// What is shared by all requests of a process.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) transport: Arc<Transport>,
    hosts: Hosts,
    auth: Authenticator,
    /// Which of its schemes a host turned out to speak.
    schemes: Mutex<BTreeMap<String, Scheme>>,
    /// Blobs that are known to be in a repository.
    present: Mutex<BTreeSet<(String, String, BlobId)>>,
    /// Hosts that could not be reached.
    down: Mutex<BTreeSet<String>>,
}

impl Client {
    pub(crate) fn new(transport: Arc<Transport>, hosts: Hosts, auth: Authenticator) -> Self {
        Self {
            transport,
            hosts,
            auth,
            schemes: Mutex::default(),
            present: Mutex::default(),
            down: Mutex::default(),
        }
    }

    pub(crate) fn endpoints(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = self.hosts.endpoints(reference, purpose)?;
        // A mirror that is down costs its time once, not for each blob.
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.sort_by_key(|it| down.contains(&it.host));
        Ok(endpoints)
    }

    /// Notes that `endpoint` failed: one that cannot be reached is asked last from now on.
    pub(crate) fn note_failure(&self, endpoint: &Endpoint, error: &RegistryError) {
        if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Tls) {
            let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
            down.insert(endpoint.host.clone());
        }
    }

    /// Asks `endpoint`. The answer has a status of success.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        call: &Call,
    ) -> Result<Response, RegistryError> {
        let response = self.ask_any(endpoint, scopes, call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(endpoint, response).await)
    }

    /// The error for an answer that is none of those hoped for.
    pub(crate) async fn refused(&self, endpoint: &Endpoint, response: Response) -> RegistryError {
        let tls_wanted = response.status() == StatusCode::BAD_REQUEST
            && response.url().scheme() == "http"
            && !response.headers().contains_key(API_HEADER);
        let error = refusal(response).await;
        if tls_wanted {
            let host = &endpoint.host;
            return error.with_hint(format!(
                "the server may speak TLS only: set `http = false` in `[registry.\"{host}\"]`"
            ));
        }
        if matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Denied) {
            return error.with_hint(self.auth.hint(endpoint).await);
        }
        error
    }

    /// Asks `endpoint`. The answer may have any status.
    pub(crate) async fn ask_any(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        call: &Call,
    ) -> Result<Response, RegistryError> {
        let url = match &call.target {
            Target::Given(url) => return self.authorized(endpoint, scopes, call, url).await,
            Target::Below(below) => below,
        };
        let known = self.scheme(&endpoint.host);
        let schemes = known.map_or_else(|| endpoint.schemes.clone(), |it| vec![it]);
        let (last, others) = schemes.split_last().ok_or_else(|| {
            RegistryError::new(ErrorKind::Config, format!("no scheme for {}", endpoint.host))
        })?;
        for scheme in others {
            let url = address(endpoint, *scheme, url)?;
            match self.authorized(endpoint, scopes, call, &url).await {
                Err(error) if matches!(error.kind(), ErrorKind::Tls | ErrorKind::Unreachable) => {}
                // What a TLS server says to plain HTTP.
                Ok(it) if *scheme == Scheme::Http && it.status() == StatusCode::BAD_REQUEST => {}
                result => return self.remember(endpoint, *scheme, result),
            }
        }
        let url = address(endpoint, *last, url)?;
        let result = self.authorized(endpoint, scopes, call, &url).await;
        self.remember(endpoint, *last, result)
    }

    fn remember(
        &self,
        endpoint: &Endpoint,
        scheme: Scheme,
        result: Result<Response, RegistryError>,
    ) -> Result<Response, RegistryError> {
        if result.is_ok() {
            let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
            schemes.insert(endpoint.host.clone(), scheme);
        }
        result
    }

    fn scheme(&self, host: &str) -> Option<Scheme> {
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }

    /// Sends a call with credentials if they are wanted and `url` is the endpoint's own.
    async fn authorized(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        call: &Call,
        url: &Url,
    ) -> Result<Response, RegistryError> {
        let mut request = Request {
            method: call.method.clone(),
            url: url.clone(),
            headers: call.headers.clone(),
            body: call.body.clone(),
            tls: endpoint.tls.clone(),
        };
        if !is_own(endpoint, url) {
            return self.transport.send(&request).await;
        }
        let used = self.auth.header(&self.transport, endpoint, scopes).await?;
        if let Some(header) = &used {
            request.headers.insert(header::AUTHORIZATION, header.clone());
        }
        let response = self.transport.send(&request).await?;
        if response.status() != StatusCode::UNAUTHORIZED || origin(response.url()) != origin(url) {
            return Ok(response);
        }
        let transport = &self.transport;
        let better =
            self.auth.after_refusal(transport, endpoint, scopes, &response, used.as_ref()).await?;
        let Some(header) = better else { return Ok(response) };
        request.headers.insert(header::AUTHORIZATION, header);
        self.transport.send(&request).await
    }

    /// Notes that `blob` is in the repository of `endpoint`.
    pub(crate) fn note_present(&self, endpoint: &Endpoint, blob: BlobId) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.insert((endpoint.host.clone(), endpoint.path.clone(), blob));
    }

    /// Whether `blob` is known to be in the repository of `endpoint`.
    pub(crate) fn is_present(&self, endpoint: &Endpoint, blob: BlobId) -> bool {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.contains(&(endpoint.host.clone(), endpoint.path.clone(), blob))
    }
}

fn is_own(endpoint: &Endpoint, url: &Url) -> bool {
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return false,
    };
    endpoint.schemes.contains(&scheme)
        && root(endpoint, scheme).is_ok_and(|it| origin(&it) == origin(url))
}

fn root(endpoint: &Endpoint, scheme: Scheme) -> Result<Url, RegistryError> {
    let text = format!("{}://{}/", scheme.as_str(), endpoint.host);
    Url::parse(&text).map_err(|it| {
        let detail = format!("`{}` is not a host: {it}", endpoint.host);
        RegistryError::new(ErrorKind::Config, detail)
    })
}

/// The address of `below` in the repository of `endpoint`.
fn address(endpoint: &Endpoint, scheme: Scheme, below: &str) -> Result<Url, RegistryError> {
    let mut url = root(endpoint, scheme)?;
    let (path, query) = below.split_once('?').unwrap_or((below, ""));
    url.set_path(&format!("v2/{}/{path}", endpoint.path));
    if !query.is_empty() {
        url.set_query(Some(query));
    }
    if let Some(namespace) = &endpoint.namespace {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    Ok(url)
}
