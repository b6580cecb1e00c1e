//! A second tree of directories over the same files, and what was done in it, brought back.
//!
//! Files are hard links: what is written into one, or locked, is written and locked in both trees.
//! Names are each tree's own until [`bring_back`].

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::sandbox::tree_copy;

/// Deepest directory that is looked at: each level holds two descriptors.
const MAX_DEPTH: usize = 200;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// What a tree has at each of its paths.
pub(super) type Names = BTreeMap<PathBuf, Known>;

/// What a name stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// A directory: permission bits, owner, group.
    Directory(u32, u32, u32),
    /// Anything else, by its inode.
    File(u64),
}

/// What was done to a tree.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Change {
    /// A name is gone; what it stood for.
    Gone(PathBuf, Known),
    /// A directory is new, or belongs to somebody else.
    Directory(PathBuf),
    /// A file is new.
    File(PathBuf),
}

impl Known {
    fn of(stat: &Stat) -> Self {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            Self::Directory(stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
        } else {
            Self::File(stat.st_ino)
        }
    }
}

/// Fills the empty directory `to` with directories like those in `from`, and links to the files in
/// them. Others may work in `from` meanwhile.
///
/// # Errors
///
/// If the host refuses.
pub(super) fn link(from: &OwnedFd, to: &OwnedFd) -> io::Result<Names> {
    let mut names = Names::new();
    link_below(from, to, Path::new(""), &mut names)?;
    Ok(names)
}

fn link_below(from: &OwnedFd, to: &OwnedFd, path: &Path, names: &mut Names) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    for (name, stat) in entries(from)? {
        let inner = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        if matches!(Known::of(&stat), Known::Directory(..)) {
            if inner.components().count() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
            let Ok(from) = rustix::fs::openat(from, &name, DIRECTORY, Mode::empty()) else {
                continue;
            };
            rustix::fs::mkdirat(to, &name, Mode::from_raw_mode(0o700))?;
            let to = rustix::fs::openat(to, &name, DIRECTORY, Mode::empty())?;
            link_below(&from, &to, &inner, names)?;
        } else {
            match rustix::fs::linkat(from, &name, to, &name, AtFlags::empty()) {
                Ok(()) => {}
                // Gone since.
                Err(Errno::NOENT) => continue,
                // A file system without links, or too many of them.
                Err(_) => tree_copy::copy_entry(from, to, &name, 1)?,
            }
        }
        if let Ok(stat) = rustix::fs::statat(to, &name, AtFlags::SYMLINK_NOFOLLOW) {
            names.insert(inner, Known::of(&stat));
        }
    }
    tree_copy::attributes(from, to)?;
    tree_copy::metadata(to, &stat)
}

fn entries(dir: &OwnedFd) -> io::Result<Vec<(std::ffi::CString, Stat)>> {
    let mut all = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            all.push((name.to_owned(), stat));
        }
    }
    Ok(all)
}

fn list(dir: &OwnedFd, path: &Path, names: &mut Names) -> io::Result<()> {
    for (name, stat) in entries(dir)? {
        let inner = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let known = Known::of(&stat);
        if matches!(known, Known::Directory(..)) && inner.components().count() <= MAX_DEPTH {
            let dir = rustix::fs::openat(dir, &name, DIRECTORY, Mode::empty())?;
            list(&dir, &inner, names)?;
        }
        names.insert(inner, known);
    }
    Ok(())
}

/// What leads from one state of a tree to the other: what goes first, children before parents; then
/// what comes, parents before children. Pure.
fn changes(before: &Names, after: &Names) -> Vec<Change> {
    let gone = before.iter().rev().filter(|it| !after.contains_key(it.0));
    let new = after.iter().filter(|it| before.get(it.0) != Some(it.1));
    let gone = gone.map(|(path, known)| Change::Gone(path.clone(), *known));
    gone.chain(new.map(|(path, known)| match known {
        Known::Directory(..) => Change::Directory(path.clone()),
        Known::File(_) => Change::File(path.clone()),
    }))
    .collect()
}

/// Does to the tree `to` what was done to `from` since that had these names. Others may work in `to`
/// meanwhile: what they put in the way stays.
///
/// # Errors
///
/// If `from` cannot be listed.
pub(super) fn bring_back(from: &OwnedFd, before: &Names, to: &OwnedFd) -> io::Result<()> {
    let mut after = Names::new();
    list(from, Path::new(""), &mut after)?;
    for change in changes(before, &after) {
        // What cannot be brought back is lost, and a cache can be.
        let _ = match &change {
            Change::Gone(path, known) => remove(to, path, *known),
            Change::Directory(path) => make(from, path, to),
            Change::File(path) => carry(from, path, to),
        };
    }
    Ok(())
}

/// The directory around `path` in a tree, and the name in it.
fn around<'a>(tree: &OwnedFd, path: &'a Path) -> Result<(OwnedFd, &'a Path), Errno> {
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().ok_or(Errno::INVAL)?);
    Ok((open(tree, parent)?, Path::new(name)))
}

fn open(tree: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(tree, path, DIRECTORY, Mode::empty(), beneath)
}

