//! A graph in the making.
//!
//! Which files of a local context a build uses is known only when all stages are lowered, but the
//! vertices that use them come first. So operations are collected here, local contexts as
//! placeholders, and [`Draft::finish`] writes them to the real graph: placeholders filled in, what
//! no target reaches left out, inputs before their users.

use rbuild_solver::llb::op::Op;
use rbuild_solver::llb::{Edge, Graph, Meta};

/// Index of a vertex of the draft. All our operations have one output.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Node(usize);

/// What a vertex does.
#[derive(Clone, Debug)]
pub(crate) enum DraftOp {
    /// Known.
    Ready(Box<Op>),
    /// A local source, of which the paths are known at the end; the number is the caller's.
    Local(usize),
}

#[derive(Clone, Debug)]
struct DraftVertex {
    op: DraftOp,
    inputs: Vec<Node>,
    meta: Meta,
}

/// Vertices in the order in which they were added: inputs before their users.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    vertices: Vec<DraftVertex>,
}

impl Draft {
    /// Adds an operation.
    pub(crate) fn add(&mut self, op: Op, inputs: Vec<Node>, meta: Meta) -> Node {
        self.push(DraftVertex { op: DraftOp::Ready(Box::new(op)), inputs, meta })
    }

    /// Adds a placeholder for the local source `number`.
    pub(crate) fn add_local(&mut self, number: usize) -> Node {
        self.push(DraftVertex {
            op: DraftOp::Local(number),
            inputs: Vec::new(),
            meta: Meta::default(),
        })
    }

    fn push(&mut self, vertex: DraftVertex) -> Node {
        self.vertices.push(vertex);
        Node(self.vertices.len() - 1)
    }

    /// Writes what `targets` need to `graph` and returns the edges of the targets. `local` says
    /// what a placeholder stands for.
    pub(crate) fn finish(
        self,
        graph: &mut Graph,
        targets: &[Option<Node>],
        local: &dyn Fn(usize) -> (Op, Meta),
    ) -> Vec<Option<Edge>> {
        let mut is_needed = vec![false; self.vertices.len()];
        for target in targets.iter().flatten() {
            is_needed[target.0] = true;
        }
        for (index, vertex) in self.vertices.iter().enumerate().rev() {
            if is_needed[index] {
                for input in &vertex.inputs {
                    is_needed[input.0] = true;
                }
            }
        }
        let mut edges: Vec<Option<Edge>> = Vec::with_capacity(self.vertices.len());
        for (vertex, is_needed) in self.vertices.into_iter().zip(is_needed) {
            edges.push(is_needed.then(|| {
                let (op, meta) = match vertex.op {
                    DraftOp::Ready(op) => (*op, vertex.meta),
                    DraftOp::Local(number) => local(number),
                };
                let inputs: Vec<Edge> = vertex.inputs.iter().filter_map(|it| edges[it.0]).collect();
                graph.add_edge(op, &inputs, meta)
            }));
        }
        targets.iter().map(|target| target.and_then(|it| edges[it.0])).collect()
    }
}
