//! Trees without disks: listings of layers, the merged view of a chain, and what is decided on them.
//!
//! ```text
//!  context (a directory walked once) ─┐
//!  layers of images and steps ────────┴─> listing ─> view of a chain ─┬─> fileop: plan of a new layer
//!                                                                     └─> select: digest of what a step reads
//! ```
//!
//! Everything here works on metadata. Contents of files are named (a root and a path below it),
//! never read, with two exceptions that go through the caller: `/etc/passwd` and `/etc/group` for
//! owners given by name, and archives that `ADD` unpacks.

pub mod context;
pub mod fileop;
pub mod listing;
pub mod pick;
pub mod resolve;
pub mod select;
pub mod stat_cache;
#[cfg(test)]
mod text;
pub mod view;
