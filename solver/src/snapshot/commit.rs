//! The difference that a step made: an overlay's upper directory, read once, as a listing.
//!
//! What counts as changed, and which parents a layer names, follows BuildKit's overlay differ
//! (`util/overlay`) and containerd's archive writer, since the paths of a layer are visible to
//! users:
//!
//! - a directory is named if it is new, if its owner, mode or capabilities changed, or because
//!   something below it is named; a new time alone is no change;
//! - another inode is left out if owner, mode, size and time to the nanosecond are as below, and,
//!   where the times have no nanoseconds, the content too;
//! - an opaque directory over a lower one becomes a whiteout for each name that is gone;
//! - of hard links the first name is the file, the others link to it;
//! - sockets are left out (of the layer's files, too, so that they show the same as the layer), and of extended attributes only `security.capability` is kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};

use rbuild_store::entry::{Entry, Kind, Timestamp};
use rustix::fs::{FileType, OFlags, Statx};

use super::dir::{self, MAX_DEPTH};
use super::error::Error;
use super::owner::{Meta, Table};
use super::scan::{self, Attributes, CAPABILITY, Item};
use super::stamps::Stamps;
use crate::tree::listing::{MAX_PATH, join};
use crate::tree::view::{Node, View};

/// Content of lower files: layer index and path.
pub(crate) type OpenLower<'a> = &'a (dyn Fn(usize, &[u8]) -> Result<File, Error> + Sync);

/// What a step has changed.
#[derive(Debug)]
pub(crate) struct Difference {
    /// In listing order.
    pub(crate) listing: Vec<Entry>,
    /// Sockets, which no layer has.
    pub(crate) sockets: Vec<Vec<u8>>,
    /// What the files of a whole tree look like now.
    pub(crate) stamps: Stamps,
}

/// Reads an upper directory.
///
/// `own` is the caller's owner where the host has no other (see [`Meta::intended`]).
///
/// # Errors
///
/// If the disk refuses, or there are more than [`MAX_DEPTH`] levels.
pub(crate) fn difference(
    upper: BorrowedFd<'_>,
    lower: &View,
    owners: &Table,
    own: Option<(u32, u32)>,
    open_lower: OpenLower<'_>,
) -> Result<Difference, Error> {
    let mut differ = Differ::new(lower, owners, own, open_lower, None);
    let root = lower.root();
    let place = Place { dir: upper, path: b"", depth: 0 };
    differ.directory(&place, Some(&root), false)?;
    Ok(differ.found())
}

/// Reads a whole tree that was `lower` before, and whose files then had `stamps`.
///
/// # Errors
///
/// As [`difference`].
pub(crate) fn difference_of_tree(
    tree: BorrowedFd<'_>,
    lower: &View,
    owners: &Table,
    own: Option<(u32, u32)>,
    open_lower: OpenLower<'_>,
    stamps: &Stamps,
) -> Result<Difference, Error> {
    let mut differ = Differ::new(lower, owners, own, open_lower, Some(stamps));
    let root = lower.root();
    let place = Place { dir: tree, path: b"", depth: 0 };
    differ.directory(&place, Some(&root), true)?;
    Ok(differ.found())
}

struct Differ<'a> {
    lower: &'a View,
    owners: &'a Table,
    own: Option<(u32, u32)>,
    open_lower: OpenLower<'a>,
    /// For a whole tree: what need not be looked at.
    stamps: Option<&'a Stamps>,
    seen: Stamps,
    entries: Vec<Entry>,
    /// Unchanged directories that the walk is in, outermost first: named once something below is.
    parents: Vec<Entry>,
    sockets: Vec<Vec<u8>>,
    /// First names of inodes with several.
    links: HashMap<u64, Vec<u8>>,
}

/// A directory of the upper.
struct Place<'a> {
    dir: BorrowedFd<'a>,
    path: &'a [u8],
    depth: usize,
}

impl<'a> Differ<'a> {
    fn new(
        lower: &'a View,
        owners: &'a Table,
        own: Option<(u32, u32)>,
        open_lower: OpenLower<'a>,
        stamps: Option<&'a Stamps>,
    ) -> Self {
        Self {
            lower,
            owners,
            own,
            open_lower,
            stamps,
            seen: Stamps::default(),
            entries: Vec::new(),
            parents: Vec::new(),
            sockets: Vec::new(),
            links: HashMap::new(),
        }
    }

