//! Bytes by digest, image formats, registries.
//!
//! `store` knows nothing of builds, sandboxes or Dockerfiles. See ARCHITECTURE.md.
//!
//! The local half begins at [`local::Store`]: its files are named in [`layout`], facts about them
//! are in [`db`], [`layer`] makes blobs of entries, [`image`] makes images of layers, [`oci_layout`]
//! and [`archive`] carry images out, [`gc`] removes what nothing leads to.
//!
//! # Rules
//!
//! - A file appears by rename, after it was verified ([`durable`]); nothing is changed in place but
//!   the database.
//! - What leads to something appears after it: layer, then configuration, then manifest, then tag.
//!   Removal goes the other way round.
//! - A build holds the store's lock shared, removal holds it alone; whoever builds a key holds the
//!   key's lock; unfinished work lies in a directory whose lock its owner holds ([`lock`]).
//! - No state outlives a process but these files, and no fact in the database is needed to make
//!   sense of them.

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
pub mod growing;
pub mod gzip;
pub mod http;
pub mod image;
pub mod layer;
pub mod layout;
pub mod lent;
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
