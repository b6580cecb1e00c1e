//! Git sources: a commit's tree in a directory.
//!
//! The `git` program does the transfer, with an environment that knows no configuration, hooks,
//! helpers or prompts. Nothing of a repository is executed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_solver::session::{SessionError, SessionErrorKind};
use rbuild_store::digest::Digest;
use rbuild_store::local::Store;
use tokio::process::Command;

/// What a git source asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GitSource {
    /// URL that git understands.
    pub url: String,
    /// Branch, tag, full reference or commit; empty means the remote's default branch.
    pub reference: String,
    /// Directory in the tree; empty means its root.
    pub subdir: String,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// What the commit must be (a prefix is enough); empty means anything.
    pub checksum: String,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
}

impl GitSource {
    /// Reads a source operation: `git://host/path#ref:subdir` and its attributes.
    pub fn parse(identifier: &str, attrs: &BTreeMap<String, String>) -> Self {
        let rest = identifier.strip_prefix("git://").unwrap_or(identifier);
        let (path, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let truth = |name: &str| attrs.get(name).is_some_and(|it| it == "true");
        Self {
            url: attrs.get("git.fullurl").cloned().unwrap_or_else(|| format!("https://{path}")),
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
            keep_git_dir: truth("git.keepgitdir"),
            checksum: attrs.get("git.checksum").cloned().unwrap_or_default(),
            skip_submodules: truth("git.skipsubmodules"),
        }
    }

    /// Name of the directory that holds this source at `commit`.
    fn directory(&self, commit: &str) -> String {
        let key =
            format!("{}\0{commit}\0{}\0{}", self.url, self.keep_git_dir, self.skip_submodules);
        Digest::of(key.as_bytes()).hex()
    }
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
    ssh_agent: Option<&Path>,
) -> Result<(PathBuf, String), SessionError> {
    refuse_odd(source)?;
    let git = Git { ssh_agent };
    let commit = resolve(&git, source).await?;
    if !source.checksum.is_empty() && !commit.starts_with(&source.checksum) {
        return Err(user(format!("expected checksum to match {}, got {commit}", source.checksum)));
    }
    let relative = PathBuf::from("downloads").join(source.directory(&commit));
    let done = store.root().join(&relative);
    if !done.is_dir() {
        let parent = store.layout().downloads();
        std::fs::create_dir_all(&parent).map_err(|error| host("create", &parent, &error))?;
        let temporary = tempfile::Builder::new()
            .prefix("git-")
            .tempdir_in(super::scratch(store)?)
            .map_err(|error| host("create a directory in", &store.layout().tmp(), &error))?;
        checkout(&git, source, &commit, temporary.path()).await?;
        // A second build may have been faster: its tree is the same.
        if let Err(error) = std::fs::rename(temporary.path(), &done)
            && !done.is_dir()
        {
            return Err(host("rename into", &done, &error));
        }
    }
    let relative = if source.subdir.is_empty() { relative } else { relative.join(&source.subdir) };
    let directory = store.root().join(&relative);
    if !directory.is_dir() || source.subdir.split('/').any(|it| it == "..") {
        return Err(user(format!(
            "there is no directory `{}` in {} at {commit}",
            source.subdir, source.url
        )));
    }
    Ok((relative, commit))
}

/// What would be taken for an option or for a helper program is refused.
fn refuse_odd(source: &GitSource) -> Result<(), SessionError> {
    for (what, text) in
        [("URL", &source.url), ("reference", &source.reference), ("subdirectory", &source.subdir)]
    {
        if text.starts_with('-') || text.contains(|it: char| it.is_control()) || text.contains("::")
        {
            return Err(user(format!("`{text}` is not an acceptable git {what}")));
        }
    }
    Ok(())
}

/// The commit that the reference stands for now.
async fn resolve(git: &Git<'_>, source: &GitSource) -> Result<String, SessionError> {
    let reference = source.reference.as_str();
    let is_commit = reference.len() == 40 && reference.bytes().all(|it| it.is_ascii_hexdigit());
    if is_commit {
        return Ok(reference.to_lowercase());
    }
    let wanted = if reference.is_empty() { "HEAD" } else { reference };
    let listing =
        git.run(None, &["ls-remote", "--", &source.url, wanted, &format!("{wanted}^{{}}")]).await?;
    pick(&listing, wanted)
        .ok_or_else(|| user(format!("repository {} does not contain ref {wanted}", source.url)))
}

/// The commit of `wanted` in the output of `ls-remote`: what an annotated tag points at, the
/// reference itself, a tag, a branch.
fn pick(listing: &str, wanted: &str) -> Option<String> {
    let names = [
        format!("refs/tags/{wanted}^{{}}"),
        format!("{wanted}^{{}}"),
        wanted.to_owned(),
        format!("refs/{wanted}"),
        format!("refs/tags/{wanted}"),
        format!("refs/heads/{wanted}"),
    ];
    let lines: Vec<(&str, &str)> =
        listing.lines().filter_map(|line| line.split_once('\t')).collect();
    names
        .iter()
        .find_map(|name| lines.iter().find(|(_, it)| it == name))
        .map(|(commit, _)| (*commit).to_owned())
}

/// Puts the tree of `commit` into `directory`, which is empty.
async fn checkout(
    git: &Git<'_>,
    source: &GitSource,
    commit: &str,
    directory: &Path,
) -> Result<(), SessionError> {
    let at = Some(directory);
    git.run(at, &["init", "--quiet", "--initial-branch=main"]).await?;
    git.run(at, &["remote", "add", "origin", &source.url]).await?;
    let by_name = if source.reference.is_empty() { "HEAD" } else { &source.reference };
    // Servers may refuse a commit that no reference points at, and then the reference is fetched.
    let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "origin"];
    let direct = git.run(at, &[&shallow[..], &[commit]].concat()).await;
    if direct.is_err() {
        let named = git.run(at, &[&shallow[..], &[by_name]].concat()).await;
        if named.is_err()
            || git.run(at, &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await.is_err()
        {
            git.run(
                at,
                &["fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"],
            )
            .await?;
        }
    }
    git.run(at, &["checkout", "--quiet", "--force", "--detach", commit]).await?;
    if !source.skip_submodules && directory.join(".gitmodules").exists() {
        git.run(at, &["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])
            .await?;
    }
    if !source.keep_git_dir {
        remove_git(directory).map_err(|error| host("clean", directory, &error))?;
    }
    Ok(())
}

/// Removes `.git`, those of submodules too. Symbolic links are not followed.
fn remove_git(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if entry.file_name() == ".git" {
            if kind.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        } else if kind.is_dir() {
            remove_git(&entry.path())?;
        }
    }
    Ok(())
}

/// What `git` sees besides [`inherited`]: no configuration, no prompts, no other transports.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
    ("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new"),
];

/// Settings of every call.
const SETTINGS: [&str; 6] = [
    "core.hooksPath=/dev/null",
    "protocol.version=2",
    "advice.detachedHead=false",
    "core.symlinks=true",
    "core.autocrlf=false",
    "safe.directory=*",
];

/// Variables that are passed on: where programs are, and how the network is reached.
#[expect(
    clippy::disallowed_methods,
    reason = "git is a program; only these variables are passed on"
)]
fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    const NAMES: [&str; 8] = [
        "PATH",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
    ];
    NAMES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// The `git` program in an environment of its own.