    fn found(self) -> Difference {
        Difference { listing: self.entries, sockets: self.sockets, stamps: self.seen }
    }

    /// Goes through one directory, which below is `lower`, if it is there. `opaque`: nothing of
    /// `lower` is seen through it.
    fn directory(
        &mut self,
        place: &Place<'_>,
        lower: Option<&Node<'a>>,
        opaque: bool,
    ) -> Result<(), Error> {
        dir::descend(place.depth, || self.directory_here(place, lower, opaque))
    }

    fn directory_here(
        &mut self,
        place: &Place<'_>,
        lower: Option<&Node<'a>>,
        opaque: bool,
    ) -> Result<(), Error> {
        if place.depth > MAX_DEPTH {
            let path = super::error::show(place.path);
            return Err(Error::Limit {
                path,
                what: "depth of directories",
                limit: MAX_DEPTH as u64,
            });
        }
        let items = scan::list(place.dir).map_err(Error::io("read the directory", place.path))?;
        let Some(lower) = lower else {
            return items.iter().try_for_each(|item| self.item(place, None, item, false));
        };
        if !opaque {
            return items.iter().try_for_each(|item| {
                let lower = self.lower.child(lower, &item.name);
                self.item(place, lower, item, false)
            });
        }
        let mut items = items.into_iter().peekable();
        for child in self.lower.children(lower) {
            while let Some(item) = items.next_if(|it| it.name.as_slice() < child.name()) {
                self.item(place, None, &item, true)?;
            }
            match items.next_if(|it| it.name == child.name()) {
                Some(item) => self.item(place, Some(child), &item, true)?,
                None => self.emit(whiteout(child.path())),
            }
        }
        items.try_for_each(|item| self.item(place, None, &item, true))
    }

    fn item(
        &mut self,
        place: &Place<'_>,
        lower: Option<Node<'a>>,
        item: &Item,
        opaque: bool,
    ) -> Result<(), Error> {
        let path = join(place.path, &item.name);
        if path.len() > MAX_PATH {
            let (what, limit) = ("length of a path", MAX_PATH as u64);
            return Err(Error::Limit { path: super::error::show(&path), what, limit });
        }
        if let Some(stamps) = self.stamps.filter(|_| item.file_type() != FileType::Directory) {
            self.seen.put(path.clone(), &item.stat);
            if stamps.is_unchanged(&path, &item.stat) {
                return Ok(());
            }
        }
        if is_whiteout(&item.stat) {
            // A name that was never there below is no difference.
            if lower.is_some() {
                self.emit(whiteout(&path));
            }
            return Ok(());
        }
        if item.file_type() == FileType::Socket {
            self.sockets.push(path);
            return Ok(());
        }
        let attributes = scan::attributes(place.dir, &item.name)
            .map_err(Error::io("read the attributes of", &path))?;
        let record = attributes.record.or_else(|| self.owners.get(&path));
        let meta = Meta::intended(&item.stat, record, self.own);
        let entry = entry_of(place, &path, item, meta, &attributes)?;
        if meta.file_type() == FileType::Directory {
            return self.subdirectory(place, item, entry, lower, opaque || attributes.opaque);
        }
        match lower {
            Some(node) if self.is_same(place, &path, item, &entry, &node)? => Ok(()),
            Some(_) | None => {
                let entry = self.linked(item, entry);
                self.emit(entry);
                Ok(())
            }
        }
    }

    fn subdirectory(
        &mut self,
        place: &Place<'_>,
        item: &Item,
        entry: Entry,
        lower: Option<Node<'a>>,
        opaque: bool,
    ) -> Result<(), Error> {
        let path = entry.path.clone();
        let dir = dir::open_dir(place.dir, &item.name).map_err(Error::io("open", &path))?;
        let below = Place { dir: dir.as_fd(), path: &path, depth: place.depth + 1 };
        match lower.filter(Node::is_dir) {
            Some(node) if same_owner(&entry, node.inode()) => {
                let length = self.parents.len();
                self.parents.push(entry);
                self.directory(&below, Some(&node), opaque)?;
                self.parents.truncate(length);
                Ok(())
            }
            Some(node) => {
                self.emit(entry);
                self.directory(&below, Some(&node), opaque)
            }
            None => {
                self.emit(entry);
                self.directory(&below, None, false)
            }
        }
    }

