//! Trees as data: listings, views of chains of them, and what copies and selections make of them.

pub mod context;
pub mod stat_cache;
