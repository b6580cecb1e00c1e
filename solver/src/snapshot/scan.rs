//! Reads directories as they are on disk: names in order, metadata, the attributes that matter.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, RawDir, Statx};
use rustix::io::Errno;

use super::dir::{open_dir, proc_path, stat};
use super::owner::{ATTRIBUTE, MAX_RECORD_BYTES, Record};
use super::place::OPAQUE;

/// Bytes of names that one call returns at most.
const BUFFER_BYTES: usize = 32 * 1024;

/// Longest list of attribute names, and longest value, that Linux permits.
const MAX_ATTRIBUTE_BYTES: usize = 64 * 1024;

/// Version of `security.capability` that names the root of a user namespace.
const CAPABILITY_V3: u8 = 3;

/// The same without it: what a layer holds.
const CAPABILITY_V2: u8 = 2;

/// Bytes of a version-2 `security.capability`.
const CAPABILITY_V2_BYTES: usize = 20;

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) stat: Statx,
}

impl Item {
    /// The type on disk.
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.stx_mode.into())
    }
}

/// What is in a directory, sorted by name. Names that vanish meanwhile are left out.
pub(crate) fn list(dir: BorrowedFd<'_>) -> Result<Vec<Item>, Errno> {
    let mut items = Vec::new();
    for name in names(dir)? {
        match stat(dir, &name) {
            Ok(stat) => items.push(Item { name, stat }),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(items)
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    // A handle of its own: reading moves the position of the handle.
    let dir = open_dir(dir, b".")?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut reader = RawDir::new(dir.as_fd(), buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The attributes of an inode that mean something to a layer.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// `security.capability` in its version-2 form.
    pub(crate) capability: Option<Vec<u8>>,
    /// What is recorded about its owner.
    pub(crate) record: Option<Record>,
    /// Whether overlay takes the directory for an opaque one.
    pub(crate) opaque: bool,
}

/// Name of the attribute with file capabilities: the only one of a step's that a layer gets, as in
/// BuildKit (containerd `pkg/archive`, change writer).
pub(crate) const CAPABILITY: &str = "security.capability";

/// Reads the attributes of a name, not following a link. One call if there are none.
pub(crate) fn attributes(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Attributes, Errno> {
    let path = proc_path(dir, name);
    let mut found = Attributes::default();
    let mut buffer = [0_u8; 1024];
    let long;
    let names = match rustix::fs::llistxattr(&path[..], &mut buffer) {
        Ok(length) => &buffer[..length],
        Err(Errno::RANGE) => {
            let mut bytes = vec![0; MAX_ATTRIBUTE_BYTES];
            let length = rustix::fs::llistxattr(&path[..], &mut bytes[..])?;
            bytes.truncate(length);
            long = bytes;
            &long[..]
        }
        Err(Errno::OPNOTSUPP) => return Ok(found),
        Err(errno) => return Err(errno),
    };
    for attribute in names.split(|&byte| byte == 0) {
        if attribute == CAPABILITY.as_bytes() {
            found.capability = value(&path, CAPABILITY)?.map(without_root_id);
        } else if attribute == ATTRIBUTE.as_bytes() {
            found.record = value(&path, ATTRIBUTE)?.and_then(|it| Record::parse(&it));
        } else if attribute == OPAQUE.as_bytes() {
            found.opaque = value(&path, OPAQUE)?.as_deref() == Some(b"y");
        }
    }
    Ok(found)
}

/// The value of an attribute of ours; none if it is gone or longer than any that we know.
fn value(path: &[u8], name: &str) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = [0_u8; MAX_RECORD_BYTES];
    match rustix::fs::lgetxattr(path, name, &mut bytes) {
        Ok(length) => Ok(Some(bytes[..length].to_vec())),
        Err(Errno::NODATA | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A capability set as the image means it: relative to whatever is root there.
fn without_root_id(mut value: Vec<u8>) -> Vec<u8> {
    if value.get(3) == Some(&CAPABILITY_V3) && value.len() > CAPABILITY_V2_BYTES {
        value.truncate(CAPABILITY_V2_BYTES);
        value[3] = CAPABILITY_V2;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_the_root_id() {
        let v3 = [&[1, 0, 0, 3][..], &[7; 16], &[0xdc, 5, 0, 0]].concat();
        let v2 = [&[1, 0, 0, 2][..], &[7; 16]].concat();
        assert_eq!(without_root_id(v3), v2);
        assert_eq!(without_root_id(v2.clone()), v2);
    }
}
