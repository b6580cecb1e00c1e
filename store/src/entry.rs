//! One inode of an image, as the image means it.
//!
//! An [`Entry`] is what a tar header says: the *intended* owner, mode, type and extended
//! attributes, whatever the host could create on disk. Layers are written from entries, never
//! from `stat`, so that the same image comes out wherever it is built.

use std::collections::{BTreeMap, btree_map};
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Seconds and nanoseconds since the epoch. Seconds may be negative; nanoseconds never are.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999, added to the seconds.
    pub nanos: u32,
}

impl Timestamp {
    /// A time of whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// What an entry is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Kind {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// SHA-256 of the bytes, where someone has read them already.
        digest: Option<Box<Digest>>,
    },
    /// A directory.
    Dir {
        /// Hides whatever lower layers have below it.
        opaque: bool,
    },
    /// A symbolic link; the target is kept as it was written.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// Another name of a file that comes earlier in the same layer.
    Hardlink {
        /// Path of the first name, in the form of [`Entry::path`].
        target: Vec<u8>,
    },
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The path does not exist from this layer on.
    Whiteout,
}

impl Kind {
    /// Bytes of a regular file; none for anything else.
    pub const fn file_size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } => Some(*size),
            Self::Dir { .. }
            | Self::Symlink { .. }
            | Self::Hardlink { .. }
            | Self::Char { .. }
            | Self::Block { .. }
            | Self::Fifo
            | Self::Whiteout => None,
        }
    }
}

/// Extended attributes by name. Few inodes have any, and listings are long: none take a word.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::box_collection, reason = "an empty map takes three words, and a box one")]
pub struct Xattrs(Option<Box<BTreeMap<Vec<u8>, Vec<u8>>>>);

/// What an inode without attributes has.
static NO_XATTRS: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();

impl Xattrs {
    /// None.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Sets one.
    pub fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.0.get_or_insert_default().insert(name, value);
    }

    /// Keeps those that `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        if let Some(some) = &mut self.0 {
            some.retain(|name, _| keep(name));
            if some.is_empty() {
                self.0 = None;
            }
        }
    }
}

impl Deref for Xattrs {
    type Target = BTreeMap<Vec<u8>, Vec<u8>>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NO_XATTRS)
    }
}

impl Extend<(Vec<u8>, Vec<u8>)> for Xattrs {
    fn extend<I: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(&mut self, all: I) {
        all.into_iter().for_each(|(name, value)| self.insert(name, value));
    }
}

impl FromIterator<(Vec<u8>, Vec<u8>)> for Xattrs {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(all: I) -> Self {
        let mut some = Self::new();
        some.extend(all);
        some
    }
}

impl IntoIterator for Xattrs {
    type Item = (Vec<u8>, Vec<u8>);
    type IntoIter = btree_map::IntoIter<Vec<u8>, Vec<u8>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(|some| *some).unwrap_or_default().into_iter()
    }
}

impl<'a> IntoIterator for &'a Xattrs {
    type Item = (&'a Vec<u8>, &'a Vec<u8>);
    type IntoIter = btree_map::Iter<'a, Vec<u8>, Vec<u8>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One inode of a layer or of a merged tree.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// Path below the root: components joined by `/`, no leading or trailing `/`, no `.` or `..`.
    /// The root itself is the empty path. Bytes, as Linux has them.
    pub path: Vec<u8>,
    /// Type and what belongs to it.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes by name, `security.capability` in its version-2 form.
    pub xattrs: Xattrs,
}

impl Entry {
    /// A directory owned by root with mode 0755.
    pub fn dir(path: impl Into<Vec<u8>>, mtime: Timestamp) -> Self {
        Self {
            path: path.into(),
            kind: Kind::Dir { opaque: false },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: Xattrs::new(),
        }
    }

    /// Whether this is a device.
    pub const fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Char { .. } | Kind::Block { .. })
    }

    /// Whether this is a directory.
    pub const fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_small() {
        // A listing has as many as an image has files, and several are in memory at once.
        assert!(size_of::<Entry>() <= 96);
    }

    #[test]
    fn no_attributes_are_the_same_however_they_came_to_be_none() {
        let mut xattrs: Xattrs = [(b"user.a".to_vec(), b"1".to_vec())].into_iter().collect();
        assert_eq!(xattrs.get(&b"user.a"[..]), Some(&b"1".to_vec()));
        xattrs.retain(|name| name != b"user.a");
        assert_eq!(xattrs, Xattrs::new());
    }
}
