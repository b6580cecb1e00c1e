//! Trees that are read, and where the contents of their files are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use rbuild_store::entry::Kind;

use super::{Files, Host, Input, Layer};
use crate::tree::view::{Node, View};
use crate::worker::proto::{Content, Root};

/// A tree that is read.
#[derive(Clone, Debug)]
pub(in crate::tree) struct Source {
    view: Arc<View>,
    layers: Vec<Arc<Holder>>,
}

/// Where a layer's contents are. Its number tells it from all others, so that roots are listed once.
#[derive(Debug)]
struct Holder {
    number: usize,
    files: Files,
    /// For a planned layer: how many regular files come before each entry.
    ordinals: OnceLock<Vec<usize>>,
    /// The inodes with several names.
    linked: OnceLock<HashSet<usize>>,
}

impl Source {
    pub(in crate::tree) fn new(input: &Input, roots: &mut Roots) -> Self {
        let listings = input.layers.iter().map(|layer| Arc::clone(&layer.listing)).collect();
        let layers = input.layers.iter().map(|layer| Holder::new(layer, roots)).collect();
        Self { view: Arc::new(View::new(listings)), layers }
    }

    /// The same tree with one more layer on it.
    pub(in crate::tree) fn with(&self, layer: Layer, roots: &mut Roots) -> Self {
        let mut listings = self.view.layers().to_vec();
        let mut layers = self.layers.clone();
        layers.push(Holder::new(&layer, roots));
        listings.push(layer.listing);
        Self { view: Arc::new(View::new(listings)), layers }
    }

    pub(in crate::tree) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Where the content of a regular file is.
    pub(in crate::tree) fn content(&self, node: &Node<'_>, roots: &mut Roots) -> Content {
        if let Kind::File { size: 0, .. } = node.inode().kind {
            // A socket of a context is an empty file, but cannot be opened as one.
            return Content::Inline(Vec::new());
        }
        let holder = &self.layers[node.layer()];
        match &holder.files {
            Files::Root(root) => {
                let root = roots.number((holder.number, 0), root);
                Content::Tree { root, path: node.inode().path.clone() }
            }
            Files::Planned(contents) => {
                let ordinals = holder.ordinals.get_or_init(|| self.ordinals(node.layer()));
                let ordinal = node.index().and_then(|at| ordinals.get(at)).copied();
                match ordinal.and_then(|at| contents.files.get(at)) {
                    Some(Content::Tree { root, path }) => Content::Tree {
                        root: roots.number((holder.number, root), &contents.roots[root]),
                        path,
                    },
                    Some(inline) => inline,
                    None => Content::Inline(Vec::new()),
                }
            }
        }
    }

    /// Whether an inode, given by its layer and index, has several names.
    pub(in crate::tree) fn is_linked(&self, layer: usize, index: usize) -> bool {
        let listing = &self.view.layers()[layer];
        let linked = self.layers[layer].linked.get_or_init(|| {
            let links = listing.entries().iter().enumerate();
            links
                .filter(|(_, entry)| matches!(entry.kind, Kind::Hardlink { .. }))
                .map(|(at, _)| listing.inode(at))
                .collect()
        });
        linked.contains(&index)
    }

    fn ordinals(&self, layer: usize) -> Vec<usize> {
        let mut files = 0;
        let entries = self.view.layers()[layer].entries().iter();
        entries
            .map(|entry| {
                let ordinal = files;
                files += usize::from(matches!(entry.kind, Kind::File { .. }));
                ordinal
            })
            .collect()
    }
}

impl Holder {
    fn new(layer: &Layer, roots: &mut Roots) -> Arc<Self> {
        roots.holders += 1;
        Arc::new(Self {
            number: roots.holders,
            files: layer.files.clone(),
            ordinals: OnceLock::new(),
            linked: OnceLock::new(),
        })
    }
}

/// The roots that contents refer to, each once.
#[derive(Debug, Default)]
pub(in crate::tree) struct Roots {
    list: Vec<Root>,
    known: HashMap<(usize, usize), usize>,
    /// How many layers have a number.
    holders: usize,
}

impl Roots {
    /// The number of a root, given by its layer's number and its own within that.
    fn number(&mut self, key: (usize, usize), root: &Root) -> usize {
        *self.known.entry(key).or_insert_with(|| {
            self.list.push(root.clone());
            self.list.len() - 1
        })
    }

    /// A root that nobody has named yet.
    pub(in crate::tree) fn add(&mut self, root: Root) -> usize {
        self.list.push(root);
        self.list.len() - 1
    }

    pub(in crate::tree) fn list(&self) -> &[Root] {
        &self.list
    }
}

/// What copies share.
pub(super) struct Context<'a> {
    pub(super) roots: &'a mut Roots,
    pub(super) host: &'a dyn Host,
    /// The tree that is built upon.
    pub(super) base: Option<Source>,
    /// Whether the copy is all that is done.
    pub(super) alone: bool,
}
