//! Owners of what cannot carry a record, from a table by inode to one by path.
//!
//! While a step runs only inodes are known; once it has ended, one walk finds their names.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rbuild_store::entry::{Entry, Kind};
use rustix::fs::{FileType, Statx, XattrFlags, makedev};
use rustix::io::Errno;

use super::dir::{self, MAX_DEPTH};
use super::error::{Error, show};
use super::files::open_path;
use super::owner::{ATTRIBUTE, Record, Table};
use super::prepare::Prepared;
use super::{LayerStore, Ownership, Rootfs, scan};
use crate::tree::listing::join;
use crate::tree::view::View;

/// Device, inode number, time of birth in nanoseconds.
type Inode = (u64, u64, i128);

/// Records by inode.
pub(crate) type Records = HashMap<Inode, Record>;

impl LayerStore {
    /// What the image says about the inodes of a tree, where neither the host's ids nor attributes
    /// of the file system can: on a store without attributes the listing alone knows.
    ///
    /// # Errors
    ///
    /// If the tree cannot be read.
    pub(crate) fn known_records(&self, prepared: &Prepared) -> Result<Records, Error> {
        let devices_only = self.ownership == Ownership::Real;
        let (view, records) = (&prepared.view, Records::new());
        let mut known = Known { view, devices_only, device: 0, records };
        // Where the host holds owners, only a device may be something that it does not hold.
        let wanted = !devices_only || self.has_devices(&prepared.chain)?;
        match &prepared.rootfs {
            Rootfs::Dir(path) if wanted && records_nowhere(&prepared.work.path)? => {
                let root = open_path(path)?;
                let stat = dir::stat(root.as_fd(), b"").map_err(Error::io("look at", b""))?;
                known.device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
                known.inode(b"", &stat);
                dir::on_deep_stack(|| known.directory(root.as_fd(), b"", 0))?;
            }
            Rootfs::Dir(_) | Rootfs::Overlay { .. } => {}
        }
        Ok(known.records)
    }

    /// Keeps with a tree what a step's supervisor knows of inodes that cannot carry a record, for
    /// the tree's commit.
    ///
    /// # Errors
    ///
    /// If the tree cannot be read.
    pub(crate) fn keep_records(&self, prepared: &Prepared, records: &Records) -> Result<(), Error> {
        // Where the host holds owners it holds those of links, too.
        let foreign = match self.ownership {
            Ownership::Real => Foreign::default(),
            Ownership::Recorded => Foreign::of(&prepared.view),
        };
        if records.is_empty() && foreign.is_empty() {
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
        let (records, view, found) = (by_number.collect(), &prepared.view, Table::default());
        let mut walk = Walk { records, view, foreign, found };
        walk.directory(open_path(root)?.as_fd(), b"", 0)?;
        if !walk.found.is_empty() {
            prepared.work.write("owners", &walk.found.to_bytes())?;
        }
        Ok(())
    }
}

/// Whether what must be recorded cannot be in the attributes of files.
fn records_nowhere(dir: &Path) -> Result<bool, Error> {
    let flags = XattrFlags::empty();
    match rustix::fs::setxattr(dir, ATTRIBUTE, b"", flags) {
        Ok(()) => {
            // Only to see whether it can be.
            let _ = rustix::fs::removexattr(dir, ATTRIBUTE);
            Ok(false)
        }
        Err(Errno::OPNOTSUPP) => Ok(true),
        Err(errno) => Err(Error::io("write an attribute of", b"")(errno)),
    }
}

/// Records of a tree, from its listing.
struct Known<'a> {
    view: &'a View,
    /// Whether all but devices are what the host says.
    devices_only: bool,
    /// Of the whole tree.
    device: u64,
    records: Records,
}

impl Known<'_> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), Error> {
        check_depth(path, depth)?;
        for item in scan::list(dir).map_err(Error::io("read the directory", path))? {
            let path = join(path, &item.name);
            self.inode(&path, &item.stat);
            if item.file_type() == FileType::Directory {
                let below = dir::open_dir(dir, &item.name).map_err(Error::io("open", &path))?;
                self.directory(below.as_fd(), &path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn inode(&mut self, path: &[u8], stat: &Statx) {
        let Some(node) = self.view.lookup(path) else { return };
        let held_mode = u32::from(stat.stx_mode) & 0o7777;
        let record = Record::of(node.inode(), (stat.stx_uid, stat.stx_gid), held_mode);
        let told = record.mode == u32::from(stat.stx_mode) && (record.uid, record.gid) == (0, 0);
        let is_device = matches!(
            FileType::from_raw_mode(record.mode),
            FileType::CharacterDevice | FileType::BlockDevice
        );
        let wanted = if self.devices_only { is_device } else { !told };
        if wanted {
            self.records.insert((self.device, stat.stx_ino, birth(stat)), record);
        }
    }
}

/// Time of birth in nanoseconds; 0 where the file system does not know.
fn birth(stat: &Statx) -> i128 {
    i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec)
}

fn check_depth(path: &[u8], depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        let (what, limit) = ("depth of directories", MAX_DEPTH as u64);
        return Err(Error::Limit { path: show(path), what, limit });
    }
    Ok(())
}