fn remove(tree: &OwnedFd, path: &Path, known: Known) -> Result<(), Errno> {
    let (dir, name) = around(tree, path)?;
    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match (known, Known::of(&stat)) {
        (Known::Directory(..), Known::Directory(..)) => {
            rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)
        }
        (old, now) if old == now => rustix::fs::unlinkat(&dir, name, AtFlags::empty()),
        // Somebody else's by now.
        _ => Ok(()),
    }
}

fn make(from: &OwnedFd, path: &Path, to: &OwnedFd) -> Result<(), Errno> {
    let source = open(from, path)?;
    if let Some(parent) = path.parent()
        && open(to, parent).is_err_and(|errno| errno == Errno::NOENT)
    {
        make(from, parent, to)?;
    }
    let (dir, name) = around(to, path)?;
    match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let made = rustix::fs::openat(&dir, name, DIRECTORY, Mode::empty())?;
    let stat = rustix::fs::fstat(&source)?;
    let (uid, gid) = tree_copy::owner(&stat);
    rustix::fs::fchown(&made, uid, gid)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn carry(from: &OwnedFd, path: &Path, to: &OwnedFd) -> Result<(), Errno> {
    let (source, name) = around(from, path)?;
    let dir = match around(to, path) {
        Err(Errno::NOENT) => {
            make(from, path.parent().unwrap_or(path), to)?;
            around(to, path)?.0
        }
        found => found?.0,
    };
    rustix::fs::renameat(source.as_fd(), name, dir.as_fd(), name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn names(text: &str) -> Names {
        let known = |word: &str| {
            let (path, value) = word.split_once('=').unwrap();
            let value = match value.strip_prefix('d') {
                Some(mode) => Known::Directory(mode.parse().unwrap(), 0, 0),
                None => Known::File(value.parse().unwrap()),
            };
            (PathBuf::from(path), value)
        };
        text.split_whitespace().map(known).collect()
    }

    #[test]
    fn changes_in_an_order_that_works() {
        let before = names("a=d7 a/f=1 a/g=2 b=d7 b/c=d7 b/c/f=3 s=4");
        let after = names("a=d5 a/f=9 a/g=2 n=d7 n/f=3 s=4");
        let expected = [
            Change::Gone("b/c/f".into(), Known::File(3)),
            Change::Gone("b/c".into(), Known::Directory(7, 0, 0)),
            Change::Gone("b".into(), Known::Directory(7, 0, 0)),
            Change::Directory("a".into()),
            Change::File("a/f".into()),
            Change::Directory("n".into()),
            Change::File("n/f".into()),
        ];
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&after, &after), []);
    }

    #[test]
    fn two_trees_over_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(one.join("d/e")).unwrap();
        fs::create_dir(&two).unwrap();
        for name in ["d/kept", "d/gone", "d/e/replaced", "mine", "both"] {
            fs::write(one.join(name), "old").unwrap();
        }
        fs::set_permissions(&one, fs::Permissions::from_mode(0o1777)).unwrap();
        let open = |path| rustix::fs::open(path, DIRECTORY, Mode::empty()).unwrap();
        let (from, to) = (open(one.as_path()), open(two.as_path()));
        let before = link(&from, &to).unwrap();
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(one.join("d/kept")), inode(two.join("d/kept")));
        assert_eq!(fs::metadata(&two).unwrap().mode() & 0o7777, 0o1777);

        fs::write(two.join("d/kept"), "written").unwrap();
        assert_eq!(fs::read_to_string(one.join("d/kept")).unwrap(), "written");
        fs::remove_file(two.join("d/gone")).unwrap();
        fs::write(two.join("new"), "new").unwrap();
        fs::rename(two.join("new"), two.join("d/e/replaced")).unwrap();
        fs::create_dir_all(two.join("n/m")).unwrap();
        fs::write(two.join("n/m/f"), "new").unwrap();
        // Meanwhile, in the other one.
        fs::remove_file(one.join("mine")).unwrap();
        fs::remove_file(one.join("both")).unwrap();
        fs::write(one.join("both"), "theirs").unwrap();
        fs::remove_file(two.join("both")).unwrap();

        bring_back(&to, &before, &from).unwrap();
        assert!(!one.join("d/gone").exists() && !one.join("mine").exists());
        assert_eq!(fs::read_to_string(one.join("both")).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(one.join("d/e/replaced")).unwrap(), "new");
        assert_eq!(fs::read_to_string(one.join("n/m/f")).unwrap(), "new");
    }

    #[test]
    fn what_others_put_in_the_way_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one/d", "two", "outside"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let path = |name: &str| dir.path().join(name);
        let open = |name: &str| rustix::fs::open(path(name), DIRECTORY, Mode::empty()).unwrap();
        let (from, to) = (open("one"), open("two"));
        let before = link(&from, &to).unwrap();
        fs::write(path("two/d/f"), "new").unwrap();
        fs::remove_dir(path("one/d")).unwrap();
        std::os::unix::fs::symlink(path("outside"), path("one/d")).unwrap();
        bring_back(&to, &before, &from).unwrap();
        assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 0);
    }
}
