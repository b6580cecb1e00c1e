//! Removes trees of any shape: directories nobody may enter, and ones deeper than there are
//! handles.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::dir::{DIR_FLAGS, MAX_DEPTH, descend, open_dir};
use super::error::Error;
use super::scan;

/// Removes `name` in `dir` with all that is below. What is not there is no error.
///
/// # Errors
///
/// The first name that cannot be removed.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
    let mut deep = Deep { dir, name, moved: 0, left: Vec::new() };
    // Most of what is removed is no directory.
    if matches!(unlink(dir, name), Ok(()) | Err(Errno::NOENT)) {
        return Ok(());
    }
    remove(&mut deep, dir, name, 0)?;
    while let Some(name) = deep.left.pop() {
        remove(&mut deep, dir, &name, 0)?;
    }
    Ok(())
}

/// Removes what is in `dir`, but not the directory itself.
///
/// # Errors
///
/// As [`remove_tree`].
pub(crate) fn empty(dir: BorrowedFd<'_>) -> Result<(), Error> {
    let names = scan::names(dir).map_err(Error::io("read the directory", b"."))?;
    names.iter().try_for_each(|name| remove_tree(dir, name))
}

/// Where directories go that are too deep to be removed in place.
struct Deep<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    moved: usize,
    /// Those that have been moved and must still be removed.
    left: Vec<Vec<u8>>,
}

fn remove(
    deep: &mut Deep<'_>,
    parent: BorrowedFd<'_>,
    name: &[u8],
    depth: usize,
) -> Result<(), Error> {
    match unlink(parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What directories answer, by file system.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(Error::io("remove", name)(errno)),
    }
    if rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok() {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        deep.moved += 1;
        let above = [deep.name, format!(".deep{}", deep.moved).as_bytes()].concat();
        rustix::fs::renameat(parent, name, deep.dir, &above[..])
            .map_err(Error::io("move up", name))?;
        deep.left.push(above);
        return Ok(());
    }
    let dir = enter(parent, name).map_err(Error::io("enter", name))?;
    let children = scan::names(dir.as_fd()).map_err(Error::io("read the directory", name))?;
    descend(depth, || {
        children.iter().try_for_each(|child| remove(deep, dir.as_fd(), child, depth + 1))
    })?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(Error::io("remove", name))
}

/// Removes what is no directory; gives the caller access to the parent if that is what is missing.
fn unlink(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(parent, Mode::RWXU)?;
            rustix::fs::unlinkat(parent, name, AtFlags::empty())
        }
        result => result,
    }
}

/// Opens a directory, giving the caller access if it has none (overlay's `work/work` has mode 0).
fn enter(parent: BorrowedFd<'_>, name: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    match open_dir(parent, name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn removes_what_nobody_may_enter() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let work = temp.path().join("t/work/work");
        fs::create_dir_all(&work).expect("mkdir");
        fs::write(work.join("f"), "x").expect("write");
        fs::set_permissions(&work, Permissions::from_mode(0o0)).expect("chmod");
        fs::set_permissions(temp.path().join("t/work"), Permissions::from_mode(0o500))
            .expect("chmod");
        let root = File::open(temp.path()).expect("open");
        remove_tree(root.as_fd(), b"t").expect("removes");
        remove_tree(root.as_fd(), b"t").expect("is gone already");
        assert_eq!(fs::read_dir(temp.path()).expect("reads").count(), 0);
    }

    #[test]
    fn removes_what_is_deeper_than_any_path() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let root = File::open(temp.path()).expect("open");
        let mut dir = root.try_clone().expect("dup");
        for _ in 0..3 * MAX_DEPTH {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).expect("mkdir");
            dir = File::from(open_dir(dir.as_fd(), b"d").expect("open"));
        }
        remove_tree(root.as_fd(), b"d").expect("removes");
        assert_eq!(fs::read_dir(temp.path()).expect("reads").count(), 0);
    }

    #[test]
    fn links_are_removed_not_followed() {
        let temp = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(temp.path().join("keep")).expect("mkdir");
        fs::write(temp.path().join("keep/f"), "x").expect("write");
        fs::create_dir(temp.path().join("t")).expect("mkdir");
        std::os::unix::fs::symlink("../keep", temp.path().join("t/l")).expect("symlink");
        let root = File::open(temp.path()).expect("open");
        remove_tree(root.as_fd(), b"t").expect("removes");
        assert!(temp.path().join("keep/f").exists());
    }
}
