//! Applies the entries of a layer archive to an empty ground, and collects the listing.
//!
//! Archives are hostile. Every name is taken apart before it is used, directories are entered
//! without following links, and what the layer itself has put in the way decides what happens:
//! a link of the same layer in the middle of a path is followed *within the layer* by rewriting the
//! path, as container engines do; anything else that is no directory is an error.
//!
//! An archive may name a path twice, white out what it also adds, or come in any order: the later
//! entry wins, a whiteout never removes what the layer itself adds, and the listing is sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use rbuild_store::entry::{Entry, Kind, Timestamp};
use rbuild_store::tar;
use rustix::io::Errno;

use super::dir::{self, MAX_DEPTH, Obstacle, split};
use super::error::{Error, show};
use super::ground::Ground;
use super::links::{self, PathKey};
use super::lower::Lower;
use super::owner::Table;

/// Longest name in a directory, as Linux has it.
const MAX_NAME_BYTES: usize = 255;

/// Links of the layer itself that are followed on the way to one entry (as `MAXSYMLINKS`).
const MAX_LINKS_FOLLOWED: usize = 40;

/// A layer that is being applied.
#[derive(Debug)]
pub(crate) struct Applier<'a> {
    ground: &'a mut dyn Ground,
    lower: &'a Lower<'a>,
    names: Names,
    /// Directories that hide what is below, whether or not an entry describes them.
    opaque: BTreeSet<Vec<u8>>,
    has_links: bool,
    size: u64,
}

/// What a layer has so far.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) entries: BTreeMap<PathKey, Entry>,
    /// Directories that no entry describes (yet).
    pub(crate) implied: BTreeSet<Vec<u8>>,
}

/// An applied layer.
#[derive(Debug)]
pub(crate) struct Applied {
    /// In listing order.
    pub(crate) listing: Vec<Entry>,
    /// What the inodes could not carry.
    pub(crate) owners: Table,
    /// Bytes of the regular files.
    pub(crate) size: u64,
}

impl<'a> Applier<'a> {
    /// Starts with nothing on the ground, over the layers `lower`.
    pub(crate) fn new(ground: &'a mut dyn Ground, lower: &'a Lower<'a>) -> Self {
        let (names, opaque) = (Names::default(), BTreeSet::new());
        Self { ground, lower, names, opaque, has_links: false, size: 0 }
    }

    /// Applies what an archive says next; `content` is the body of a regular file.
    ///
    /// # Errors
    ///
    /// If it is hostile or the disk refuses.
    pub(crate) fn item(
        &mut self,
        item: tar::read::Item,
        content: &mut dyn Read,
    ) -> Result<(), Error> {
        let mut entry = match item {
            tar::read::Item::Entry(entry) => entry,
            tar::read::Item::Opaque(mut path) => {
                self.follow_own_links(&mut path)?;
                self.enter(&path)?;
                self.opaque.insert(path);
                return Ok(());
            }
        };
        self.follow_own_links(&mut entry.path)?;
        match entry.kind {
            Kind::Whiteout => self.white_out(&entry.path),
            Kind::Dir { .. } => self.directory(entry),
            Kind::Symlink { .. }
            | Kind::File { .. }
            | Kind::Hardlink { .. }
            | Kind::Char { .. }
            | Kind::Block { .. }
            | Kind::Fifo => {
                if matches!(entry.kind, Kind::Symlink { .. }) {
                    // Links have no mode of their own; archives say this or that.
                    entry.mode = 0o777;
                }
                self.make_room(&entry.path)?;
                self.inode(entry, content)
            }
        }
    }

