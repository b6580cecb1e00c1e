//! OCI images: configuration, manifests, indexes.

pub mod config;
pub mod error;
pub mod image;
pub mod manifest;
pub mod source;
pub mod validate;

pub use error::ImageError;
pub use image::Image;
