//! Git sources: a commit's tree in a directory.
//!
//! The `git` program does the transfer; nothing of a repository is executed. As BuildKit does it:
//! references are looked up first, a branch before a tag; the objects come into a bare repository,
//! and `.git`, where it is kept, holds one commit of it and no credentials.

mod checkout;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_solver::session::{SessionError, SessionErrorKind};
use rbuild_store::digest::Digest;
use rbuild_store::local::Store;

use super::git_program::{Git, Reach};
use super::offers::Offers;

/// What a git source asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute of its own")]
pub struct GitSource {
    /// URL that git understands.
    pub url: String,
    /// Branch, tag, full reference or commit; empty means the remote's default branch.
    pub reference: String,
    /// Directory in the tree; empty means its root.
    pub subdir: String,
    /// Whether `.git` stays. Of a subdirectory it never does.
    pub keep_git_dir: bool,
    /// What the commit must be (a prefix is enough); empty means anything.
    pub checksum: String,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
    /// Whether the checksum is fetched without asking what the reference is.
    pub fetch_by_commit: bool,
    /// Whether all files are as old as the commit; else they are as old as the checkout.
    pub commit_time: bool,
    /// Name of the ssh agent that is needed; none for other protocols.
    pub ssh: Option<String>,
    /// Name of the secret with a whole `Authorization` header.
    pub header_secret: Option<String>,
    /// Name of the secret with a token.
    pub token_secret: Option<String>,
}

impl GitSource {
    /// Reads a source operation: `git://host/path#ref:subdir` and its attributes.
    pub fn parse(identifier: &str, attrs: &BTreeMap<String, String>) -> Self {
        let rest = identifier.strip_prefix("git://").unwrap_or(identifier);
        let (path, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let truth = |name: &str| attrs.get(name).is_some_and(|it| it == "true");
        let text = |name: &str| attrs.get(name).filter(|it| !it.is_empty()).cloned();
        let subdir = subdir.trim_matches('/').to_owned();
        Self {
            url: text("git.fullurl").unwrap_or_else(|| format!("https://{path}")),
            reference: reference.to_owned(),
            keep_git_dir: truth("git.keepgitdir") && subdir.is_empty(),
            subdir,
            checksum: text("git.checksum").unwrap_or_default(),
            skip_submodules: truth("git.skipsubmodules"),
            fetch_by_commit: truth("git.fetchbycommit"),
            commit_time: text("git.mtime").is_some_and(|it| it == "commit"),
            ssh: text("git.mountsshsock"),
            header_secret: text("git.authheadersecret"),
            token_secret: text("git.authtokensecret"),
        }
    }

    /// Name of the directory that holds this source.
    fn directory(&self, found: &Found) -> String {
        // What `.git` says depends on the name that was asked for.
        let name = if self.keep_git_dir { self.reference.as_str() } else { "" };
        let key = format!(
            "{}\0{}\0{}\0{}\0{name}\0{}",
            self.url, found.object, self.keep_git_dir, self.skip_submodules, self.commit_time
        );
        Digest::of(key.as_bytes()).hex()
    }
}

/// What a reference stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Found {
    /// The commit, or the object of an annotated tag.
    pub(super) object: String,
    /// The name that it has: that of the default branch if none was given.
    pub(super) name: String,
}

/// Fetches `source` into a directory below `store/downloads` and returns that directory, relative
/// to the store, and the commit. A commit that is there already is not fetched again.
///
/// # Errors
///
/// `User` if the reference or the subdirectory does not exist or the checksum differs; `Remote` if
/// the repository cannot be reached; `Host` if there is no `git` or the disk fails.
pub async fn fetch(
    source: &GitSource,
    store: &Store,
    offers: &Offers,
) -> Result<(PathBuf, String), SessionError> {
    refuse_odd(source)?;
    let git = program(source, offers)?;
    let found = resolve(&git, source).await?;
    let relative = PathBuf::from("downloads").join(source.directory(&found));
    let done = store.root().join(&relative);
    if !done.is_dir() {
        let parent = store.layout().downloads();
        std::fs::create_dir_all(&parent)
            .map_err(|error| SessionError::disk("create", &parent, &error))?;
        let temporary =
            tempfile::Builder::new().prefix("git-").tempdir_in(super::scratch(store)?).map_err(
                |error| SessionError::disk("create a directory in", &store.layout().tmp(), &error),
            )?;
        let tree = checkout::checkout(&git, source, &found, temporary.path()).await?;
        // A second build may have been faster: its tree is the same.
        if let Err(error) = std::fs::rename(&tree, &done)
            && !done.is_dir()
        {
            return Err(SessionError::disk("rename into", &done, &error));
        }
    }
    Ok((subdirectory(source, &relative, store.root())?, found.object))
}

