//! Where layers are in the store, and how they get there.
//!
//! Beside `listing` and `fs-<mapkey>` a layer's directory can hold `owners-<mapkey>` (see
//! [`super::owner`]), `below` (see [`super::lower`]), `sealed` (the blob that was made of it), and `boot-<mapkey>`: the boot during
//! which its files were last known to be whole. Files are not synced when they are written. When
//! the machine has been started again since, the sizes of all files are compared with the listing
//! once; a layer that a power failure has torn is set aside, and comes from its blob again.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rbuild_store::entry::{Entry, Kind};
use rustix::io::Errno;

use super::dir::{self, Cursor, split, stat};
use super::error::{Error, show};
use super::grow::implied;
use super::owner::Table;
use super::remove::remove_tree;
use super::{LayerStore, Source};
use crate::tree::listing::Listing;
use crate::tree::view::View;
use crate::worker::proto::{Content, LayerId, Sealed};

/// Largest listing that is read.
const MAX_LISTING_BYTES: u64 = 4 << 30;

/// Largest of the small files beside it.
const MAX_SMALL_BYTES: u64 = 64 << 20;

/// Names the running boot.
pub(super) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether a layer has devices where steps see them: on `/dev` every step has a mount.
pub(crate) fn has_devices(layer: &Listing) -> bool {
    layer.entries().iter().any(|it| it.is_device() && !it.path.starts_with(b"dev/"))
}

/// What is known of a layer: read once by a process.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) listing: Arc<Listing>,
    /// Directories that the layer needs but does not describe, parents first.
    pub(crate) implied: Vec<Vec<u8>>,
    /// Whether it has devices where steps see them.
    devices: bool,
}

impl Known {
    fn new(listing: Listing) -> Self {
        let implied = implied(listing.entries().iter());
        let devices = has_devices(&listing);
        Self { listing: Arc::new(listing), implied, devices }
    }
}

/// A directory for unfinished work; removed with all that is in it unless it has been moved.
#[derive(Debug)]
pub(crate) struct WorkDir {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
}

impl WorkDir {
    /// Makes a directory in it and opens it.
    pub(crate) fn make(&self, name: &str) -> Result<OwnedFd, Error> {
        make_dir(self.dir.as_fd(), name)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(Error::io("write", path.as_os_str().as_encoded_bytes()))
    }
}

impl WorkDir {
    /// Removes the directory with all that is in it.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be removed.
    pub(crate) fn remove(self) -> Result<(), Error> {
        self.remove_all()
    }

    fn remove_all(&self) -> Result<(), Error> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        remove_tree(open_path(parent)?.as_fd(), name.as_encoded_bytes())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What cannot be removed now the next run sweeps.
        drop(self.remove_all());
    }
}

