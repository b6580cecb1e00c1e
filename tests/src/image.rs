//! Images in memory: made by a test, or read from what a build wrote.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::tree::Tree;

/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image with all its blobs.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest, to the byte.
    pub manifest: Vec<u8>,
    /// Config and layers by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

/// The tar of a layer, entry by entry.
#[derive(Default)]
pub struct Layer {
    tar: Option<tar::Builder<Vec<u8>>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").finish_non_exhaustive()
    }
}

/// Everything about a path but its content.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

/// Root's, readable by all.
pub const PLAIN: Meta = Meta { mode: 0o644, uid: 0, gid: 0 };
/// Root's, executable by all; for folders, too.
pub const OPEN: Meta = Meta { mode: 0o755, uid: 0, gid: 0 };

impl Layer {
    /// Without entries.
    pub fn new() -> Self {
        Self { tar: Some(tar::Builder::new(Vec::new())) }
    }

    fn entry(
        mut self,
        kind: tar::EntryType,
        path: &str,
        meta: Meta,
        target: Option<&str>,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid);
        header.set_gid(meta.gid);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        let tar = self.tar.as_mut().expect("not finished");
        match target {
            Some(target) => tar.append_link(&mut header, path, target),
            None => tar.append_data(&mut header, path, content),
        }
        .expect("writing to memory");
        self
    }

    /// A folder.
    #[must_use]
    pub fn dir(self, path: &str, meta: Meta) -> Self {
        self.entry(tar::EntryType::Directory, path, meta, None, b"")
    }

    /// A file.
    #[must_use]
    pub fn file(self, path: &str, meta: Meta, content: impl AsRef<[u8]>) -> Self {
        self.entry(tar::EntryType::Regular, path, meta, None, content.as_ref())
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, Meta { mode: 0o777, ..OPEN }, Some(target), b"")
    }

    /// Another name of a file.
    #[must_use]
    pub fn hard_link(self, path: &str, meta: Meta, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, meta, Some(target), b"")
    }

    /// A character device, `/dev/null` by another name.
    ///
    /// # Panics
    ///
    /// If the numbers do not fit, which they do.
    #[must_use]
    pub fn device(mut self, path: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Char);
        header.set_mode(0o666);
        header.set_device_major(1).and_then(|()| header.set_device_minor(3)).expect("small");
        header.set_size(0);
        let tar = self.tar.as_mut().expect("not finished");
        tar.append_data(&mut header, path, &b""[..]).expect("writing to memory");
        self
    }

    /// The bytes of the tar.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.take().expect("not finished").into_inner().expect("writing to memory")
    }
}

