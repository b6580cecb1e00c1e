//! Images as one tar: an OCI layout, which with a `manifest.json` is also what `docker load` reads.
//!
//! The order of files is fixed and their times are 0, so the archive depends only on the image.

use std::io::{self, Write};

use serde::Serialize;

use crate::blobs::Blobs;
use crate::descriptor::Descriptor;
use crate::entry::{Entry, Kind, Timestamp};
use crate::image::error::ImageError;
use crate::image::manifest::Document;
use crate::image::source::{Source, closure, document};
use crate::oci_layout::{INDEX, MARKER, index_bytes, marker};
use crate::tar::TarWriter;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// One image of an archive for `docker load`.
#[derive(Clone, Debug)]
pub struct DockerImage {
    /// Its manifest (not an index: Docker loads one platform).
    pub manifest: Descriptor,
    /// Names it gets, in their short form: `app:1`.
    pub tags: Vec<String>,
}

/// One element of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes an OCI archive; `roots` are the entries of its index, with their annotations.
///
/// # Errors
///
/// A blob is not in the store, or `out` cannot be written.
pub fn write_oci<W: Write>(out: W, blobs: &Blobs, roots: &[Descriptor]) -> Result<W, ImageError> {
    write(out, blobs, roots, None)
}

/// Writes an archive that is an OCI layout, and that `docker load` reads as well.
///
/// # Errors
///
/// A blob is not in the store, an image is an index, or `out` cannot be written.
pub fn write_docker<W: Write>(
    out: W,
    blobs: &Blobs,
    roots: &[Descriptor],
    images: &[DockerImage],
) -> Result<W, ImageError> {
    let entries = images
        .iter()
        .map(|image| docker_entry(blobs, image))
        .collect::<Result<Vec<_>, ImageError>>()?;
    let json = serde_json::to_vec(&entries).expect("a list of texts");
    write(out, blobs, roots, Some(json))
}

fn docker_entry(blobs: &Blobs, image: &DockerImage) -> Result<DockerEntry, ImageError> {
    match document(blobs, &image.manifest)? {
        Document::Manifest(manifest) => Ok(DockerEntry {
            config: blob_path(&manifest.config),
            repo_tags: image.tags.clone(),
            layers: manifest.layers.iter().map(blob_path).collect(),
        }),
        Document::Index(_) => Err(ImageError::Malformed {
            what: format!("image {}", image.manifest.digest),
            why: "it is an index of several platforms, and `docker load` reads only one".to_owned(),
        }),
    }
}

fn blob_path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.0.hex())
}

fn write<W: Write>(
    out: W,
    blobs: &Blobs,
    roots: &[Descriptor],
    docker: Option<Vec<u8>>,
) -> Result<W, ImageError> {
    let mut all = closure(blobs, roots)?;
    all.sort_by_key(|descriptor| descriptor.digest);
    let out = io::BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut tar = TarWriter::new(out, None);
    for dir in ["blobs", "blobs/sha256"] {
        tar.append_bodiless(&Entry::dir(dir, Timestamp::default()))?;
    }
    for descriptor in &all {
        let body = Source::open(blobs, descriptor)?;
        tar.append(&file(&blob_path(descriptor), descriptor.size), body)?;
    }
    let mut document =
        |path: &str, bytes: &[u8]| tar.append(&file(path, bytes.len() as u64), bytes);
    document(INDEX, &index_bytes(roots.to_vec()))?;
    if let Some(json) = docker {
        document("manifest.json", &json)?;
    }
    document(MARKER, &marker())?;
    let out = tar.finish()?;
    out.into_inner().map_err(|error| {
        ImageError::Archive(crate::tar::write::WriteError::Output(error.into_error()))
    })
}

