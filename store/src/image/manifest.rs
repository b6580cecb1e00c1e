//! Manifests and indexes (OCI image-spec, manifest.md and image-index.md; Docker's schema 2).
//!
//! A document that was read is kept as bytes and never written again from its fields: its digest
//! is over the bytes. Documents that are made here are printed as `BuildKit` prints them, with two
//! spaces of indentation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ImageError;
use crate::descriptor::Descriptor;
use crate::digest::BlobId;
use crate::media_type;
use crate::platform::Platform;

/// Largest manifest or index that is read: what registries must accept (OCI distribution-spec).
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Largest image configuration that is read.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// Most layers of an image, and most manifests of an index.
const MAX_DESCRIPTORS: usize = 1000;

/// Annotation of index entries that describe another entry (provenance, bills of materials).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A manifest of one image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2; some registries' documents leave it out.
    #[serde(default)]
    pub schema_version: u32,
    /// OCI's or Docker's; older producers leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact this is, where it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What this is about (signatures).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// What is said about the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, one per platform.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2; some registries' documents leave it out.
    #[serde(default)]
    pub schema_version: u32,
    /// OCI's or Docker's; older producers leave it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What kind of artifact this is, where it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// What this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// What is said about all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Either of them.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// What tells the kind of a document before it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shape {
    /// 0 if it is not said.
    #[serde(default)]
    pub(crate) schema_version: u32,
    /// Empty if it is not said.
    #[serde(default)]
    pub(crate) media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl Shape {
    /// The shape of a document.
    ///
    /// # Errors
    ///
    /// It is not a JSON object, as text.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// Whether it is an index.
    ///
    /// # Errors
    ///
    /// It is neither of both kinds; or it can be read as both, which would mean one thing here and
    /// another elsewhere, and has been used to deceive (CVE-2021-41190).
    pub(crate) fn is_index(&self) -> Result<bool, String> {
        match (self.manifests.is_some(), self.layers.is_some() || self.config.is_some()) {
            (true, true) => Err("it is both an image and an index".to_owned()),
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err("it is neither an image nor an index".to_owned()),
        }
    }
}

/// A document that was made here: its bytes, and the descriptor that leads to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The bytes that the digest is over.
    pub bytes: Vec<u8>,
    /// Media type, digest, size.
    pub descriptor: Descriptor,
}

impl Written {
    /// Describes `bytes`.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        let id = BlobId(crate::digest::Digest::of(&bytes));
        let descriptor = Descriptor::new(media_type, id, bytes.len() as u64);
        Self { bytes, descriptor }
    }
}

impl Document {
    /// Reads a document. `media_type` is what its descriptor or a registry says; the document may
    /// leave it out, but not contradict it.
    ///
    /// # Errors
    ///
    /// It is not JSON of that kind; or it could be read as both kinds, which would mean one thing
    /// here and another elsewhere (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, ImageError> {
        Self::parse_inner(bytes, media_type).map_err(|why| ImageError::Malformed {
            what: format!("manifest {}", BlobId(crate::digest::Digest::of(bytes))),
            why,
        })
    }

    fn parse_inner(bytes: &[u8], media_type: &str) -> Result<Self, String> {
        let shape = Shape::of(bytes)?;
        if shape.schema_version != 2 {
            return Err(format!("its schema version is {}, not 2", shape.schema_version));
        }
        let stated = if shape.media_type.is_empty() { media_type } else { &shape.media_type };
        if !media_type.is_empty() && stated != media_type {
            return Err(format!("it says it is `{stated}`, its descriptor says `{media_type}`"));
        }
        let is_index = shape.is_index()?;
        if !stated.is_empty() && is_index != media_type::is_index(stated) {
            return Err(format!("its content is not that of `{stated}`"));
        }
        Self::of_kind(bytes, is_index)
    }

    /// Reads a document whose kind is known.
    pub(crate) fn of_kind(bytes: &[u8], is_index: bool) -> Result<Self, String> {
        let text = |error: serde_json::Error| error.to_string();
        let document = if is_index {
            Self::Index(serde_json::from_slice(bytes).map_err(text)?)
        } else {
            Self::Manifest(serde_json::from_slice(bytes).map_err(text)?)
        };
        let count = match &document {
            Self::Manifest(manifest) => manifest.layers.len(),
            Self::Index(index) => index.manifests.len(),
        };
        if count > MAX_DESCRIPTORS {
            return Err(format!(
                "it lists {count} blobs, more than the limit of {MAX_DESCRIPTORS}"
            ));
        }
        Ok(document)
    }

    /// Blobs that this document leads to, in order: the configuration first, then the layers.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Manifest(manifest) => {
                std::iter::once(&manifest.config).chain(&manifest.layers).collect()
            }
            Self::Index(index) => index.manifests.iter().collect(),
        }
    }
}

