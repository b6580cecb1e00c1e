//! From a draft to the layer that BuildKit would record.
//!
//! A directory is recorded if it is new, if its owner or mode changed, or if something below it is
//! recorded; a change of its time alone is none. A file that equals the one it replaces is not
//! recorded. Directories that were replaced as a whole are told by whiteouts of what is gone.

use rbuild_store::entry::{Entry, Kind};

use super::draft::{Dir, Draft, Inode, Place, Slot};
use super::source::Roots;
use crate::tree::listing::{Listing, join};
use crate::tree::view::{Node, View};
use crate::worker::contents::ContentList;
use crate::worker::proto::Content;

/// The listing of the layer, and the contents of its regular files in order.
pub(super) fn emit(draft: &Draft, roots: &mut Roots) -> (Listing, ContentList) {
    let view = draft.base();
    let mut out = Out {
        draft,
        roots,
        view: &view,
        entries: Vec::new(),
        contents: ContentList::default(),
        first: vec![None; draft.inodes().len()],
    };
    out.names(&Draft::root(&view), b"", false);
    let listing = Listing::new(out.entries).expect("a draft is walked in order");
    (listing, out.contents)
}

struct Out<'a> {
    draft: &'a Draft,
    roots: &'a mut Roots,
    view: &'a View,
    entries: Vec<Entry>,
    contents: ContentList,
    /// The first name under which an inode was recorded.
    first: Vec<Option<Vec<u8>>>,
}

impl<'a> Out<'a> {
    /// Records what changed in a directory. `hidden` says that nothing of the view below shows
    /// through, because the directory or one above it is new.
    fn names(&mut self, place: &Place<'a>, path: &[u8], hidden: bool) {
        if let Some(graft) = self.draft.graft(place.dir) {
            let Self { entries, contents, roots, .. } = self;
            graft.emit(path, self.draft.now(), roots, entries, contents);
            return;
        }
        let dir: &Dir = self.draft.dir(place.dir);
        let hidden = hidden || dir.opaque;
        let below = match &place.base {
            Some(base) if hidden => self.view.children(base),
            Some(_) | None => Vec::new(),
        };
        let mut below =
            below.into_iter().filter(|node| !dir.names.contains_key(node.name())).peekable();
        for (name, slot) in &dir.names {
            while let Some(gone) = below.next_if(|node| node.name() < name.as_slice()) {
                self.whiteout(gone.path());
            }
            let base = place.base.as_ref().and_then(|base| self.view.child(base, name));
            self.slot(*slot, join(path, name), base, hidden);
        }
        for gone in below {
            self.whiteout(gone.path());
        }
    }

    fn slot(&mut self, slot: Slot, path: Vec<u8>, base: Option<Node<'a>>, hidden: bool) {
        match slot {
            Slot::Gone if base.is_some() => self.whiteout(&path),
            Slot::Gone => {}
            Slot::Leaf(number) => {
                let inode = &self.draft.inodes()[number];
                if !base.is_some_and(|base| is_same(inode, &base)) {
                    self.leaf(number, path);
                }
            }
            Slot::Dir(number) => {
                let base = base.filter(Node::is_dir);
                let dir = self.draft.dir(number);
                let old = base.as_ref().map(Node::inode);
                let mut entry = match (&dir.entry, old) {
                    (Some(entry), _) => entry.clone(),
                    (None, Some(old)) => old.clone(),
                    (None, None) => return,
                };
                let changed = old.is_none_or(|old| !same_metadata(&entry, old));
                entry.kind = Kind::Dir { opaque: false };
                entry.path.clone_from(&path);
                let at = self.entries.len();
                self.entries.push(entry);
                self.names(&Place { dir: number, base }, &path, hidden);
                if !changed && self.entries.len() == at + 1 {
                    self.entries.pop();
                }
            }
        }
    }

    fn leaf(&mut self, number: usize, path: Vec<u8>) {
        let inode = &self.draft.inodes()[number];
        let mut entry = inode.entry.clone();
        if let Some(target) = &self.first[number] {
            entry.kind = Kind::Hardlink { target: target.clone() }
        } else {
            self.first[number] = Some(path.clone());
            push_content(&mut self.contents, &entry.kind, inode.content.as_ref());
        }
        entry.path = path;
        self.entries.push(entry);
    }

    fn whiteout(&mut self, path: &[u8]) {
        let mut entry = Entry::dir(path, self.draft.now());
        entry.kind = Kind::Whiteout;
        entry.mode = 0;
        self.entries.push(entry);
    }
}

/// Adds the content of a regular file; nothing for anything else.
pub(super) fn push_content(contents: &mut ContentList, kind: &Kind, content: Option<&Content>) {
    match (kind.file_size(), content) {
        (Some(1..), Some(content)) => contents.push(content),
        // It need not be opened, and a socket of a context cannot be.
        (Some(_), _) => contents.push(&Content::Inline(Vec::new())),
        (None, _) => {}
    }
}

/// What BuildKit compares of anything: mode, owner, capabilities.
fn same_metadata(new: &Entry, old: &Entry) -> bool {
    const CAPABILITY: &[u8] = b"security.capability";
    (new.mode, new.uid, new.gid) == (old.mode, old.uid, old.gid)
        && new.xattrs.get(CAPABILITY) == old.xattrs.get(CAPABILITY)
}

/// Whether a file equals the one below it. A time with a fraction of a second vouches for the
/// content, as it does for BuildKit, unless digests say otherwise; a whole second does not.
fn is_same(new: &Inode, base: &Node<'_>) -> bool {
    let (new, old) = (&new.entry, base.inode());
    let content = match (&new.kind, &old.kind) {
        (Kind::File { size, digest }, Kind::File { size: old_size, digest: old_digest }) => {
            size == old_size
                && match (digest, old_digest) {
                    (Some(new), Some(old)) => new == old,
                    _ => *size == 0 || new.mtime.nanos != 0,
                }
        }
        (Kind::Symlink { target }, Kind::Symlink { target: old_target }) => {
            return target == old_target
                && (new.uid, new.gid, new.mtime) == (old.uid, old.gid, old.mtime);
        }
        (kind, old_kind) => !matches!(kind, Kind::Dir { .. }) && kind == old_kind,
    };
    content && same_metadata(new, old) && new.mtime == old.mtime
}
