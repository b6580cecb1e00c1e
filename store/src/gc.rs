//! What may go: mark from the roots, list what is dead, then remove the list.
//!
//! Roots are tags and cache records. A tag keeps its manifests, configurations and layers' blobs;
//! a record keeps the layers and blobs that it names; a layer that is kept keeps the blobs it was
//! written as. [`plan`] only looks; [`apply`] carries a plan out, and needs the store exclusively.
//!
//! Removal is safe against `kill -9`: the database forgets first, so that nothing leads to what is
//! removed next; what is left over then has no root and is found by the next plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::db::Db;
use crate::digest::{BlobId, Digest};
use crate::error::{Result, StoreError};
use crate::image::source;
use crate::local::Store;
use crate::records::{LayerRow, Record, TreeId};

/// What may go besides that which nothing leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Records not used since then (seconds since the epoch) go; none keeps them.
    pub unused_since: Option<i64>,
    /// Records go, the longest unused first, until the rest takes at most so many bytes; none sets
    /// no limit.
    pub keep_bytes: Option<u64>,
    /// Cache mounts, partial downloads and stat caches go, too.
    pub extras: bool,
}

/// What goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Records.
    pub records: Vec<Digest>,
    /// Layers with the bytes of their files.
    pub layers: Vec<(String, u64)>,
    /// Blobs with their sizes.
    pub blobs: Vec<(BlobId, u64)>,
    /// Other directories with the bytes below them, as far as they can be read.
    pub extras: Vec<(PathBuf, u64)>,
}

impl Plan {
    /// Bytes that become free, as far as they are known.
    pub fn bytes(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(|(_, size)| size).sum();
        let blobs: u64 = self.blobs.iter().map(|(_, size)| size).sum();
        let extras: u64 = self.extras.iter().map(|(_, size)| size).sum();
        layers + blobs + extras
    }

    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How much of the store is used by what.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Number of tags.
    pub tags: usize,
    /// Number of records.
    pub records: usize,
    /// Number of layers, and bytes of their files.
    pub layers: (usize, u64),
    /// Number of blobs, and their bytes.
    pub blobs: (usize, u64),
    /// Bytes of cache mounts, as far as they can be read.
    pub cache_mounts: u64,
    /// Bytes of everything else: partial downloads, working trees, stat caches, the database.
    pub other: u64,
    /// Bytes that [`plan`] would free without any limit: what nothing leads to.
    pub reclaimable: u64,
}

/// Everything that the store holds, as data: what is decided upon.
#[derive(Debug, Default)]
struct Contents {
    /// Longest unused first.
    records: Vec<Record>,
    layers: BTreeMap<String, LayerRow>,
    blobs: BTreeMap<BlobId, u64>,
    sealed: Vec<(String, BlobId)>,
    /// Blobs that tags lead to.
    tagged: BTreeSet<BlobId>,
    extras: Vec<(PathBuf, u64)>,
}

/// Lists what may go.
///
/// # Errors
///
/// The store cannot be read.
pub fn plan(store: &Store, policy: &Policy) -> Result<Plan> {
    Ok(decide(&contents(store)?, policy))
}

/// Numbers for `du`.
///
/// # Errors
///
/// The store cannot be read.
pub fn usage(store: &Store) -> Result<Usage> {
    let contents = contents(store)?;
    let layout = store.layout();
    let dead = decide(&contents, &Policy { unused_since: None, keep_bytes: None, extras: false });
    let others = [layout.trees(), layout.stat(), layout.downloads(), layout.tmp()];
    let database = fs::metadata(layout.database()).map_or(0, |metadata| metadata.len());
    Ok(Usage {
        tags: store.db()?.tags()?.len(),
        records: contents.records.len(),
        layers: (contents.layers.len(), contents.layers.values().map(|row| row.size).sum()),
        blobs: (contents.blobs.len(), contents.blobs.values().sum()),
        cache_mounts: tree_bytes(&layout.cache_mounts()),
        other: others.iter().map(|dir| tree_bytes(dir)).sum::<u64>() + database,
        reclaimable: dead.bytes(),
    })
}

