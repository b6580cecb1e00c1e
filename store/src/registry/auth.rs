//! From a challenge to an `Authorization` header: basic, bearer tokens, `OAuth2`.
//!
//! A registry is first asked without credentials; from its refusal it is learnt what it wants,
//! once per host. Tokens are kept until shortly before they expire, by host and scopes;
//! requests that need the same token at the same time share one fetch.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use serde::Deserialize;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio::time::Instant;
use url::Url;

use super::body::read_limited;
use super::challenge::{self, Challenge};
use super::config::{Endpoint, Scheme};
use super::credentials::{Credential, Credentials, Found, Secret};
use super::error::{ErrorKind, RegistryError, from_answer};
use super::transport::{Request, Transport};
use super::upload::Body;

/// Largest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 20;
/// Life of a token that does not say (distribution-spec, token authentication).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// The longest life that is believed.
const MAX_LIFE: Duration = Duration::from_hours(24);
/// A token this near to its end is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
/// What this program is called by token servers.
const CLIENT_ID: &str = "rbuild";

/// What a request needs to be allowed to do: repositories of one host, sorted.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Scopes(BTreeMap<String, Actions>);

/// What may be done with a repository.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Actions {
    Pull,
    PullPush,
}

impl Scopes {
    pub(crate) fn pull(path: &str) -> Self {
        Self(BTreeMap::from([(path.to_owned(), Actions::Pull)]))
    }

    pub(crate) fn push(path: &str) -> Self {
        Self(BTreeMap::from([(path.to_owned(), Actions::PullPush)]))
    }

    /// Permission to read `path` besides.
    pub(crate) fn and_pull(mut self, path: &str) -> Self {
        self.0.entry(path.to_owned()).or_insert(Actions::Pull);
        self
    }

    /// As token servers want them, one parameter each.
    fn parameters(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(path, actions)| {
            let actions = match actions {
                Actions::Pull => "pull",
                Actions::PullPush => "pull,push",
            };
            format!("repository:{path}:{actions}")
        })
    }

    fn key(&self) -> String {
        self.parameters().collect::<Vec<_>>().join(" ")
    }
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

type Slot = Arc<AsyncMutex<Option<Token>>>;

/// What has been learnt about hosts.
#[derive(Default)]
struct Learnt {
    challenges: BTreeMap<String, Challenge>,
    tokens: BTreeMap<(String, String), Slot>,
    credentials: BTreeMap<(String, String), Arc<OnceCell<Found>>>,
}

