//! Git repositories among the sources of `ADD` and among contexts, and URLs as far as that needs them.
//!
//! ```text
//! https://host/path.git[?query][#ref[:subdir]]      http and https only if the path ends in .git
//! git://host/path…   ssh://user@host/path…   user@host:path…
//! ```
//!
//! Keys of the query: `ref`, `tag`, `branch`, `subdir`, `checksum` or `commit`, `keep-git-dir`,
//! `submodules`, `mtime`, `fetch-by-commit`.

use std::collections::BTreeMap;

use rbuild_solver::llb::op::SourceOp;

use crate::gotext;
use crate::lower::paths;

/// Repositories that contexts may name without a protocol.
const GITHUB: &str = "github.com/";

/// Whether the path of an http address has to end in `.git`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Suffix {
    Needed,
    Optional,
}

/// A git repository, and what of it is meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GitRef {
    /// Where it is, without query and fragment.
    pub remote: String,
    /// Host and path: the part that does not depend on the protocol.
    pub place: String,
    /// Whether it is reached by ssh.
    pub is_ssh: bool,
    /// Commit, tag or branch; empty means the default branch.
    pub reference: String,
    /// Directory inside; empty means all.
    pub subdir: String,
    /// The commit that it must be; empty means any.
    pub checksum: String,
    /// Whether `.git` is kept, if said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, if said.
    pub submodules: Option<bool>,
    /// `checkout` or `commit`; empty if not said.
    pub mtime: String,
    /// Whether the checksum is fetched without asking what the reference is.
    pub fetch_by_commit: bool,
}

impl GitRef {
    /// Parses a source of `ADD`: none if it is no git repository.
    ///
    /// # Errors
    ///
    /// If it is one and its query is wrong, as text.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        if text.starts_with("./") || text.starts_with("../") || text.starts_with(GITHUB) {
            return None;
        }
        Self::parse_any(text, Suffix::Needed)
    }

    /// Parses a build context: as [`Self::parse`], and `github.com/…` is a repository, too.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_context(text: &str) -> Option<Result<Self, String>> {
        if text.starts_with(GITHUB) {
            return Self::parse_any(&format!("https://{text}"), Suffix::Optional);
        }
        Self::parse(text)
    }

    fn parse_any(text: &str, suffix: Suffix) -> Option<Result<Self, String>> {
        let (bare, query, fragment) = split_options(text);
        let mut git = Self { remote: bare.to_owned(), ..Self::default() };
        if let Some((scheme, _)) = scheme_of(text) {
            let url = Url::parse(text)?;
            let is_repository =
                suffix == Suffix::Optional || url.path.as_bytes().ends_with(b".git");
            let is_http = scheme == "http" || scheme == "https";
            if !is_http && scheme != "git" && scheme != "ssh" || is_http && !is_repository {
                return None;
            }
            git.is_ssh = scheme == "ssh";
            git.place = format!("{}{}", url.host, paths::rooted(&url.path));
        } else {
            let (user, rest) = bare.split_once('@')?;
            let (host, path) = rest.split_once(':')?;
            let word = |it: u8| it.is_ascii_alphanumeric() || it == b'-';
            if user.is_empty()
                || !user.bytes().all(|it| word(it) || it == b'_')
                || host.is_empty()
                || !host.bytes().all(|it| word(it) || it == b'.')
            {
                return None;
            }
            git.is_ssh = true;
            git.place = format!("{host}{}", paths::rooted(path));
        }
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        reference.clone_into(&mut git.reference);
        paths::rooted(subdir).trim_start_matches('/').clone_into(&mut git.subdir);
        Some(git.read_query(query).map(|()| git))
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode(key, true)).or_default().push(decode(value, true));
        }
        let (mut tag, mut branch) = (String::new(), String::new());
        for (key, list) in values {
            let quoted = gotext::quote(&key);
            let [value] = &list[..] else {
                return Err(format!("query {quoted} has multiple values"));
            };
            let is_flag = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_flag {
                return Err(format!("query {quoted} has no value"));
            }
            match key.as_str() {
                "ref" => settle("ref", &mut self.reference, value)?,
                "subdir" => settle("subdir", &mut self.subdir, value)?,
                "tag" => tag = in_namespace("refs/tags/", value),
                "branch" => branch = in_namespace("refs/heads/", value),
                "checksum" | "commit" => self.checksum.clone_from(value),
                "keep-git-dir" => self.keep_git_dir = Some(flag(&key, value)?),
                "submodules" => self.submodules = Some(flag(&key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = flag(&key, value)?,
                "mtime" if value == "checkout" || value == "commit" => self.mtime.clone_from(value),
                "mtime" => {
                    let value = gotext::quote(value);
                    return Err(format!(
                        "invalid mtime value: {value} (must be \"checkout\" or \"commit\")"
                    ));
                }
                _ => return Err(format!("unexpected query {quoted}")),
            }
        }
        if !tag.is_empty() && !branch.is_empty() {
            return Err("branch conflicts with tag".to_owned());
        }
        for full in [tag, branch].iter().filter(|full| !full.is_empty()) {
            settle("ref", &mut self.reference, full)?;
        }
        Ok(())
    }

    /// The source operation.
    pub fn to_source(&self) -> SourceOp {
        let mut identifier = format!("git://{}", self.place);
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            identifier.push('#');
            identifier.push_str(&self.reference);
            if !self.subdir.is_empty() {
                identifier.push(':');
                identifier.push_str(&self.subdir);
            }
        }
        let mut attrs = BTreeMap::new();
        let mut set = |key: &str, value: &str| attrs.insert(key.to_owned(), value.to_owned());
        set("git.fullurl", &self.remote);
        set("git.authtokensecret", "GIT_AUTH_TOKEN");
        set("git.authheadersecret", "GIT_AUTH_HEADER");
        if self.is_ssh {
            set("git.mountsshsock", "default");
        }
        if self.keep_git_dir == Some(true) {
            set("git.keepgitdir", "true");
        }
        if self.submodules == Some(false) {
            set("git.skipsubmodules", "true");
        }
        if self.fetch_by_commit {
            set("git.fetchbycommit", "true");
        }
        for (key, value) in [("git.checksum", &self.checksum), ("git.mtime", &self.mtime)] {
            if !value.is_empty() {
                set(key, value);
            }
        }
        SourceOp { identifier, attrs, platform: None }
    }
}