/// Looks at the store.
fn contents(store: &Store) -> Result<Contents> {
    let (layout, db) = (store.layout(), store.db()?);
    let mut layers: BTreeMap<_, _> =
        db.layers()?.into_iter().map(|row| (row.id.clone(), row)).collect();
    // Directories that the database does not know, of a process that was killed in between.
    for name in names(&layout.layers())? {
        layers.entry(name.clone()).or_insert(LayerRow {
            id: name,
            size: 0,
            created: 0,
            last_used: 0,
        });
    }
    let mut extras = Vec::new();
    for dir in [layout.cache_mounts(), layout.downloads(), layout.stat(), layout.trees()] {
        for name in names(&dir)? {
            let path = dir.join(name);
            let bytes = tree_bytes(&path);
            extras.push((path, bytes));
        }
    }
    Ok(Contents {
        records: db.all_records()?,
        layers,
        blobs: store.blobs().list()?.into_iter().collect(),
        sealed: db.all_sealed()?,
        tagged: tagged(store, db)?,
        extras,
    })
}

/// Blobs that tags lead to. A manifest that is not here, or is damaged, keeps what is left of it.
fn tagged(store: &Store, db: &Db) -> Result<BTreeSet<BlobId>> {
    let mut all = BTreeSet::new();
    for tag in db.tags()? {
        let mut to_visit = vec![tag.target];
        while let Some(descriptor) = to_visit.pop() {
            if !all.insert(descriptor.digest) {
                continue;
            }
            let is_document = crate::media_type::MANIFESTS.contains(&&*descriptor.media_type);
            if is_document && let Ok(document) = source::document(store.blobs(), &descriptor) {
                to_visit.extend(document.children().into_iter().cloned());
            }
        }
    }
    Ok(all)
}

/// Decides what goes: pure.
fn decide(contents: &Contents, policy: &Policy) -> Plan {
    let is_old = |record: &&Record| policy.unused_since.is_some_and(|time| record.last_used < time);
    let kept = contents.records.iter().filter(|record| !is_old(record)).collect::<Vec<_>>();
    let kept = match policy.keep_bytes {
        Some(limit) => fit(contents, kept, limit),
        None => kept,
    };
    let keys: BTreeSet<_> = kept.iter().map(|record| record.key).collect();
    let (mut seen, mut layers) = (BTreeSet::new(), BTreeSet::new());
    for record in &kept {
        layers.extend(new_layers(record, &mut seen));
    }
    let mut blobs = contents.tagged.clone();
    blobs.extend(kept.iter().flat_map(|record| &record.blobs));
    blobs.extend(
        contents.sealed.iter().filter(|(layer, _)| layers.contains(&**layer)).map(|(_, blob)| blob),
    );
    let dead_layers = contents.layers.values().filter(|row| !layers.contains(&*row.id));
    let dead_blobs = contents.blobs.iter().filter(|(id, _)| !blobs.contains(id));
    Plan {
        records: contents
            .records
            .iter()
            .map(|record| record.key)
            .filter(|key| !keys.contains(key))
            .collect(),
        layers: dead_layers.map(|row| (row.id.clone(), row.size)).collect(),
        blobs: dead_blobs.map(|(id, size)| (*id, *size)).collect(),
        extras: if policy.extras { contents.extras.clone() } else { Vec::new() },
    }
}

/// The layers of a record, but for those of trees that were seen before.
fn new_layers<'a>(record: &'a Record, seen: &mut BTreeSet<TreeId>) -> Vec<&'a str> {
    let mut layers = Vec::new();
    for tree in &record.trees {
        let new = tree.down().take_while(|it| seen.insert(it.id()));
        layers.extend(new.filter_map(|it| it.top().map(|(layer, _)| &**layer)));
    }
    layers
}

