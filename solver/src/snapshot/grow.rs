//! Makes many inodes below a directory: first the directories, then the files (by several threads),
//! then links and special files, and last what directories are given once they are complete.

use std::fs::File;
use std::io::Write as _;
use std::num::NonZero;
use std::os::fd::{AsFd as _, BorrowedFd};

use rbuild_store::entry::{Entry, Kind, Timestamp};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::copy;
use super::dir::{self, Cursor, MAX_DEPTH, Obstacle, open_beneath, split, stat};
use super::error::{Error, show};
use super::owner::Table;
use super::place::Placer;
use super::remove::{empty, remove_tree};
use crate::tree::listing::compare;

/// Where the bytes of a regular file come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes<'a> {
    /// From here.
    Inline(&'a [u8]),
    /// From the file at a path below a directory.
    File(BorrowedFd<'a>, &'a [u8]),
    /// They are those of the file at a path below a directory: the same inode, which nobody may
    /// change from then on.
    Link(BorrowedFd<'a>, &'a [u8]),
}

/// One inode to make. Hard links come after what they link to; parents come before children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) entry: &'a Entry,
    /// For regular files.
    pub(crate) bytes: Option<Bytes<'a>>,
}

impl Item<'_> {
    /// The same inode, instead of a copy of its content.
    pub(crate) fn linked(mut self) -> Self {
        if let Some(Bytes::File(dir, path)) = self.bytes {
            self.bytes = Some(Bytes::Link(dir, path));
        }
        self
    }
}

/// Fewer files than this are written by one thread.
const FILES_PER_THREAD: usize = 128;

/// More threads do not help: the kernel serialises on the journal.
const MAX_THREADS: usize = 4;

/// Makes `items`, in listing order, in `root`, which is new. Directories that no item describes are
/// made as root's with mode 0755. Returns what is recorded about inodes that cannot carry an
/// attribute.
///
/// # Errors
///
/// If a content is missing or not of its entry's size, or the disk refuses.
pub(crate) fn grow(
    root: BorrowedFd<'_>,
    placer: Placer,
    items: &[Item<'_>],
) -> Result<Table, Error> {
    let owners = grow_below(root, placer, items)?;
    if items.first().is_none_or(|first| !first.entry.path.is_empty()) {
        let default = Entry::dir(Vec::new(), Timestamp::default());
        finish_dirs(root, placer, std::iter::once(&default))?;
    }
    Ok(owners)
}

/// [`grow`] in a directory that keeps its own metadata unless an item describes it.
///
/// # Errors
///
/// As [`grow`].
pub(crate) fn grow_below(
    root: BorrowedFd<'_>,
    placer: Placer,
    items: &[Item<'_>],
) -> Result<Table, Error> {
    let implied: Vec<Entry> = implied(items.iter().map(|item| item.entry))
        .into_iter()
        .map(|path| Entry::dir(path, Timestamp::default()))
        .collect();
    let described = items.iter().map(|item| item.entry).filter(|entry| entry.is_dir());
    let mut dirs: Vec<&Entry> = implied.iter().chain(described).collect();
    dirs.sort_by(|a, b| compare(&a.path, &b.path));
    make_dirs(root, placer, &dirs)?;
    let files: Vec<Item<'_>> =
        items.iter().filter(|it| matches!(it.entry.kind, Kind::File { .. })).copied().collect();
    write_files(root, placer, &files)?;
    let mut owners = Table::default();
    let mut cursor = Cursor::new(root);
    for item in items {
        make_rest(root, &mut cursor, placer, item.entry, &mut owners)?;
    }
    finish_dirs(root, placer, dirs.into_iter())?;
    Ok(owners)
}

/// The directories that entries are in and that no entry describes, parents first. The root is not
/// among them.
pub(crate) fn implied<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Vec<u8>> {
    let mut open: Vec<&[u8]> = vec![b""];
    let mut implied = Vec::new();
    for entry in entries {
        let parent = split(&entry.path).0;
        while open.last().is_some_and(|it| !dir::starts_with_dir(parent, it)) {
            open.pop();
        }
        while let Some(&last) = open.last()
            && last.len() < parent.len()
        {
            let start = if last.is_empty() { 0 } else { last.len() + 1 };
            let end = memchr::memchr(b'/', &parent[start..]).map_or(parent.len(), |at| start + at);
            implied.push(parent[..end].to_vec());
            open.push(&parent[..end]);
        }
        if entry.is_dir() && !entry.path.is_empty() {
            open.push(&entry.path);
        }
    }
    implied
}

fn make_dirs(root: BorrowedFd<'_>, placer: Placer, dirs: &[&Entry]) -> Result<(), Error> {
    let mut cursor = Cursor::new(root);
    for entry in dirs.iter().filter(|entry| !entry.path.is_empty()) {
        let (parent, name) = split(&entry.path);
        let dir = enter(&mut cursor, parent)?;
        placer.make_dir(dir, name, entry).map_err(io("create", entry))?;
    }
    Ok(())
}

/// Gives directories their metadata, deepest first, since a mode can take access away.
pub(crate) fn finish_dirs<'a>(
    root: BorrowedFd<'_>,
    placer: Placer,
    entries: impl DoubleEndedIterator<Item = &'a Entry>,
) -> Result<(), Error> {
    let mut cursor = Cursor::new(root);
    for entry in entries.rev().filter(|entry| entry.is_dir()) {
        let (parent, name) = split(&entry.path);
        let dir = enter(&mut cursor, parent)?;
        placer.finish_dir(dir, name, entry).map_err(io("set the metadata of", entry))?;
    }
    Ok(())
}

fn write_files(root: BorrowedFd<'_>, placer: Placer, files: &[Item<'_>]) -> Result<(), Error> {
    if files.len() <= FILES_PER_THREAD {
        // Nor is the host asked for its processors, which takes reading several files.
        return write_share(root, placer, files);
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let share = files.len().div_ceil(threads).max(FILES_PER_THREAD);
    if files.len() <= share {
        return write_share(root, placer, files);
    }
    std::thread::scope(|scope| {
        let work = |share| scope.spawn(move || write_share(root, placer, share));
        let threads: Vec<_> = files.chunks(share).map(work).collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .fold(Ok(()), Result::and)
    })
}

fn write_share(root: BorrowedFd<'_>, placer: Placer, files: &[Item<'_>]) -> Result<(), Error> {
    let mut cursor = Cursor::new(root);
    for item in files {
        let (parent, name) = split(&item.entry.path);
        let dir = enter(&mut cursor, parent)?;
        write_file(dir, name, placer, item)?;
    }
    Ok(())
}

