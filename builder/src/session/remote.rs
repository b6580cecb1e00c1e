//! Which kind of source a URL is: BuildKit's rules for contexts and ADD.

use std::collections::BTreeMap;

/// A remote source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Remote {
    /// A git repository: identifier and attributes of a source operation.
    Git(String, BTreeMap<String, String>),
    /// A file.
    Http(String),
}

/// Tells a git repository from a file: `git://`, `ssh://`, `git@host:path` and `github.com/…` are
/// repositories, and so are http URLs whose path ends in `.git`.
pub fn parse(url: &str) -> Remote {
    let (address, fragment) = url.split_once('#').unwrap_or((url, ""));
    let is_git = address.starts_with("git://")
        || address.starts_with("ssh://")
        || address.starts_with("git@")
        || address.starts_with("github.com/")
        || address.split('?').next().is_some_and(|it| it.strip_suffix(".git").is_some());
    if !is_git {
        return Remote::Http(url.to_owned());
    }
    let full = if address.starts_with("github.com/") {
        format!("https://{address}")
    } else {
        address.to_owned()
    };
    let bare = full.split_once("://").map_or(full.as_str(), |(_, rest)| rest);
    let bare = bare.rsplit_once('@').map_or(bare, |(_, rest)| rest);
    let identifier = if fragment.is_empty() {
        format!("git://{bare}")
    } else {
        format!("git://{bare}#{fragment}")
    };
    Remote::Git(identifier, BTreeMap::from([("git.fullurl".to_owned(), full)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let git = |url: &str| match parse(url) {
            Remote::Git(identifier, attrs) => Some((identifier, attrs["git.fullurl"].clone())),
            Remote::Http(_) => None,
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(
            git("https://h/p.git#main:sub"),
            pair("git://h/p.git#main:sub", "https://h/p.git")
        );
        assert_eq!(git("github.com/o/r"), pair("git://github.com/o/r", "https://github.com/o/r"));
        assert_eq!(git("git@h:o/r.git"), pair("git://h:o/r.git", "git@h:o/r.git"));
        assert_eq!(git("https://h/file.tar.gz"), None);
    }
}
