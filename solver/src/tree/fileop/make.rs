//! Making and removing: `mkdir`, `mkfile`, `symlink`, `rm`.

use rbuild_store::digest::Digest;
use rbuild_store::entry::{Entry, Kind, Timestamp, Xattrs};

use super::draft::{Draft, Found, Inode};
use super::error::{FileOpError, Why};
use crate::tree::listing::split;
use crate::tree::pick;
use crate::tree::resolve::{ResolveError, Stat, Tree as _, resolve};
use crate::worker::proto::Content;

/// How something is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Permission bits; only the lowest nine count.
    pub(super) mode: u32,
    /// Owner and group; none keeps what is there, or means root.
    pub(super) owner: Option<(u32, u32)>,
    /// Its time; none means now.
    pub(super) time: Option<Timestamp>,
}

impl How {
    fn entry(&self, kind: Kind, now: Timestamp) -> Entry {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let mtime = self.time.unwrap_or(now);
        Entry {
            path: Vec::new(),
            kind,
            mode: self.mode & 0o777,
            uid,
            gid,
            mtime,
            xattrs: Xattrs::new(),
        }
    }
}

/// Makes a directory. One that exists is left as it is.
pub(super) fn mkdir(
    draft: &mut Draft,
    path: &str,
    parents: bool,
    how: &How,
) -> Result<(), FileOpError> {
    let path = resolve(draft, path.as_bytes(), true)?;
    if parents {
        draft.make_dirs(&path, how.mode & 0o777, how.owner, how.time)?;
        return Ok(());
    }
    let Some((parent, name)) = split(&path) else { return Ok(()) };
    let view = draft.base();
    let place = draft.open(&view, parent).ok_or_else(|| missing(draft, "mkdir", &path))?;
    // Whatever is there: BuildKit takes "file exists" for success.
    if draft.find(&view, &place, name).is_none() {
        let mut entry = how.entry(Kind::Dir { opaque: false }, draft.now());
        draft.inherit(&place, &mut entry, how.owner.is_some());
        draft.make_dir(&view, &place, name, entry);
    }
    Ok(())
}

/// Makes a file, or replaces the content of one that exists, which keeps its mode.
pub(super) fn mkfile(
    draft: &mut Draft,
    path: &str,
    data: &[u8],
    how: &How,
) -> Result<(), FileOpError> {
    let path = resolve(draft, path.as_bytes(), true)?;
    let Some((parent, name)) = split(&path) else {
        return Err(FileOpError::path("open", &path, Why::IsADirectory));
    };
    let view = draft.base();
    let place = draft.open(&view, parent).ok_or_else(|| missing(draft, "open", &path))?;
    let kind = Kind::File { size: data.len() as u64, digest: Some(Box::new(Digest::of(data))) };
    let content = Some(Content::Inline(data.to_vec()));
    let now = draft.now();
    match draft.find(&view, &place, name) {
        Some(Found::Dir) => return Err(FileOpError::path("open", &path, Why::IsADirectory)),
        None => {
            let entry = how.entry(kind, now);
            draft.make(&place, name, Inode { entry, content });
        }
        Some(Found::Other) => {
            let inode = draft.inode_number(&view, &place, name).expect("it was just found");
            let inode = draft.inode_at(inode);
            inode.entry.kind = kind;
            inode.entry.mtime = how.time.unwrap_or(now);
            // Writing takes capabilities off a file.
            inode.entry.xattrs.retain(|name| name != b"security.capability");
            if let Some((uid, gid)) = how.owner {
                (inode.entry.uid, inode.entry.gid) = (uid, gid);
            }
            inode.content = content;
        }
    }
    Ok(())
}

/// Makes a symbolic link where nothing is.
pub(super) fn symlink(
    draft: &mut Draft,
    target: &str,
    path: &str,
    how: &How,
) -> Result<(), FileOpError> {
    let path = resolve(draft, path.as_bytes(), true)?;
    let exists =
        |path: &[u8]| FileOpError::Exists { target: target.to_owned(), path: path.to_vec() };
    let Some((parent, name)) = split(&path) else { return Err(exists(&path)) };
    let view = draft.base();
    let place = draft.open(&view, parent).ok_or_else(|| missing(draft, "symlink", &path))?;
    if draft.find(&view, &place, name).is_some() {
        return Err(exists(&path));
    }
    let entry = how.entry(Kind::Symlink { target: target.as_bytes().to_vec() }, draft.now());
    draft.make(&place, name, Inode { entry, content: None });
    Ok(())
}

/// Removes a path, or what a pattern matches, with all that is below.
pub(super) fn rm(
    draft: &mut Draft,
    path: &str,
    allow_missing: bool,
    wildcard: bool,
) -> Result<(), FileOpError> {
    let paths = if wildcard {
        pick::expand(draft, &pick::clean_operand(path), false)?
    } else {
        vec![path.to_owned()]
    };
    for path in paths {
        let path = pick::source_path(draft, &path, false)?;
        let Some((parent, name)) = split(&path) else {
            return Err(FileOpError::Graph("the root of a tree cannot be removed"));
        };
        if !allow_missing && !exists(draft, &path)? {
            return Err(FileOpError::path("stat", &path, Why::NotFound));
        }
        let view = draft.base();
        if let Some(place) = draft.open(&view, parent) {
            draft.remove(&view, &place, name);
        }
    }
    Ok(())
}

/// Whether something is there when links are followed.
fn exists(draft: &Draft, path: &[u8]) -> Result<bool, ResolveError> {
    Ok(match draft.stat(path) {
        Some(Stat::Symlink(_)) => draft.look(&resolve(draft, path, true)?).is_some(),
        Some(Stat::Dir | Stat::Other) => true,
        None => false,
    })
}

/// Why a path's directory cannot be opened.
fn missing(draft: &Draft, call: &'static str, path: &[u8]) -> FileOpError {
    let mut parent = path;
    while let Some((above, _)) = split(parent) {
        parent = above;
        if draft.look(parent) == Some(Found::Other) {
            return FileOpError::path(call, path, Why::NotADirectory);
        }
    }
    FileOpError::path(call, path, Why::NotFound)
}
