//! Image names: `busybox`, `registry.example:5000/team/app:1@sha256:…`.
//!
//! The grammar is that of the `reference` package of the distribution project, and so are the defaults: a
//! name without a registry is one of Docker Hub, there a name without a slash is below `library/`.
//! A [`Reference`] is always in full form; [`Reference::familiar`] gives the short one back.
//!
//! ```text
//! reference = [ domain "/" ] component { "/" component } [ ":" tag ] [ "@" digest ]
//! component = alphanumeric { ( "." | "_" | "__" | "-"… ) alphanumeric }      lower case
//! ```

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, ParseDigestError};

/// The registry of names that name none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of names that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// The host that answers for [`DEFAULT_DOMAIN`].
const DEFAULT_DOMAIN_HOST: &str = "registry-1.docker.io";
/// An older name of [`DEFAULT_DOMAIN`].
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Where names of one component are on [`DEFAULT_DOMAIN`].
const OFFICIAL_PREFIX: &str = "library/";
/// Longest repository path, in bytes.
const MAX_PATH_BYTES: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG_BYTES: usize = 128;
/// Longest text that is looked at, in bytes; longer ones are refused unread.
const MAX_TEXT_BYTES: usize = 4096;

/// The name of an image, in full form.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not the name of an image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is not an image name (invalid reference format): {reason}")]
pub struct ParseReferenceError {
    /// The text, shortened if it is very long.
    pub text: String,
    /// What is wrong with it.
    pub reason: BadReference,
}

/// What is wrong with the name of an image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadReference {
    /// Nothing is there.
    #[error("empty name")]
    Empty,
    /// Longer than any name can be.
    #[error("more than {MAX_TEXT_BYTES} bytes")]
    TextTooLong,
    /// The path is longer than registries accept.
    #[error("repository path of more than {MAX_PATH_BYTES} bytes")]
    PathTooLong,
    /// 64 hex digits: an image id, not a name.
    #[error("64 hex digits (an image id is not a name; put `sha256:` and a repository before it)")]
    Identifier,
    /// The registry is not a host with an optional port.
    #[error("`{0}` is not a registry host")]
    Domain(String),
    /// The repository has capital letters.
    #[error("repository name must be lowercase: `{0}`")]
    Uppercase(String),
    /// Two slashes in a row, or one at an end.
    #[error("a part between slashes is empty")]
    EmptyComponent,
    /// A part of the path is not a path component.
    #[error(
        "`{0}` is not a repository component (lower case letters and digits, \
         separated by one `.`, one or two `_`, or any number of `-`)"
    )]
    Component(String),
    /// The tag is not a tag.
    #[error(
        "`{0}` is not a tag (at most {MAX_TAG_BYTES} letters, digits, `_`, `.`, `-`; \
         the first one a letter, digit or `_`)"
    )]
    Tag(String),
    /// The digest is not one.
    #[error("`{text}` is not a digest: {reason}")]
    Digest {
        /// What stands after the `@`.
        text: String,
        /// Why.
        reason: ParseDigestError,
    },
    /// A scheme was put before the name.
    #[error("`{0}://` (an image name has no scheme)")]
    Scheme(String),
}

impl Reference {
    /// The registry as it is written in names: `docker.io`, `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The registry and the repository: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if the name has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the name has one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The host and port to connect to.
    pub fn host(&self) -> &str {
        host_of_domain(&self.domain)
    }

    /// The same name, with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same name with `digest` in place of its own, the tag kept.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The same name without a digest.
    #[must_use]
    pub fn without_digest(mut self) -> Self {
        self.digest = None;
        self
    }

    /// The same repository, with the tag `tag` and no digest.
    ///
    /// # Errors
    ///
    /// If `tag` is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        if !is_tag(tag) {
            let text = shorten(&format!("{}:{tag}", self.repository()));
            return Err(ParseReferenceError { text, reason: BadReference::Tag(shorten(tag)) });
        }
        Ok(Self {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    /// What a registry is asked for: the digest if there is one, else the tag, else `latest`.
    pub fn version(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The short form that people write: `busybox:1` for `docker.io/library/busybox:1`.
    pub fn familiar(&self) -> String {
        let mut text = if self.domain == DEFAULT_DOMAIN {
            let path = &self.path;
            match path.strip_prefix(OFFICIAL_PREFIX) {
                Some(name) if !name.contains('/') => name.to_owned(),
                Some(_) | None => path.clone(),
            }
        } else {
            self.repository()
        };
        self.push_version(&mut text);
        text
    }

    fn push_version(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

/// The host and port that answer for the registry `domain` of image names.
pub fn host_of_domain(domain: &str) -> &str {
    if domain == DEFAULT_DOMAIN { DEFAULT_DOMAIN_HOST } else { domain }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.repository();
        self.push_version(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, ParseReferenceError> {
        parse(text).map_err(|reason| ParseReferenceError { text: shorten(text), reason })
    }
}

fn parse(text: &str) -> Result<Reference, BadReference> {
    if text.is_empty() {
        return Err(BadReference::Empty);
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(BadReference::TextTooLong);
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(BadReference::Scheme(scheme.to_owned()));
    }
    if text.len() == 64 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(BadReference::Identifier);
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (domain, rest) = split_domain(name);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if let Some(domain) = domain
        && !is_domain(domain)
    {
        return Err(BadReference::Domain(domain.to_owned()));
    }
    check_path(path)?;
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(BadReference::Tag(tag.to_owned()));
    }
    let domain = match domain {
        None | Some(LEGACY_DOMAIN) => DEFAULT_DOMAIN,
        Some(domain) => domain,
    };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("{OFFICIAL_PREFIX}{path}")
    } else {
        path.to_owned()
    };
    if path.len() > MAX_PATH_BYTES {
        return Err(BadReference::PathTooLong);
    }
    Ok(Reference { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
}

fn parse_digest(text: &str) -> Result<Digest, BadReference> {
    text.parse().map_err(|reason| BadReference::Digest { text: text.to_owned(), reason })
}

/// The part before the first slash is a registry if it could not be a path component of Docker
/// Hub: it has a dot, a colon or a capital letter, or is `localhost`.
fn split_domain(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|it| it.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        Some(_) | None => (None, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else { return false };
            if address.is_empty() || !address.bytes().all(|it| it.is_ascii_hexdigit() || it == b':')
            {
                return false;
            }
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return false,
            };
            (None, port)
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    host.is_none_or(|host| host.split('.').all(is_domain_component))
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'))
}

fn is_domain_component(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

fn check_path(path: &str) -> Result<(), BadReference> {
    if path.is_empty() {
        return Err(BadReference::Empty);
    }
    if path.bytes().any(|it| it.is_ascii_uppercase()) {
        return Err(BadReference::Uppercase(path.to_owned()));
    }
    match path.split('/').find(|part| !is_component(part)) {
        Some("") => Err(BadReference::EmptyComponent),
        Some(part) => Err(BadReference::Component(part.to_owned())),
        None => Ok(()),
    }
}

/// Runs of lower case letters and digits with separators between them.
fn is_component(part: &str) -> bool {
    let alphanumeric = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let mut rest = part;
    loop {
        let after = rest.trim_start_matches(alphanumeric);
        if after.len() == rest.len() {
            return false;
        }
        if after.is_empty() {
            return true;
        }
        let next = after.trim_start_matches(|it| !alphanumeric(it));
        let separator = &after[..after.len() - next.len()];
        if !matches!(separator, "." | "_" | "__") && !separator.bytes().all(|it| it == b'-') {
            return false;
        }
        rest = next;
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|it| word(it) || matches!(it, b'.' | b'-'))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