    /// Completes directories and returns the listing.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub(crate) fn finish(mut self) -> Result<Applied, Error> {
        for path in std::mem::take(&mut self.opaque) {
            let key = PathKey(path);
            if let Some(Entry { kind: Kind::Dir { opaque }, .. }) = self.names.entries.get_mut(&key)
            {
                *opaque = true;
            } else {
                let mut entry = Entry::dir(&key.0[..], Timestamp::default());
                entry.kind = Kind::Dir { opaque: true };
                self.names.implied.remove(&key.0);
                self.names.entries.insert(key, entry);
            }
        }
        if self.has_links {
            links::settle(&mut self.names.entries);
        }
        let Names { entries, implied } = self.names;
        let listing: Vec<Entry> = entries.into_values().collect();
        let owners = self.ground.finish(&implied, &listing)?;
        Ok(Applied { listing, owners, size: self.size })
    }

    /// Rewrites a path that leads through a symbolic link of this layer.
    fn follow_own_links(&mut self, path: &mut Vec<u8>) -> Result<(), Error> {
        for _ in 0..MAX_LINKS_FOLLOWED {
            let (parent, _) = split(path);
            let Err(Obstacle::Refused(link, Errno::LOOP | Errno::NOTDIR)) =
                self.ground.enter(parent, &self.names)
            else {
                return Ok(());
            };
            let Some(Kind::Symlink { target }) =
                self.names.entries.get(&PathKey(link.clone())).map(|it| &it.kind)
            else {
                return Ok(());
            };
            let rest = path[link.len() + 1..].to_vec();
            *path = links::resolve(&link, target, &rest);
        }
        Err(Error::archive(&*path, "leads through too many symbolic links"))
    }

    /// Enters a directory, making what is missing of it.
    fn enter(&mut self, path: &[u8]) -> Result<(), Error> {
        loop {
            let missing = match self.ground.enter(path, &self.names) {
                Ok(()) => return Ok(()),
                Err(Obstacle::Missing(missing)) => missing,
                Err(Obstacle::Refused(at, errno)) => {
                    if self.is_whiteout(&at) {
                        self.directory_over_whiteout(&at)?;
                        continue;
                    }
                    return Err(match errno {
                        Errno::LOOP | Errno::NOTDIR => {
                            Error::archive(at, "is no directory, but has something below it")
                        }
                        errno => Error::io("open", at)(errno),
                    });
                }
                Err(Obstacle::TooDeep(path)) => {
                    let (path, limit) = (show(path), MAX_DEPTH as u64);
                    return Err(Error::Limit { path, what: "depth of directories", limit });
                }
            };
            if self.is_whiteout(&missing) {
                self.directory_over_whiteout(&missing)?;
                continue;
            }
            self.make_dir(&missing, &Entry::dir(&missing[..], Timestamp::default()))?;
            self.names.implied.insert(missing);
        }
    }

    fn is_whiteout(&self, path: &[u8]) -> bool {
        let key = PathKey(path.to_vec());
        self.names.entries.get(&key).is_some_and(|it| it.kind == Kind::Whiteout)
    }

    /// The layer hides a path and then has something below it: a directory that hides.
    fn directory_over_whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        let mut entry = Entry::dir(path, Timestamp::default());
        entry.kind = Kind::Dir { opaque: true };
        self.directory(entry)
    }

    fn directory(&mut self, mut entry: Entry) -> Result<(), Error> {
        let path = entry.path.clone();
        let key = PathKey(path.clone());
        match self.names.entries.get(&key).map(|it| &it.kind) {
            Some(Kind::Dir { opaque }) => {
                let opaque = *opaque || matches!(entry.kind, Kind::Dir { opaque: true });
                entry.kind = Kind::Dir { opaque };
            }
            Some(_) => {
                // What was here hid whatever is below, and so must the directory.
                self.make_room(&path)?;
                entry.kind = Kind::Dir { opaque: true };
                self.make_dir(&path, &entry)?;
            }
            None if path.is_empty() || self.names.implied.remove(&path) => {}
            None => self.make_dir(&path, &entry)?,
        }
        self.names.entries.insert(key, entry);
        Ok(())
    }

    fn make_dir(&mut self, path: &[u8], entry: &Entry) -> Result<(), Error> {
        let (parent, name) = split(path);
        check_name(path, name)?;
        self.enter(parent)?;
        self.ground.dir(name, entry).map_err(Error::io("create", path))
    }

    fn white_out(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.names.implied.contains(path) {
            let mut entry = Entry::dir(path, Timestamp::default());
            entry.kind = Kind::Dir { opaque: true };
            return self.directory(entry);
        }
        match self.names.entries.get_mut(&PathKey(path.to_vec())).map(|it| &mut it.kind) {
            Some(Kind::Dir { opaque }) => *opaque = true,
            // The layer has something of its own here, which hides as well.
            Some(_) => {}
            None => return self.inode(super::commit::whiteout(path), &mut std::io::empty()),
        }
        Ok(())
    }

    /// Removes what this layer has at `path`.
    fn make_room(&mut self, path: &[u8]) -> Result<(), Error> {
        let key = PathKey(path.to_vec());
        let old = self.names.entries.remove(&key);
        let is_dir = self.names.implied.remove(path) || old.as_ref().is_some_and(Entry::is_dir);
        if old.is_none() && !is_dir {
            return Ok(());
        }
        if is_dir {
            self.ground.forget(path);
            let below: Vec<PathKey> = links::below(&self.names.entries, path);
            let gone: Vec<Entry> =
                below.iter().filter_map(|it| self.names.entries.remove(it)).collect();
            self.names.implied.retain(|it| !dir::starts_with_dir(it, path));
            self.opaque.retain(|it| !dir::starts_with_dir(it, path));
            for it in gone {
                self.detach(&it);
            }
        }
        if let Some(old) = old {
            self.detach(&old);
        }
        let (parent, name) = split(path);
        self.enter(parent)?;
        self.ground.remove(name)
    }

    /// An entry is gone: other names of its inode stay what they are.
    fn detach(&mut self, gone: &Entry) {
        if self.has_links {
            links::detach(&mut self.names.entries, gone);
        }
    }

    fn inode(&mut self, entry: Entry, content: &mut dyn Read) -> Result<(), Error> {
        let path = entry.path.clone();
        let (parent, name) = split(&path);
        check_name(&path, name)?;
        if let Kind::Hardlink { target } = &entry.kind {
            let target = target.clone();
            return self.hard_link(entry, target);
        }
        self.enter(parent)?;
        if let Kind::File { size, .. } = &entry.kind {
            self.ground.file(name, &entry, content)?;
            self.size += *size;
        } else {
            self.ground.other(name, &entry).map_err(Error::io("create", &path))?;
        }
        self.names.entries.insert(PathKey(path), entry);
        Ok(())
    }

    /// Makes a file of a layer below one of this layer, and returns where it is.
    fn bring_up(&mut self, link: &[u8], target: &[u8]) -> Result<Vec<u8>, Error> {
        let Some(found) = self.lower.find(target)? else {
            return Err(Error::archive(link, "links to something that is in no layer"));
        };
        let (real, entry) = (found.entry.path.clone(), found.entry.clone());
        if self.names.entries.contains_key(&PathKey(real.clone())) {
            return Ok(real);
        }
        if let Kind::File { size, .. } = entry.kind {
            let (parent, name) = split(&real);
            self.enter(parent)?;
            self.ground.lower_file(name, self.lower, &found)?;
            self.size += size;
            self.names.entries.insert(PathKey(real.clone()), entry);
        } else {
            self.inode(entry, &mut std::io::empty())?;
        }
        Ok(real)
    }

    fn hard_link(&mut self, entry: Entry, mut target: Vec<u8>) -> Result<(), Error> {
        self.follow_own_links(&mut target)?;
        let path = entry.path.clone();
        if !self.names.entries.contains_key(&PathKey(target.clone())) {
            target = self.bring_up(&path, &target)?;
        }
        let Some(first) = self.names.entries.get(&PathKey(target.clone())) else {
            return Err(Error::Bug(format!("`{}` was not brought up", show(&target))));
        };
        if first.is_dir() || first.kind == Kind::Whiteout {
            return Err(Error::archive(&path, "links to something that is no file"));
        }
        let inode = if let Kind::Hardlink { target } = &first.kind { target } else { &target };
        let kind = Kind::Hardlink { target: inode.clone() };
        // What an archive says of the link's metadata is a copy: the inode has one.
        let entry = Entry { path: entry.path, kind, ..first.clone() };
        let (parent, name) = split(&path);
        self.enter(parent)?;
        self.ground.link(&target, name).map_err(Error::io("link", &path))?;
        self.has_links = true;
        self.names.entries.insert(PathKey(path), entry);
        Ok(())
    }
}

fn check_name(path: &[u8], name: &[u8]) -> Result<(), Error> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::archive(path, "has too long a name"));
    }
    Ok(())
}
