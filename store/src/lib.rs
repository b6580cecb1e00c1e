//! Bytes by digest, image formats, registries.
//!
//! `store` knows nothing of builds, sandboxes or Dockerfiles. See ARCHITECTURE.md.

pub mod archive;
pub mod blobs;
pub mod compress;
pub mod db;
pub mod descriptor;
pub mod digest;
pub mod durable;
pub mod entry;
pub mod error;
pub mod gc;
pub mod gzip;
pub mod http;
pub mod image;
pub mod layer;
pub mod layout;
pub mod local;
pub mod lock;
pub mod media_type;
pub mod oci_layout;
pub mod pattern;
pub mod platform;
pub mod records;
pub mod reference;
pub mod registry;
pub mod tar;
pub mod temp;
pub mod verify;