struct Walk<'a> {
    records: HashMap<(u64, i128), Record>,
    view: &'a View,
    foreign: Foreign,
    found: Table,
}

impl Walk<'_> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), Error> {
        check_depth(path, depth)?;
        for item in scan::list(dir).map_err(Error::io("read the directory", path))? {
            let path = join(path, &item.name);
            let record = self.records.get(&(item.stat.stx_ino, birth(&item.stat))).copied();
            if let Some(record) =
                record.or_else(|| self.copied_up(dir, &item.name, &path, &item.stat))
            {
                self.found.insert(&path, record);
            }
            if item.file_type() == FileType::Directory {
                let below = dir::open_dir(dir, &item.name).map_err(Error::io("open", &path))?;
                self.directory(below.as_fd(), &path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// The record of a link or pipe that the step found, and has not changed but for its place.
    fn copied_up(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Statx,
    ) -> Option<Record> {
        let target = || rustix::fs::readlinkat(dir, name, Vec::new()).ok().map(CString::into_bytes);
        let owner = self.foreign.owner(self.view, path, stat, &target)?;
        Some(record(owner, stat))
    }
}

/// A record of an inode that the host gives to the caller, and the image to `owner`.
pub(crate) fn record(owner: (u32, u32), stat: &Statx) -> Record {
    Record {
        uid: owner.0,
        gid: owner.1,
        mode: stat.stx_mode.into(),
        major: 0,
        minor: 0,
        held_uid: stat.stx_uid,
        held_gid: stat.stx_gid,
        held_mode: u32::from(stat.stx_mode) & 0o7777,
    }
}

/// Target and time (seconds, nanoseconds): what tells one link from another.
type Likeness = (Vec<u8>, i64, u32);

/// Owners of the links and pipes of a tree, where some are not root's: on disk nothing tells.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    /// By target (empty for a pipe) and time; none where there are several owners.
    by_content: HashMap<Likeness, Option<(u32, u32)>>,
}

impl Foreign {
    /// Those of `view`.
    pub(crate) fn of(view: &View) -> Self {
        let entries = || {
            let all = view.layers().iter().flat_map(|layer| layer.entries());
            all.filter(|it| matches!(it.kind, Kind::Symlink { .. } | Kind::Fifo))
        };
        let mut found = Self::default();
        if entries().all(|it| (it.uid, it.gid) == (0, 0)) {
            return found;
        }
        for entry in entries() {
            let owner = (entry.uid, entry.gid);
            let key = (content(entry).to_vec(), entry.mtime.secs, entry.mtime.nanos);
            let known = found.by_content.entry(key).or_insert(Some(owner));
            if *known != Some(owner) {
                *known = None;
            }
        }
        found
    }

    /// Whether all of them are root's.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_content.is_empty()
    }

    /// The owner of a link or pipe that was in the tree, here or, if that is certain, elsewhere.
    pub(crate) fn owner(
        &self,
        view: &View,
        path: &[u8],
        stat: &Statx,
        target: &dyn Fn() -> Option<Vec<u8>>,
    ) -> Option<(u32, u32)> {
        if self.is_empty() {
            return None;
        }
        let target = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Symlink => target()?,
            FileType::Fifo => Vec::new(),
            FileType::RegularFile
            | FileType::Directory
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return None,
        };
        let time = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
        if let Some(node) = view.lookup(path)
            && let entry = node.inode()
            && matches!(entry.kind, Kind::Symlink { .. } | Kind::Fifo)
            && (entry.mtime.secs, entry.mtime.nanos) == time
            && content(entry) == target
        {
            return Some((entry.uid, entry.gid));
        }
        *self.by_content.get(&(target, time.0, time.1))?
    }
}

/// What tells one link from another.
fn content(entry: &Entry) -> &[u8] {
    if let Kind::Symlink { target } = &entry.kind { target } else { b"" }
}
