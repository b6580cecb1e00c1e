//! Archives that `ADD` unpacks.
//!
//! Names, links and the metadata of links mean what they mean when BuildKit unpacks an archive in
//! a `chroot` at the destination: absolute links and `..` end there, a hard link's header changes
//! the file it names, missing directories belong to root. Contents go to files of a staging
//! directory, one for each, which the plan refers to.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;

use rbuild_store::compress::decoder;
use rbuild_store::digest::{Digest, Hasher};
use rbuild_store::entry::{Entry, Kind, Timestamp};
use rbuild_store::tar::read::{Item, ReadError, TarReader};
use rustix::fs::{Mode, OFlags};

use super::draft::{Draft, Found, Inode, Place};
use super::error::{FileOpError, Why};
use super::source::{Context, Source};
use crate::tree::listing::{join, split};
use crate::tree::pick::source_path;
use crate::tree::resolve::{Stat, Tree, resolve};
use crate::tree::view::View;
use crate::worker::proto::Content;

/// Bytes of a file that are copied at once.
const CHUNK_BYTES: usize = 128 << 10;

/// A file that may be an archive, and where it would be unpacked.
pub(super) struct Archive<'a> {
    pub(super) source: &'a Source,
    pub(super) src: &'a str,
    pub(super) dest: &'a str,
    /// Owner and group; none keeps those of the archive.
    pub(super) owner: Option<(u32, u32)>,
    /// Time of the directories that are made for it.
    pub(super) time: Option<Timestamp>,
}

impl Archive<'_> {
    /// Unpacks the file if it is an archive, and says whether it was.
    ///
    /// # Errors
    ///
    /// If it is one and broken, or the host fails.
    pub(super) fn unpack(
        &self,
        draft: &mut Draft,
        context: &mut Context<'_>,
    ) -> Result<bool, FileOpError> {
        let path = source_path(&*self.source.view(), self.src, true)?;
        let Some(stream) = self.open(&path, context)? else { return Ok(false) };
        let failed = |source: io::Error| FileOpError::Unpack { path: path.clone(), source };
        // What has no first entry is no archive, whatever is wrong with it.
        let Ok((_, stream)) = decoder(stream) else { return Ok(false) };
        let mut tar = TarReader::plain(io::BufReader::with_capacity(CHUNK_BYTES, stream));
        let Ok(Some(mut item)) = tar.next() else { return Ok(false) };

        let dest = resolve(draft, self.dest.as_bytes(), true)?;
        draft.make_dirs(&dest, 0o755, self.owner, self.time)?;
        let view = draft.base();
        let mut unpacker = Unpacker {
            draft,
            view: &view,
            context,
            dest,
            owner: self.owner,
            stage: None,
            dirs: Vec::new(),
        };
        loop {
            if let Item::Entry(entry) = item {
                unpacker.entry(entry, &mut tar, &failed)?;
            }
            match tar.next() {
                Ok(Some(next)) => item = next,
                Ok(None) => break,
                Err(ReadError::Io(error)) => return Err(failed(error)),
                Err(error) => return Err(failed(io::Error::other(error))),
            }
        }
        unpacker.finish();
        Ok(true)
    }

    /// The bytes of the file; none if it is no regular file.
    fn open(
        &self,
        path: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Option<Box<dyn Read + Send>>, FileOpError> {
        let view = self.source.view();
        let Some(node) =
            view.lookup(path).filter(|node| matches!(node.inode().kind, Kind::File { .. }))
        else {
            return Ok(None);
        };
        match self.source.content(&node, context.roots) {
            Content::Inline(bytes) => Ok(Some(Box::new(io::Cursor::new(bytes)))),
            Content::Tree { root, path: below } => {
                match context.host.open(&context.roots.list()[root], &below) {
                    Ok(file) => Ok(Some(file)),
                    Err(source) => Err(FileOpError::Read { path: path.to_vec(), source }),
                }
            }
        }
    }
}

struct Unpacker<'a, 'c> {
    draft: &'a mut Draft,
    view: &'a View,
    context: &'a mut Context<'c>,
    /// The directory that counts as the root.
    dest: Vec<u8>,
    owner: Option<(u32, u32)>,
    stage: Option<Stage>,
    /// Times of directories, set once all is there.
    dirs: Vec<(Vec<u8>, Timestamp)>,
}

/// Where contents go.
struct Stage {
    root: usize,
    dir: OwnedFd,
    files: usize,
}

