//! Contexts that are elsewhere, by what a user writes for them. Pure.

use std::collections::BTreeMap;

use rbuild_frontend::lower::git_ref::GitRef;
use rbuild_solver::llb::op::SourceOp;

/// The name of the file that a web server's context is.
pub const CONTEXT_FILE: &str = "context";

/// Whether a context is a git repository or a URL rather than a path.
pub fn is_remote(text: &str) -> bool {
    is_url(text) || GitRef::parse_context(text).is_some()
}

/// Whether a text is the address of a web server.
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The source operation of a context for which [`is_remote`] holds.
///
/// # Errors
///
/// If the query of a git repository is wrong, as text.
pub fn source(text: &str) -> Result<SourceOp, String> {
    if let Some(git) = GitRef::parse_context(text) {
        return git.map(|git| git.to_source());
    }
    let attrs = BTreeMap::from([("http.filename".to_owned(), CONTEXT_FILE.to_owned())]);
    Ok(SourceOp { identifier: text.to_owned(), attrs, platform: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let shown = |url: &str| {
            let op = source(url).unwrap();
            (op.identifier, op.attrs.get("git.fullurl").cloned())
        };
        let git = |a: &str, b: &str| (a.to_owned(), Some(b.to_owned()));
        assert_eq!(
            shown("https://h/p.git?ref=main&subdir=sub"),
            git("git://h/p.git#main:sub", "https://h/p.git")
        );
        assert_eq!(
            shown("github.com/o/r#v1"),
            git("git://github.com/o/r#v1", "https://github.com/o/r")
        );
        assert_eq!(shown("git@h:o/r.git"), git("git://h/o/r.git", "git@h:o/r.git"));
        assert_eq!(shown("https://h/f.tar.gz"), ("https://h/f.tar.gz".to_owned(), None));
        assert!(source("https://h/p.git?ref=").is_err());
        assert!(!is_remote("./p.git") && !is_remote("p.git") && is_remote("github.com/o/r"));
    }
}
