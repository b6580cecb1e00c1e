//! A tree while actions change it: the view below, and what was changed so far.
//!
//! Only directories on the way to a change are in the draft; everything else shows through from
//! the view. Paths given to the methods are canonical and contain no symbolic link.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_store::entry::{Entry, Timestamp};

use super::error::{FileOpError, Why};
use super::graft::Graft;
use crate::tree::listing::{join, split};
use crate::tree::resolve::{Stat, Tree};
use crate::tree::view::{Node, View};
use crate::worker::proto::Content;

/// The bit of a directory's mode that what is made in it inherits.
const SET_GROUP_ID: u32 = 0o2000;

/// A tree while actions change it. The default has nothing, not even a root: it stands in for one
/// that was handed on.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    base: Arc<View>,
    /// Time of directories in which something is made or removed.
    now: Timestamp,
    /// The first one is the root.
    dirs: Vec<Dir>,
    inodes: Vec<Inode>,
    /// What fills a directory, by its number. Nothing may be asked of that directory any more.
    graft: Option<(usize, Graft)>,
}

/// A directory of the draft.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    /// Its metadata (with an empty path); none as long as it is what the view below says.
    pub(super) entry: Option<Entry>,
    /// Whether nothing of the view below shows through.
    pub(super) opaque: bool,
    /// What was changed in it.
    pub(super) names: BTreeMap<Vec<u8>, Slot>,
}

/// A changed name of a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Slot {
    /// Removed.
    Gone,
    /// A name of an inode, by number.
    Leaf(usize),
    /// A directory, by number.
    Dir(usize),
}

/// Anything but a directory.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    /// Type and metadata; the path is empty.
    pub(super) entry: Entry,
    /// Content of a regular file.
    pub(super) content: Option<Content>,
}

/// An open directory: its number in the draft, and what the view below has at its path.
#[derive(Clone, Debug)]
pub(super) struct Place<'v> {
    pub(super) dir: usize,
    pub(super) base: Option<Node<'v>>,
}

/// What has a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    Dir,
    Other,
}

impl Draft {
    pub(super) fn new(base: Arc<View>, now: Timestamp) -> Self {
        Self { base, now, dirs: vec![Dir::default()], inodes: Vec::new(), graft: None }
    }

    /// The view below. Places borrow from it, never from the draft.
    pub(super) fn base(&self) -> Arc<View> {
        Arc::clone(&self.base)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn dir(&self, number: usize) -> &Dir {
        &self.dirs[number]
    }

    pub(super) fn inodes(&self) -> &[Inode] {
        &self.inodes
    }

    /// The root directory.
    pub(super) fn root(base: &View) -> Place<'_> {
        Place { dir: 0, base: Some(base.root()) }
    }

    /// What has a name in a directory.
    pub(super) fn find(&self, view: &View, place: &Place<'_>, name: &[u8]) -> Option<Found> {
        match self.dirs[place.dir].names.get(name) {
            Some(Slot::Gone) => None,
            Some(Slot::Leaf(_)) => Some(Found::Other),
            Some(Slot::Dir(_)) => Some(Found::Dir),
            None => {
                let node = self.shown(view, place, name)?;
                Some(if node.is_dir() { Found::Dir } else { Found::Other })
            }
        }
    }

    /// What the view below shows at a name that the draft says nothing of.
    fn shown<'v>(&self, view: &'v View, place: &Place<'v>, name: &[u8]) -> Option<Node<'v>> {
        if self.dirs[place.dir].opaque {
            return None;
        }
        view.child(place.base.as_ref()?, name)
    }

    /// Whether nothing is in a directory, and nothing of the view below was.
    pub(super) fn is_empty(&self, view: &View, place: &Place<'_>) -> bool {
        let below = place.base.as_ref().is_some_and(|base| !view.children(base).is_empty());
        self.dirs[place.dir].names.is_empty() && !below
    }

    /// Fills an empty directory, as the last thing that is done.
    pub(super) fn set_graft(&mut self, place: &Place<'_>, graft: Graft) {
        self.graft = Some((place.dir, graft));
    }

    /// What fills a directory.
    pub(super) fn graft(&self, dir: usize) -> Option<&Graft> {
        self.graft.as_ref().filter(|(it, _)| *it == dir).map(|(_, graft)| graft)
    }

