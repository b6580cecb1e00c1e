//! OCI image layouts as directories (OCI image-spec, image-layout.md): reading and writing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::blobs::{BlobWriter, Blobs};
use crate::descriptor::{CONTAINERD_IMAGE_NAME, Descriptor, REF_NAME};
use crate::digest::{BlobId, Digest};
use crate::image::error::ImageError;
use crate::image::manifest::{Document, Index, MAX_MANIFEST_BYTES};
use crate::image::source::{Source, closure};
use crate::media_type::{Family, OCI_INDEX};

/// The version of the layout that is written, and the only one there is.
const VERSION: &str = "1.0.0";

/// The file that makes a directory a layout.
pub(crate) const MARKER: &str = "oci-layout";

/// The file that leads to everything else.
pub(crate) const INDEX: &str = "index.json";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// Content of the file that makes a directory a layout.
pub(crate) fn marker() -> Vec<u8> {
    let marker = Marker { image_layout_version: VERSION.to_owned() };
    serde_json::to_vec(&marker).expect("a struct of texts")
}

/// An image layout that exists.
#[derive(Clone, Debug)]
pub struct OciLayout {
    dir: PathBuf,
    index: Index,
}

impl OciLayout {
    /// Opens the layout in `dir`.
    ///
    /// # Errors
    ///
    /// It is not a layout, of another version, or malformed.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let dir = dir.into();
        let marker = read_small(&dir.join(MARKER))?.ok_or_else(|| ImageError::NotALayout {
            path: dir.clone(),
            why: "it has no file `oci-layout`",
        })?;
        match serde_json::from_slice::<Marker>(&marker) {
            Ok(marker) if marker.image_layout_version == VERSION => {}
            Ok(_) | Err(_) => {
                let why = "its file `oci-layout` does not say version 1.0.0";
                return Err(ImageError::NotALayout { path: dir, why });
            }
        }
        let path = dir.join(INDEX);
        let text = read_small(&path)?.ok_or_else(|| ImageError::NotALayout {
            path: dir.clone(),
            why: "it has no file `index.json`",
        })?;
        match Document::parse(&text, "") {
            Ok(Document::Index(index)) => Ok(Self { dir, index }),
            Ok(Document::Manifest(_)) => {
                let why = "it is an image, not an index".to_owned();
                Err(ImageError::Malformed { what: path.display().to_string(), why })
            }
            Err(ImageError::Malformed { why, .. }) => {
                Err(ImageError::Malformed { what: path.display().to_string(), why })
            }
            Err(error) => Err(error),
        }
    }

    /// What `index.json` says.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The entry of that name (a tag, or a full image name) or digest; without one, the only entry,
    /// or the one named `latest`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find(&self, name: Option<&str>) -> Result<Descriptor, ImageError> {
        let entries = &self.index.manifests;
        if let Some(digest) = name.and_then(|name| name.parse::<Digest>().ok()) {
            let listed = entries.iter().find(|entry| entry.digest.0 == digest);
            return listed.map_or_else(|| self.unlisted(BlobId(digest)), |it| Ok(it.clone()));
        }
        let named = |wanted: &str| entries.iter().find(|it| names(it).any(|name| name == wanted));
        let found = match (name, entries.as_slice()) {
            (Some(name), _) => named(name),
            (None, [only]) => Some(only),
            (None, _) => named("latest"),
        };
        found.cloned().ok_or_else(|| self.not_found(name.unwrap_or("latest")))
    }

    fn not_found(&self, name: &str) -> ImageError {
        let available = self.index.manifests.iter().flat_map(names).map(str::to_owned).collect();
        ImageError::NotFound { name: name.to_owned(), place: self.dir.clone(), available }
    }

    /// A manifest that `index.json` does not list, but that is there: an image of an index, say.
    fn unlisted(&self, id: BlobId) -> Result<Descriptor, ImageError> {
        let path = self.blob(&id);
        let bytes = read_small(&path)?.ok_or_else(|| self.not_found(&id.to_string()))?;
        let media_type = match Document::parse(&bytes, "")? {
            Document::Manifest(it) if it.media_type.is_empty() => Family::Oci.manifest().to_owned(),
            Document::Index(it) if it.media_type.is_empty() => OCI_INDEX.to_owned(),
            Document::Manifest(it) => it.media_type,
            Document::Index(it) => it.media_type,
        };
        Ok(Descriptor::new(media_type, id, bytes.len() as u64))
    }

    fn blob(&self, id: &BlobId) -> PathBuf {
        self.dir.join("blobs/sha256").join(id.0.hex())
    }

    /// Copies a blob into the store, verified.
    ///
    /// # Errors
    ///
    /// It is not in the layout, or damaged.
    pub fn copy_blob(&self, into: BlobWriter, descriptor: &Descriptor) -> Result<(), ImageError> {
        let mut stream = self.open(descriptor)?;
        let mut writer = into.expecting(descriptor.digest, descriptor.size);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = stream
                .read(&mut buffer)
                .map_err(|source| ImageError::Read { blob: descriptor.digest, source })?;
            if read == 0 {
                break;
            }
            io::Write::write_all(&mut writer, &buffer[..read]).map_err(|error| {
                ImageError::Blob { blob: descriptor.digest, why: error.to_string() }
            })?;
        }
        writer.finish()?;
        Ok(())
    }
}

