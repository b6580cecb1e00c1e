//! Layers on disk: what puts them there and what takes them off.
//!
//! ```text
//!  blob bytes ── unpack ──┐                                  ┌── seal ──────── blob
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

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_store::digest::{DiffId, Digest};

use crate::worker::proto::{Committed, Compression, Content, LayerId, Sealed};

mod error;

pub use error::Error;

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

    /// One id, mapped to root in a user namespace.
    pub fn single() -> Self {
        Self("s".to_owned())
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
    path: PathBuf,
    root: OwnedFd,
    mapkey: MapKey,
    ownership: Ownership,
    driver: Driver,
}

/// What a prepared tree is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Nobody writes.
    Read,
    /// Somebody writes; whether it is kept is decided after.
    Write,
}

/// A tree that can be mounted, until it is committed or discarded.
#[derive(Debug)]
pub struct Prepared {
    rootfs: Rootfs,
}

impl Prepared {
    /// What to mount.
    pub fn rootfs(&self) -> &Rootfs {
        &self.rootfs
    }
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
    /// Opens the layers of the store at `path`, which exists.
    ///
    /// # Errors
    ///
    /// If the directory cannot be opened.
    pub fn open(
        path: &Path,
        mapkey: MapKey,
        ownership: Ownership,
        driver: Driver,
    ) -> Result<Self, Error> {
        use rustix::fs::{Mode, OFlags};
        let shown = path.as_os_str().as_encoded_bytes();
        let path = path.canonicalize().map_err(Error::io("open", shown))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let root =
            rustix::fs::open(&path, flags, Mode::empty()).map_err(Error::io("open", shown))?;
        Ok(Self { path, root, mapkey, ownership, driver })
    }

    /// Unpacks a layer from a stream of blob bytes (the compression is detected), and returns the
    /// bytes of its regular files. A layer that is there already is left as it is, and the stream
    /// is not read.
    ///
    /// # Errors
    ///
    /// If the archive is broken, hostile, or does not hash to `diff_id`; if the disk refuses.
    pub fn unpack(
        &self,
        layer: &LayerId,
        stream: &mut dyn Read,
        diff_id: DiffId,
    ) -> Result<u64, Error> {
        let _ = (layer, stream, diff_id, &self.root, &self.path);
        Err(Error::Bug("unpack is not there yet".into()))
    }

    /// Whether the files of a layer are on disk under this store's id mapping.
    ///
    /// # Errors
    ///
    /// If the disk refuses to tell.
    pub fn is_on_disk(&self, layer: &LayerId) -> Result<bool, Error> {
        let _ = (layer, self.mapkey.mountable());
        Err(Error::Bug("is_on_disk is not there yet".into()))
    }

    /// Makes a tree that can be mounted. Layers without files on disk are unpacked from their
    /// sealed blobs first.
    ///
    /// # Errors
    ///
    /// If a layer is neither on disk nor sealed, or the disk refuses.
    pub fn prepare(&self, chain: &[LayerId], access: Access) -> Result<Prepared, Error> {
        let _ = (chain, access, self.driver);
        Err(Error::Bug("prepare is not there yet".into()))
    }

    /// Keeps what was written to a tree as `layer`. The tree must no longer be mounted.
    ///
    /// # Errors
    ///
    /// If the disk refuses; nothing is kept then.
    pub fn commit(&self, prepared: Prepared, layer: &LayerId) -> Result<Committed, Error> {
        let _ = (prepared, layer);
        Err(Error::Bug("commit is not there yet".into()))
    }

    /// Throws away what was written to a tree. The tree must no longer be mounted.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn discard(&self, prepared: Prepared) -> Result<(), Error> {
        let _ = prepared;
        Err(Error::Bug("discard is not there yet".into()))
    }

    /// Puts a planned layer, whose listing is in the store, on disk. One content for each regular
    /// file of the listing, in its order. A layer that is on disk is left as it is.
    ///
    /// # Errors
    ///
    /// If a content cannot be read or is not of the size listed; if the disk refuses.
    pub fn materialise(
        &self,
        layer: &LayerId,
        sources: &[Source<'_>],
        contents: &[Content],
    ) -> Result<(), Error> {
        let _ = (layer, sources, contents, self.ownership);
        Err(Error::Bug("materialise is not there yet".into()))
    }

    /// Writes a layer as a blob of the store, from the files on disk or, where `contents` is not
    /// empty, from the planned contents.
    ///
    /// # Errors
    ///
    /// As [`Self::materialise`].
    pub fn seal(
        &self,
        layer: &LayerId,
        sources: &[Source<'_>],
        contents: &[Content],
        compression: Compression,
        clamp_mtime: Option<i64>,
    ) -> Result<Sealed, Error> {
        let _ = (layer, sources, contents, compression, clamp_mtime);
        Err(Error::Bug("seal is not there yet".into()))
    }

    /// Digests of the contents of files, in the order asked.
    ///
    /// # Errors
    ///
    /// If one is not a regular file of its layer.
    pub fn hash_files(&self, files: &[(LayerId, Vec<u8>)]) -> Result<Vec<Digest>, Error> {
        let _ = files;
        Err(Error::Bug("hash_files is not there yet".into()))
    }

    /// The bytes of a regular file of a layer. No symbolic link is followed.
    ///
    /// # Errors
    ///
    /// If it is not a regular file, or larger than `limit` bytes.
    pub fn read_file(&self, layer: &LayerId, path: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
        let _ = (layer, path, limit);
        Err(Error::Bug("read_file is not there yet".into()))
    }

    /// Opens a regular file of a layer for reading. No symbolic link is followed.
    ///
    /// # Errors
    ///
    /// If it is not a regular file.
    pub fn open_file(&self, layer: &LayerId, path: &[u8]) -> Result<File, Error> {
        let _ = (layer, path);
        Err(Error::Bug("open_file is not there yet".into()))
    }

    /// Writes a merged tree below `dest` as the caller's own files.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn export_dir(&self, chain: &[LayerId], dest: BorrowedFd<'_>) -> Result<(), Error> {
        let _ = (chain, dest);
        Err(Error::Bug("export_dir is not there yet".into()))
    }

    /// Writes a merged tree as a tar.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or `out` not be written.
    pub fn export_tar(
        &self,
        chain: &[LayerId],
        out: &mut dyn Write,
        clamp_mtime: Option<i64>,
    ) -> Result<(), Error> {
        let _ = (chain, out, clamp_mtime);
        Err(Error::Bug("export_tar is not there yet".into()))
    }

    /// Removes files and directories of the store, given below its root; what is not there is
    /// no error.
    ///
    /// # Errors
    ///
    /// If one cannot be removed or lies outside of the store.
    pub fn remove(&self, paths: &[PathBuf]) -> Result<(), Error> {
        let _ = paths;
        Err(Error::Bug("remove is not there yet".into()))
    }

    /// Bytes on disk (allocated blocks) of files and directories of the store.
    ///
    /// # Errors
    ///
    /// If the disk refuses to tell.
    pub fn size(&self, paths: &[PathBuf]) -> Result<u64, Error> {
        let _ = paths;
        Err(Error::Bug("size is not there yet".into()))
    }
}
