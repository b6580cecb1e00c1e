//! Why a registry, or a web server, did not give what was asked for.
//!
//! An error says what was to be done, what came back, and, where there is one, a way out. What a
//! server wrote enters it only in part: bodies are cut, queries of addresses (they carry
//! signatures) and user names are left out, control characters are replaced.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use url::Url;

/// Most diagnostics of one answer that are kept.
const MAX_DIAGNOSTICS: usize = 8;
/// Most characters kept of one text that a server wrote.
const MAX_TEXT_CHARS: usize = 300;

/// What kind of failure it is: by what the caller can do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// It does not exist, or the registry does not want to say that it does.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The credentials are right and do not suffice.
    Denied,
    /// No answer: name, route, port, or broken connection.
    Unreachable,
    /// The host could not prove who it is, or does not speak TLS.
    Tls,
    /// Too many requests.
    RateLimited,
    /// The bytes are not those that the digest names.
    DigestMismatch,
    /// Fewer or more bytes than announced.
    Truncated,
    /// More bytes than the limit.
    TooLarge,
    /// The image is not there for the platform.
    NoPlatform,
    /// A format or protocol that is not supported.
    Unsupported,
    /// An answer that makes no sense.
    Invalid,
    /// The server failed.
    Server,
    /// The configuration forbids or spoils it.
    Config,
    /// A local file failed.
    Local,
}

impl ErrorKind {
    /// What to do about failures of this kind, where nothing better is known.
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::NotFound => Some("check the name, and the tag or digest"),
            Self::Unauthorized => Some("log in to the registry"),
            Self::Denied => Some("ask the owner of the repository for access"),
            Self::Unreachable => Some("check the name, the network and the proxy settings"),
            Self::RateLimited | Self::Server => Some("try again later"),
            Self::DigestMismatch | Self::Truncated => {
                Some("try again; if it stays, the server, a mirror or a proxy is at fault")
            }
            Self::Tls | Self::TooLarge | Self::NoPlatform | Self::Unsupported => None,
            Self::Invalid | Self::Config | Self::Local => None,
        }
    }
}

/// A failed request, with what was to be done, why it failed and what to do about it.
#[derive(Clone, Debug)]
pub struct RegistryError {
    kind: ErrorKind,
    action: String,
    detail: String,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl RegistryError {
    /// An error without action, hint and source; see the other methods.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, action: String::new(), detail: detail.into(), hint: None, source: None }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it: what suits this failure, else what suits its kind.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| self.kind.hint())
    }

    /// The same failure, taken for one of another kind.
    #[must_use]
    pub(crate) fn into_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets what was to be done (`pull busybox`), unless a caller nearer to the fault has.
    #[must_use]
    pub(crate) fn doing(mut self, action: impl Into<String>) -> Self {
        if self.action.is_empty() {
            self.action = action.into();
        }
        self
    }

