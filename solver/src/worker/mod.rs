//! The process that works inside the namespace.

pub mod proto;
