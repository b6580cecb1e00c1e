//! Vertices and edges.

use std::collections::HashMap;

use petgraph::graph::{DiGraph, NodeIndex};
use rbuild_store::digest::{Digest, Hasher};

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

impl Graph {
    /// Adds `op` on `inputs`, or finds the equal vertex that is there already (whose description
    /// stays; a vertex that is asked to ignore the cache once ignores it).
    ///
    /// # Panics
    ///
    /// If an input is of another graph.
    pub fn add(&mut self, op: Op, inputs: &[Edge], meta: Meta) -> VertexId {
        let digest = self.identify(&op, inputs);
        if let Some(&known) = self.known.get(&digest) {
            self.vertices[known].meta.ignore_cache |= meta.ignore_cache;
            return known;
        }
        let id = self.vertices.add_node(Vertex { op, inputs: inputs.to_vec(), digest, meta });
        for edge in inputs {
            self.vertices.add_edge(edge.vertex, id, edge.output);
        }
        self.known.insert(digest, id);
        id
    }

    /// Adds an operation with one output and returns the edge to it.
    pub fn add_edge(&mut self, op: Op, inputs: &[Edge], meta: Meta) -> Edge {
        Edge { vertex: self.add(op, inputs, meta), output: 0 }
    }

    /// Digest of the canonical form: the operation as JSON with all fields in order of
    /// declaration, then each input's digest and output number.
    fn identify(&self, op: &Op, inputs: &[Edge]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(&serde_json::to_vec(op).expect("an operation has only string keys"));
        for edge in inputs {
            hasher.field(self[edge.vertex].digest.as_bytes());
            hasher.number(edge.output as u64);
        }
        hasher.finish()
    }

    /// All vertices, inputs before their users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..self.vertices.node_count()).map(NodeIndex::new)
    }

    /// Number of vertices.
    pub fn len(&self) -> usize {
        self.vertices.node_count()
    }

    /// Whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.vertices.node_count() == 0
    }

    /// The vertices that `targets` need, themselves included, inputs before their users.
    pub fn needed(&self, targets: &[VertexId]) -> Vec<VertexId> {
        let mut needed = vec![false; self.len()];
        for target in targets {
            needed[target.index()] = true;
        }
        for id in self.ids().rev() {
            if needed[id.index()] {
                for edge in &self[id].inputs {
                    needed[edge.vertex.index()] = true;
                }
            }
        }
        self.ids().filter(|id| needed[id.index()]).collect()
    }

    /// The underlying graph, for algorithms and pictures.
    pub const fn as_petgraph(&self) -> &DiGraph<Vertex, usize> {
        &self.vertices
    }
}

impl std::ops::Index<VertexId> for Graph {
    type Output = Vertex;

    fn index(&self, id: VertexId) -> &Vertex {
        &self.vertices[id]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::op::{MergeOp, SourceOp};
    use super::*;

    fn source(name: &str) -> Op {
        Op::Source(SourceOp {
            identifier: format!("local://{name}"),
            attrs: BTreeMap::new(),
            platform: None,
        })
    }

    #[test]
    fn equal_vertices_are_one() {
        let mut graph = Graph::default();
        let a = graph.add_edge(source("a"), &[], Meta::default());
        let b = graph.add_edge(source("b"), &[], Meta::default());
        assert_eq!(graph.add_edge(source("a"), &[], Meta::default()), a);
        let ab = graph.add(Op::Merge(MergeOp), &[a, b], Meta::default());
        let ba = graph.add(Op::Merge(MergeOp), &[b, a], Meta::default());
        assert_ne!(ab, ba);
        assert_eq!(graph.len(), 4);
    }

    #[test]
    fn only_what_the_target_reaches_is_needed() {
        let mut graph = Graph::default();
        let a = graph.add_edge(source("a"), &[], Meta::default());
        graph.add_edge(source("b"), &[], Meta::default());
        let merge = graph.add(Op::Merge(MergeOp), &[a], Meta::default());
        assert_eq!(graph.needed(&[merge]), [a.vertex, merge]);
    }

    /// A changed value here throws away the cache of every user: bump the cache format instead,
    /// and say so in the changelog.
    #[test]
    fn identity_is_stable() {
        let mut graph = Graph::default();
        let id = graph.add(source("context"), &[], Meta::default());
        expect_test::expect![
            "sha256:0561967444074abdb2cdb7e1397de1b138501d5abb91cb43b3f4d24d2870b4a9"
        ]
        .assert_eq(&graph[id].digest.to_string());
    }
}