/// The records that were used last and that together (layers and blobs counted once) take at most
/// `limit` bytes.
fn fit<'a>(contents: &Contents, records: Vec<&'a Record>, limit: u64) -> Vec<&'a Record> {
    let mut sealed: BTreeMap<&str, Vec<&BlobId>> = BTreeMap::new();
    for (layer, blob) in &contents.sealed {
        sealed.entry(layer).or_default().push(blob);
    }
    let (mut layers, mut blobs) = (BTreeSet::new(), contents.tagged.clone());
    let mut seen = BTreeSet::new();
    let size_of = |blob: &BlobId| contents.blobs.get(blob).copied().unwrap_or(0);
    let mut total: u64 = blobs.iter().map(size_of).sum();
    let mut kept = Vec::new();
    for record in records.into_iter().rev() {
        let new_layers: BTreeSet<_> = new_layers(record, &mut seen)
            .into_iter()
            .filter(|layer| !layers.contains(layer))
            .collect();
        let of_layers = new_layers.iter().filter_map(|layer| sealed.get(layer));
        let new_blobs: BTreeSet<BlobId> = of_layers
            .flatten()
            .copied()
            .chain(&record.blobs)
            .filter(|blob| !blobs.contains(*blob))
            .copied()
            .collect();
        let files = new_layers.iter().filter_map(|layer| contents.layers.get(*layer));
        let bytes: u64 =
            files.map(|row| row.size).sum::<u64>() + new_blobs.iter().map(size_of).sum::<u64>();
        if total + bytes > limit {
            break;
        }
        total += bytes;
        layers.extend(new_layers);
        blobs.extend(new_blobs);
        kept.push(record);
    }
    kept.reverse();
    kept
}

/// Carries out `plan`. Returns the directories that are left for a worker to remove, because they
/// hold files of subordinate ids; they are out of the way already, below `tmp/`.
///
/// `store` must be open exclusively.
///
/// # Errors
///
/// Something could not be removed; what was not reached yet is still there, and whole.
pub fn apply(store: &Store, plan: &Plan) -> Result<Vec<PathBuf>> {
    let db = store.db()?;
    db.remove_records(&plan.records)?;
    let layers: Vec<_> = plan.layers.iter().map(|(id, _)| id.as_str()).collect();
    db.remove_layers(&layers)?;
    let blobs: Vec<_> = plan.blobs.iter().map(|(id, _)| *id).collect();
    db.remove_diffs(&blobs)?;
    for blob in &blobs {
        store.blobs().remove(blob)?;
    }
    let layers = layers.iter().map(|id| store.layout().layer(id)).collect::<Result<Vec<_>>>()?;
    let mut left = Vec::new();
    for path in layers.iter().chain(plan.extras.iter().map(|(path, _)| path)) {
        left.extend(remove_tree(store, path)?);
    }
    Ok(left)
}

/// Moves a directory out of the way, so that it is gone for everybody at once, and removes it.
/// Returns where it is if this process may not remove all of it.
fn remove_tree(store: &Store, path: &Path) -> Result<Option<PathBuf>> {
    let aside = store.temp().path("removed")?;
    let dead = match fs::rename(path, &aside) {
        Ok(()) => aside,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A directory of another owner can only be renamed by a worker.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Some(path.to_owned()));
        }
        Err(source) => return Err(StoreError::io("remove", path)(source)),
    };
    let is_dir = fs::symlink_metadata(&dead).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_dir { fs::remove_dir_all(&dead) } else { fs::remove_file(&dead) };
    match removed {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(dead)),
        Err(source) => Err(StoreError::io("remove", &dead)(source)),
    }
}

/// Names in a directory that can be names of layers, sorted.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("read the directory", dir))? {
        let entry = entry.map_err(StoreError::io("read the directory", dir))?;
        all.extend(entry.file_name().into_string());
    }
    all.sort();
    Ok(all)
}

/// Bytes that the files below `path` take on the disk; what cannot be read does not count.
fn tree_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    own + entries.flatten().map(|entry| tree_bytes(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests;
