//! The graph language: BuildKit's LLB as Rust types.
//!
//! A [`Graph`] holds vertices: an operation, the edges it reads, and a [`Meta`] that describes it
//! to people. A vertex's identity is the digest of operation and inputs; equal vertices are one.

pub mod dump;
pub mod op;

mod graph;

pub use graph::{Edge, Graph, Location, Meta, SourceFile, Vertex, VertexId};
