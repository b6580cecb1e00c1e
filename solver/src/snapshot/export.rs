//! Trees as the user gets them: files of the user's own below a directory.

use std::os::fd::BorrowedFd;

use rbuild_store::entry::{Entry, Kind};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::LayerStore;
use super::dir::Cursor;
use super::error::{Error, show};
use super::grow::{self, Item};
use super::merged::Tree;
use super::place::Placer;
use crate::worker::proto::LayerId;

impl LayerStore {
    /// The tree of a chain as an output has it.
    pub(crate) fn output(&self, chain: &[LayerId]) -> Result<Tree, Error> {
        chain.iter().try_for_each(|layer| self.require(layer))?;
        self.merged_with_links(chain, &self.view(chain)?)
    }

    /// Writes a merged tree below `dest` as the caller's own files; with `mtime`, everything is from
    /// that second. What is there already is replaced where the tree has something of the same
    /// name, and left otherwise. Device nodes that the host does not let the caller make are left
    /// out; returned is what they are.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn export_dir(
        &self,
        chain: &[LayerId],
        dest: BorrowedFd<'_>,
        mtime: Option<i64>,
    ) -> Result<Vec<String>, Error> {
        let tree = self.output(chain)?.at(mtime);
        let mut items: Vec<Item<'_>> = tree.items().collect();
        let mut refused: Vec<&Entry> = Vec::new();
        for item in &items {
            if let Some(device) = Device::of(item.entry)
                && !device.can_be_made(dest)?
            {
                refused.push(item.entry);
            }
        }
        // Their other names are the same nodes.
        items.retain(|item| {
            let first = if let Kind::Hardlink { target } = &item.entry.kind {
                target
            } else {
                &item.entry.path
            };
            !refused.iter().any(|entry| entry.path == *first)
        });
        let mut cursor = Cursor::new(dest);
        items.iter().try_for_each(|item| grow::make_room(&mut cursor, item.entry))?;
        drop(cursor);
        grow::grow_below(dest, Placer::as_caller(self.umask), &items)?;
        Ok(refused.into_iter().filter_map(Device::of).map(|device| device.to_string()).collect())
    }
}

/// A device node.
#[derive(Debug)]
struct Device<'a> {
    path: &'a [u8],
    kind: FileType,
    major: u32,
    minor: u32,
}

impl<'a> Device<'a> {
    fn of(entry: &'a Entry) -> Option<Self> {
        let (kind, major, minor) = if let Kind::Char { major, minor } = entry.kind {
            (FileType::CharacterDevice, major, minor)
        } else if let Kind::Block { major, minor } = entry.kind {
            (FileType::BlockDevice, major, minor)
        } else {
            return None;
        };
        Some(Self { path: &entry.path, kind, major, minor })
    }

    /// Whether the host lets the caller make it in `dest`: it is made once and removed.
    fn can_be_made(&self, dest: BorrowedFd<'_>) -> Result<bool, Error> {
        let name = format!(".rbuild-device-{}", std::process::id());
        let device = rustix::fs::makedev(self.major, self.minor);
        match rustix::fs::mknodat(dest, &name, self.kind, Mode::empty(), device) {
            Ok(()) => {
                rustix::fs::unlinkat(dest, &name, AtFlags::empty())
                    .map_err(Error::io("remove", &name))?;
                Ok(true)
            }
            Err(Errno::PERM) => Ok(false),
            Err(errno) => Err(Error::io("create", self.path)(errno)),
        }
    }
}

impl std::fmt::Display for Device<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind == FileType::BlockDevice { "block" } else { "character" };
        write!(out, "{} ({kind} device {}:{})", show(self.path), self.major, self.minor)
    }
}