impl<'a> Unpacker<'a, '_> {
    fn entry(
        &mut self,
        mut entry: Entry,
        body: &mut impl Read,
        failed: &impl Fn(io::Error) -> FileOpError,
    ) -> Result<(), FileOpError> {
        // The destination itself keeps its metadata.
        let Some((parent, name)) = split(&entry.path) else { return Ok(()) };
        let (parent, name) = (self.parent(parent)?, name.to_vec());
        let path = join(&parent, &name);
        let place = self.open(&parent, &path)?;
        entry.path = Vec::new();
        (entry.uid, entry.gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        if entry.mtime.secs < 0 {
            entry.mtime = Timestamp::default();
        }
        let there = self.draft.find(self.view, &place, &name);
        if there.is_some() && !(there == Some(Found::Dir) && entry.is_dir()) {
            self.draft.remove(self.view, &place, &name);
        }
        match &entry.kind {
            Kind::Dir { .. } => self.dir(entry, &place, &name, path, there),
            Kind::Hardlink { target } => {
                let target = target.clone();
                self.hardlink(&entry, &target, &place, &name)?;
            }
            Kind::File { .. } => {
                let content = Some(self.content(&mut entry, body).map_err(failed)?);
                self.draft.make(&place, &name, Inode { entry, content });
            }
            Kind::Symlink { .. } | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {
                self.draft.make(&place, &name, Inode { entry, content: None });
            }
            Kind::Whiteout => {}
        }
        Ok(())
    }

    /// The directory that an entry goes to, links followed; made if missing.
    fn parent(&mut self, parent: &[u8]) -> Result<Vec<u8>, FileOpError> {
        let below = resolve(&Below { draft: self.draft, root: &self.dest }, parent, true)?;
        let path = below_root(&self.dest, &below);
        self.draft.make_dirs(&path, 0o755, Some((0, 0)), None)?;
        Ok(path)
    }

    fn open(&mut self, dir: &[u8], path: &[u8]) -> Result<Place<'a>, FileOpError> {
        let place = self.draft.open(self.view, dir);
        place.ok_or_else(|| FileOpError::path("open", path, Why::NotADirectory))
    }

    fn dir(
        &mut self,
        entry: Entry,
        place: &Place<'a>,
        name: &[u8],
        path: Vec<u8>,
        there: Option<Found>,
    ) {
        self.dirs.push((path, entry.mtime));
        if there != Some(Found::Dir) {
            self.draft.make_dir(self.view, place, name, entry);
            return;
        }
        let Some(place) = self.draft.enter(self.view, place, name) else { return };
        let own = self.draft.entry_mut(&place);
        (own.mode, own.uid, own.gid) = (entry.mode, entry.uid, entry.gid);
        own.xattrs.extend(entry.xattrs);
    }

    fn hardlink(
        &mut self,
        entry: &Entry,
        target: &[u8],
        place: &Place<'a>,
        name: &[u8],
    ) -> Result<(), FileOpError> {
        let below = resolve(&Below { draft: self.draft, root: &self.dest }, target, false)?;
        let path = below_root(&self.dest, &below);
        let missing = || FileOpError::path("link", &path, Why::NotFound);
        let (parent, target_name) = split(&path).ok_or_else(missing)?;
        let target_place = self.draft.open(self.view, parent).ok_or_else(missing)?;
        let base = target_place.base.as_ref().and_then(|base| self.view.child(base, target_name));
        let number =
            self.draft.inode_number(self.view, &target_place, target_name).ok_or_else(missing)?;
        self.draft.link(place, name, number);
        let inode = self.draft.inode_at(number);
        if let (Kind::File { .. }, None, Some(source), Some(node)) =
            (&inode.entry.kind, &inode.content, &self.context.base, base)
        {
            inode.content = Some(source.content(&node, self.context.roots));
        }
        (inode.entry.uid, inode.entry.gid) = (entry.uid, entry.gid);
        inode.entry.xattrs.extend(entry.xattrs.clone());
        if !matches!(inode.entry.kind, Kind::Symlink { .. }) {
            inode.entry.mode = entry.mode;
            inode.entry.mtime = entry.mtime;
        }
        Ok(())
    }

    /// Writes a content to the staging directory and notes its digest.
    fn content(&mut self, entry: &mut Entry, body: &mut impl Read) -> io::Result<Content> {
        let mut content = Content::Inline(Vec::new());
        let Kind::File { size, digest } = &mut entry.kind else { return Ok(content) };
        *digest = Some(Box::new(Digest::of(b"")));
        if *size > 0 {
            let (root, mut file, path) = self.stage()?;
            *digest = Some(Box::new(copy(body, &mut file)?));
            content = Content::Tree { root, path };
        }
        Ok(content)
    }

    /// A new file of the staging directory: number of its root, the file, its name.
    fn stage(&mut self) -> io::Result<(usize, File, Vec<u8>)> {
        if self.stage.is_none() {
            let (root, dir) = self.context.host.stage()?;
            self.stage = Some(Stage { root: self.context.roots.add(root), dir, files: 0 });
        }
        let stage = self.stage.as_mut().expect("it was just made");
        let name = stage.files.to_string();
        stage.files += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&stage.dir, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((stage.root, file.into(), name.into_bytes()))
    }

    /// Sets the times of directories, which changed while they were filled.
    fn finish(&mut self) {
        for (path, mtime) in std::mem::take(&mut self.dirs) {
            // A later entry may have replaced it.
            if let Some(place) = self.draft.open(self.view, &path) {
                self.draft.entry_mut(&place).mtime = mtime;
            }
        }
    }
}

fn copy(from: &mut impl Read, to: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&chunk[..count]);
                to.write_all(&chunk[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A draft as it looks from one of its directories.
struct Below<'a> {
    draft: &'a Draft,
    root: &'a [u8],
}

impl Tree for Below<'_> {
    fn stat(&self, path: &[u8]) -> Option<Stat> {
        self.draft.stat(&below_root(self.root, path))
    }

    fn names(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        self.draft.names(&below_root(self.root, dir))
    }
}

fn below_root(root: &[u8], path: &[u8]) -> Vec<u8> {
    if path.is_empty() { root.to_vec() } else { join(root, path) }
}
