//! The graph as text and as DOT.

use std::fmt::Write as _;

use super::{Graph, VertexId};

/// One paragraph for each vertex: number, name, inputs, and the operation's fields as JSON.
pub fn text(graph: &Graph, targets: &[VertexId]) -> String {
    let mut out = String::new();
    for id in graph.needed(targets) {
        let vertex = &graph[id];
        let inputs: Vec<String> = vertex
            .inputs
            .iter()
            .map(|edge| match edge.output {
                0 => format!("v{}", edge.vertex.index()),
                output => format!("v{}.{output}", edge.vertex.index()),
            })
            .collect();
        let op = serde_json::to_string(&vertex.op).expect("an operation has only string keys");
        writeln!(out, "v{} <- [{}] {}", id.index(), inputs.join(" "), vertex.meta.name)
            .expect("writing to a string");
        writeln!(out, "    {op}").expect("writing to a string");
    }
    for target in targets {
        writeln!(out, "target v{}", target.index()).expect("writing to a string");
    }
    out
}

/// The graph in the language of Graphviz.
pub fn dot(graph: &Graph, targets: &[VertexId]) -> String {
    let mut out = String::from("digraph build {\n  rankdir=LR; node [shape=box];\n");
    for id in graph.needed(targets) {
        let label =
            graph[id].meta.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let shape = if targets.contains(&id) { ", peripheries=2" } else { "" };
        writeln!(out, "  v{} [label=\"{label}\"{shape}];", id.index())
            .expect("writing to a string");
        for edge in &graph[id].inputs {
            writeln!(out, "  v{} -> v{};", edge.vertex.index(), id.index())
                .expect("writing to a string");
        }
    }
    out.push_str("}\n");
    out
}
