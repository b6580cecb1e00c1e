//! Keys of vertices: by definition before anything runs, by content once inputs are there.

use std::collections::HashMap;

use rbuild_store::digest::Digest;

use crate::cache::{CacheKey, ContentInput, KeyParts, content_inputs, definition_parts};
use crate::llb::op::Op;
use crate::llb::{Graph, Vertex, VertexId};

/// What is known of an input when a key is made.
#[derive(Clone, Debug)]
pub(crate) enum InputKey {
    /// A vertex with a key.
    Key(CacheKey),
    /// A tree from outside, known only by content.
    Outside,
}

/// Digests of what steps select from trees: of each content input of a vertex, in the order of
/// [`content_inputs`], where known.
pub(crate) type Selections = HashMap<(VertexId, usize), Selection>;

/// What a step selects from a tree.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Digest of the selection.
    pub digest: Digest,
    /// Digest of each selected path, for explanations; empty where there are too many.
    pub paths: Vec<(String, Digest)>,
}

/// Name of the part for a content input.
fn content_name(vertex: &Vertex, content: &ContentInput<'_>) -> String {
    match (*content, &vertex.op) {
        (ContentInput::Copy { action, .. }, Op::File(op)) => match &op.actions[action].kind {
            crate::llb::op::FileActionKind::Copy(copy) => format!("content.{}", copy.src),
            crate::llb::op::FileActionKind::Mkfile { .. }
            | crate::llb::op::FileActionKind::Mkdir { .. }
            | crate::llb::op::FileActionKind::Rm { .. }
            | crate::llb::op::FileActionKind::Symlink { .. } => format!("content.{action}"),
        },
        (ContentInput::Copy { action, .. }, _) => format!("content.{action}"),
        (ContentInput::Bind { selector, .. }, _) => format!("content.{selector}"),
    }
}

/// The parts of a vertex's key. `input` gives what is known of an input; a content input whose
/// selection is in `selections` is known by that, another by its producer's key.
pub(crate) fn parts(
    graph: &Graph,
    id: VertexId,
    input: &dyn Fn(VertexId) -> InputKey,
    selections: &Selections,
) -> KeyParts {
    let vertex = &graph[id];
    let mut parts = definition_parts(&vertex.op);
    let contents = content_inputs(vertex);
    for (number, content) in contents.iter().enumerate() {
        if let Some(selection) = selections.get(&(id, number)) {
            parts.add(content_name(vertex, content), selection.digest);
        } else {
            let edge = vertex.inputs[content.input()];
            if let InputKey::Key(key) = input(edge.vertex) {
                parts.add_value(format!("input.{}", content.input()), &(key, edge.output));
            }
        }
    }
    for (number, edge) in vertex.inputs.iter().enumerate() {
        if contents.iter().any(|content| content.input() == number) {
            continue;
        }
        match input(edge.vertex) {
            InputKey::Key(key) => parts.add_value(format!("input.{number}"), &(key, edge.output)),
            // Used as a whole: the caller gives its digest under the number after the contents.
            InputKey::Outside => {
                if let Some(selection) = selections.get(&(id, contents.len() + number)) {
                    parts.add(format!("content.input.{number}"), selection.digest);
                }
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::llb::op::{MergeOp, SourceOp};
    use crate::llb::{Edge, Meta};

    #[test]
    fn another_input_is_another_key() {
        let mut graph = Graph::default();
        let source = |name: &str| {
            Op::Source(SourceOp {
                identifier: format!("docker-image://{name}"),
                attrs: BTreeMap::new(),
                platform: None,
            })
        };
        let a: Edge = graph.add_edge(source("a"), &[], Meta::default());
        let merge = graph.add(Op::Merge(MergeOp), &[a], Meta::default());
        let key = |text: &str| {
            let key = CacheKey(Digest::of(text.as_bytes()));
            parts(&graph, merge, &|_| InputKey::Key(key), &Selections::new()).key()
        };
        assert_eq!(key("x"), key("x"));
        assert_ne!(key("x"), key("y"));
    }
}