/// Makes one regular file.
pub(crate) fn write_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    placer: Placer,
    item: &Item<'_>,
) -> Result<(), Error> {
    let Kind::File { size, .. } = item.entry.kind else {
        return Err(Error::Bug(format!("`{}` is no regular file", show(&item.entry.path))));
    };
    let bytes = item
        .bytes
        .ok_or_else(|| Error::Bug(format!("`{}` has no content", show(&item.entry.path))))?;
    if let Bytes::Link(source, path) = bytes {
        let (parent, source_name) = split(path);
        let from = open_beneath(source, parent, dir::DIR_FLAGS).map_err(Error::io("open", path))?;
        return rustix::fs::linkat(from, source_name, dir, name, AtFlags::empty())
            .map_err(io("link", item.entry));
    }
    let mut file = placer.create_file(dir, name, item.entry).map_err(io("create", item.entry))?;
    let written = match bytes {
        Bytes::Inline(bytes) => {
            file.write_all(bytes).map_err(Error::io("write", &item.entry.path))?;
            bytes.len() as u64
        }
        Bytes::File(source, path) => {
            let source = open_source(source, path)?;
            copy::content(&source, &file, size).map_err(Error::io("copy", path))?
        }
        Bytes::Link(..) => size,
    };
    check_size(item.entry, size, written)?;
    placer.finish_file(&file, item.entry).map_err(io("set the metadata of", item.entry))
}

/// Opens the regular file that a content comes from.
pub(crate) fn open_source(root: BorrowedFd<'_>, path: &[u8]) -> Result<File, Error> {
    // Not blocking: what was a file may have become a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = open_beneath(root, path, flags).map(File::from).map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("look at", path))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(Error::io("read", path)(std::io::Error::other("it is not a regular file")))
    }
}

/// A content that is not of the size that its listing says has changed meanwhile.
pub(crate) fn check_size(entry: &Entry, listed: u64, found: u64) -> Result<(), Error> {
    if listed == found {
        return Ok(());
    }
    let text = format!("it has changed during the build: it had {listed} bytes, now {found}");
    Err(Error::io("copy", &entry.path)(std::io::Error::other(text)))
}

