//! Vertices and edges.

use std::collections::HashMap;

use petgraph::graph::{DiGraph, NodeIndex};
use rbuild_store::digest::Digest;

use super::op::Op;

/// Index of a vertex in its graph. Inputs have smaller indices than their users.
pub type VertexId = NodeIndex<u32>;

/// One output of a vertex.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Edge {
    /// The producer.
    pub vertex: VertexId,
    /// Which of its outputs; 0 for operations with one.
    pub output: usize,
}

/// Lines of a source file that a vertex comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    /// Index into [`Graph::files`].
    pub file: usize,
    /// First line, from 1.
    pub first: u32,
    /// Last line, from 1.
    pub last: u32,
}

/// A file that vertices come from, for messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceFile {
    /// Name as the user gave it.
    pub name: String,
    /// Content.
    pub text: String,
}

/// What describes a vertex to people. Never part of its identity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Meta {
    /// `[build 2/4] RUN make`.
    pub name: String,
    /// Lines in the source.
    pub location: Option<Location>,
    /// Whether the cache is not asked (`--no-cache`, `--no-cache-filter`).
    pub ignore_cache: bool,
    /// BuildKit's description keys, `com.docker.dockerfile.v1.command` and such.
    pub description: std::collections::BTreeMap<String, String>,
}

/// An operation, its inputs, its description.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<Edge>,
    /// Identity: digest of operation and inputs.
    pub digest: Digest,
    /// Description.
    pub meta: Meta,
}

/// A graph of operations.
///
/// Invariants, held by [`Graph::add`]: an input is always older than its user (so there is no
/// cycle, and index order is a topological order); two equal vertices are one vertex.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: DiGraph<Vertex, usize>,
    known: HashMap<Digest, VertexId>,
    /// The files that locations refer to.
    pub files: Vec<SourceFile>,
}
