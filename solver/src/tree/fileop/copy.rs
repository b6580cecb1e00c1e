//! `COPY` and `ADD`.

use std::collections::HashMap;
use std::sync::Arc;

use rbuild_store::entry::{Entry, Kind, Timestamp};

use super::chmod::Chmod;
use super::draft::{Draft, Found, Inode, Place};
use super::error::{FileOpError, Why};
use super::graft::Graft;
use super::source::{Context, Roots, Source};
use super::unpack;
use crate::llb::op::FileCopy;
use crate::tree::listing::{is_below, join, split};
use crate::tree::pick::{self, Filter, Picked};
use crate::tree::resolve::resolve;
use crate::tree::view::{Node, View};

/// Copies what the operation names from a source into the draft.
pub(super) fn copy(
    draft: &mut Draft,
    source: &Source,
    op: &FileCopy,
    owner: Option<(u32, u32)>,
    mut context: Context<'_>,
) -> Result<(), FileOpError> {
    let src = pick::clean_operand(&op.src);
    let dest = pick::clean_operand(&op.dest);
    if !op.create_dest_path {
        let path = resolve(draft, dest.as_bytes(), true)?;
        let parent = split(&path).map_or(&b""[..], |(parent, _)| parent);
        if draft.look(parent).is_none() {
            return Err(FileOpError::NoDestination {
                dest: op.dest.clone(),
                path: parent.to_vec(),
            });
        }
    }
    let view = source.view();
    let sources = if op.allow_wildcard {
        let found = pick::expand(&*view, &src, op.follow_symlink)?;
        if found.is_empty() && !op.allow_empty_wildcard {
            return Err(FileOpError::NoMatch { pattern: src });
        }
        found
    } else {
        vec![src]
    };
    let time = super::time(op.timestamp);
    let alone = context.alone && sources.len() == 1 && !op.attempt_unpack;
    let settings = Settings {
        owner,
        time,
        chmod: Chmod::new(op.mode.as_ref())?,
        filter: Filter::new(&op.include_patterns, &op.exclude_patterns)?,
        follow: op.follow_symlink,
        contents: op.dir_copy_contents,
        replace: op.always_replace_existing_dest_paths,
    };
    for src in sources {
        if op.attempt_unpack {
            let archive = unpack::Archive { source, src: &src, dest: &dest, owner, time };
            if archive.unpack(draft, &mut context)? {
                continue;
            }
        }
        copy_one(draft, source, &src, &dest, &settings, (context.roots, alone))?;
    }
    Ok(())
}

/// How things are copied.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Owner and group; none keeps those of the source.
    pub(super) owner: Option<(u32, u32)>,
    /// Time; none keeps that of the source.
    time: Option<Timestamp>,
    pub(super) chmod: Chmod,
    pub(super) filter: Filter,
    follow: bool,
    contents: bool,
    replace: bool,
}

impl Settings {
    /// The time of a copy. A directory that no layer describes is as old as the build.
    pub(super) fn time(&self, node: &Node<'_>, now: Timestamp) -> Timestamp {
        let own = node.index().map(|_| node.inode().mtime);
        self.time.or(own).unwrap_or(now)
    }

