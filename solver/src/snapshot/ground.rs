//! What an archive is applied to: a directory, or the listing alone.
//!
//! An [`Applier`](super::apply::Applier) decides and asks the ground whether a path leads through
//! directories. A directory knows by what is in it, a listing by its entries; for an archive that is
//! applied in order the two say the same.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rbuild_store::entry::{Entry, Kind, Timestamp};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::apply::Names;
use super::dir::{self, Cursor, MAX_DEPTH, Obstacle, common_prefix, open_beneath, split};
use super::error::{Error, show};
use super::grow::finish_dirs;
use super::links::PathKey;
use super::lower::{Found, Lower};
use super::owner::Table;
use super::place::Placer;
use super::remove::remove_tree;
use crate::tree::listing::join;

/// Bytes of content moved at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where inodes are made, in the directory that was entered last.
pub(crate) trait Ground: Debug {
    /// Goes to a directory of what there is so far; on an obstacle, as far as possible.
    fn enter(&mut self, dir: &[u8], names: &Names) -> Result<(), Obstacle>;

    /// Forgets a directory that is about to be removed.
    fn forget(&mut self, path: &[u8]);

    /// Makes a directory.
    fn dir(&mut self, name: &[u8], entry: &Entry) -> Result<(), Errno>;

    /// Makes a regular file of the bytes of an archive.
    fn file(&mut self, name: &[u8], entry: &Entry, content: &mut dyn Read) -> Result<(), Error>;

    /// Makes a regular file of a layer below.
    fn lower_file(&mut self, name: &[u8], lower: &Lower<'_>, found: &Found) -> Result<(), Error>;

    /// Makes what is neither a directory, a regular file nor a hard link.
    fn other(&mut self, name: &[u8], entry: &Entry) -> Result<(), Errno>;

    /// Makes another name of what is at `target`.
    fn link(&mut self, target: &[u8], name: &[u8]) -> Result<(), Errno>;

    /// Removes all that is at a name.
    fn remove(&mut self, name: &[u8]) -> Result<(), Error>;

    /// Completes directories, and returns what the inodes could not carry.
    fn finish(&mut self, implied: &BTreeSet<Vec<u8>>, listing: &[Entry]) -> Result<Table, Error>;
}

/// An empty directory that becomes the layer's files.
#[derive(Debug)]
pub(crate) struct Disk<'fd> {
    root: BorrowedFd<'fd>,
    placer: Placer,
    cursor: Cursor<'fd>,
    owners: Table,
    buffer: Vec<u8>,
}

impl<'fd> Disk<'fd> {
    pub(crate) fn new(root: BorrowedFd<'fd>, placer: Placer) -> Self {
        let (cursor, buffer) = (Cursor::new(root), vec![0; BUFFER_BYTES]);
        Self { root, placer, cursor, owners: Table::default(), buffer }
    }
}

impl Ground for Disk<'_> {
    fn enter(&mut self, dir: &[u8], _: &Names) -> Result<(), Obstacle> {
        self.cursor.enter(dir).map(drop)
    }

    fn forget(&mut self, path: &[u8]) {
        self.cursor.forget(path);
    }

    fn dir(&mut self, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        self.placer.make_dir(self.cursor.fd(), name, entry)
    }

    fn file(&mut self, name: &[u8], entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let path = &entry.path;
        let mut file = self
            .placer
            .create_file(self.cursor.fd(), name, &entry_for_mode(entry.mode))
            .map_err(Error::io("create", path))?;
        if Some(copy(content, &mut file, &mut self.buffer, path)?) != entry.kind.file_size() {
            return Err(Error::archive(path, "is not as long as it says"));
        }
        self.placer.finish_file(&file, entry).map_err(Error::io("write", path))
    }

    fn lower_file(&mut self, name: &[u8], lower: &Lower<'_>, found: &Found) -> Result<(), Error> {
        self.file(name, &found.entry, &mut lower.open(found)?)
    }

    fn other(&mut self, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        self.placer.make_other(self.cursor.fd(), name, entry, &mut self.owners)
    }

    fn link(&mut self, target: &[u8], name: &[u8]) -> Result<(), Errno> {
        let (parent, target) = split(target);
        let from = open_beneath(self.root, parent, dir::DIR_FLAGS)?;
        rustix::fs::linkat(from.as_fd(), target, self.cursor.fd(), name, AtFlags::empty())
    }

    fn remove(&mut self, name: &[u8]) -> Result<(), Error> {
        remove_tree(self.cursor.fd(), name)
    }

    fn finish(&mut self, implied: &BTreeSet<Vec<u8>>, listing: &[Entry]) -> Result<Table, Error> {
        let default = |path: &[u8]| Entry::dir(path, Timestamp::default());
        let implied: Vec<Entry> = implied.iter().map(|it| default(it)).collect();
        finish_dirs(self.root, self.placer, implied.iter())?;
        if listing.first().is_none_or(|first| !first.path.is_empty()) {
            finish_dirs(self.root, self.placer, std::iter::once(&default(b"")))?;
        }
        finish_dirs(self.root, self.placer, listing.iter())?;
        Ok(std::mem::take(&mut self.owners))
    }
}

