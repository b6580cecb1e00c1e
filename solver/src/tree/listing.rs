//! The entries of one layer, in order.
//!
//! The order is that of a walk: a directory comes before what is in it, siblings are sorted by the
//! bytes of their names. Put differently, paths are compared as if `/` came before every byte.
//! What always holds: no two entries have the same path, every path has the form that
//! [`Entry::path`] asks for, and a hard link's target is an entry that comes earlier and is neither
//! a directory, a whiteout nor itself a hard link. Parents need not be listed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use rbuild_store::entry::{Entry, Kind};

mod codec;

pub use codec::DecodeError;

/// Longest path of an entry, bytes: `PATH_MAX` of Linux, beyond which most programs cannot reach.
pub const MAX_PATH: usize = 4096;

/// Compares two paths in the order of a listing.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let differs = left.iter().zip(right).position(|(left, right)| left != right);
    match differs {
        Some(at) => rank(left[at]).cmp(&rank(right[at])),
        None => left.len().cmp(&right.len()),
    }
}

const fn rank(byte: u8) -> u8 {
    // Paths have no NUL, so the separator can take its rank.
    if byte == b'/' { 0 } else { byte }
}

/// Whether `path` is below `dir`; everything but the root itself is below the root.
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    if dir.is_empty() {
        return !path.is_empty();
    }
    path.len() > dir.len() && path[dir.len()] == b'/' && path.starts_with(dir)
}

/// The parent of a path and its last component; none for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match memchr::memrchr(b'/', path) {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

/// A path made of a directory and a name in it.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// Whether a path has the form that [`Entry::path`] asks for.
pub fn is_canonical(path: &[u8]) -> bool {
    path.is_empty()
        || (path.len() <= MAX_PATH
            && memchr::memchr(0, path).is_none()
            && path.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")))
}

/// Why entries are not a listing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ListingError {
    /// A path is not in the form of [`Entry::path`], or too long.
    #[error("`{}` is not a path of a layer", path.escape_ascii())]
    Path {
        /// The path.
        path: Vec<u8>,
    },
    /// Two entries are not in order, or have the same path.
    #[error("`{}` is out of order", path.escape_ascii())]
    Order {
        /// Path of the second one.
        path: Vec<u8>,
    },
    /// A hard link's target is missing, comes later, or cannot have another name.
    #[error("`{}` is a hard link to `{}`, which is no earlier file", path.escape_ascii(), target.escape_ascii())]
    Hardlink {
        /// Path of the link.
        path: Vec<u8>,
        /// Its target.
        target: Vec<u8>,
    },
}

/// The entries of one layer, or of one directory outside of the store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    entries: Vec<Entry>,
}

impl Listing {
    /// Takes entries that are in order.
    ///
    /// # Errors
    ///
    /// If one of the promises of this module does not hold.
    pub fn new(entries: Vec<Entry>) -> Result<Self, ListingError> {
        for (at, entry) in entries.iter().enumerate() {
            if !is_canonical(&entry.path) {
                return Err(ListingError::Path { path: entry.path.clone() });
            }
            if at > 0 && compare(&entries[at - 1].path, &entry.path) != Ordering::Less {
                return Err(ListingError::Order { path: entry.path.clone() });
            }
        }
        let listing = Self { entries };
        for (at, entry) in listing.entries.iter().enumerate() {
            let Kind::Hardlink { target } = &entry.kind else { continue };
            if !listing
                .position(target)
                .is_some_and(|first| first < at && listing.is_file_like(first))
            {
                let (path, target) = (entry.path.clone(), target.clone());
                return Err(ListingError::Hardlink { path, target });
            }
        }
        Ok(listing)
    }

