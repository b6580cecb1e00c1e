//! A file tree in memory, read from the tars of layers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;

/// A file tree: path without leading slash, and what is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    /// By path, sorted.
    pub nodes: BTreeMap<String, Node>,
}

/// What is at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// The type: `d`, `-`, `l`, `c`, `b`, `p`; `h` for a hard link, whose first name is the target.
    pub kind: char,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Where a link points; the numbers of a device.
    pub target: String,
    /// What a file contains.
    pub content: Vec<u8>,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Applies a layer: adds, replaces, and removes what its whiteouts name.
    ///
    /// # Panics
    ///
    /// If it is not a tar.
    pub fn apply(&mut self, layer: &[u8]) {
        for (path, node) in entries(layer) {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let beside = |name: &str| {
                if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
            };
            if name == ".wh..wh..opq" {
                self.nodes.retain(|other, _| !other.starts_with(&beside("")));
            } else if let Some(gone) = name.strip_prefix(".wh.") {
                self.remove(&beside(gone));
            } else {
                if node.kind != 'd' || self.nodes.get(&path).is_some_and(|old| old.kind != 'd') {
                    self.remove(&path);
                }
                self.nodes.insert(path, node);
            }
        }
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes.retain(|other, _| other != path && !other.starts_with(&below));
    }

    /// The entries of one layer as they are, whiteouts under their own names.
    pub fn of_layer(layer: &[u8]) -> Self {
        Self { nodes: entries(layer).into_iter().collect() }
    }

    /// All paths.
    pub fn paths(&self) -> Vec<&str> {
        self.nodes.keys().map(String::as_str).collect()
    }

    /// What is at a path.
    ///
    /// # Panics
    ///
    /// If nothing is.
    #[track_caller]
    pub fn at(&self, path: &str) -> &Node {
        self.nodes.get(path).unwrap_or_else(|| panic!("there is no `{path}` among\n{self}"))
    }

    /// The text of a file; of a hard link, what its first name has.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        let node = self.at(path);
        let node = if node.kind == 'h' { self.at(&node.target) } else { node };
        String::from_utf8_lossy(&node.content).into_owned()
    }
}

/// One line for each path: type and permissions, owner, path, and where a link points.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, node) in &self.nodes {
            write!(f, "{}{:04o} {}:{} {path}", node.kind, node.mode, node.uid, node.gid)?;
            if !node.target.is_empty() {
                write!(f, " -> {}", node.target)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn entries(layer: &[u8]) -> Vec<(String, Node)> {
    let mut archive = tar::Archive::new(layer);
    archive.entries().expect("a tar").map(|entry| node(entry.expect("an entry of a tar"))).collect()
}

/// Types of entries, and the letters that `ls` gives them; everything else is a file.
const KINDS: [(tar::EntryType, char); 6] = [
    (tar::EntryType::Directory, 'd'),
    (tar::EntryType::Symlink, 'l'),
    (tar::EntryType::Link, 'h'),
    (tar::EntryType::Char, 'c'),
    (tar::EntryType::Block, 'b'),
    (tar::EntryType::Fifo, 'p'),
];

fn node(mut entry: tar::Entry<'_, &[u8]>) -> (String, Node) {
    let path = String::from_utf8_lossy(&entry.path_bytes())
        .trim_start_matches("./")
        .trim_end_matches('/')
        .to_owned();
    let target = entry
        .link_name_bytes()
        .map(|target| String::from_utf8_lossy(&target).into_owned())
        .unwrap_or_default();
    let mut xattrs = BTreeMap::new();
    if let Ok(Some(extensions)) = entry.pax_extensions() {
        for extension in extensions.filter_map(Result::ok) {
            if let Some(name) =
                extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr."))
            {
                xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
    }
    let header = entry.header();
    let kind = KINDS
        .iter()
        .find(|(kind, _)| *kind == header.entry_type())
        .map_or('-', |(_, letter)| *letter);
    let number = |field: std::io::Result<u64>| field.expect("a number in a tar header");
    let mut node = Node {
        kind,
        mode: header.mode().expect("a mode in a tar header") & 0o7777,
        uid: number(header.uid()),
        gid: number(header.gid()),
        mtime: number(header.mtime()),
        target,
        content: Vec::new(),
        xattrs,
    };
    if let (Ok(Some(major)), Ok(Some(minor)), 'c' | 'b') =
        (header.device_major(), header.device_minor(), kind)
    {
        node.target = format!("{major}:{minor}");
    }
    entry.read_to_end(&mut node.content).expect("all of an entry");
    (path, node)
}