impl Manifest {
    /// A manifest of an image.
    pub fn new(family: media_type::Family, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: family.manifest().to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Prints it.
    pub fn write(&self) -> Written {
        let bytes = serde_json::to_vec_pretty(self).expect("a manifest has only texts and numbers");
        Written::new(&self.media_type, bytes)
    }
}

impl Index {
    /// An index of images; each descriptor should say its platform.
    pub fn new(family: media_type::Family, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: family.index().to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Prints it.
    pub fn write(&self) -> Written {
        let bytes = serde_json::to_vec_pretty(self).expect("an index has only texts and numbers");
        Written::new(&self.media_type, bytes)
    }

    /// The image that runs best where `wanted` is asked for; the first of equal ones. A manifest
    /// that does not say its platform is taken where no other fits.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let rank = |it: &Descriptor| match &it.platform {
            Some(platform) => platform.rank(wanted),
            None => media_type::MANIFESTS.contains(&it.media_type.as_str()).then_some(usize::MAX),
        };
        let images =
            self.manifests.iter().filter(|it| !it.annotations.contains_key(REFERENCE_TYPE));
        images
            .filter_map(|descriptor| Some((rank(descriptor)?, descriptor)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor)
    }

    /// Platforms that there are images for, each once, in short and normal form: for messages.
    pub fn platforms(&self) -> Vec<String> {
        let mut listed: Vec<String> = Vec::new();
        let known = self.manifests.iter().filter_map(|it| it.platform.as_ref());
        for platform in known.map(Platform::normalized).filter(|it| it.os != "unknown") {
            let text = platform.short();
            if !listed.contains(&text) {
                listed.push(text);
            }
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::media_type::{Family, OCI_INDEX, OCI_MANIFEST};

    fn descriptor(text: &str) -> Descriptor {
        Descriptor::new(OCI_MANIFEST, BlobId(Digest::of(text.as_bytes())), 1)
    }

    #[test]
    fn a_manifest_is_printed_as_others_print_it() {
        let manifest = Manifest::new(Family::Oci, descriptor("c"), vec![descriptor("l")]);
        let written = manifest.write();
        let text = String::from_utf8(written.bytes.clone()).expect("text");
        assert!(
            text.starts_with("{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"application/vnd.oci")
        );
        let parsed = Document::parse(&written.bytes, OCI_MANIFEST).expect("parses");
        assert_eq!(parsed, Document::Manifest(manifest));
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let refuse = |text: &str, media_type: &str| {
            Document::parse(text.as_bytes(), media_type).expect_err("refuses").to_string()
        };
        let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(refuse(both, "").ends_with("it is both an image and an index"));
        let other = r#"{"schemaVersion":2,"mediaType":"a/b","manifests":[]}"#;
        assert!(refuse(other, OCI_INDEX).contains("it says it is `a/b`"));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(refuse(index, OCI_MANIFEST).contains("its content is not that of"));
        assert!(refuse(r#"{"schemaVersion":1}"#, "").contains("its schema version is 1, not 2"));
        assert!(refuse("5", "").contains("invalid type"));
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let image =
            |platform: &str| Descriptor { platform: platform.parse().ok(), ..descriptor(platform) };
        let mut attestation = image("linux/arm64");
        attestation
            .annotations
            .insert(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned());
        let images = vec![attestation, image("linux/arm/v6"), image("linux/arm/v7"), image("none")];
        let index = Index::new(Family::Oci, images);
        let select =
            |wanted: &str| index.select(&wanted.parse().expect("platform")).map(|it| it.digest);
        assert_eq!(select("linux/arm/v7"), Some(descriptor("linux/arm/v7").digest));
        assert_eq!(select("linux/arm/v6"), Some(descriptor("linux/arm/v6").digest));
        assert_eq!(select("linux/amd64"), Some(descriptor("none").digest));
    }
}