fn make_rest(
    root: BorrowedFd<'_>,
    cursor: &mut Cursor<'_>,
    placer: Placer,
    entry: &Entry,
    owners: &mut Table,
) -> Result<(), Error> {
    let (parent, name) = split(&entry.path);
    match &entry.kind {
        Kind::Dir { .. } | Kind::File { .. } => Ok(()),
        Kind::Hardlink { target } => {
            let dir = enter(cursor, parent)?;
            let (target_parent, target_name) = split(target);
            let from = open_beneath(root, target_parent, dir::DIR_FLAGS)
                .map_err(Error::io("open", target_parent))?;
            rustix::fs::linkat(from.as_fd(), target_name, dir, name, AtFlags::empty())
                .map_err(io("link", entry))
        }
        Kind::Symlink { .. }
        | Kind::Char { .. }
        | Kind::Block { .. }
        | Kind::Fifo
        | Kind::Whiteout => {
            let dir = enter(cursor, parent)?;
            placer.make_other(dir, name, entry, owners).map_err(io("create", entry))
        }
    }
}

/// Enters a directory that is there.
pub(crate) fn enter<'c>(cursor: &'c mut Cursor<'_>, path: &[u8]) -> Result<BorrowedFd<'c>, Error> {
    cursor.enter(path).map_err(refused)
}

/// An obstacle as an error.
pub(crate) fn refused(obstacle: Obstacle) -> Error {
    match obstacle {
        Obstacle::Missing(path) => Error::io("open", path)(Errno::NOENT),
        Obstacle::Refused(path, errno) => Error::io("open", path)(errno),
        Obstacle::TooDeep(path) => {
            Error::Limit { path: show(path), what: "depth of directories", limit: MAX_DEPTH as u64 }
        }
    }
}

fn io(action: &'static str, entry: &Entry) -> impl FnOnce(Errno) -> Error {
    Error::io(action, &entry.path)
}

/// Removes from a tree what `entry` replaces or hides.
pub(crate) fn make_room(cursor: &mut Cursor<'_>, entry: &Entry) -> Result<(), Error> {
    let (parent, name) = split(&entry.path);
    if name.is_empty() {
        return Ok(());
    }
    let dir = match cursor.enter(parent) {
        Ok(dir) => dir,
        // Something is in the way that an earlier entry of this layer has not named.
        Err(Obstacle::Refused(path, Errno::LOOP | Errno::NOTDIR)) => {
            let name = split(&path).1.to_vec();
            return remove_tree(cursor.fd(), &name);
        }
        Err(Obstacle::Missing(_)) => return Ok(()),
        Err(obstacle) => return Err(refused(obstacle)),
    };
    let is_dir = match stat(dir, name) {
        Ok(stat) => {
            let mode = stat.stx_mode.into();
            FileType::from_raw_mode(mode) == FileType::Directory
        }
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::io("look at", &entry.path)(errno)),
    };
    match entry.kind {
        Kind::Dir { opaque: true } if is_dir => {
            let dir = dir::open_dir(dir, name).map_err(Error::io("open", &entry.path))?;
            empty(dir.as_fd())
        }
        Kind::Dir { .. } if is_dir => Ok(()),
        Kind::File { .. }
        | Kind::Dir { .. }
        | Kind::Symlink { .. }
        | Kind::Hardlink { .. }
        | Kind::Char { .. }
        | Kind::Block { .. }
        | Kind::Fifo
        | Kind::Whiteout => {
            remove_tree(dir, name)?;
            cursor.forget(&entry.path);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implied_directories_are_found_once() {
        let list = |paths: &[&str]| -> Vec<Entry> {
            let entry = |path: &&str| match path.strip_suffix('/') {
                Some(path) => Entry::dir(path, Timestamp::default()),
                None => Entry { kind: Kind::Fifo, ..Entry::dir(*path, Timestamp::default()) },
            };
            paths.iter().map(entry).collect()
        };
        let check = |paths: &[&str], want: &[&str]| {
            let found = implied(list(paths).iter());
            let found: Vec<_> = found.iter().map(|it| String::from_utf8_lossy(it)).collect();
            assert_eq!(found, want);
        };
        check(&["a/", "a/b", "a/c/", "a/c/d"], &[]);
        check(&["a/b/c", "a/b/d", "a/e/", "a/e/f", "b/x/", "b/x/y/z"], &["a", "a/b", "b", "b/x/y"]);
        check(&["a", "ab/c", "abc/d"], &["ab", "abc"]);
        check(&[""], &[]);
    }
}
