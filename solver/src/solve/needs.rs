//! What runs, and what each result is needed for: one pass from the targets back, pure.

use crate::llb::op::{DiffOp, ExecOp, FileInput, FileOp, MountKind, Op};
use crate::llb::{Graph, Vertex, VertexId};

/// What a vertex's result is needed for. Nothing at all means that only its key matters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a need of its own")]
pub struct Need {
    /// Somebody uses the result.
    pub wanted: bool,
    /// Its layers are part of the result, so an image needs them as blobs.
    pub exported: bool,
    /// Its files are read by a process or an output, so they must be on disk.
    pub files: bool,
    /// Its listing is read by a copy, from it or upon it. What is copied is read where it is.
    pub listing: bool,
}

impl Need {
    fn add(&mut self, other: Self) {
        self.wanted |= other.wanted;
        self.exported |= other.exported;
        self.files |= other.files;
        self.listing |= other.listing;
    }
}

/// Inputs that the result of `vertex` is built upon: their layers are part of its own.
pub(super) fn base_inputs(vertex: &Vertex) -> Vec<usize> {
    match &vertex.op {
        Op::File(FileOp { actions, .. }) => actions
            .iter()
            .filter_map(|action| match action.input {
                FileInput::Input(input) => Some(input),
                FileInput::Scratch | FileInput::Action(_) => None,
            })
            .collect(),
        Op::Exec(ExecOp { mounts, .. }) => mounts
            .iter()
            .filter(|mount| mount.output.is_some())
            .filter_map(|mount| mount.input)
            .collect(),
        Op::Merge(_) => (0..vertex.inputs.len()).collect(),
        Op::Diff(DiffOp { lower: _, upper }) => upper.iter().copied().collect(),
        Op::Source(_) | Op::Build(_) => Vec::new(),
    }
}

/// Inputs of which `vertex` reads files while it runs.
fn read_inputs(vertex: &Vertex) -> Vec<usize> {
    match &vertex.op {
        Op::File(FileOp { actions, .. }) => actions
            .iter()
            .filter_map(|action| match action.secondary {
                Some(FileInput::Input(input)) => Some(input),
                Some(FileInput::Scratch | FileInput::Action(_)) | None => None,
            })
            .collect(),
        Op::Exec(ExecOp { mounts, .. }) => mounts
            .iter()
            .filter(|mount| matches!(mount.kind, MountKind::Bind | MountKind::Cache { .. }))
            .filter_map(|mount| mount.input)
            .collect(),
        Op::Build(_) => vec![0],
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) => Vec::new(),
    }
}

/// Needs of each vertex and whether it runs, by index. `targets` come with what they are needed
/// for; `found` tells whether the cache has a result that satisfies a need.
pub(super) fn decide(
    graph: &Graph,
    targets: &[(VertexId, Need)],
    mut found: impl FnMut(VertexId, Need) -> bool,
) -> (Vec<Need>, Vec<bool>) {
    let mut needs = vec![Need::default(); graph.len()];
    let mut runs = vec![false; graph.len()];
    for (target, need) in targets {
        needs[target.index()].add(Need { wanted: true, ..*need });
    }
    for id in graph.ids().rev() {
        let (vertex, need) = (&graph[id], needs[id.index()]);
        if !need.wanted || found(id, need) {
            continue;
        }
        runs[id.index()] = true;
        for edge in &vertex.inputs {
            needs[edge.vertex.index()].wanted = true;
        }
        let is_file = matches!(vertex.op, Op::File(_));
        let passes_on = matches!(vertex.op, Op::Merge(_) | Op::Diff(_));
        let listing = is_file || passes_on && need.listing;
        for input in base_inputs(vertex) {
            let add = Need { wanted: true, exported: need.exported, files: need.files, listing };
            needs[vertex.inputs[input].vertex.index()].add(add);
        }
        for input in read_inputs(vertex) {
            let add = Need { wanted: true, exported: false, files: !is_file, listing: true };
            needs[vertex.inputs[input].vertex.index()].add(add);
        }
    }
    (needs, runs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::llb::op::{MergeOp, SourceOp};
    use crate::llb::{Edge, Meta};

    #[test]
    fn a_hit_needs_none_of_its_inputs() {
        let mut graph = Graph::default();
        let source =
            SourceOp { identifier: "local://a".to_owned(), attrs: BTreeMap::new(), platform: None };
        let a = graph.add_edge(Op::Source(source), &[], Meta::default());
        let b: Edge = graph.add_edge(Op::Merge(MergeOp), &[a], Meta::default());
        let c = graph.add_edge(Op::Merge(MergeOp), &[b], Meta::default());
        let blobs = Need { exported: true, ..Need::default() };
        let (needs, runs) = decide(&graph, &[(c.vertex, blobs)], |id, _| id == b.vertex);
        assert_eq!(runs, [false, false, true]);
        assert!(needs[b.vertex.index()].exported);
        assert!(!needs[a.vertex.index()].wanted);
    }
}