/// The part of a tree that was asked for: directories all the way down, no symbolic links.
fn subdirectory(source: &GitSource, tree: &Path, root: &Path) -> Result<PathBuf, SessionError> {
    let mut path = tree.to_owned();
    for part in source.subdir.split('/').filter(|it| !matches!(*it, "" | ".")) {
        path.push(part);
        let kind = root.join(&path).symlink_metadata().map(|it| it.file_type());
        if part == ".." || !kind.is_ok_and(|it| it.is_dir()) {
            let text = format!("{} has no directory `{}`", source.url, source.subdir);
            return Err(SessionError::user(text));
        }
    }
    Ok(path)
}

/// What would be taken for an option or for a helper program is refused.
fn refuse_odd(source: &GitSource) -> Result<(), SessionError> {
    for (what, text) in
        [("URL", &source.url), ("reference", &source.reference), ("subdirectory", &source.subdir)]
    {
        if text.starts_with('-') || text.contains(|it: char| it.is_control()) || text.contains("::")
        {
            return Err(SessionError::user(format!("`{text}` is not an acceptable git {what}")));
        }
    }
    if !source.checksum.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Err(SessionError::user(format!(
            "invalid checksum {} for Git URL, expected hex commit hash",
            source.checksum
        )));
    }
    Ok(())
}

/// The program with the credentials that the source may use.
fn program(source: &GitSource, offers: &Offers) -> Result<Git, SessionError> {
    let mut git = Git::default();
    if let Some(id) = &source.ssh {
        let agent = offers.ssh_agent(id)?;
        git.ssh_agent = Some(agent.ok_or_else(|| SessionError {
            kind: SessionErrorKind::User,
            text: format!("no SSH key {id:?} forwarded from the client"),
            hint: Some(format!("--ssh {id} offers the keys of the agent at SSH_AUTH_SOCK")),
        })?);
    }
    if let Some(header) = authorization(source, offers)? {
        let scope = ["https://github.com/", "https://www.github.com/"]
            .into_iter()
            .find(|it| source.url.starts_with(it));
        let name = format!("http.{}.extraheader", scope.unwrap_or(&source.url));
        git.authorization = Some((name, format!("Authorization: {header}")));
    }
    Ok(git)
}

/// The header that a secret gives: of this host first, a whole header before a token.
fn authorization(source: &GitSource, offers: &Offers) -> Result<Option<String>, SessionError> {
    let host = url::Url::parse(&source.url).ok().and_then(|url| {
        let host = url.host_str()?.to_owned();
        Some(url.port().map_or(host.clone(), |port| format!("{host}:{port}")))
    });
    for suffix in host.map(|host| format!(".{host}")).into_iter().chain([String::new()]) {
        for (name, is_token) in [(&source.header_secret, false), (&source.token_secret, true)] {
            let Some(name) = name else { continue };
            let Some(value) = offers.secret(&format!("{name}{suffix}"))? else { continue };
            let value = String::from_utf8_lossy(&value).trim().to_owned();
            return Ok(Some(if is_token {
                let pair = format!("x-access-token:{value}");
                format!("basic {}", base64(pair.as_bytes()))
            } else {
                value
            }));
        }
    }
    Ok(None)
}

/// What the reference stands for now.
async fn resolve(git: &Git, source: &GitSource) -> Result<Found, SessionError> {
    let (reference, checksum) = (source.reference.as_str(), source.checksum.as_str());
    if is_commit(reference) {
        if !reference.starts_with(checksum) {
            return Err(other_commit(checksum, reference));
        }
        return Ok(Found { object: reference.to_owned(), name: reference.to_owned() });
    }
    if source.fetch_by_commit {
        if checksum.is_empty() {
            return Err(SessionError::user(
                "fetch-by-commit requires a checksum or a commit SHA ref".to_owned(),
            ));
        }
        if !is_commit(checksum) {
            return Err(SessionError::user(format!(
                "fetch-by-commit requires a full commit SHA checksum, got {checksum:?}"
            )));
        }
        let name = match reference {
            "" => checksum.to_owned(),
            full if full.starts_with("refs/") => full.to_owned(),
            branch => format!("refs/heads/{branch}"),
        };
        return Ok(Found { object: checksum.to_owned(), name });
    }
    let name = if reference.is_empty() {
        let listing =
            git.run(Reach::Network, None, &["ls-remote", "--symref", &source.url, "HEAD"]).await?;
        default_branch(&listing).ok_or_else(|| {
            SessionError::user(format!(
                "could not find default branch for repository: {}",
                source.url
            ))
        })?
    } else {
        reference.to_owned()
    };
    let peeled = format!("{name}^{{}}");
    let listing =
        git.run(Reach::Network, None, &["ls-remote", "--", &source.url, &name, &peeled]).await?;
    let (object, commit) = pick(&listing, &name).ok_or_else(|| {
        SessionError::user(format!("repository does not contain ref {name}, output: {listing:?}"))
    })?;
    if !object.starts_with(checksum) && !commit.as_ref().is_some_and(|it| it.starts_with(checksum))
    {
        return Err(other_commit(checksum, &commit.unwrap_or(object)));
    }
    Ok(Found { object, name })
}

