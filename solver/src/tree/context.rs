//! Walks a build context: a directory of the host becomes entries.
//!
//! What BuildKit's transfer of local files does to them: owner and group become root, extended
//! attributes are dropped, a socket becomes an empty file, a second name of a file becomes a hard
//! link; modes and times stay. Ignored directories are never entered. Every name is resolved
//! beneath the directory above it, and no symbolic link is followed by the walk itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rbuild_store::entry::{Entry, Kind, Timestamp};
use rbuild_store::pattern::{Matched, PatternSet, clean};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags};

/// Deepest directory that is entered.
const MAX_DEPTH: usize = 512;

/// Most symbolic links that one path to follow may lead through.
const MAX_LINKS: usize = 255;

/// Longest path that is built, in bytes.
const MAX_PATH: usize = 64 * 1024;

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
    pub ids: Vec<FileId>,
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
    pending: Vec<(Entry, FileId)>,
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
        let entry = (entry(path, &stat, Kind::Dir { opaque: false }), id(&stat));
        let pending = self.pending.len();
        if within && included && !excluded {
            self.flush();
            self.push(entry);
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
            self.push(pending);
        }
    }

    fn push(&mut self, (entry, id): (Entry, FileId)) {
        self.out.entries.push(entry);
        self.out.ids.push(id);
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
        self.push((entry(path, stat, kind), file_id));
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
        xattrs: BTreeMap::new(),
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

/// How much of a path is wanted.
enum Cover {
    /// It and all that is in it.
    Whole,
    /// Something in it.
    Above,
    /// Nothing.
    No,
}

/// The paths that a set of paths to follow leads to.
struct Scope {
    whole: BTreeSet<Vec<u8>>,
    above: BTreeSet<Vec<u8>>,
}

impl Scope {
    fn follow(root: &OwnedFd, paths: &[String]) -> Result<Self, WalkError> {
        let mut scope = Self { whole: BTreeSet::new(), above: BTreeSet::new() };
        for path in paths {
            let cleaned = clean(path);
            let parts: Vec<&[u8]> =
                cleaned.split('/').filter(|it| !it.is_empty()).map(str::as_bytes).collect();
            scope.step(root, &[], &parts, &mut 0)?;
        }
        Ok(scope)
    }

    fn covers(&self, path: &[u8]) -> Cover {
        // A link that leads to the root brings everything along.
        if self.whole.contains(path) || self.whole.contains(&b""[..]) {
            Cover::Whole
        } else if self.above.contains(path) {
            Cover::Above
        } else {
            Cover::No
        }
    }

    /// Follows `rest` from the directory `base`, whose path has no symbolic link.
    fn step(
        &mut self,
        root: &OwnedFd,
        base: &[u8],
        rest: &[&[u8]],
        links: &mut usize,
    ) -> Result<(), WalkError> {
        let Some((first, rest)) = rest.split_first() else {
            return self.add(base);
        };
        match *first {
            b"." => return self.step(root, base, rest, links),
            b".." => {
                let up =
                    base.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |at| &base[..at]);
                return self.step(root, up, rest, links);
            }
            name if is_pattern(name) => {
                let Ok(directory) = open_beneath(root, base) else { return Ok(()) };
                let text = String::from_utf8_lossy(name).into_owned();
                let glob = rbuild_store::pattern::Glob::new(&text)?;
                for found in names(directory.as_fd()).map_err(|error| io_error(base, error))? {
                    if glob.matches(found.to_bytes()) {
                        self.name(root, base, found.to_bytes(), rest, links)?;
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        self.name(root, base, first, rest, links)
    }

    fn name(
        &mut self,
        root: &OwnedFd,
        base: &[u8],
        name: &[u8],
        rest: &[&[u8]],
        links: &mut usize,
    ) -> Result<(), WalkError> {
        let path = join(base, name);
        let Ok(directory) = open_beneath(root, base) else { return Ok(()) };
        let Ok(stat) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return self.step(root, &path, rest, links);
        }
        self.add(&path)?;
        *links += 1;
        if *links > MAX_LINKS {
            return Ok(());
        }
        let Ok(target) = rustix::fs::readlinkat(&directory, name, Vec::new()) else {
            return Ok(());
        };
        let target = target.into_bytes();
        let base = if target.starts_with(b"/") { &b""[..] } else { base };
        let parts: Vec<&[u8]> = target
            .split(|&byte| byte == b'/')
            .filter(|it| !it.is_empty())
            .chain(rest.iter().copied())
            .collect();
        self.step(root, base, &parts, links)
    }

    fn add(&mut self, path: &[u8]) -> Result<(), WalkError> {
        if path.len() > MAX_PATH {
            return Err(WalkError::TooDeep(String::from_utf8_lossy(path).into_owned()));
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.above.insert(path[..at].to_vec());
        }
        self.whole.insert(path.to_vec());
        Ok(())
    }
}

fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[\\".contains(byte))
}

fn join(base: &[u8], name: &[u8]) -> Vec<u8> {
    if base.is_empty() { name.to_vec() } else { [base, b"/", name].concat() }
}

/// Opens a directory below `root`, through no symbolic link.
fn open_beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for name in path.split(|&byte| byte == b'/').filter(|it| !it.is_empty()) {
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Files and directories (with a trailing slash) are made; `a -> b` is a link.
    #[track_caller]
    fn check(files: &str, filter: &Filter, want: &str) {
        let root = tempfile::tempdir().unwrap();
        for line in files.split_whitespace() {
            let (name, target) =
                line.split_once("->").map_or((line, None), |(name, target)| (name, Some(target)));
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                Some(target) => symlink(target, path).unwrap(),
                None if name.ends_with('/') => std::fs::create_dir_all(path).unwrap(),
                None => std::fs::write(path, name).unwrap(),
            }
        }
        let walked = walk(root.path(), filter).unwrap();
        let got: Vec<String> = walked
            .entries
            .iter()
            .map(|it| String::from_utf8_lossy(&it.path).into_owned())
            .collect();
        assert_eq!(got.join(" "), want);
        assert_eq!(walked.ids.len(), walked.entries.len());
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn order_is_that_of_a_listing() {
        check("b a/z a/b a.c", &Filter::default(), "a a/b a/z a.c b");
    }

    #[test]
    fn ignored_directories_are_kept_only_for_exceptions() {
        let exclude_patterns = list(&["node_modules", "out/*", "!out/keep/x"]);
        let filter = Filter { exclude_patterns, ..Filter::default() };
        check("node_modules/a out/b out/keep/x out/keep/y c", &filter, "c out out/keep out/keep/x");
    }

    #[test]
    fn followed_paths_bring_their_links_along() {
        let follow = |paths: &[&str]| Filter { follow_paths: list(paths), ..Filter::default() };
        check("a/f b->a c d/e", &follow(&["b/f"]), "a a/f b");
        check("a/f b->a c d/e", &follow(&["*"]), "a a/f b c d d/e");
        check("x/l->../y y/f z", &follow(&["x/l"]), "x x/l y y/f");
        check("l->/y y/f z", &follow(&["l"]), "l y y/f");
        check("l->l a", &follow(&["l", "missing/x"]), "l");
        check("l->. a b", &follow(&["l"]), "a b l");
        check("a b", &follow(&["."]), "a b");
    }

    #[test]
    fn included_paths_bring_their_directories_along() {
        let filter = Filter { include_patterns: list(&["a/*.c"]), ..Filter::default() };
        check("a/x.c a/y.h b/x.c", &filter, "a a/x.c");
    }

    #[test]
    fn a_second_name_is_a_hard_link() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("b"), "x").unwrap();
        std::fs::hard_link(root.path().join("b"), root.path().join("a")).unwrap();
        let walked = walk(root.path(), &Filter::default()).unwrap();
        assert_eq!(walked.entries[1].kind, Kind::Hardlink { target: b"a".to_vec() });
    }
}
