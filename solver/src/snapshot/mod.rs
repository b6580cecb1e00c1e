//! Layers on disk: what puts them there and what takes them off.
//!
//! ```text
//!  blob bytes ── unpack ──┐  (list: the listing alone)       ┌── seal ──────── blob
//!  plan + contents ── materialise ── layers/<id>/{listing,fs-<mapkey>} ── export_dir / export_tar
//!  a step's writes ── commit ──┘          │                  └── read_file, hash_files
//!                        ▲                │ prepare
//!                        └── Prepared ◄───┘   overlay mount parameters, or one directory
//! ```
//!
//! What always holds:
//!
//! - A layer's *listing* is the truth about metadata. The directory `fs-<mapkey>` holds what the
//!   host could create under the id mapping `mapkey`, and can be made again from the blob.
//! - A layer becomes visible by one `rename` from `tmp/`, after its digest was verified. Data is
//!   not synced file by file: a crash loses at most unfinished work, and a layer whose files a
//!   crash has torn is noticed by size and unpacked again from its verified blob.
//! - On disk whiteouts are character devices 0/0 and opaque directories carry
//!   `user.overlay.opaque=y`, wherever the file system permits; a plain user without a namespace
//!   (mapkey `n`) leaves them out, since nothing mounts such a directory.
//! - Nothing is reached by a joined path: every name is resolved beneath a directory handle and no
//!   symbolic link is ever followed.
//!
//! Deliberately not here: mounting, running, the merged view's symlink resolution, cache records.

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rbuild_store::layout::Layout;
use rbuild_store::local::Store;

use crate::worker::proto::LayerId;

mod apply;
mod archive;
mod commit;
mod copy;
mod dir;
mod error;
mod export;
mod files;
mod ground;
mod grow;
pub(crate) mod inodes;
mod links;
mod lower;
mod merged;
mod overlay;
pub mod owner;
mod place;
mod plain;
mod planned;
mod prepare;
mod read;
mod remove;
mod scan;
mod seal;
mod stamps;
mod sweep;
mod unpack;

pub use error::Error;
pub(crate) use files::has_devices;
pub use prepare::Prepared;

/// How a step's tree is put together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Driver {
    /// The kernel's overlay file system over the layers' directories.
    Overlay,
    /// One directory with the whole tree, made by reflink or copy.
    Plain,
}

/// What the host can hold of an image's ownership.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ownership {
    /// All ids are mapped and the caller has root's capabilities over them.
    Real,
    /// Only the caller's own id: what differs is recorded beside the file.
    Recorded,
}

/// Which id mapping files were written under: part of the name of their directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MapKey(String);

impl MapKey {
    /// A range of subordinate ids: ids 1 to `count` are `base` and up.
    pub fn range(base: u32, count: u32) -> Self {
        Self(format!("u{base}x{count}"))
    }

    /// One id, `uid` on the host, mapped to root in a user namespace.
    pub fn single(uid: u32) -> Self {
        Self(format!("s{uid}"))
    }

    /// The ids of the host itself, as root.
    pub fn root() -> Self {
        Self("r".to_owned())
    }

    /// A plain user, no namespace.
    pub fn none() -> Self {
        Self("n".to_owned())
    }

    /// As it appears in file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether overlay's conventions (whiteouts, opaque marks) are of use in such a directory.
    pub(crate) fn mountable(&self) -> bool {
        self.0 != "n"
    }
}

/// The layers of a store, as one process sees them. Shared by threads.
#[derive(Debug)]
pub struct LayerStore {
    store: Arc<Store>,
    mapkey: MapKey,
    ownership: Ownership,
    driver: Driver,
    /// The process's umask.
    umask: u32,
    /// What has been read of layers.
    known: Mutex<HashMap<LayerId, Arc<files::Known>>>,
    /// Layers whose files are known to be on disk.
    whole: Mutex<HashSet<LayerId>>,
    /// Names the running boot; empty where the host does not say, which trusts the files.
    boot: String,
}

/// What a prepared tree is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Nobody writes.
    Read,
    /// Somebody writes; whether it is kept is decided after.
    Write,
}

/// What to mount to see a tree. All paths are absolute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rootfs {
    /// An overlay (`userxattr`, `volatile`).
    Overlay {
        /// Topmost first; at least one, and at least two where there is no `upper`.
        lowers: Vec<PathBuf>,
        /// Where writes go; none for a tree that nobody writes to.
        upper: Option<Upper>,
    },
    /// One directory that has it all (bind it; read-only for [`Access::Read`]).
    Dir(PathBuf),
}

/// The writable part of an overlay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upper {
    /// `upperdir`.
    pub dir: PathBuf,
    /// `workdir`, fresh.
    pub work: PathBuf,
}

/// A directory that planned contents are read from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Outside of the store, open.
    Dir(BorrowedFd<'a>),
    /// A layer on disk.
    Layer(LayerId),
    /// A path below the store's root.
    Store(PathBuf),
}

impl LayerStore {
    /// Opens the layers of the store at `path`, in a process whose parent holds the store (see
    /// [`Store::attach`]).
    ///
    /// # Errors
    ///
    /// If it is no store.
    pub fn open(
        path: &Path,
        mapkey: MapKey,
        ownership: Ownership,
        driver: Driver,
    ) -> Result<Self, Error> {
        let shown = path.as_os_str().as_encoded_bytes();
        let path = path.canonicalize().map_err(Error::io("open", shown))?;
        Ok(Self::of(Arc::new(Store::attach(path)?), mapkey, ownership, driver))
    }

    /// The layers of a store that this process holds. Its root must be an absolute path.
    pub fn of(store: Arc<Store>, mapkey: MapKey, ownership: Ownership, driver: Driver) -> Self {
        let (known, whole) = (Mutex::default(), Mutex::default());
        let boot = std::fs::read_to_string(files::BOOT_ID).unwrap_or_default();
        Self { store, mapkey, ownership, driver, umask: umask(), known, whole, boot }
    }

    /// The store that they are in.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn layout(&self) -> &Layout {
        self.store.layout()
    }

    /// What the host can hold of an image's ownership.
    pub fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// The caller's owner where the host has no other.
    fn own(&self) -> Option<(u32, u32)> {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        (self.ownership == Ownership::Recorded).then_some(own)
    }
}

/// The process's umask, which cannot be read without changing it but here; all bits where the host
/// does not say, so that every mode is set twice.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|it| u32::from_str_radix(it.trim(), 8).ok()).unwrap_or(0o777)
}

#[cfg(test)]
mod tests;