/// Nothing is made but the files that somebody wants to read, under all their names: what an archive
/// does to one name of an inode decides what the others have.
#[derive(Debug, Default)]
pub(crate) struct Paper<'a> {
    /// The directory that was entered last, which is there.
    path: Vec<u8>,
    wanted: Option<Wanted<'a>>,
}

/// Files that are to be read.
#[derive(Debug)]
struct Wanted<'a> {
    wish: Wish<'a>,
    /// Below what they are put.
    root: BorrowedFd<'a>,
    buffer: Vec<u8>,
}

/// Which files are to be read.
#[derive(Debug)]
pub(crate) enum Wish<'a> {
    /// These.
    Names(BTreeSet<&'a [u8]>),
    /// Those at and below paths that end or go on like these, whatever directories are links.
    Like(&'a [Vec<u8>]),
}

impl Wish<'_> {
    fn has(&self, path: &[u8]) -> bool {
        match self {
            Self::Names(names) => names.contains(path),
            Self::Like(some) => some.iter().any(|it| has_part(path, it)),
        }
    }
}

/// Whether successive components of a path are those of `part`.
fn has_part(path: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find_iter(path, part).any(|at| {
        let end = at + part.len();
        (at == 0 || path[at - 1] == b'/') && (end == path.len() || path[end] == b'/')
    })
}

impl<'a> Paper<'a> {
    /// For an archive of which some files are to be read: below `root`, each at its path. One that
    /// is there afterwards has the content that the layer has at that path.
    pub(crate) fn with(wish: Wish<'a>, root: BorrowedFd<'a>) -> Self {
        let wanted = Wanted { wish, root, buffer: vec![0; BUFFER_BYTES] };
        Self { path: Vec::new(), wanted: Some(wanted) }
    }
}

impl Wanted<'_> {
    /// Removes what this archive has put at a path.
    fn remove(&self, path: &[u8]) -> Result<(), Error> {
        let remove = |path: &[u8]| {
            let (parent, name) = split(path);
            match open_beneath(self.root, parent, dir::DIR_FLAGS) {
                Ok(dir) => remove_tree(dir.as_fd(), name),
                Err(_) => Ok(()),
            }
        };
        match &self.wish {
            // Other files are from an earlier reading.
            Wish::Names(names) => {
                let mut gone = names.iter().filter(|name| dir::starts_with_dir(name, path));
                gone.try_for_each(|name| remove(name))
            }
            Wish::Like(_) => remove(path),
        }
    }
}