/// Knows who the user is to which registry.
pub(crate) struct Authenticator {
    credentials: Credentials,
    learnt: Mutex<Learnt>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authenticator {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, learnt: Mutex::default() }
    }

    /// The header for a request, as far as it is known what the host wants.
    pub(crate) async fn header(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let challenge = self.learnt(|it| it.challenges.get(&endpoint.host).cloned());
        match challenge {
            Some(challenge) => self.meet(transport, endpoint, scopes, &challenge, None).await,
            None => Ok(None),
        }
    }

    /// The header with which to repeat a request that was refused as `response` says, after it had
    /// been sent with `used`; none if there is nothing better to send.
    pub(crate) async fn after_refusal(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
        response: &Response,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let offers: Vec<Challenge> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|it| it.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let bearer = offers.iter().find(|it| matches!(it, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(offers.first()) else { return Ok(None) };
        self.learnt(|it| it.challenges.insert(endpoint.host.clone(), challenge.clone()));
        let header = self.meet(transport, endpoint, scopes, challenge, used).await?;
        Ok(header.filter(|it| Some(it) != used))
    }

    /// What was tried to be let in, for people.
    pub(crate) async fn hint(&self, endpoint: &Endpoint) -> String {
        let found = self.found(endpoint).await;
        let mut hint = match &found.credential {
            Some(Credential { secret: Secret::Password { user, .. }, origin }) => {
                format!("tried as user `{user}` from {origin}; log in again if that is outdated")
            }
            Some(Credential { origin, .. }) => {
                format!("tried the token from {origin}; log in again if that is outdated")
            }
            None => {
                let domain = &endpoint.domain;
                let mut text = format!("no credentials for {domain}");
                let paths: Vec<_> =
                    self.credentials.paths().iter().map(|it| it.display().to_string()).collect();
                if !paths.is_empty() {
                    write!(text, " in {}", paths.join(", ")).expect("a string takes all");
                }
                text + &format!(
                    "; check the name, or log in: `docker login {domain}` or `podman login {domain}`"
                )
            }
        };
        for note in &found.notes {
            hint.push_str("; ");
            hint.push_str(note);
        }
        hint
    }

    async fn meet(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
        challenge: &Challenge,
        rejected: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let credential = self.found(endpoint).await.credential;
        if let Some(Credential { secret: Secret::RegistryToken(token), .. }) = &credential {
            return bearer(token).map(Some);
        }
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return match credential.map(|it| it.secret) {
                Some(Secret::Password { user, password }) => basic(&user, &password).map(Some),
                Some(Secret::IdentityToken(_) | Secret::RegistryToken(_)) | None => Ok(None),
            };
        };
        let key = (endpoint.host.clone(), scopes.key());
        let slot = self.learnt(|it| Arc::clone(it.tokens.entry(key).or_default()));
        let mut token = slot.lock().await;
        if let Some(token) = &*token
            && Some(&token.header) != rejected
            && token.until > Instant::now()
        {
            return Ok(Some(token.header.clone()));
        }
        let mut wanted: Vec<String> = scopes.parameters().collect();
        // The server knows best what this request needs, the caller what the next ones will.
        for it in scope.iter().flat_map(|it| it.split(' ')) {
            if !it.starts_with("repository:") && !wanted.iter().any(|known| known == it) {
                wanted.push(it.to_owned());
            }
        }
        let exchange = Exchange { realm, service: service.as_deref(), scopes: &wanted };
        let fresh = exchange.fetch(transport, endpoint, credential.as_ref()).await;
        let fresh = match fresh {
            Err(error) if error.kind() == ErrorKind::Unauthorized => {
                return Err(error.with_hint(self.hint(endpoint).await));
            }
            other => other?,
        };
        let header = fresh.header.clone();
        *token = Some(fresh);
        Ok(Some(header))
    }

    async fn found(&self, endpoint: &Endpoint) -> Found {
        let key = (endpoint.domain.clone(), endpoint.path.clone());
        let cell = self.learnt(|it| Arc::clone(it.credentials.entry(key).or_default()));
        let find = || self.credentials.find(&endpoint.domain, &endpoint.path);
        cell.get_or_init(find).await.clone()
    }

    fn learnt<T>(&self, look: impl FnOnce(&mut Learnt) -> T) -> T {
        look(&mut self.learnt.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One question to a token server.
struct Exchange<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scopes: &'a [String],
}

impl Exchange<'_> {
    async fn fetch(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        credential: Option<&Credential>,
    ) -> Result<Token, RegistryError> {
        let realm = Url::parse(self.realm).map_err(|_| {
            let detail = format!("{} names a token server that is no address", endpoint.host);
            RegistryError::new(ErrorKind::Invalid, detail)
        })?;
        let safe = realm.scheme() == "https" || endpoint.schemes.contains(&Scheme::Http);
        if !safe && credential.is_some() {
            let detail = format!(
                "{} wants credentials sent to its token server in the clear",
                endpoint.host
            );
            return Err(RegistryError::new(ErrorKind::Config, detail).with_hint(format!(
                "if that is meant, set `insecure = true` in `[registry.\"{}\"]`",
                endpoint.host
            )));
        }
        let request = self.request(realm, endpoint, credential)?;
        let response = transport.send(&request).await?;
        let status = response.status();
        let url = response.url().clone();
        let body = read_limited(response, MAX_TOKEN_BYTES).await?;
        if !status.is_success() {
            let mut error = from_answer(&url, status.as_u16(), &body);
            if error.kind() == ErrorKind::Denied {
                error = error.into_kind(ErrorKind::Unauthorized);
            }
            return Err(error);
        }
        let answer: Option<TokenAnswer> = serde_json::from_slice(&body).ok();
        let life = answer.as_ref().and_then(|it| it.expires_in).map(Duration::from_secs);
        let token = answer
            .and_then(|it| it.token.filter(|it| !it.is_empty()).or(it.access_token))
            .ok_or_else(|| {
                let detail = format!("the token server of {} gave no token", endpoint.host);
                RegistryError::new(ErrorKind::Invalid, detail)
            })?;
        let life = life.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, MAX_LIFE);
        Ok(Token { header: bearer(&token)?, until: Instant::now() + life.saturating_sub(MARGIN) })
    }

    fn request(
        &self,
        mut realm: Url,
        endpoint: &Endpoint,
        credential: Option<&Credential>,
    ) -> Result<Request, RegistryError> {
        let mut headers = HeaderMap::new();
        if let Some(Credential { secret: Secret::IdentityToken(token), .. }) = credential {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("service", self.service.unwrap_or_default());
            form.append_pair("client_id", CLIENT_ID);
            form.append_pair("scope", &self.scopes.join(" "));
            form.append_pair("refresh_token", token);
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, kind);
            let body = Body::Bytes(Bytes::from(form.finish()));
            let tls = endpoint.tls.clone();
            return Ok(Request { method: Method::POST, url: realm, headers, body, tls });
        }
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = self.service {
                query.append_pair("service", service);
            }
            for scope in self.scopes {
                query.append_pair("scope", scope);
            }
            if let Some(Credential { secret: Secret::Password { user, password }, .. }) = credential
            {
                query.append_pair("account", user);
                headers.insert(header::AUTHORIZATION, basic(user, password)?);
            }
        }
        let (body, tls) = (Body::Empty, endpoint.tls.clone());
        Ok(Request { method: Method::GET, url: realm, headers, body, tls })
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, RegistryError> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    secret_header(format!("Basic {pair}"))
}

fn bearer(token: &str) -> Result<HeaderValue, RegistryError> {
    secret_header(format!("Bearer {token}"))
}

fn secret_header(text: String) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        RegistryError::new(ErrorKind::Invalid, "a token has characters that no header can have")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sorted_and_the_wider_one_stays() {
        let scopes = Scopes::push("b/app").and_pull("a/base").and_pull("b/app");
        assert_eq!(scopes.key(), "repository:a/base:pull repository:b/app:pull,push");
    }
}