fn file(path: &str, size: u64) -> Entry {
    Entry {
        kind: Kind::File { size, digest: None },
        mode: 0o644,
        ..Entry::dir(path, Timestamp::default())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::compress::Compression;
    use crate::descriptor::REF_NAME;
    use crate::image::Image;
    use crate::image::config::{History, ImageConfig};
    use crate::image::manifest::Index;
    use crate::image::validate::validate;
    use crate::layer::{LayerOptions, write_layer};
    use crate::local::Store;
    use crate::media_type::Family;
    use crate::oci_layout::{OciLayout, write_dir};
    use crate::tar::{Item, TarReader};

    /// A store with an image of two layers, as an index entry named `1`.
    fn image() -> (tempfile::TempDir, Store, Descriptor) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(dir.path()).expect("opens");
        let options = |compression| LayerOptions {
            compression,
            clamp_mtime: None,
            threads: NonZeroUsize::MIN,
        };
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            ..ImageConfig::default()
        };
        let mut image = Image::new(config, vec![]).expect("empty");
        for (name, compression) in [("a", Compression::Gzip(1)), ("b", Compression::Zstd(1))] {
            let entry = file(name, 2);
            let blob = store.blobs().writer().expect("starts");
            let layer = write_layer(blob, &options(compression), [entry], |_| Ok(&b"hi"[..]))
                .expect("writes");
            image.append_layer(&layer, Family::Oci, History::default());
        }
        let sealed = image.seal(Family::Oci, |_| {});
        sealed.put(store.blobs()).expect("puts");
        let mut root = sealed.manifest.descriptor;
        root.annotations.insert(REF_NAME.to_owned(), "1".to_owned());
        (dir, store, root)
    }

    #[test]
    fn what_is_written_is_what_it_claims() {
        let (dir, store, root) = image();
        validate(store.blobs(), &root).expect("in the store");

        let index = Index::new(Family::Oci, vec![root.clone()]).write();
        store.blobs().put(&index.bytes).expect("puts");
        validate(store.blobs(), &index.descriptor).expect("as an index");

        let out = dir.path().join("out");
        write_dir(&out, store.blobs(), std::slice::from_ref(&root)).expect("writes");
        let layout = OciLayout::open(&out).expect("opens");
        assert_eq!(layout.find(Some("1")).expect("finds"), root);
        assert_eq!(layout.find(None).expect("finds"), root);
        assert_eq!(layout.find(Some(&root.digest.to_string())).expect("finds").digest, root.digest);
        let error = layout.find(Some("2")).expect_err("is not there").to_string();
        assert!(error.ends_with("which has 1"), "{error}");
        validate(&layout, &root).expect("in the layout");
    }

    #[test]
    fn a_second_image_joins_the_layout_and_a_name_moves() {
        let (dir, store, root) = image();
        let out = dir.path().join("out");
        let write = |root: &Descriptor| {
            write_dir(&out, store.blobs(), std::slice::from_ref(root)).expect("writes");
            OciLayout::open(&out).expect("opens").index().manifests.clone()
        };
        write(&root);
        let index = Index::new(Family::Oci, vec![root.clone()]).write();
        store.blobs().put(&index.bytes).expect("puts");
        let named = |name: &str| {
            let mut descriptor = index.descriptor.clone();
            descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
            descriptor
        };
        assert_eq!(write(&named("2")), [root, named("2")]);
        assert_eq!(write(&named("1")), [named("1")]);
    }

    #[test]
    fn damage_in_a_layout_is_found() {
        let (dir, store, root) = image();
        let out = dir.path().join("out");
        write_dir(&out, store.blobs(), std::slice::from_ref(&root)).expect("writes");
        let layout = OciLayout::open(&out).expect("opens");
        for entry in std::fs::read_dir(out.join("blobs/sha256")).expect("reads") {
            let path = entry.expect("reads").path();
            let whole = std::fs::read(&path).expect("reads");
            let mut damaged = whole.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            std::fs::write(&path, &damaged).expect("writes");
            assert!(validate(&layout, &root).is_err(), "{}", path.display());
            std::fs::write(&path, &whole).expect("writes");
        }
        validate(&layout, &root).expect("whole again");
        store.blobs().remove(&root.digest).expect("removes");
        layout.copy_blob(store.blobs().writer().expect("starts"), &root).expect("copies");
        validate(store.blobs(), &root).expect("in the store again");
    }

    #[test]
    fn archives_are_layouts_and_have_a_fixed_order() {
        let (dir, store, root) = image();
        let roots = std::slice::from_ref(&root);
        let images = [DockerImage { manifest: root.clone(), tags: vec!["app:1".to_owned()] }];
        let archive = write_docker(Vec::new(), store.blobs(), roots, &images).expect("writes");
        let again = write_docker(Vec::new(), store.blobs(), roots, &images).expect("writes");
        assert_eq!(archive, again);
        assert_eq!(
            write_oci(Vec::new(), store.blobs(), roots).expect("writes").len() + 1024,
            archive.len()
        );

        let out = dir.path().join("out");
        let mut names = Vec::new();
        let mut tar = TarReader::new(archive.as_slice());
        while let Some(item) = tar.next().expect("reads") {
            let Item::Entry(entry) = item else { continue };
            let name = String::from_utf8(entry.path).expect("text");
            let path = out.join(&name);
            if matches!(entry.kind, Kind::Dir { .. }) {
                std::fs::create_dir_all(path).expect("creates");
            } else {
                let mut bytes = Vec::new();
                tar.read_to_end(&mut bytes).expect("reads");
                std::fs::write(path, bytes).expect("writes");
            }
            names.push(name);
        }
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(&names[names.len() - 3..], ["index.json", "manifest.json", "oci-layout"]);
        validate(&OciLayout::open(&out).expect("opens"), &root).expect("is true");
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("manifest.json")).expect("reads"))
                .expect("parses");
        assert_eq!(json[0]["RepoTags"][0], "app:1");
        let layer = json[0]["Layers"][1].as_str().expect("a path");
        assert!(out.join(layer).exists());
    }
}