    fn emit(&mut self, entry: Entry) {
        self.entries.append(&mut self.parents);
        self.entries.push(entry);
    }

    /// The entry of an inode that may have been met under another name.
    fn linked(&mut self, item: &Item, mut entry: Entry) -> Entry {
        if item.stat.stx_nlink > 1 {
            match self.links.get(&item.stat.stx_ino) {
                Some(first) => entry.kind = Kind::Hardlink { target: first.clone() },
                None => {
                    self.links.insert(item.stat.stx_ino, entry.path.clone());
                }
            }
        }
        entry
    }

    /// Whether a copied-up inode is what it was below.
    fn is_same(
        &self,
        place: &Place<'_>,
        path: &[u8],
        item: &Item,
        upper: &Entry,
        lower: &Node<'_>,
    ) -> Result<bool, Error> {
        let inode = lower.inode();
        let same = match (&upper.kind, &inode.kind) {
            (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => a == b,
            (a, b) => a == b,
        };
        if !same || !same_owner(upper, inode) || upper.mtime != inode.mtime {
            return Ok(false);
        }
        if upper.mtime.nanos != 0 || item.stat.stx_size == 0 {
            return Ok(true);
        }
        let Kind::File { .. } = upper.kind else { return Ok(true) };
        let mut ours = open_file(place.dir, &item.name).map_err(Error::io("open", path))?;
        let mut theirs = (self.open_lower)(lower.layer(), &inode.path)?;
        same_content(&mut ours, &mut theirs).map_err(Error::io("compare", path))
    }
}

/// What the disk says of an inode, as an entry.
fn entry_of(
    place: &Place<'_>,
    path: &[u8],
    item: &Item,
    meta: Meta,
    attributes: &Attributes,
) -> Result<Entry, Error> {
    let (major, minor) = meta.device_parts();
    let kind = match meta.file_type() {
        FileType::RegularFile => Kind::File { size: item.stat.stx_size, digest: None },
        FileType::Directory => Kind::Dir { opaque: false },
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(place.dir, &item.name[..], Vec::new())
                .map_err(Error::io("read the link", path))?;
            Kind::Symlink { target: target.into_bytes() }
        }
        FileType::CharacterDevice => Kind::Char { major, minor },
        FileType::BlockDevice => Kind::Block { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => {
            return Err(Error::Bug(format!("`{}` has no type", super::error::show(path))));
        }
    };
    let capability = attributes.capability.clone();
    Ok(Entry {
        path: path.to_vec(),
        kind,
        mode: meta.permissions(),
        uid: meta.uid,
        gid: meta.gid,
        mtime: mtime(&item.stat),
        xattrs: capability.map(|it| (CAPABILITY.into(), it)).into_iter().collect(),
    })
}

/// Owner, mode, and capabilities.
fn same_owner(a: &Entry, b: &Entry) -> bool {
    let capability = |entry: &Entry| entry.xattrs.get(CAPABILITY.as_bytes()).cloned();
    (a.uid, a.gid, a.mode) == (b.uid, b.gid, b.mode) && capability(a) == capability(b)
}

fn same_content(a: &mut File, b: &mut File) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let length = read_full(a, &mut left)?;
        if read_full(b, &mut right)? != length || left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

/// Bytes that are compared at once.
const COMPARE_BYTES: usize = 64 * 1024;

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<File> {
    dir::open_beneath(dir, name, OFlags::RDONLY).map(File::from)
}

/// Overlay's "nothing here".
pub(crate) fn is_whiteout(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::CharacterDevice
        && (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0)
}

/// The entry of a path that is gone.
pub(crate) fn whiteout(path: &[u8]) -> Entry {
    Entry { kind: Kind::Whiteout, mode: 0, ..Entry::dir(path, Timestamp::default()) }
}

/// Time of the last change of content.
pub(crate) fn mtime(stat: &Statx) -> Timestamp {
    Timestamp { secs: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec }
}
