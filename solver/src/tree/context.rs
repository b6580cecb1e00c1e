//! Walks a build context: a directory of the host becomes entries.
//!
//! What BuildKit's transfer of local files does to them: owner and group become root, extended
//! attributes are dropped, a socket becomes an empty file, a second name of a file becomes a hard
//! link; modes and times stay. Ignored directories are never entered. Every name is resolved
//! beneath the directory above it, and no symbolic link is followed by the walk itself.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_store::entry::{Entry, Kind, Timestamp, Xattrs};
use rbuild_store::pattern::{Matched, PatternSet, clean};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags};

mod follow;

use follow::{Cover, Scope};

use super::listing::MAX_PATH;
use super::stat_cache::Version;

/// Deepest directory that is entered.
const MAX_DEPTH: usize = 512;

/// Bytes of the buffer for directory entries.
const DIRENT_BUFFER: usize = 32 * 1024;

/// Which files of the directory are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Paths or patterns; symbolic links on the way and their targets come along. Empty means
    /// everything.
    pub follow_paths: Vec<String>,
    /// Only what matches one of these, with the directories above. Empty means everything.
    pub include_patterns: Vec<String>,
    /// Not what matches these; `!` makes exceptions.
    pub exclude_patterns: Vec<String>,
}

/// What identifies a version of a file's content.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileId {
    /// Device, major and minor number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since the epoch.
    pub mtime: i128,
    /// Last change of the inode, in nanoseconds since the epoch.
    pub ctime: i128,
}

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// The entries in the order of a listing; the root is not among them.
    pub entries: Vec<Entry>,
    /// One for each entry; meaningful for regular files.
    pub versions: Vec<Version>,
}

/// A walk failed.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The host refused.
    #[error("cannot read `{path}`")]
    Io {
        /// Below the directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A pattern is none.
    #[error("pattern is not acceptable")]
    Pattern(#[from] rbuild_store::pattern::PatternError),
    /// Too deep, or a path too long.
    #[error("`{0}` is nested too deeply")]
    TooDeep(String),
}

fn io_error(path: &[u8], error: rustix::io::Errno) -> WalkError {
    let path = String::from_utf8_lossy(if path.is_empty() { b"." } else { path }).into_owned();
    WalkError::Io { path, source: error.into() }
}

/// Lists what `filter` lets through of the directory `root`.
///
/// # Errors
///
/// If a directory cannot be read, or a pattern is none.
pub fn walk(root: &Path, filter: &Filter) -> Result<Walked, WalkError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(root, flags, Mode::empty()).map_err(|error| io_error(b"", error))?;
    let scope = if follows_everything(&filter.follow_paths) {
        None
    } else {
        Some(Scope::follow(&directory, &filter.follow_paths)?)
    };
    let mut walker = Walker {
        include: (!filter.include_patterns.is_empty())
            .then(|| PatternSet::new(&filter.include_patterns))
            .transpose()?,
        exclude: PatternSet::new(&filter.exclude_patterns)?,
        scope,
        out: Walked::default(),
        pending: Vec::new(),
        names: HashMap::new(),
    };
    walker.directory(directory.as_fd(), &mut Vec::new(), &Inherited::default(), 0)?;
    Ok(walker.out)
}

fn follows_everything(paths: &[String]) -> bool {
    paths.is_empty() || paths.iter().any(|path| matches!(clean(path).trim_matches('/'), "" | "."))
}

/// What a directory passes on to what is in it.
#[derive(Clone, Debug, Default)]
struct Inherited {
    include: Matched,
    exclude: Matched,
    /// It is wanted as a whole.
    within: bool,
}

struct Walker {
    include: Option<PatternSet>,
    exclude: PatternSet,
    scope: Option<Scope>,
    out: Walked,
    /// Directories above that are written only if something in them is.
    pending: Vec<Entry>,
    /// First name of each file with several names.
    names: HashMap<(u64, u64), Vec<u8>>,
}

