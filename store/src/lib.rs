//! Bytes by digest, image formats, registries.
//!
//! `store` knows nothing of builds, sandboxes or Dockerfiles. See ARCHITECTURE.md.

pub mod digest;
pub mod entry;
pub mod image;
pub mod pattern;
pub mod platform;
pub mod reference;
