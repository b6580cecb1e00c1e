//! Owners of what cannot carry a record, from a table by inode to one by path.
//!
//! While a step runs only inodes are known; once it has ended, one walk finds their names.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use rbuild_store::entry::Kind;
use rustix::fs::{FileType, Statx};

use super::dir::{self, MAX_DEPTH};
use super::error::{Error, show};
use super::files::open_path;
use super::owner::{Record, Table};
use super::prepare::Prepared;
use super::{LayerStore, Rootfs, scan};
use crate::tree::listing::join;
use crate::tree::view::View;

/// Device, inode number, time of birth in nanoseconds.
type Inode = (u64, u64, i128);

impl LayerStore {
    /// Keeps with a tree what a step's supervisor knows of inodes that cannot carry a record, for
    /// the tree's commit.
    ///
    /// # Errors
    ///
    /// If the tree cannot be read.
    pub(crate) fn keep_records(
        &self,
        prepared: &Prepared,
        records: &HashMap<Inode, Record>,
    ) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let root = match &prepared.rootfs {
            Rootfs::Overlay { upper: Some(upper), .. } => &upper.dir,
            Rootfs::Overlay { upper: None, .. } => return Ok(()),
            Rootfs::Dir(path) => path,
        };
        // An overlay shows its own device number.
        let by_number =
            records.iter().map(|((_, number, birth), record)| ((*number, *birth), *record));
        let mut walk =
            Walk { records: by_number.collect(), view: &prepared.view, found: Table::default() };
        walk.directory(open_path(root)?.as_fd(), b"", 0)?;
        if !walk.found.is_empty() {
            prepared.work.write("owners", &walk.found.to_bytes())?;
        }
        Ok(())
    }
}

struct Walk<'a> {
    records: HashMap<(u64, i128), Record>,
    view: &'a View,
    found: Table,
}

impl Walk<'_> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let (what, limit) = ("depth of directories", MAX_DEPTH as u64);
            return Err(Error::Limit { path: show(path), what, limit });
        }
        for item in scan::list(dir).map_err(Error::io("read the directory", path))? {
            let path = join(path, &item.name);
            let birth = item.stat.stx_btime;
            let birth = i128::from(birth.tv_sec) * 1_000_000_000 + i128::from(birth.tv_nsec);
            let record = self.records.get(&(item.stat.stx_ino, birth)).copied();
            if let Some(record) = record.or_else(|| self.copied_up(&path, &item.stat)) {
                self.found.insert(&path, record);
            }
            if item.file_type() == FileType::Directory {
                let below = dir::open_dir(dir, &item.name).map_err(Error::io("open", &path))?;
                self.directory(below.as_fd(), &path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// The record of a link or pipe that the step found, and has not changed but for its place on
    /// disk.
    fn copied_up(&self, path: &[u8], stat: &Statx) -> Option<Record> {
        let file_type = FileType::from_raw_mode(stat.stx_mode.into());
        if !matches!(file_type, FileType::Symlink | FileType::Fifo) {
            return None;
        }
        let node = self.view.lookup(path)?;
        let entry = node.inode();
        let is_same = matches!(entry.kind, Kind::Symlink { .. } | Kind::Fifo)
            && (entry.mtime.secs, entry.mtime.nanos)
                == (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
        is_same.then(|| Record {
            uid: entry.uid,
            gid: entry.gid,
            mode: stat.stx_mode.into(),
            major: 0,
            minor: 0,
            held_uid: stat.stx_uid,
            held_gid: stat.stx_gid,
            held_mode: u32::from(stat.stx_mode) & 0o7777,
        })
    }
}