fn other_commit(expected: &str, actual: &str) -> SessionError {
    SessionError::user(format!("expected checksum to match {expected}, got {actual}"))
}

/// Whether a text is the name of an object, SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// The branch that `HEAD` is, in the output of `ls-remote --symref`.
fn default_branch(listing: &str) -> Option<String> {
    let (_, rest) = listing.split_once("refs/heads/")?;
    let name = rest.split_whitespace().next()?;
    (!name.starts_with('-')).then(|| name.to_owned())
}

/// What `name` is in the output of `ls-remote`: a full reference, else a branch, else a tag; and
/// the commit of an annotated tag.
fn pick(listing: &str, name: &str) -> Option<(String, Option<String>)> {
    let below = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let find = |reference: &str| {
        let mut lines = listing.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(_, it)| *it == reference).map(|(object, _)| object.to_owned())
    };
    let tag = below("refs/tags/");
    let peeled = find(&format!("{tag}^{{}}"));
    if let Some(object) = find(&below("refs/")).or_else(|| find(&below("refs/heads/"))) {
        let is_tag = below("refs/") == tag;
        return Some((object, peeled.filter(|_| is_tag)));
    }
    Some((find(&tag)?, peeled))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        let attrs = BTreeMap::from([("git.fullurl".to_owned(), "https://h/p.git".to_owned())]);
        let source = GitSource::parse("git://h/p.git#v1:sub/dir", &attrs);
        assert_eq!(
            (source.url.as_str(), source.reference.as_str(), source.subdir.as_str()),
            ("https://h/p.git", "v1", "sub/dir")
        );
        assert_eq!(GitSource::parse("git://h/p.git", &BTreeMap::new()).url, "https://h/p.git");
    }

    #[test]
    fn a_branch_goes_before_a_tag() {
        let listing = "aaa\trefs/heads/v1\nbbb\trefs/tags/v1\nccc\trefs/tags/v1^{}\n";
        let pair = |object: &str, commit: Option<&str>| {
            Some((object.to_owned(), commit.map(str::to_owned)))
        };
        assert_eq!(pick(listing, "v1"), pair("aaa", None));
        assert_eq!(pick(listing, "refs/heads/v1"), pair("aaa", None));
        assert_eq!(pick(listing, "refs/tags/v1"), pair("bbb", Some("ccc")));
        assert_eq!(pick(listing, "v2"), None);
        let tags = "bbb\trefs/tags/v1\nccc\trefs/tags/v1^{}\nddd\trefs/tags/x/v1\n";
        assert_eq!(pick(tags, "v1"), pair("bbb", Some("ccc")));
        assert_eq!(pick("ddd\trefs/tags/x/v1\n", "v1"), None);
    }

    #[test]
    fn the_default_branch() {
        let listing = "ref: refs/heads/trunk\tHEAD\n0123\tHEAD\n";
        assert_eq!(default_branch(listing).as_deref(), Some("trunk"));
        assert_eq!(default_branch("0123\tHEAD\n"), None);
    }

    #[test]
    fn options_are_not_references() {
        let mut source = GitSource::parse("git://h/p#--upload-pack=x", &BTreeMap::new());
        assert!(refuse_odd(&source).is_err());
        source.reference = String::new();
        source.url = "ext::sh -c x".to_owned();
        assert!(refuse_odd(&source).is_err());
        source.url = "https://h/p".to_owned();
        source.checksum = "foobar".to_owned();
        assert!(refuse_odd(&source).is_err());
    }

    #[test]
    fn tokens_of_a_host_go_first() {
        let attrs = BTreeMap::from([
            ("git.fullurl".to_owned(), "https://h:81/p.git".to_owned()),
            ("git.authtokensecret".to_owned(), "T".to_owned()),
        ]);
        let source = GitSource::parse("git://h:81/p.git", &attrs);
        let offers = |names: &[&str]| Offers::of_values(names.iter().map(|it| (*it, *it)));
        let header = |names: &[&str]| authorization(&source, &offers(names)).unwrap();
        let basic = |token: &str| {
            Some(format!("basic {}", base64(format!("x-access-token:{token}").as_bytes())))
        };
        assert_eq!(header(&[]), None);
        assert_eq!(header(&["T"]), basic("T"));
        assert_eq!(header(&["T", "T.h:81"]), basic("T.h:81"));
    }
}
