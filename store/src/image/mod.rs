//! OCI images: configuration, manifests, indexes.

pub mod config;