impl Ground for Paper<'_> {
    fn enter(&mut self, dir: &[u8], names: &Names) -> Result<(), Obstacle> {
        let mut length = common_prefix(&self.path, dir);
        if dir.split(|&byte| byte == b'/').count() > MAX_DEPTH {
            return Err(Obstacle::TooDeep(dir.to_vec()));
        }
        while length < dir.len() {
            let start = if length == 0 { 0 } else { length + 1 };
            let end = memchr::memchr(b'/', &dir[start..]).map_or(dir.len(), |at| start + at);
            let key = PathKey(dir[..end].to_vec());
            match names.entries.get(&key) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Err(Obstacle::Refused(key.0, Errno::NOTDIR)),
                None if names.implied.contains(&key.0) => {}
                None => return Err(Obstacle::Missing(key.0)),
            }
            length = end;
        }
        self.path.clear();
        self.path.extend_from_slice(dir);
        Ok(())
    }

    fn forget(&mut self, path: &[u8]) {
        if dir::starts_with_dir(&self.path, path) {
            self.path.truncate(split(path).0.len());
        }
    }

    fn dir(&mut self, _: &[u8], _: &Entry) -> Result<(), Errno> {
        Ok(())
    }

    fn file(&mut self, _: &[u8], entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let path = &entry.path[..];
        let wanted = self.wanted.as_mut().filter(|it| it.wish.has(path));
        let Some(wanted) = wanted else { return Ok(()) };
        wanted.remove(path)?;
        let made = make_parent(wanted.root, path).and_then(|parent| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(parent, split(path).1, flags, Mode::RUSR | Mode::WUSR)
        });
        let mut file = std::fs::File::from(made.map_err(Error::io("create", path))?);
        if Some(copy(content, &mut file, &mut wanted.buffer, path)?) != entry.kind.file_size() {
            return Err(Error::archive(path, "is not as long as it says"));
        }
        Ok(())
    }

    fn lower_file(&mut self, _: &[u8], _: &Lower<'_>, _: &Found) -> Result<(), Error> {
        Ok(())
    }

    fn other(&mut self, _: &[u8], _: &Entry) -> Result<(), Errno> {
        Ok(())
    }

    fn link(&mut self, target: &[u8], name: &[u8]) -> Result<(), Errno> {
        let path = join(&self.path, name);
        let wanted = self.wanted.as_ref().filter(|it| it.wish.has(&path));
        let Some(wanted) = wanted else { return Ok(()) };
        let (parent, target) = split(target);
        let to = make_parent(wanted.root, &path)?;
        let linked = open_beneath(wanted.root, parent, dir::DIR_FLAGS)
            .and_then(|from| rustix::fs::linkat(from, target, to, name, AtFlags::empty()));
        match linked {
            // What it links to has another content in the end, or is a lower layer's.
            Err(Errno::NOENT) => Ok(()),
            linked => linked,
        }
    }

    fn remove(&mut self, name: &[u8]) -> Result<(), Error> {
        let path = join(&self.path, name);
        self.wanted.as_ref().map_or(Ok(()), |wanted| wanted.remove(&path))
    }

    fn finish(&mut self, _: &BTreeSet<Vec<u8>>, _: &[Entry]) -> Result<Table, Error> {
        Ok(Table::default())
    }
}

/// Opens the directory that a path is in, made with those above it.
fn make_parent(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let parent = split(path).0;
    let mut cursor = Cursor::new(root);
    loop {
        let missing = match cursor.enter(parent) {
            Ok(dir) => return rustix::io::fcntl_dupfd_cloexec(dir, 0),
            Err(Obstacle::Missing(missing)) => missing,
            Err(Obstacle::Refused(_, errno)) => return Err(errno),
            Err(Obstacle::TooDeep(_)) => return Err(Errno::NAMETOOLONG),
        };
        rustix::fs::mkdirat(cursor.fd(), split(&missing).1, Mode::RWXU)?;
    }
}

/// Only the mode counts when a file is created.
fn entry_for_mode(mode: u32) -> Entry {
    Entry { kind: Kind::Fifo, mode, ..Entry::dir(Vec::new(), Timestamp::default()) }
}

fn copy(
    content: &mut dyn Read,
    file: &mut std::fs::File,
    buffer: &mut [u8],
    path: &[u8],
) -> Result<u64, Error> {
    let mut size = 0;
    loop {
        // Fill the buffer: large writes, and one for a small file.
        let mut length = 0;
        while length < buffer.len() {
            match content.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Stream { layer: show(path), source }),
            }
        }
        if length == 0 {
            return Ok(size);
        }
        file.write_all(&buffer[..length]).map_err(Error::io("write", path))?;
        size += length as u64;
        if length < buffer.len() {
            return Ok(size);
        }
    }
}