    /// Takes the entries of an archive, in its order: a later entry replaces an earlier one of the
    /// same path, hard links may point to any earlier name, and whiteouts concern only what is
    /// below the layer, wherever they stand. The last description of a directory counts.
    ///
    /// Something that is not a directory loses what was listed below it.
    ///
    /// # Errors
    ///
    /// If a path is not canonical or a hard link's target is missing.
    pub fn from_archive(archive: impl IntoIterator<Item = Entry>) -> Result<Self, ListingError> {
        let mut inodes: Vec<Entry> = Vec::new();
        let mut names: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for mut entry in archive {
            if !is_canonical(&entry.path) {
                return Err(ListingError::Path { path: entry.path });
            }
            let previous = names.get(&entry.path).copied();
            if let Kind::Hardlink { target } = &entry.kind {
                let found = names.get(target).copied();
                let Some(inode) = found.filter(|&at| is_file_like(&inodes[at].kind)) else {
                    return Err(ListingError::Hardlink {
                        path: entry.path.clone(),
                        target: target.clone(),
                    });
                };
                names.insert(entry.path, inode);
                continue;
            }
            if let Some(previous) = previous {
                let before = &mut inodes[previous];
                match (&mut entry.kind, &mut before.kind) {
                    // What the layer has itself is not hidden by its own whiteout.
                    (Kind::Whiteout, Kind::Dir { opaque }) => {
                        *opaque = true;
                        continue;
                    }
                    (Kind::Whiteout, _) => continue,
                    (Kind::Dir { opaque }, Kind::Whiteout) => *opaque = true,
                    (Kind::Dir { opaque }, Kind::Dir { opaque: before }) => *opaque |= *before,
                    _ => {}
                }
            }
            names.insert(entry.path.clone(), inodes.len());
            inodes.push(entry);
        }
        Ok(Self::from_names(&inodes, names))
    }

    fn from_names(inodes: &[Entry], names: BTreeMap<Vec<u8>, usize>) -> Self {
        let mut names: Vec<(Vec<u8>, usize)> = names.into_iter().collect();
        names.sort_by(|left, right| compare(&left.0, &right.0));
        let mut first: Vec<Option<Vec<u8>>> = vec![None; inodes.len()];
        let mut entries: Vec<Entry> = Vec::with_capacity(names.len());
        let mut leaf: Option<Vec<u8>> = None;
        for (path, inode) in names {
            if leaf.as_ref().is_some_and(|leaf| is_below(&path, leaf)) {
                continue;
            }
            let mut entry = inodes[inode].clone();
            match &first[inode] {
                Some(target) => entry.kind = Kind::Hardlink { target: target.clone() },
                None => first[inode] = Some(path.clone()),
            }
            leaf = (!entry.is_dir()).then(|| path.clone());
            entry.path = path;
            entries.push(entry);
        }
        Self { entries }
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, given up.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Sets the digest of a regular file, once someone has read it.
    pub fn set_digest(&mut self, at: usize, found: rbuild_store::digest::Digest) {
        if let Some(Entry { kind: Kind::File { digest, .. }, .. }) = self.entries.get_mut(at) {
            *digest = Some(Box::new(found));
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry with this path.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.position(path).map(|at| &self.entries[at])
    }

    /// Index of the entry with this path.
    pub fn position(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| compare(&entry.path, path)).ok()
    }

    /// Index of the entry that describes the inode of entry `at`: its target for a hard link,
    /// itself otherwise.
    pub fn inode(&self, at: usize) -> usize {
        if let Kind::Hardlink { target } = &self.entries[at].kind {
            self.position(target).unwrap_or(at)
        } else {
            at
        }
    }

    /// The entries below a path, which need not be listed itself.
    pub fn below(&self, dir: &[u8]) -> Range<usize> {
        self.below_within(dir, 0..self.entries.len())
    }

    /// As [`Listing::below`], among the entries of a range that holds them all.
    pub fn below_within(&self, dir: &[u8], range: Range<usize>) -> Range<usize> {
        let entries = &self.entries[range.clone()];
        let start = entries.partition_point(|entry| compare(&entry.path, dir) != Ordering::Greater);
        let count = subtree(&entries[start..], dir);
        range.start + start..range.start + start + count
    }

    fn is_file_like(&self, at: usize) -> bool {
        is_file_like(&self.entries[at].kind)
    }
}

/// How many of the first entries are below `dir`, when none comes before it. Short answers are
/// found quickly.
pub(super) fn subtree(entries: &[Entry], dir: &[u8]) -> usize {
    let mut bound = 1;
    while bound <= entries.len() && is_below(&entries[bound - 1].path, dir) {
        bound *= 2;
    }
    let low = bound / 2;
    let high = bound.min(entries.len() + 1) - 1;
    low + entries[low..high.max(low)].partition_point(|entry| is_below(&entry.path, dir))
}

const fn is_file_like(kind: &Kind) -> bool {
    match kind {
        Kind::File { .. }
        | Kind::Symlink { .. }
        | Kind::Char { .. }
        | Kind::Block { .. }
        | Kind::Fifo => true,
        Kind::Dir { .. } | Kind::Hardlink { .. } | Kind::Whiteout => false,
    }
}

#[cfg(test)]
mod tests;
