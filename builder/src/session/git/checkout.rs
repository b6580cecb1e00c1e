//! A commit's objects, and its files from them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rbuild_solver::session::SessionError;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use super::super::git_program::{Git, Reach, Repository};
use super::{Found, GitSource, is_commit};

/// Deepest directory of a tree.
const MAX_DEPTH: usize = 1000;

/// Makes the tree of `found` in a directory of `scratch`, and returns that directory.
pub(super) async fn checkout(
    git: &Git,
    source: &GitSource,
    found: &Found,
    scratch: &Path,
) -> Result<PathBuf, SessionError> {
    let (bare, tree) = (scratch.join("bare"), scratch.join("tree"));
    std::fs::create_dir(&tree).map_err(|error| SessionError::disk("create", &tree, &error))?;
    let objects = Repository { git_dir: &bare, work_tree: None };
    download(git, source, found, objects).await?;
    let own = tree.join(".git");
    let repository = if source.keep_git_dir {
        let repository = Repository { git_dir: &own, work_tree: Some(&tree) };
        keep(git, source, found, objects, repository).await?;
        repository
    } else {
        let repository = Repository { git_dir: &bare, work_tree: Some(&tree) };
        let arguments = ["checkout", "--no-overlay", &found.object, "--", "."];
        git.run(Reach::Disk, Some(repository), &arguments).await?;
        repository
    };
    if !source.skip_submodules {
        let arguments = ["submodule", "update", "--init", "--recursive", "--depth=1"];
        git.run(Reach::Network, Some(repository), &arguments).await?;
    }
    let time = if source.commit_time {
        let commit = format!("{}^{{commit}}", found.object);
        let said =
            git.run(Reach::Disk, Some(repository), &["log", "-1", "--format=%ct", &commit]).await?;
        let seconds = said.trim().parse::<u64>();
        let wrong =
            |_| SessionError::user(format!("the commit {} has no time: {said}", found.object));
        Some(UNIX_EPOCH + Duration::from_secs(seconds.map_err(wrong)?))
    } else {
        None
    };
    let settled = Settle { keeps_git: source.keep_git_dir, time }.directory(&tree, 0);
    settled.map_err(|error| SessionError::disk("settle", &tree, &error))?;
    Ok(tree)
}

/// Brings the objects of `found` into a new bare repository, and gives them its name.
async fn download(
    git: &Git,
    source: &GitSource,
    found: &Found,
    bare: Repository<'_>,
) -> Result<(), SessionError> {
    let format = format!("--object-format={}", object_format(&found.object));
    git.run(Reach::Disk, Some(bare), &["init", "--quiet", "--bare", &format]).await?;
    git.run(Reach::Disk, Some(bare), &["remote", "add", "origin", &source.url]).await?;
    let by_name = !is_commit(&found.name) && !source.fetch_by_commit;
    if by_name {
        // The name is what a later `fetch` of this repository is asked for.
        let refspec = format!("{}:{}", found.name, target(&found.name));
        let fetch = ["fetch", "--depth=1", "--no-tags", "origin", "--force", "--", &refspec];
        git.run(Reach::Network, Some(bare), &fetch).await?;
    }
    let has = ["cat-file", "-e", &found.object];
    if by_name && git.run(Reach::Disk, Some(bare), &has).await.is_ok() {
        return name(git, found, bare).await;
    }
    let direct = ["fetch", "--depth=1", "--no-tags", "origin", &found.object];
    let fetched = git.run(Reach::Network, Some(bare), &direct).await;
    if fetched.is_err() || git.run(Reach::Disk, Some(bare), &has).await.is_err() {
        // Servers may refuse an object that no reference points at: then all are fetched.
        git.run(Reach::Network, Some(bare), &["fetch", "--tags", "origin"]).await?;
        git.run(Reach::Disk, Some(bare), &has).await.map_err(|_| {
            SessionError::user(format!(
                "repository {} does not contain commit {}",
                source.url, found.object
            ))
        })?;
    }
    if by_name { name(git, found, bare).await } else { Ok(()) }
}

/// The reference may have moved since it was looked up.
async fn name(git: &Git, found: &Found, bare: Repository<'_>) -> Result<(), SessionError> {
    let full = format!("refs/{}", target(&found.name).trim_start_matches("refs/"));
    let arguments = ["update-ref", &full, &found.object, "--no-deref"];
    git.run(Reach::Disk, Some(bare), &arguments).await.map(drop)
}

/// What a reference is called in the bare repository.
fn target(name: &str) -> String {
    if name.starts_with("refs/tags/") { name.to_owned() } else { format!("tags/{name}") }
}

fn object_format(object: &str) -> &'static str {
    if object.len() == 64 { "sha256" } else { "sha1" }
}

