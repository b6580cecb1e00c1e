//! Directory handles: how names below a root are reached.
//!
//! Every component is opened relative to the handle of its parent and without following symbolic
//! links, so nothing outside of the root can be reached, whatever is renamed meanwhile. A
//! [`Cursor`] keeps the handles of the directory it is in and of its parents: entries in listing
//! order cost one `openat` for each directory, not one for each component.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::error::Error;

/// Deepest directory that is walked or written: one handle is held for each level.
pub(crate) const MAX_DEPTH: usize = 400;

/// Bytes of stack that one level of a walk takes at most.
const LEVEL_BYTES: usize = 32 * 1024;

/// Runs a walk that calls itself for each level on a stack that is large enough.
///
/// # Errors
///
/// If the host has no more threads.
pub(crate) fn on_deep_stack<T: Send>(
    walk: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size((MAX_DEPTH + 2) * LEVEL_BYTES)
            .spawn_scoped(scope, walk)
            .map_err(Error::io("start", "a thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Levels of a walk that any stack is large enough for: most walks never go deeper, and need no
/// thread.
const SHALLOW_LEVELS: usize = 16;

/// Runs the part of a walk that is `depth` levels down; from a certain depth on as
/// [`on_deep_stack`].
///
/// # Errors
///
/// As [`on_deep_stack`].
pub(crate) fn descend<T: Send>(
    depth: usize,
    walk: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    if depth == SHALLOW_LEVELS { on_deep_stack(walk) } else { walk() }
}

/// How directories are opened.
pub(crate) const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What `statx` is asked for.
pub(crate) const STAT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Opens a directory by name in another, not following a link.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty())
}

/// Opens what is at `path` below `root`, following no link and never leaving `root`. The empty
/// path is the root itself.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if path.is_empty() {
        return rustix::fs::openat(root, c".", flags, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and container profiles that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_stepwise(root, path, flags),
        result => result,
    }
}

/// [`open_beneath`] where the kernel cannot do it in one call.
fn open_stepwise(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut names = path.split(|&byte| byte == b'/').peekable();
    while let Some(name) = names.next() {
        if !is_plain(name) {
            return Err(Errno::XDEV);
        }
        let parent = held.as_ref().map_or(root, |fd| fd.as_fd());
        if names.peek().is_none() {
            return rustix::fs::openat(parent, name, flags, Mode::empty());
        }
        held = Some(open_dir(parent, name)?);
    }
    Err(Errno::NOENT)
}

/// Whether this can be the name of something in a directory.
pub(crate) fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}

/// `statx` of a name, not following a link. An empty name is the handle itself.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let flags = if name.is_empty() { flags | AtFlags::EMPTY_PATH } else { flags };
    rustix::fs::statx(dir, name, flags, STAT)
}

/// A path for the calls that take no directory handle (`lgetxattr` and its like), by way of
/// `/proc/self/fd`. Only the last component is looked up, and never followed.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Parent directory and last component of a path in listing form.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A moving position in a tree of directories.
#[derive(Debug)]
pub(crate) struct Cursor<'fd> {
    root: BorrowedFd<'fd>,
    /// Path of the directory that the cursor is in.
    path: Vec<u8>,
    /// For each component of `path`: where it ends, and its handle.
    stack: Vec<(usize, OwnedFd)>,
}

/// What a cursor met where it wanted a directory.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// Nothing is there: the path of the first missing directory.
    Missing(Vec<u8>),
    /// Something that is no directory, or cannot be opened: its path and why.
    Refused(Vec<u8>, Errno),
    /// More than [`MAX_DEPTH`] levels: the whole path.
    TooDeep(Vec<u8>),
}

impl<'fd> Cursor<'fd> {
    /// Starts in `root`.
    pub(crate) fn new(root: BorrowedFd<'fd>) -> Self {
        Self { root, path: Vec::new(), stack: Vec::new() }
    }

    /// The handle of the directory that the cursor is in.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// Goes to a directory. On an obstacle the cursor stays in the last directory that it could
    /// enter, so that the caller can make the next one and go on.
    pub(crate) fn enter(&mut self, dir: &[u8]) -> Result<BorrowedFd<'_>, Obstacle> {
        self.leave_to(common_prefix(&self.path, dir));
        while self.path.len() < dir.len() {
            let start = if self.path.is_empty() { 0 } else { self.path.len() + 1 };
            let end = memchr::memchr(b'/', &dir[start..]).map_or(dir.len(), |at| start + at);
            if self.stack.len() >= MAX_DEPTH {
                return Err(Obstacle::TooDeep(dir.to_vec()));
            }
            let fd = open_dir(self.fd(), &dir[start..end]).map_err(|errno| match errno {
                Errno::NOENT => Obstacle::Missing(dir[..end].to_vec()),
                other => Obstacle::Refused(dir[..end].to_vec(), other),
            })?;
            self.path.clear();
            self.path.extend_from_slice(&dir[..end]);
            self.stack.push((end, fd));
        }
        Ok(self.fd())
    }

    /// Forgets handles at and below `path`: it is about to be removed.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        if starts_with_dir(&self.path, path) {
            self.leave_to(split(path).0.len());
        }
    }

    fn leave_to(&mut self, length: usize) {
        while self.stack.last().is_some_and(|(end, _)| *end > length) {
            self.stack.pop();
        }
        self.path.truncate(self.stack.last().map_or(0, |(end, _)| *end));
    }
}

/// Whether `path` is `dir` or below it.
pub(crate) fn starts_with_dir(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Length of the longest path that is both `a` or a parent of it, and `b` or a parent of it.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let ends = |path: &[u8]| path.len() == same || path[same] == b'/';
    if ends(a) && ends(b) {
        return same;
    }
    memchr::memrchr(b'/', &a[..same]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn common_prefixes_are_whole_components() {
        let common = |a: &str, b: &str| common_prefix(a.as_bytes(), b.as_bytes());
        assert_eq!(common("a/b", "a/b/c"), 3);
        assert_eq!(common("a/b", "a/bc"), 1);
        assert_eq!(common("ab", "ac"), 0);
        assert_eq!(common("", "a"), 0);
        assert_eq!(common("a/b", "a/b"), 3);
    }

    #[test]
    fn cursor_moves_and_meets_obstacles() {
        let temp = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(temp.path().join("a/b")).expect("mkdir");
        std::os::unix::fs::symlink("a", temp.path().join("l")).expect("symlink");
        let root = fs::File::open(temp.path()).expect("open");
        let mut cursor = Cursor::new(root.as_fd());
        cursor.enter(b"a/b").expect("is there");
        assert!(matches!(cursor.enter(b"a/c/d"), Err(Obstacle::Missing(path)) if path == b"a/c"));
        assert_eq!(cursor.path, b"a");
        assert!(matches!(cursor.enter(b"l/b"), Err(Obstacle::Refused(path, _)) if path == b"l"));
        cursor.enter(b"").expect("the root");
    }

    #[test]
    fn nothing_outside_is_opened() {
        let temp = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::symlink("/etc", temp.path().join("etc")).expect("symlink");
        let root = fs::File::open(temp.path()).expect("open");
        for path in ["etc/passwd", "../x", "/etc/passwd", "etc"] {
            let path = path.as_bytes();
            assert!(open_beneath(root.as_fd(), path, OFlags::RDONLY).is_err());
            assert!(open_stepwise(root.as_fd(), path, OFlags::RDONLY | OFlags::NOFOLLOW).is_err());
        }
    }
}