struct Git<'a> {
    ssh_agent: Option<&'a Path>,
}

impl Git<'_> {
    async fn run(
        &self,
        directory: Option<&Path>,
        arguments: &[&str],
    ) -> Result<String, SessionError> {
        let mut command = Command::new("git");
        command.env_clear().envs(ENVIRONMENT).envs(inherited());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        if let Some(agent) = self.ssh_agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let output = command.output().await.map_err(|error| SessionError {
            kind: SessionErrorKind::Host,
            text: format!("cannot run git: {error}"),
            hint: Some("git sources need the `git` program in PATH".to_owned()),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(SessionError {
            kind: SessionErrorKind::Remote,
            text: format!("git {} failed: {}", arguments.first().unwrap_or(&""), said.trim()),
            hint: None,
        })
    }
}

fn user(text: String) -> SessionError {
    SessionError { kind: SessionErrorKind::User, text, hint: None }
}

fn host(action: &str, path: &Path, error: &std::io::Error) -> SessionError {
    SessionError {
        kind: SessionErrorKind::Host,
        text: format!("cannot {action} {}: {error}", path.display()),
        hint: None,
    }
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
    fn annotated_tags_are_followed() {
        let listing = "aaa\trefs/heads/v1\nbbb\trefs/tags/v1\nccc\trefs/tags/v1^{}\n";
        assert_eq!(pick(listing, "v1").as_deref(), Some("ccc"));
        assert_eq!(pick(listing, "refs/heads/v1").as_deref(), Some("aaa"));
        assert_eq!(pick(listing, "v2"), None);
    }

    #[test]
    fn options_are_not_references() {
        let mut source = GitSource::parse("git://h/p#--upload-pack=x", &BTreeMap::new());
        assert!(refuse_odd(&source).is_err());
        source.reference = String::new();
        source.url = "ext::sh -c x".to_owned();
        assert!(refuse_odd(&source).is_err());
    }
}
