//! OCI images: configuration, manifests, indexes.

pub mod assemble;
pub mod config;
pub mod error;
pub mod manifest;
pub mod source;
pub mod validate;

pub use assemble::{Image, SealedImage};
pub use error::ImageError;