impl Source for OciLayout {
    fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
        let id = descriptor.digest;
        let mut bytes = Vec::new();
        self.open(descriptor)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Read { blob: id, source })?;
        let wrong = |why: String| Err(ImageError::Blob { blob: id, why });
        if bytes.len() as u64 > limit {
            return wrong(format!("it has more bytes than the limit of {limit}"));
        }
        let found = Digest::of(&bytes);
        if found == id.0 { Ok(bytes) } else { wrong(format!("its bytes hash to {found}")) }
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, ImageError> {
        let path = self.blob(&descriptor.digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.not_found(&descriptor.digest.to_string()));
            }
            Err(source) => return Err(ImageError::io("open", &path)(source)),
        };
        let metadata = file.metadata().map_err(ImageError::io("look at", &path))?;
        if !metadata.is_file() || metadata.len() != descriptor.size {
            let why = format!("it has {} bytes, not {}", metadata.len(), descriptor.size);
            return Err(ImageError::Blob { blob: descriptor.digest, why });
        }
        Ok(Box::new(file))
    }
}

/// Names that an entry of an index has.
fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [REF_NAME, CONTAINERD_IMAGE_NAME]
        .into_iter()
        .filter_map(|key| entry.annotations.get(key))
        .map(String::as_str)
}

/// A file of at most [`MAX_MANIFEST_BYTES`]; none if it is not there.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ImageError::io("open", path)(source)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(ImageError::io("read", path))?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        let why = format!("it is larger than {MAX_MANIFEST_BYTES} bytes");
        return Err(ImageError::Malformed { what: path.display().to_string(), why });
    }
    Ok(Some(bytes))
}

/// Writes images into the layout in `dir`, which is made if it is missing. Entries of an existing
/// index stay, but for those that have a name of a new one. The index is written last, by rename.
///
/// # Errors
///
/// A blob is not in the store, or a file cannot be written.
pub fn write_dir(dir: &Path, blobs: &Blobs, roots: &[Descriptor]) -> Result<(), ImageError> {
    let own = dir.join("blobs/sha256");
    fs::create_dir_all(&own).map_err(ImageError::io("create the directory", &own))?;
    for descriptor in closure(blobs, roots)? {
        copy_out(blobs, &descriptor, &own.join(descriptor.digest.0.hex()))?;
    }
    let kept = match OciLayout::open(dir) {
        Ok(layout) => layout.index.manifests,
        Err(ImageError::NotALayout { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let is_replaced = |old: &Descriptor| {
        roots.iter().any(|new| {
            new.digest == old.digest || names(new).any(|name| names(old).any(|it| it == name))
        })
    };
    let mut entries: Vec<_> = kept.into_iter().filter(|old| !is_replaced(old)).collect();
    entries.extend_from_slice(roots);
    write_file(&dir.join(MARKER), &marker())?;
    write_file(&dir.join(INDEX), &index_bytes(entries))
}

/// `index.json`.
pub(crate) fn index_bytes(entries: Vec<Descriptor>) -> Vec<u8> {
    Index::new(Family::Oci, entries).write().bytes
}

/// Copies a blob out of the store; by reflink where the file system can.
fn copy_out(blobs: &Blobs, descriptor: &Descriptor, dest: &Path) -> Result<(), ImageError> {
    if fs::symlink_metadata(dest).is_ok_and(|it| it.is_file() && it.len() == descriptor.size) {
        return Ok(());
    }
    // Fails where the blob is missing or cut.
    drop(Source::open(blobs, descriptor)?);
    let temp = dest.with_extension("new");
    let from = blobs.path(&descriptor.digest);
    fs::copy(&from, &temp)
        .and_then(|_| fs::rename(&temp, dest))
        .map_err(ImageError::io("write", dest))
}

fn write_file(dest: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let temp = dest.with_extension("new");
    fs::write(&temp, bytes)
        .and_then(|()| fs::rename(&temp, dest))
        .map_err(ImageError::io("write", dest))
}