impl Image {
    /// An image for this machine's processor, of layers as tars and of a config's inner part.
    pub fn new(layers: &[Vec<u8>], config: &Value) -> Self {
        let mut blobs = BTreeMap::new();
        let mut put = |bytes: Vec<u8>, media_type: &str| {
            let descriptor =
                json!({ "mediaType": media_type, "digest": digest(&bytes), "size": bytes.len() });
            blobs.insert(digest(&bytes), bytes);
            descriptor
        };
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let descriptors: Vec<Value> = layers.iter().map(|layer| put(gzip(layer), LAYER)).collect();
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": layers.iter().map(|_| json!({ "created": "2020-01-01T00:00:00Z", "created_by": "the test" })).collect::<Vec<_>>(),
        });
        let config = put(config.to_string().into_bytes(), CONFIG);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors });
        Self { manifest: manifest.to_string().into_bytes(), blobs }
    }

    /// Reads the one image of an OCI layout that lies in a tar.
    ///
    /// # Panics
    ///
    /// If it is not one, or a blob is missing or is not what its digest says.
    pub fn read(archive: &Path) -> Self {
        let file = std::fs::File::open(archive)
            .unwrap_or_else(|error| panic!("could not open `{}`: {error}", archive.display()));
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(file).entries().expect("a tar") {
            let mut entry = entry.expect("an entry of a tar");
            let path =
                entry.path().expect("a path").to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("all of an entry");
            files.insert(path, bytes);
        }
        Self::from_layout(|path| files.get(path).cloned())
    }

    /// Reads the one image of an OCI layout in a folder.
    ///
    /// # Panics
    ///
    /// As [`Image::read`].
    pub fn read_dir(layout: &Path) -> Self {
        Self::from_layout(|path| std::fs::read(layout.join(path)).ok())
    }

    fn from_layout(file: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        assert!(file("oci-layout").is_some(), "there is no `oci-layout`");
        let index: Value =
            serde_json::from_slice(&file("index.json").expect("an index")).expect("JSON");
        let manifests = index["manifests"].as_array().expect("a list of manifests");
        let first = text(&manifests[0]["digest"]);
        Self::from_blobs(&first, |digest| file(&format!("blobs/{}", digest.replace(':', "/"))))
    }

    /// Collects an image by the digest of its manifest; of an index, its first image.
    ///
    /// # Panics
    ///
    /// If a blob is missing or is not what its digest says.
    pub fn from_blobs(manifest: &str, blob: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let checked = |name: &str| {
            let bytes = blob(name).unwrap_or_else(|| panic!("blob {name} is missing"));
            assert!(digest(&bytes) == name, "blob {name} has the digest {}", digest(&bytes));
            bytes
        };
        let bytes = checked(manifest);
        let parsed: Value = serde_json::from_slice(&bytes).expect("JSON");
        if let Some(inner) = parsed["manifests"].as_array() {
            return Self::from_blobs(&text(&inner[0]["digest"]), blob);
        }
        let layers = parsed["layers"].as_array().expect("a list of layers");
        let names =
            layers.iter().chain([&parsed["config"]]).map(|descriptor| text(&descriptor["digest"]));
        let blobs = names.map(|name| (name.clone(), checked(&name))).collect();
        let image = Self { manifest: bytes, blobs };
        image.check();
        image
    }

    /// Every layer is what the config says.
    fn check(&self) {
        let config = self.config();
        let diff_ids: Vec<String> =
            config["rootfs"]["diff_ids"].as_array().expect("diff ids").iter().map(text).collect();
        let tars: Vec<String> = self.layers().iter().map(|tar| digest(tar)).collect();
        assert_eq!(tars, diff_ids, "the layers are not what the config says");
        let history = config["history"].as_array().expect("a history");
        let with_layer =
            history.iter().filter(|entry| entry["empty_layer"] != Value::Bool(true)).count();
        assert_eq!(with_layer, tars.len(), "the history speaks of another number of layers");
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The manifest as JSON.
    pub fn parsed(&self) -> Value {
        serde_json::from_slice(&self.manifest).expect("JSON")
    }

    /// The whole image config.
    pub fn config(&self) -> Value {
        let name = text(&self.parsed()["config"]["digest"]);
        serde_json::from_slice(&self.blobs[&name]).expect("JSON")
    }

    /// The texts of the history.
    pub fn history(&self) -> Vec<String> {
        self.config()["history"]
            .as_array()
            .expect("a history")
            .iter()
            .map(|entry| text(&entry["created_by"]))
            .collect()
    }

    /// The tars of the layers, lowest first.
    pub fn layers(&self) -> Vec<Vec<u8>> {
        let parsed = self.parsed();
        let descriptors = parsed["layers"].as_array().expect("a list of layers");
        descriptors
            .iter()
            .map(|descriptor| unpacked(&self.blobs[&text(&descriptor["digest"])]))
            .collect()
    }

    /// The digests of the layers as they are stored, lowest first.
    pub fn layer_digests(&self) -> Vec<String> {
        let parsed = self.parsed();
        parsed["layers"]
            .as_array()
            .expect("a list of layers")
            .iter()
            .map(|descriptor| text(&descriptor["digest"]))
            .collect()
    }

    /// What a container of this image sees.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        for layer in self.layers() {
            tree.apply(&layer);
        }
        tree
    }

    /// What one layer holds, whiteouts among it, without what lies below.
    pub fn layer(&self, index: usize) -> Tree {
        Tree::of_layer(&self.layers()[index])
    }

    /// Writes it as an OCI layout.
    ///
    /// # Panics
    ///
    /// If it can not be written.
    pub fn write_layout(&self, folder: &Path, tag: &str) {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("a folder for blobs");
        for (name, bytes) in self
            .blobs
            .iter()
            .map(|(name, bytes)| (name.clone(), bytes))
            .chain([(self.digest(), &self.manifest)])
        {
            std::fs::write(blobs.join(name.trim_start_matches("sha256:")), bytes).expect("a blob");
        }
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": self.digest(), "size": self.manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }] });
        std::fs::write(folder.join("index.json"), index.to_string()).expect("an index");
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("a marker");
    }
}

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// A string of JSON; empty if it is something else.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The processor's name as the OCI specification writes it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Compresses with gzip, without a time.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory")
}

/// Decompresses gzip and zstd; anything else is returned as it is.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [0x1f, 0x8b, ..] => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).expect("whole gzip");
            plain
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::decode_all(bytes).expect("whole zstd"),
        plain => plain.to_vec(),
    }
}