    /// Sets what to do about it, unless something is set.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub(crate) fn with_source(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Adds to the detail what other hosts said before.
    #[must_use]
    pub(crate) fn after(mut self, others: &[(String, Self)]) -> Self {
        for (host, other) in others {
            let more = format!("; before, {host}: {}", other.detail);
            self.detail.push_str(&more);
        }
        self
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.action.is_empty() {
            write!(f, "cannot {}: ", self.action)?;
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|it| &**it as &(dyn std::error::Error + 'static))
    }
}

/// One structured message of a registry (OCI distribution-spec, "Error Codes").
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) struct Diagnostic {
    /// `MANIFEST_UNKNOWN`.
    #[serde(default)]
    pub(crate) code: String,
    /// For people.
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<Diagnostic>,
    /// Token servers and some registries write one message instead of a list.
    #[serde(default, alias = "details", alias = "error_description")]
    message: Option<String>,
}

/// The structured messages in the body of an answer, bounded and made printable.
pub(crate) fn diagnostics(body: &[u8]) -> Vec<Diagnostic> {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else { return Vec::new() };
    let mut all = envelope.errors;
    if all.is_empty()
        && let Some(message) = envelope.message
    {
        all.push(Diagnostic { code: String::new(), message });
    }
    all.truncate(MAX_DIAGNOSTICS);
    for it in &mut all {
        it.code = printable(&it.code);
        it.message = printable(&it.message);
    }
    all
}

/// The error for an answer whose status is not the expected one.
pub(crate) fn from_answer(url: &Url, status: u16, body: &[u8]) -> RegistryError {
    let diagnostics = diagnostics(body);
    let has = |code: &str| diagnostics.iter().any(|it| it.code.eq_ignore_ascii_case(code));
    let kind = match status {
        429 => ErrorKind::RateLimited,
        _ if has("TOOMANYREQUESTS") => ErrorKind::RateLimited,
        401 => ErrorKind::Unauthorized,
        403 if has("UNAUTHORIZED") => ErrorKind::Unauthorized,
        403 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        405 | 415 | 501 => ErrorKind::Unsupported,
        413 => ErrorKind::TooLarge,
        500.. => ErrorKind::Server,
        _ => ErrorKind::Invalid,
    };
    let mut detail = headline(kind, status);
    for it in &diagnostics {
        let text = if it.message.is_empty() { it.code.to_lowercase() } else { it.message.clone() };
        if !text.is_empty() {
            detail.push_str(": ");
            detail.push_str(&text);
        }
    }
    let detail = format!("{detail} ({status} from {})", redact(url));
    let error = RegistryError::new(kind, detail);
    if kind == ErrorKind::RateLimited {
        let hint = "log in for a higher limit, configure a mirror, or try again later";
        return error.with_hint(hint);
    }
    if kind == ErrorKind::Server {
        return error.with_hint("the server failed; try again later");
    }
    error
}

fn headline(kind: ErrorKind, status: u16) -> String {
    let known = [
        (ErrorKind::NotFound, "not found"),
        (ErrorKind::Unauthorized, "not authorized"),
        (ErrorKind::Denied, "access denied"),
        (ErrorKind::RateLimited, "too many requests"),
    ];
    match known.iter().find(|(it, _)| *it == kind) {
        Some((_, text)) => (*text).to_owned(),
        None => format!("the server answered {}", status_text(status)),
    }
}

fn status_text(status: u16) -> String {
    match reqwest::StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason()) {
        Some(reason) => format!("{status} {reason}"),
        None => status.to_string(),
    }
}

/// An address without user name, password, query and fragment.
pub(crate) fn redact(url: &Url) -> String {
    let mut url = url.clone();
    let had_query = url.query().is_some();
    url.set_query(None);
    url.set_fragment(None);
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return format!("{}:…", url.scheme());
    }
    let mut text = String::from(url);
    if had_query {
        text.push_str("?…");
    }
    text
}

/// What a server wrote, on one line, without control characters, at most a few words.
pub(crate) fn printable(text: &str) -> String {
    let mut result: String = text
        .trim()
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it })
        .take(MAX_TEXT_CHARS + 1)
        .collect();
    if let Some((end, _)) = result.char_indices().nth(MAX_TEXT_CHARS) {
        result.truncate(end);
        result.push('…');
    }
    result
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, kind: ErrorKind, want: &Expect) {
        let url = Url::parse("https://user:pw@r.example/v2/a/manifests/1?token=x").unwrap();
        let error = from_answer(&url, status, body.as_bytes()).doing("pull r.example/a:1");
        assert_eq!(error.kind(), kind);
        want.assert_eq(&error.to_string());
    }

    #[test]
    fn kinds() {
        check(
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#,
            ErrorKind::NotFound,
            &expect![
                "cannot pull r.example/a:1: not found: manifest unknown (404 from https://r.example/v2/a/manifests/1?…)"
            ],
        );
        check(
            401,
            r#"{"details":"incorrect username or password"}"#,
            ErrorKind::Unauthorized,
            &expect![
                "cannot pull r.example/a:1: not authorized: incorrect username or password (401 from https://r.example/v2/a/manifests/1?…)"
            ],
        );
        check(
            200,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\n\u001b[31mdown"}]}"#,
            ErrorKind::RateLimited,
            &expect![
                "cannot pull r.example/a:1: too many requests: slow  [31mdown (200 from https://r.example/v2/a/manifests/1?…)"
            ],
        );
        check(
            503,
            "<html>",
            ErrorKind::Server,
            &expect![
                "cannot pull r.example/a:1: the server answered 503 Service Unavailable (503 from https://r.example/v2/a/manifests/1?…)"
            ],
        );
    }

    #[test]
    fn bodies_are_bounded() {
        let message = "x".repeat(10_000);
        let one = format!(r#"{{"code":"A","message":"{message}"}}"#);
        let body = format!(r#"{{"errors":[{}]}}"#, vec![one; 100].join(","));
        let found = diagnostics(body.as_bytes());
        assert_eq!(found.len(), MAX_DIAGNOSTICS);
        assert_eq!(found[0].message.chars().count(), MAX_TEXT_CHARS + 1);
    }
}