    /// What becomes of anything but a directory; its path is left empty.
    pub(super) fn leaf(&self, node: &Node<'_>, now: Timestamp) -> Entry {
        let mut entry = Entry { path: Vec::new(), ..node.inode().clone() };
        (entry.uid, entry.gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        entry.mtime = self.time(node, now);
        if let Kind::Block { major, minor } = entry.kind {
            // As BuildKit has it: it clears the bits of a socket's type, which turns a block
            // device into a character device.
            entry.kind = Kind::Char { major, minor };
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            entry.mode = self.chmod.apply(entry.mode, false);
        }
        entry
    }
}

/// Copies one path. `alone` says that nothing comes after it.
fn copy_one(
    draft: &mut Draft,
    source: &Source,
    src: &str,
    dest: &str,
    settings: &Settings,
    (roots, alone): (&mut Roots, bool),
) -> Result<(), FileOpError> {
    let make_dirs = |draft: &mut Draft, path: &[u8]| {
        draft.make_dirs(path, settings.chmod.parents(), settings.owner, settings.time)
    };
    // `/dir/` and `/dir/.` are directories, made if missing; of `/dir/file` only `/dir` is.
    let is_dir = matches!(dest.rsplit('/').next(), Some("" | "."));
    let ensured = if is_dir { dest } else { &dest[..dest.rfind('/').unwrap_or(0)] };
    let ensured = resolve(draft, ensured.as_bytes(), true)?;
    let mut made = make_dirs(draft, &ensured)?;
    let mut target = resolve(draft, dest.as_bytes(), true)?;

    let view: Arc<View> = source.view();
    let path = pick::source_path(&*view, src, settings.follow)?;
    let top = view.lookup(&path).ok_or_else(|| FileOpError::path("lstat", &path, Why::NotFound))?;
    let into = draft.look(&target);
    if (!settings.contents && top.is_dir() && into.is_some())
        || (!top.is_dir() && into == Some(Found::Dir))
    {
        // The name as it was written, not where it led to.
        let name = src.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        if !matches!(name, "" | ".") {
            target = join(&target, name.as_bytes());
        }
    }
    let parent = split(&target).map_or(&b""[..], |(parent, _)| parent);
    let needed =
        if settings.contents && top.is_dir() && into.is_none() { &target[..] } else { parent };
    made.extend(make_dirs(draft, needed)?);

    let base = draft.base();
    let into = if alone && settings.contents && top.is_dir() {
        draft.open(&base, &target).filter(|place| draft.is_empty(&base, place))
    } else {
        None
    };
    if let Some(place) = into {
        draft.entry_mut(&place).mtime = settings.time(&top, draft.now());
        let (source, top, settings) = (source.clone(), path, settings.clone());
        draft.set_graft(&place, Graft { source, top, settings });
    } else {
        let (open, links) = (Vec::new(), HashMap::new());
        let mut copier =
            Copier { draft, base: &base, source, settings, roots, target, open, links };
        pick::walk(&view, &top, &settings.filter, |picked| copier.take(&picked))?;
        copier.close_above(None);
    }
    if let Some(time) = settings.time {
        for path in &made {
            if let Some(place) = draft.open(&base, path) {
                draft.entry_mut(&place).mtime = time;
            }
        }
    }
    Ok(())
}

/// A copy of one path in progress.
struct Copier<'a, 'v> {
    draft: &'a mut Draft,
    base: &'a View,
    source: &'a Source,
    settings: &'a Settings,
    roots: &'a mut Roots,
    /// Where the top goes.
    target: Vec<u8>,
    /// Directories that are being filled, outermost first.
    open: Vec<Open<'a, 'v>>,
    /// Inodes of the draft by those of the source, for files with several names.
    links: HashMap<(usize, usize), usize>,
}

struct Open<'a, 'v> {
    path: Vec<u8>,
    place: Place<'a>,
    source: Node<'v>,
    finish: Finish,
}

/// What is done to a directory once it is filled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Finish {
    /// It gets all metadata of the source.
    All,
    /// It gets the time of the source.
    Time,
    /// Nothing: it was only on the way.
    Nothing,
}

