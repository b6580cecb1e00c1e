//! A directory that is copied as a whole into one that is empty: nothing can be in its way.
//!
//! Such a copy is most often all that an operation does, and of a large context. It is not put
//! into the draft name by name, but goes from the source into the plan. The result is that of
//! [`super::copy`], which a test holds it to.

use std::collections::HashMap;

use rbuild_store::entry::{Entry, Kind, Timestamp};

use super::copy::Settings;
use super::emit::push_content;
use super::source::{Roots, Source};
use crate::tree::listing::join;
use crate::tree::pick::{self, Picked};
use crate::tree::view::Node;
use crate::worker::contents::ContentList;

/// What a directory is filled with.
#[derive(Clone, Debug)]
pub(super) struct Graft {
    pub(super) source: Source,
    /// Path of the directory whose content it is.
    pub(super) top: Vec<u8>,
    pub(super) settings: Settings,
}

impl Graft {
    /// Adds all that is in the directory to a plan, below `path`.
    pub(super) fn emit(
        &self,
        path: &[u8],
        now: Timestamp,
        roots: &mut Roots,
        entries: &mut Vec<Entry>,
        contents: &mut ContentList,
    ) {
        let view = self.source.view();
        let Some(top) = view.lookup(&self.top) else { return };
        // The first name of each inode that has several.
        let mut first: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
        let mut take = |picked: &Picked<'_, '_>| {
            if picked.below.is_empty() {
                return;
            }
            let (node, path) = (picked.node, join(path, picked.below));
            if node.is_dir() {
                entries.push(Entry { path, ..self.dir(node, picked.wanted, now) });
                return;
            }
            let mut entry = Entry { path, ..self.settings.leaf(node, now) };
            let identity = node.index().map(|index| (node.layer(), index));
            let identity = identity.filter(|&(layer, index)| self.source.is_linked(layer, index));
            if let Some(target) = identity.and_then(|identity| first.get(&identity)) {
                entry.kind = Kind::Hardlink { target: target.clone() };
            } else {
                let is_file = matches!(entry.kind, Kind::File { .. });
                let content = is_file.then(|| self.source.content(node, roots));
                push_content(contents, &entry.kind, content.as_ref());
                first.extend(identity.map(|identity| (identity, entry.path.clone())));
            }
            entries.push(entry);
        };
        let walked = pick::walk(&view, &top, &self.settings.filter, |picked| {
            take(&picked);
            Ok::<(), std::convert::Infallible>(())
        });
        match walked {
            Ok(()) => {}
        }
    }

    /// What becomes of a directory. One that nobody asked for changes when what is in it is made.
    fn dir(&self, node: &Node<'_>, wanted: bool, now: Timestamp) -> Entry {
        let from = node.inode();
        let mtime = if wanted { self.settings.time(node, now) } else { now };
        let mut entry = Entry::dir(Vec::new(), mtime);
        (entry.uid, entry.gid) = self.settings.owner.unwrap_or((from.uid, from.gid));
        entry.mode = self.settings.chmod.apply(from.mode, true);
        entry.xattrs.clone_from(&from.xattrs);
        entry
    }
}
