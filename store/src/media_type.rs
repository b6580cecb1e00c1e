//! The media types that are read and written: OCI's, and Docker's of schema 2.

use crate::compress::Compression;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, a plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, Zstandard.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker image manifest, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, a plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, Zstandard.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// All manifests and indexes, for `Accept` headers.
pub const MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// Whose media types an image is written with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// OCI image-spec 1.1.
    Oci,
    /// Docker image manifest, version 2, schema 2 (`oci-mediatypes=false`).
    Docker,
}

impl Family {
    /// Media type of a manifest.
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// Media type of an index.
    pub const fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_INDEX,
        }
    }

    /// Media type of a configuration.
    pub const fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// Media type of a layer.
    pub const fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => OCI_LAYER,
            (Self::Oci, Compression::Gzip(_)) => OCI_LAYER_GZIP,
            (Self::Oci, Compression::Zstd(_)) => OCI_LAYER_ZSTD,
            (Self::Docker, Compression::None) => DOCKER_LAYER,
            (Self::Docker, Compression::Gzip(_)) => DOCKER_LAYER_GZIP,
            (Self::Docker, Compression::Zstd(_)) => DOCKER_LAYER_ZSTD,
        }
    }

    /// The media type of this family for a layer that has one of either.
    pub fn convert_layer(self, media_type: &str) -> Option<&'static str> {
        let layer = |oci, docker| match self {
            Self::Oci => Some(oci),
            Self::Docker => Some(docker),
        };
        match media_type {
            OCI_LAYER | DOCKER_LAYER => layer(OCI_LAYER, DOCKER_LAYER),
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP => layer(OCI_LAYER_GZIP, DOCKER_LAYER_GZIP),
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => layer(OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD),
            _ => None,
        }
    }
}

/// Whether this is a manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether this is a list of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Whether this is a layer that can be unpacked.
pub fn is_layer(media_type: &str) -> bool {
    Family::Oci.convert_layer(media_type).is_some()
}