impl<'a, 'v> Copier<'a, 'v> {
    fn take(&mut self, picked: &Picked<'_, 'v>) -> Result<(), FileOpError> {
        let path = match picked.below {
            b"" => self.target.clone(),
            below => join(&self.target, below),
        };
        self.close_above(Some(&path));
        let Some((parent, name)) = split(&path) else {
            self.fill(picked, Draft::root(self.base), path, false);
            return Ok(());
        };
        let place = match self.open.last() {
            Some(open) => open.place.clone(),
            None => self.draft.open(self.base, parent).expect("the directory was made before"),
        };
        let mut there = self.draft.find(self.base, &place, name);
        let both_dirs = there == Some(Found::Dir) && picked.node.is_dir();
        if self.settings.replace && picked.wanted && there.is_some() && !both_dirs {
            self.draft.remove(self.base, &place, name);
            there = None;
        }
        if !picked.node.is_dir() {
            return self.leaf(picked.node, &place, name, there, path.clone());
        }
        match there {
            Some(Found::Other) => return Err(FileOpError::OverNonDirectory { path }),
            Some(Found::Dir) => {
                let place = self.draft.enter(self.base, &place, name);
                let place = place.expect("a directory that was found can be entered");
                self.fill(picked, place, path, false);
            }
            None => {
                let mut entry = Entry::dir(Vec::new(), self.draft.now());
                entry.mode = picked.node.inode().mode;
                let place = self.draft.make_dir(self.base, &place, name, entry);
                self.fill(picked, place, path, true);
            }
        }
        Ok(())
    }

    /// Begins to fill a directory.
    fn fill(&mut self, picked: &Picked<'_, 'v>, place: Place<'a>, path: Vec<u8>, made: bool) {
        let is_top = picked.below.is_empty();
        let finish = match (picked.wanted, made) {
            // A directory that is only on the way gets its metadata at once, if it is new.
            (false, true) => {
                self.all_metadata(&place, picked.node);
                Finish::Nothing
            }
            (false, false) => {
                self.draft.entry_mut(&place).mode = picked.node.inode().mode;
                Finish::Nothing
            }
            // The directory that is copied into, as opposed to those below it, keeps its own.
            (true, false) if is_top => Finish::Time,
            (true, _) => Finish::All,
        };
        self.open.push(Open { path, place, source: picked.node.clone(), finish });
    }

    fn leaf(
        &mut self,
        node: &Node<'v>,
        place: &Place<'a>,
        name: &[u8],
        there: Option<Found>,
        path: Vec<u8>,
    ) -> Result<(), FileOpError> {
        match there {
            Some(Found::Dir) => return Err(FileOpError::OverDirectory { path }),
            Some(Found::Other) => self.draft.remove(self.base, place, name),
            None => {}
        }
        let identity = node.index().map(|index| (node.layer(), index));
        let identity = identity.filter(|&(layer, index)| self.source.is_linked(layer, index));
        if let Some(&inode) = identity.and_then(|identity| self.links.get(&identity)) {
            self.draft.link(place, name, inode);
            return Ok(());
        }
        let entry = self.settings.leaf(node, self.draft.now());
        let is_file = matches!(entry.kind, Kind::File { .. });
        let content = is_file.then(|| self.source.content(node, self.roots));
        let inode = self.draft.make(place, name, Inode { entry, content });
        if let Some(identity) = identity {
            self.links.insert(identity, inode);
        }
        Ok(())
    }

    /// Ends the directories that `path` is not in; all of them if there is none.
    fn close_above(&mut self, path: Option<&[u8]>) {
        while let Some(open) =
            self.open.pop_if(|open| !path.is_some_and(|path| is_below(path, &open.path)))
        {
            match open.finish {
                Finish::All => self.all_metadata(&open.place, &open.source),
                Finish::Time => self.draft.entry_mut(&open.place).mtime = self.time(&open.source),
                Finish::Nothing => {}
            }
        }
    }

    fn all_metadata(&mut self, place: &Place<'a>, node: &Node<'v>) {
        let mtime = self.time(node);
        let from = node.inode();
        let entry = self.draft.entry_mut(place);
        (entry.uid, entry.gid) = self.settings.owner.unwrap_or((from.uid, from.gid));
        entry.mode = self.settings.chmod.apply(from.mode, true);
        entry.mtime = mtime;
        entry.xattrs.extend(from.xattrs.clone());
    }

    fn time(&self, node: &Node<'v>) -> Timestamp {
        self.settings.time(node, self.draft.now())
    }
}
