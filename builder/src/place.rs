//! Where the store lies when nobody names a place.
//!
//! The user's data directory; where that cannot be written to (a read-only root file system, a user
//! without a home), a directory of the user's own among the temporary ones. Such a directory is
//! only taken if nobody else can write to it: who can fill a store can choose what images hold.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::report::{Failure, Kind};

/// A place for the store.
#[derive(Debug, Eq, PartialEq)]
pub struct Place {
    /// The store's root.
    pub root: PathBuf,
    /// What the user should know about it.
    pub note: Option<String>,
}

/// Where temporary directories are when `TMPDIR` does not say: those that outlive a reboot first,
/// the one that takes memory last.
const TEMPORARY: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];

/// The place that `root` names, or a default one that can be written to.
///
/// # Errors
///
/// If there is none.
pub fn choose(root: Option<&Path>, env: &Env) -> Result<Place, Failure> {
    if let Some(root) = root.or(env.var("RBUILD_ROOT").map(Path::new)) {
        return Ok(Place { root: env.cwd.join(root), note: None });
    }
    let why = match env.data_dir() {
        None => "HOME is not set".to_owned(),
        Some(data) => {
            let root = env.cwd.join(data).join("rbuild");
            match writable(&root) {
                Ok(()) => return Ok(Place { root, note: None }),
                Err(error) => format!("`{}` cannot be used: {error}", root.display()),
            }
        }
    };
    let uid = rustix::process::geteuid().as_raw();
    let mut tried = Vec::new();
    for parent in env.var("TMPDIR").into_iter().chain(TEMPORARY) {
        let root = env.cwd.join(parent).join(format!("rbuild-{uid}"));
        match own(&root, uid) {
            Ok(()) => {
                let note = format!(
                    "the store is in `{}`, which may not last: {why}; --root DIR or RBUILD_ROOT \
                     names another place",
                    root.display()
                );
                return Ok(Place { root, note: Some(note) });
            }
            Err(error) => tried.push(format!("`{}`: {error}", root.display())),
        }
    }
    let text = format!("there is no place for the store: {why}; {}", tried.join("; "));
    Err(Failure::new(Kind::Host, text).hint(
        "name a directory that can be written to with --root or RBUILD_ROOT \
         (Kubernetes: an emptyDir volume; docker run: --tmpfs /tmp or -v)",
    ))
}

/// Makes a directory, unless it is there and can be written to.
fn writable(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let flags = rustix::fs::AtFlags::EACCESS;
    Ok(rustix::fs::accessat(rustix::fs::CWD, root, access, flags)?)
}

/// Makes a directory that is this user's alone, unless it is there and is so.
fn own(root: &Path, uid: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(root)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("it is not a directory of this user alone"));
    }
    writable(root)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn env(vars: &[(&str, &Path)]) -> Env {
        let value = |path: &Path| path.to_str().unwrap().to_owned();
        Env {
            vars: vars.iter().map(|(name, path)| ((*name).to_owned(), value(path))).collect(),
            cwd: "/".into(),
            now: 0,
            stderr_is_terminal: false,
            stdin_is_terminal: false,
        }
    }

    /// A temporary directory, and a file in it, below which nothing can be made.
    fn blocked() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        (temp, file)
    }

    #[test]
    fn what_is_named_is_taken_as_it_is() {
        let (_temp, file) = blocked();
        let env = Env { cwd: "/a".into(), vars: BTreeMap::new(), ..env(&[]) };
        let place = choose(Some(Path::new("b")), &env).unwrap();
        assert_eq!(place, Place { root: "/a/b".into(), note: None });
        let place = choose(None, &self::env(&[("RBUILD_ROOT", &file)])).unwrap();
        assert_eq!(place, Place { root: file, note: None });
    }

    #[test]
    fn a_home_that_cannot_be_written_to() {
        let (temp, file) = blocked();
        let uid = rustix::process::geteuid().as_raw();
        let place = choose(None, &env(&[("HOME", &file), ("TMPDIR", temp.path())])).unwrap();
        assert_eq!(place.root, temp.path().join(format!("rbuild-{uid}")));
        assert_eq!(fs::metadata(&place.root).unwrap().mode() & 0o777, 0o700);
        let note = place.note.unwrap();
        assert!(note.contains("Not a directory") && note.contains("--root"), "{note}");
        let place = choose(None, &env(&[("HOME", temp.path())])).unwrap();
        assert_eq!(place, Place { root: temp.path().join(".local/share/rbuild"), note: None });
    }

    #[test]
    fn a_directory_of_others_is_not_taken() {
        let temp = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let theirs = temp.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own(&theirs, uid).is_err());
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).unwrap();
        assert!(own(&link, uid).is_err());
        assert!(own(&temp.path().join("new"), uid).is_ok());
    }
}