fn settle(what: &str, known: &mut String, value: &str) -> Result<(), String> {
    if !known.is_empty() && known != value {
        let (known, value) = (gotext::quote(known), gotext::quote(value));
        return Err(format!("{what} conflicts: {known} vs {value}"));
    }
    value.clone_into(known);
    Ok(())
}

fn in_namespace(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: {}", gotext::quote(value))),
    }
}

/// The text before `?` and `#`, the query, the fragment.
fn split_options(text: &str) -> (&str, &str, &str) {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (bare, query) = before.split_once('?').unwrap_or((before, ""));
    (bare, query, fragment)
}

/// The scheme in lower case, and what follows `://`.
pub(crate) fn scheme_of(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|it| it.is_ascii_alphanumeric()))
        .then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Host and path of a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Url {
    /// Host, with the port if there is one.
    pub(crate) host: String,
    /// Path, percent signs decoded.
    pub(crate) path: String,
}

impl Url {
    /// Parses `scheme://[user@]host[:port][/path][?query][#fragment]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (bare, _, _) = split_options(text);
        let (_, rest) = scheme_of(bare)?;
        if rest.bytes().any(|it| it.is_ascii_control() || it == b' ') {
            return None;
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Some(Self { host: host.to_owned(), path: decode(path, false) })
    }
}

/// Decodes `%41`; in a query, a plus is a blank. What is not UTF-8 is replaced.
fn decode(text: &str, is_query: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit =
                    |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
                out.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) if is_query => out.push(b' '),
            (&byte, _) => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &Expect) {
        let got = match GitRef::parse(text) {
            None => "not git".to_owned(),
            Some(Err(error)) => format!("error: {error}"),
            Some(Ok(git)) => {
                let source = git.to_source();
                let attrs: Vec<String> = source
                    .attrs
                    .iter()
                    .filter(|(key, _)| !key.starts_with("git.auth"))
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                format!("{} {}", source.identifier, attrs.join(" "))
            }
        };
        want.assert_eq(&got);
    }

    #[test]
    fn repositories() {
        check(
            "https://host/a/b.git#v1:sub/./dir",
            &expect!["git://host/a/b.git#v1:sub/dir git.fullurl=https://host/a/b.git"],
        );
        check(
            "git@host:a/b.git#:sub",
            &expect![
                "git://host/a/b.git#:sub git.fullurl=git@host:a/b.git git.mountsshsock=default"
            ],
        );
        check(
            "http://127.0.0.1:5041/r.git?tag=v1&keep-git-dir&submodules=0&checksum=abc",
            &expect![
                "git://127.0.0.1:5041/r.git#refs/tags/v1 git.checksum=abc git.fullurl=http://127.0.0.1:5041/r.git git.keepgitdir=true git.skipsubmodules=true"
            ],
        );
        check("git://host/x", &expect!["git://host/x git.fullurl=git://host/x"]);
    }

    #[test]
    fn other_sources() {
        for text in
            ["a.git", "./a.git", "https://host/x.tar", "ftp://host/x.git", "a@b", "github.com/a/b"]
        {
            check(text, &expect!["not git"]);
        }
    }

    #[test]
    fn wrong_queries() {
        check("https://h/r.git?tag=a&branch=b", &expect!["error: branch conflicts with tag"]);
        check("https://h/r.git?ref=a#b", &expect![[r#"error: ref conflicts: "b" vs "a""#]]);
        check("https://h/r.git?x=1", &expect![[r#"error: unexpected query "x""#]]);
        check("https://h/r.git?tag=", &expect![[r#"error: query "tag" has no value"#]]);
    }
}