    /// Opens a directory in a directory; none if there is no such directory.
    pub(super) fn enter<'v>(
        &mut self,
        view: &'v View,
        place: &Place<'v>,
        name: &[u8],
    ) -> Option<Place<'v>> {
        let below = || view.child(place.base.as_ref()?, name);
        match self.dirs[place.dir].names.get(name).copied() {
            Some(Slot::Gone | Slot::Leaf(_)) => None,
            Some(Slot::Dir(dir)) => {
                // Of an opaque directory the view below is needed only to tell what is gone.
                Some(Place { dir, base: below().filter(Node::is_dir) })
            }
            None => {
                let node = self.shown(view, place, name).filter(Node::is_dir)?;
                let dir = self.add_dir(place.dir, name, Dir::default());
                Some(Place { dir, base: Some(node) })
            }
        }
    }

    /// Opens a directory by its path; none if there is no such directory.
    pub(super) fn open<'v>(&mut self, view: &'v View, path: &[u8]) -> Option<Place<'v>> {
        let mut place = Self::root(view);
        for name in names(path) {
            place = self.enter(view, &place, name)?;
        }
        Some(place)
    }

    /// Metadata of a directory, to be changed.
    pub(super) fn entry_mut(&mut self, place: &Place<'_>) -> &mut Entry {
        self.dirs[place.dir].entry.get_or_insert_with(|| {
            let mut entry = place.base.as_ref().map_or_else(
                || Entry::dir(Vec::new(), Timestamp::default()),
                |node| node.inode().clone(),
            );
            entry.path.clear();
            entry.kind = rbuild_store::entry::Kind::Dir { opaque: false };
            entry
        })
    }

    /// Lets a directory that is made have what the kernel gives it: a set-group-id bit is passed
    /// on, and with it the group, unless its owner is given.
    pub(super) fn inherit(&mut self, parent: &Place<'_>, entry: &mut Entry, has_owner: bool) {
        let above = self.entry_mut(parent);
        if above.mode & SET_GROUP_ID != 0 {
            entry.mode |= SET_GROUP_ID;
            if !has_owner {
                entry.gid = above.gid;
            }
        }
    }

    /// Makes a directory at a name that is free.
    pub(super) fn make_dir<'v>(
        &mut self,
        view: &'v View,
        place: &Place<'v>,
        name: &[u8],
        entry: Entry,
    ) -> Place<'v> {
        self.touch(place);
        let base = place.base.as_ref().and_then(|base| view.child(base, name)).filter(Node::is_dir);
        let dir = Dir { entry: Some(entry), opaque: true, names: BTreeMap::new() };
        Place { dir: self.add_dir(place.dir, name, dir), base }
    }

    /// Puts a new inode at a name that is free, and returns its number.
    pub(super) fn make(&mut self, place: &Place<'_>, name: &[u8], inode: Inode) -> usize {
        self.inodes.push(inode);
        self.link(place, name, self.inodes.len() - 1);
        self.inodes.len() - 1
    }

    /// Gives an inode one more name, which is free.
    pub(super) fn link(&mut self, place: &Place<'_>, name: &[u8], inode: usize) {
        self.touch(place);
        self.dirs[place.dir].names.insert(name.to_vec(), Slot::Leaf(inode));
    }

    /// The number of the inode at a name, taken over from the view below if it is still there. None
    /// for a directory or if nothing has the name. The content of a file from below is not known
    /// here: the caller gives it one.
    pub(super) fn inode_number(
        &mut self,
        view: &View,
        place: &Place<'_>,
        name: &[u8],
    ) -> Option<usize> {
        match self.dirs[place.dir].names.get(name).copied() {
            Some(Slot::Leaf(inode)) => Some(inode),
            Some(Slot::Gone | Slot::Dir(_)) => None,
            None => {
                let node = self.shown(view, place, name).filter(|node| !node.is_dir())?;
                let mut entry = node.inode().clone();
                entry.path.clear();
                self.inodes.push(Inode { entry, content: None });
                let number = self.inodes.len() - 1;
                self.dirs[place.dir].names.insert(name.to_vec(), Slot::Leaf(number));
                Some(number)
            }
        }
    }

    /// An inode, to be changed.
    pub(super) fn inode_at(&mut self, number: usize) -> &mut Inode {
        &mut self.inodes[number]
    }

    /// Removes a name and all that is below it.
    pub(super) fn remove(&mut self, view: &View, place: &Place<'_>, name: &[u8]) {
        if self.find(view, place, name).is_none() {
            return;
        }
        self.touch(place);
        self.dirs[place.dir].names.insert(name.to_vec(), Slot::Gone);
    }

    /// Notes that the names of a directory change now.
    pub(super) fn touch(&mut self, place: &Place<'_>) {
        let now = self.now;
        self.entry_mut(place).mtime = now;
    }

    /// Makes a directory and the missing ones above it, as `mkdir -p` does; returns the paths of
    /// those that were made, topmost first. Without an owner they are root's.
    ///
    /// # Errors
    ///
    /// If something that is not a directory is in the way.
    pub(super) fn make_dirs(
        &mut self,
        path: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
        time: Option<Timestamp>,
    ) -> Result<Vec<Vec<u8>>, FileOpError> {
        let (uid, gid) = owner.unwrap_or((0, 0));
        let view = self.base();
        let mut place = Self::root(&view);
        let mut at = Vec::new();
        let mut made = Vec::new();
        for name in names(path) {
            at = join(&at, name);
            place = match self.find(&view, &place, name) {
                Some(Found::Dir) => self.enter(&view, &place, name),
                Some(Found::Other) => {
                    return Err(FileOpError::path("mkdir", &at, Why::NotADirectory));
                }
                None => {
                    made.push(at.clone());
                    let mut entry = Entry::dir(Vec::new(), time.unwrap_or(self.now));
                    (entry.mode, entry.uid, entry.gid) = (mode, uid, gid);
                    self.inherit(&place, &mut entry, owner.is_some());
                    Some(self.make_dir(&view, &place, name, entry))
                }
            }
            .expect("a directory that was found or made can be entered");
        }
        Ok(made)
    }

    /// What has this path.
    pub(super) fn look(&self, path: &[u8]) -> Option<Found> {
        match self.locate(path)? {
            Located::Dir(..) => Some(Found::Dir),
            Located::Leaf(_) => Some(Found::Other),
            Located::Below(node) if node.is_dir() => Some(Found::Dir),
            Located::Below(_) => Some(Found::Other),
        }
    }

    fn locate(&self, path: &[u8]) -> Option<Located<'_>> {
        let mut place = Self::root(&self.base);
        let Some((parent, last)) = split(path) else { return Some(Located::Dir(place)) };
        for name in names(parent) {
            place = match self.dirs[place.dir].names.get(name) {
                Some(Slot::Gone | Slot::Leaf(_)) => return None,
                Some(&Slot::Dir(dir)) => {
                    let base = place.base.and_then(|base| self.base.child(&base, name));
                    Place { dir, base: base.filter(Node::is_dir) }
                }
                None if self.dirs[place.dir].opaque => return None,
                // Nothing was changed from here on.
                None => return self.base.lookup(path).map(Located::Below),
            };
        }
        match self.dirs[place.dir].names.get(last) {
            Some(Slot::Gone) => None,
            Some(&Slot::Leaf(inode)) => Some(Located::Leaf(inode)),
            Some(&Slot::Dir(dir)) => {
                let base = place.base.and_then(|base| self.base.child(&base, last));
                Some(Located::Dir(Place { dir, base: base.filter(Node::is_dir) }))
            }
            None => self.shown(&self.base, &place, last).map(Located::Below),
        }
    }

    fn add_dir(&mut self, parent: usize, name: &[u8], dir: Dir) -> usize {
        self.dirs.push(dir);
        let number = self.dirs.len() - 1;
        self.dirs[parent].names.insert(name.to_vec(), Slot::Dir(number));
        number
    }
}