/// Makes a directory that only its owner can list, whatever the umask, and opens it.
pub(crate) fn make_dir(parent: std::os::fd::BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Error> {
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mkdirat(parent, name, mode).map_err(Error::io("create", name))?;
    dir::open_dir(parent, name.as_bytes()).map_err(Error::io("open", name))
}

impl LayerStore {
    /// What is known of a layer that is in the store.
    pub(crate) fn known(&self, layer: &LayerId) -> Result<Arc<Known>, Error> {
        let all = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all().get(layer) {
            return Ok(Arc::clone(known));
        }
        let path = self.layout().layer_listing(&layer.0)?;
        let bytes = read_small(&path, MAX_LISTING_BYTES)?.ok_or_else(|| Error::Missing {
            layer: layer.0.to_string(),
            what: "it has no listing",
        })?;
        let listing = Listing::decode(&bytes).map_err(|error| Error::Damaged {
            path: path.display().to_string(),
            why: error.to_string(),
        })?;
        let known = Arc::new(Known::new(listing));
        all().insert(layer.clone(), Arc::clone(&known));
        Ok(known)
    }

    /// The merged tree of a chain.
    pub(crate) fn view(&self, chain: &[LayerId]) -> Result<View, Error> {
        let listings = chain.iter().map(|layer| self.listing(layer)).collect::<Result<_, _>>()?;
        Ok(View::new(listings))
    }

    /// Whether a step may find devices in the tree of a chain.
    pub(crate) fn has_devices(&self, chain: &[LayerId]) -> Result<bool, Error> {
        for layer in chain {
            if self.known(layer)?.devices {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The listing of a layer, in its order.
    ///
    /// # Errors
    ///
    /// If the layer is not in the store.
    pub fn listing(&self, layer: &LayerId) -> Result<Arc<Listing>, Error> {
        Ok(Arc::clone(&self.known(layer)?.listing))
    }

    /// Whether the listing of a layer is in the store.
    pub(crate) fn has_listing(&self, layer: &LayerId) -> Result<bool, Error> {
        match self.known(layer) {
            Ok(_) => Ok(true),
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Directory of a layer's files.
    pub(crate) fn fs_path(&self, layer: &LayerId) -> Result<PathBuf, Error> {
        Ok(self.layout().layer_files(&layer.0, self.mapkey.as_str())?)
    }

    /// The same, open.
    pub(crate) fn open_fs(&self, layer: &LayerId) -> Result<OwnedFd, Error> {
        open_path(&self.fs_path(layer)?)
    }

    /// A directory of this process for unfinished work.
    pub(crate) fn work_dir(&self, what: &str) -> Result<WorkDir, Error> {
        let path = self.store.temp().path(what)?;
        let shown = path.as_os_str().as_encoded_bytes();
        fs::create_dir(&path).map_err(Error::io("create", shown))?;
        let dir = open_path(&path)?;
        Ok(WorkDir { path, dir })
    }

    /// Whether the files of a layer are on disk under this store's id mapping, and whole.
    ///
    /// # Errors
    ///
    /// If the disk refuses to tell.
    pub fn is_on_disk(&self, layer: &LayerId) -> Result<bool, Error> {
        if self.whole.lock().unwrap_or_else(PoisonError::into_inner).contains(layer) {
            return Ok(true);
        }
        let Some(fs_dir) = found(self.open_fs(layer))? else { return Ok(false) };
        let marker = self.marker(layer)?;
        let written = read_small(&marker, MAX_SMALL_BYTES)?;
        if written.as_deref() != Some(self.boot.as_bytes()) {
            if !self.is_whole(layer, &fs_dir)? {
                return self.set_aside(layer).map(|()| false);
            }
            // Only a hint: where it cannot be written the sizes are compared again next time.
            drop(fs::write(&marker, &self.boot));
        }
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone());
        Ok(true)
    }

    fn marker(&self, layer: &LayerId) -> Result<PathBuf, Error> {
        Ok(self.layout().layer(&layer.0)?.join(format!("boot-{}", self.mapkey.as_str())))
    }

    /// Whether all regular files have the size that the listing says.
    fn is_whole(&self, layer: &LayerId, fs_dir: &OwnedFd) -> Result<bool, Error> {
        let known = self.known(layer)?;
        let mut cursor = Cursor::new(fs_dir.as_fd());
        for entry in known.listing.entries() {
            let Kind::File { size, .. } = entry.kind else { continue };
            let (parent, name) = split(&entry.path);
            let Ok(dir) = cursor.enter(parent) else { return Ok(false) };
            if !stat(dir, name).is_ok_and(|it| it.stx_size == size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves a layer's files away for the next sweep.
    fn set_aside(&self, layer: &LayerId) -> Result<(), Error> {
        let work = self.work_dir("torn")?;
        let from = self.fs_path(layer)?;
        fs::rename(&from, work.path.join("fs"))
            .map_err(Error::io("move away", from.as_os_str().as_encoded_bytes()))
    }

    /// As [`Self::require`], but says whether there are any.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub(crate) fn have(&self, layer: &LayerId) -> Result<bool, Error> {
        match self.require(layer) {
            Err(Error::Missing { .. }) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Sees to it that the files of a layer are on disk: from its sealed blob, or from where another
    /// id mapping has them, if need be.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if neither is of use; if the disk refuses.
    pub(crate) fn require(&self, layer: &LayerId) -> Result<(), Error> {
        if self.is_on_disk(layer)? {
            return Ok(());
        }
        let sealed = self.sealed(layer)?;
        let found = sealed.map(|it| self.store.blobs().open_any(&it.blob)).transpose()?.flatten();
        if let (Some(Sealed { diff_id, .. }), Some((mut blob, _))) = (sealed, found) {
            let below = self.remembered_below(layer)?;
            below.iter().try_for_each(|layer| self.require(layer))?;
            return self.unpack(layer, &mut blob, diff_id, &below).map(drop);
        }
        if self.adopt(layer)? {
            return Ok(());
        }
        let what = match sealed {
            Some(_) => "its blob is gone",
            None => "it has no files on disk",
        };
        Err(Error::Missing { layer: layer.0.to_string(), what })
    }

    /// Copies the files of a layer from where another id mapping has them, if this process may read
    /// all of them. Whatever is wrong with them, the layer is then not to be had from there.
    fn adopt(&self, layer: &LayerId) -> Result<bool, Error> {
        let directory = self.layout().layer(&layer.0)?;
        let shown = directory.as_os_str().as_encoded_bytes();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(Error::io("list", shown))?,
        };
        let listing = self.listing(layer)?;
        let is_file = |it: &&Entry| matches!(it.kind, Kind::File { .. });
        let content = |it: &Entry| Content::Tree { root: 0, path: it.path.clone() };
        let contents = listing.entries().iter().filter(is_file).map(content).collect();
        for entry in entries {
            let path = entry.map_err(Error::io("list", shown))?.path();
            let is_files =
                path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"fs-"));
            let Ok(path) = path.strip_prefix(self.store.root()) else { continue };
            let source = Source::Store(path.to_owned());
            if is_files && self.materialise(layer, &[source], &contents).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The blob that was made of a layer, if it was.
    ///
    /// # Errors
    ///
    /// If the disk refuses to tell.
    pub fn sealed(&self, layer: &LayerId) -> Result<Option<Sealed>, Error> {
        let path = self.layout().layer(&layer.0)?.join("sealed");
        let bytes = read_small(&path, MAX_SMALL_BYTES)?;
        Ok(bytes.and_then(|it| serde_json::from_slice(&it).ok()))
    }

    /// Remembers the blob that a layer is.
    pub(crate) fn remember_sealed(&self, layer: &LayerId, sealed: &Sealed) -> Result<(), Error> {
        let text = serde_json::to_vec(sealed).map_err(|it| Error::Bug(it.to_string()))?;
        let work = self.work_dir("sealed")?;
        work.write("sealed", &text)?;
        let to = self.layout().layer(&layer.0)?.join("sealed");
        fs::rename(work.path.join("sealed"), &to)
            .map_err(Error::io("create", to.as_os_str().as_encoded_bytes()))
    }

    /// What is recorded about inodes of a layer that cannot carry an attribute.
    ///
    /// # Errors
    ///
    /// If the table cannot be read.
    pub fn owners_of(&self, layer: &LayerId) -> Result<Table, Error> {
        let name = format!("owners-{}", self.mapkey.as_str());
        read_owners(&self.layout().layer(&layer.0)?.join(name))
    }

    /// Lets a layer appear: the directory `fs` of `work` becomes its files. Does nothing if another
    /// process was faster.
    pub(crate) fn publish(
        &self,
        layer: &LayerId,
        work: &WorkDir,
        listing: Vec<Entry>,
        owners: &Table,
    ) -> Result<(), Error> {
        let listing = Listing::new(listing).map_err(|error| Error::Bug(error.to_string()))?;
        let key = self.mapkey.as_str();
        let layer_dir = self.layout().layer(&layer.0)?;
        let shown = layer_dir.as_os_str().as_encoded_bytes();
        drop(work.make("layer")?);
        let new = work.path.join("layer");
        let rename = |from: PathBuf, to: PathBuf| {
            fs::rename(&from, &to).map_err(Error::io("create", to.as_os_str().as_encoded_bytes()))
        };
        work.write("layer/listing", &listing.encode())?;
        work.write(&format!("layer/boot-{key}"), self.boot.as_bytes())?;
        if !owners.is_empty() {
            work.write(&format!("layer/owners-{key}"), &owners.to_bytes())?;
        }
        rename(work.path.join("fs"), new.join(format!("fs-{key}")))?;
        match fs::rename(&new, &layer_dir) {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {
                // The listing, or files of another mapping, are there: add what is missing.
                for name in [format!("owners-{key}"), format!("boot-{key}")] {
                    drop(fs::rename(new.join(&name), layer_dir.join(&name)));
                }
                if !layer_dir.join("listing").exists() {
                    rename(new.join("listing"), layer_dir.join("listing"))?;
                }
                let name = format!("fs-{key}");
                match fs::rename(new.join(&name), layer_dir.join(&name)) {
                    Err(error) if !is_taken(&error) => {
                        return Err(Error::io("create", shown)(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            Err(error) => return Err(Error::io("create", shown)(error)),
        }
        self.keep_known(layer, listing);
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone());
        Ok(())
    }
}

impl LayerStore {
    /// Lets a layer appear of which only the listing is known. Does nothing if another process was
    /// faster.
    pub(crate) fn publish_listing(
        &self,
        layer: &LayerId,
        listing: Vec<Entry>,
    ) -> Result<(), Error> {
        let listing = Listing::new(listing).map_err(|error| Error::Bug(error.to_string()))?;
        let work = self.work_dir("list")?;
        drop(work.make("layer")?);
        work.write("layer/listing", &listing.encode())?;
        let layer_dir = self.layout().layer(&layer.0)?;
        match fs::rename(work.path.join("layer"), &layer_dir) {
            Err(error) if !is_taken(&error) => {
                let shown = layer_dir.as_os_str().as_encoded_bytes();
                return Err(Error::io("create", shown)(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.keep_known(layer, listing);
        Ok(())
    }

    fn keep_known(&self, layer: &LayerId, listing: Listing) {
        let known = Arc::new(Known::new(listing));
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.clone(), known);
    }
}

/// A file of the store; none if it is not there.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let shown = path.as_os_str().as_encoded_bytes();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", shown)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", shown))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Limit { path: show(shown), what: "its size in bytes", limit });
    }
    Ok(Some(bytes))
}

/// A table of owners; empty if it is not there.
pub(crate) fn read_owners(path: &Path) -> Result<Table, Error> {
    let Some(bytes) = read_small(path, MAX_SMALL_BYTES)? else { return Ok(Table::default()) };
    Table::parse(&bytes).ok_or_else(|| Error::Damaged {
        path: path.display().to_string(),
        why: "it is not a table of owners".to_owned(),
    })
}

/// Opens a directory of the store.
pub(crate) fn open_path(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, dir::DIR_FLAGS, rustix::fs::Mode::empty())
        .map_err(Error::io("open", path.as_os_str().as_encoded_bytes()))
}

/// None instead of an error about something that is not there.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Whether a rename failed because something is there already.
fn is_taken(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::EXIST | Errno::NOTEMPTY))
}