impl Walker {
    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        inherited: &Inherited,
        depth: usize,
    ) -> Result<(), WalkError> {
        if depth > MAX_DEPTH || path.len() > MAX_PATH {
            return Err(WalkError::TooDeep(String::from_utf8_lossy(path).into_owned()));
        }
        for name in names(directory).map_err(|error| io_error(path, error))? {
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.entry(directory, &name, path, inherited, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        inherited: &Inherited,
        depth: usize,
    ) -> Result<(), WalkError> {
        let within = match (&self.scope, inherited.within) {
            (None, _) | (_, true) => true,
            (Some(scope), false) => match scope.covers(path) {
                Cover::Whole => true,
                Cover::Above => false,
                Cover::No => return Ok(()),
            },
        };
        let wanted_flags = StatxFlags::TYPE
            | StatxFlags::MODE
            | StatxFlags::INO
            | StatxFlags::SIZE
            | StatxFlags::MTIME
            | StatxFlags::CTIME
            | StatxFlags::NLINK;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statx(directory, name, flags, wanted_flags) {
            Ok(stat) => stat,
            // It was removed while we looked.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io_error(path, error)),
        };
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let (excluded, exclude) = self.excluded(path, is_dir, inherited);
        let (included, include) = self.included(path, is_dir, inherited);
        let below = Inherited { include, exclude, within };
        if !is_dir {
            if within && included && !excluded {
                self.flush();
                self.leaf(directory, name, path, &stat)?;
            }
            return Ok(());
        }
        if excluded && !self.exclude.may_except_below(path) {
            return Ok(());
        }
        let may_include =
            included || self.include.as_ref().is_none_or(|set| set.may_match_below(path));
        if !may_include {
            return Ok(());
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened: OwnedFd = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            // Nobody asked for the directory itself.
            Err(rustix::io::Errno::ACCESS) if !(within && included && !excluded) => return Ok(()),
            Err(error) => return Err(io_error(path, error)),
        };
        let entry = entry(path, &stat, Kind::Dir { opaque: false });
        let pending = self.pending.len();
        if within && included && !excluded {
            self.flush();
            self.push(entry, Version::default());
            self.directory(opened.as_fd(), path, &below, depth + 1)?;
        } else {
            self.pending.push(entry);
            self.directory(opened.as_fd(), path, &below, depth + 1)?;
            self.pending.truncate(pending);
        }
        Ok(())
    }

    fn excluded(&self, path: &[u8], is_dir: bool, inherited: &Inherited) -> (bool, Matched) {
        if self.exclude.is_empty() {
            (false, Matched::default())
        } else if is_dir {
            self.exclude.matches_dir(path, &inherited.exclude)
        } else {
            (self.exclude.matches_in(path, &inherited.exclude), Matched::default())
        }
    }

    fn included(&self, path: &[u8], is_dir: bool, inherited: &Inherited) -> (bool, Matched) {
        match &self.include {
            None => (true, Matched::default()),
            Some(set) if is_dir => set.matches_dir(path, &inherited.include),
            Some(set) => (set.matches_in(path, &inherited.include), Matched::default()),
        }
    }

    /// Writes the directories above that were not written yet.
    fn flush(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.push(pending, Version::default());
        }
    }

    fn push(&mut self, entry: Entry, version: Version) {
        self.out.entries.push(entry);
        self.out.versions.push(version);
    }

    fn leaf(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        stat: &Statx,
    ) -> Result<(), WalkError> {
        let file_id = id(stat);
        let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => {
                let first = (stat.stx_nlink > 1)
                    .then(|| {
                        self.names
                            .entry((file_id.dev, file_id.ino))
                            .or_insert_with(|| path.to_vec())
                    })
                    .filter(|first| first.as_slice() != path);
                match first {
                    Some(first) => Kind::Hardlink { target: first.clone() },
                    None => Kind::File { size: stat.stx_size, digest: None },
                }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .map_err(|error| io_error(path, error))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::File { size: 0, digest: None },
            FileType::CharacterDevice => {
                Kind::Char { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor }
            }
            FileType::BlockDevice => {
                Kind::Block { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor }
            }
            FileType::Directory | FileType::Unknown => return Ok(()),
        };
        // What is empty is not read.
        let is_read = matches!(kind, Kind::File { size: 1.., .. });
        let version = if is_read { file_id.version() } else { Version::default() };
        self.push(entry(path, stat, kind), version);
        Ok(())
    }
}

fn entry(path: &[u8], stat: &Statx, kind: Kind) -> Entry {
    Entry {
        path: path.to_vec(),
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: 0,
        gid: 0,
        mtime: Timestamp { secs: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec },
        xattrs: Xattrs::new(),
    }
}

pub(super) fn id(stat: &Statx) -> FileId {
    let nanos = |secs: i64, nanos: u32| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    FileId {
        dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        ino: stat.stx_ino,
        size: stat.stx_size,
        mtime: nanos(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime: nanos(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    }
}

/// Names in a directory, sorted bytewise.
fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(DIRENT_BUFFER);
    let mut reader = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