enum Located<'v> {
    Dir(Place<'v>),
    Leaf(usize),
    Below(Node<'v>),
}

impl Tree for Draft {
    fn stat(&self, path: &[u8]) -> Option<Stat> {
        Some(match self.locate(path)? {
            Located::Dir(_) => Stat::Dir,
            Located::Leaf(inode) => Stat::of(&self.inodes[inode].entry.kind),
            Located::Below(node) => Stat::of(&node.inode().kind),
        })
    }

    fn names(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        let children = |node: &Node<'_>| -> Vec<Vec<u8>> {
            self.base.children(node).iter().map(|child| child.name().to_vec()).collect()
        };
        let place = match self.locate(dir) {
            Some(Located::Dir(place)) => place,
            Some(Located::Below(node)) => return children(&node),
            Some(Located::Leaf(_)) | None => return Vec::new(),
        };
        let own = &self.dirs[place.dir];
        let mut found = Vec::new();
        if let (false, Some(base)) = (own.opaque, &place.base) {
            found = children(base);
        }
        found.retain(|name| !own.names.contains_key(name));
        found.extend(
            own.names.iter().filter(|(_, slot)| **slot != Slot::Gone).map(|(name, _)| name.clone()),
        );
        found.sort();
        found
    }
}

/// The components of a canonical path.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
}
