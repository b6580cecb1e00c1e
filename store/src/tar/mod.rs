//! Layer tars: a deterministic writer and a strict, streaming reader (ADR 0002).

pub mod header;
pub mod pax;
pub mod read;
pub mod sparse;
pub mod whiteout;
pub mod write;

pub use read::{Item, TarReader};
pub use write::TarWriter;