/// Makes a repository of one commit, which does not know where it was made.
async fn keep(
    git: &Git,
    source: &GitSource,
    found: &Found,
    bare: Repository<'_>,
    own: Repository<'_>,
) -> Result<(), SessionError> {
    let disk = |arguments: Vec<String>| async move {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        git.run(Reach::Disk, Some(own), &arguments).await
    };
    let words = |text: &[&str]| text.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let format = format!("--object-format={}", object_format(&found.object));
    disk(words(&["init", "--quiet", &format])).await?;
    let place = format!("file://{}", bare.git_dir.display());
    disk(words(&["remote", "add", "origin", &place])).await?;
    let kind = git.run(Reach::Disk, Some(bare), &["cat-file", "-t", &found.object]).await?;
    let wanted = if is_commit(&found.name) {
        let reference = "refs/rbuild/commit";
        let arguments = ["update-ref", reference, &found.object];
        git.run(Reach::Disk, Some(bare), &arguments).await?;
        reference.to_owned()
    } else if source.fetch_by_commit {
        let reference = "refs/rbuild/commit";
        let arguments = ["update-ref", reference, &found.object];
        git.run(Reach::Disk, Some(bare), &arguments).await?;
        format!("{reference}:{}", found.name)
    } else if kind.trim() == "tag" && !found.name.starts_with("refs/tags/") {
        format!("{0}:refs/tags/{0}", found.name)
    } else {
        format!("{0}:{0}", found.name)
    };
    disk(words(&["fetch", "-u", "--depth=1", "--", "origin", &wanted])).await?;
    disk(words(&["checkout", "--quiet", "FETCH_HEAD"])).await?;
    disk(words(&["remote", "set-url", "origin", &without_password(&source.url)])).await?;
    disk(words(&["reflog", "expire", "--all", "--expire=now"])).await?;
    let left = own.git_dir.join("FETCH_HEAD");
    match std::fs::remove_file(&left) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SessionError::disk("remove", &left, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A URL whose password, if it has one, is not told.
fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            match parsed.set_password(Some("xxxxx")) {
                Ok(()) => parsed.to_string(),
                // Only a URL without a host refuses, and that has no password.
                Err(()) => String::new(),
            }
        }
        Ok(_) | Err(_) => url.to_owned(),
    }
}

/// What becomes of a tree that was checked out: modes do not depend on the caller's umask, and
/// no repository lies in it that was not asked for. Symbolic links are not followed.
struct Settle {
    keeps_git: bool,
    time: Option<std::time::SystemTime>,
}

impl Settle {
    fn directory(&self, directory: &Path, depth: usize) -> std::io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(std::io::Error::other("the tree is too deep"));
        }
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if !self.keeps_git && entry.file_name() == ".git" {
                // A submodule's, which points at where this was made.
                if kind.is_dir() {
                    std::fs::remove_dir_all(&path)?;
                } else {
                    std::fs::remove_file(&path)?;
                }
                continue;
            }
            if kind.is_dir() {
                self.directory(&path, depth + 1)?;
                continue;
            }
            if kind.is_file() {
                share_mode(&path, entry.metadata()?.permissions().mode())?;
            }
            self.touch(&path)?;
        }
        share_mode(directory, directory.metadata()?.permissions().mode())?;
        self.touch(directory)
    }

    fn touch(&self, path: &Path) -> std::io::Result<()> {
        let Some(time) = self.time else { return Ok(()) };
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timespec { tv_sec: i64::try_from(since.as_secs()).unwrap_or(0), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Others may do what the owner may, except to write: as with the umask 022.
fn share_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    let own = mode & 0o700;
    let shared = own | (own & 0o500) >> 3 | (own & 0o500) >> 6;
    if mode & 0o777 == shared {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_kept() {
        assert_eq!(without_password("https://u:p@h/r.git"), "https://u:xxxxx@h/r.git");
        assert_eq!(without_password("https://u@h/r.git"), "https://u@h/r.git");
        assert_eq!(without_password("git@h:r.git"), "git@h:r.git");
    }

    #[test]
    fn modes_are_those_of_the_ordinary_umask() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        std::fs::write(&file, "").unwrap();
        for (before, after) in [(0o600, 0o644), (0o700, 0o755), (0o666, 0o644), (0o444, 0o444)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(before)).unwrap();
            Settle { keeps_git: false, time: None }.directory(directory.path(), 0).unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, after);
        }
    }

    #[test]
    fn repositories_are_removed_unless_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let sub = directory.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(sub.join(".git"), "gitdir: /elsewhere").unwrap();
        Settle { keeps_git: true, time: None }.directory(directory.path(), 0).unwrap();
        assert!(sub.join(".git").exists());
        Settle { keeps_git: false, time: None }.directory(directory.path(), 0).unwrap();
        assert!(!sub.join(".git").exists());
    }
}
