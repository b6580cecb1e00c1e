//! What made each layer, in words: stands in the history of an image whose own says nothing about
//! the layer, as when a stage starts from a named context that is a directory.

use rbuild_solver::llb::op::{DiffOp, Op, SourceOp};
use rbuild_solver::llb::{Edge, Graph};

/// What each of the `layers` of a tree comes from, lowest first.
pub fn of_layers(graph: &Graph, tree: Option<Edge>, layers: usize) -> Vec<String> {
    let mut found = Vec::with_capacity(layers);
    let mut open: Vec<Edge> = tree.into_iter().collect();
    // From the top down: each operation adds one layer, a source all that are left.
    while let Some(edge) = open.pop() {
        if found.len() == layers {
            break;
        }
        let vertex = &graph[edge.vertex];
        let input = |index: usize| vertex.inputs.get(index).copied();
        match &vertex.op {
            Op::Source(source) => {
                let below = if open.is_empty() { layers - found.len() } else { 1 };
                found.extend(std::iter::repeat_n(source_text(source), below));
            }
            Op::Exec(exec) => {
                let mount = exec.mounts.iter().find(|it| it.output == Some(edge.output));
                let dest = mount.map_or("/", |it| it.dest.as_str());
                found.push(format!("mount {dest} from exec {}", exec.meta.args.join(" ")));
                open.extend(mount.and_then(|it| it.input).and_then(input));
            }
            Op::File(_) => {
                found.push("fileop target".to_owned());
                open.extend(input(0));
            }
            Op::Merge(_) => open.extend(vertex.inputs.iter().copied()),
            Op::Diff(DiffOp { upper, .. }) => {
                // Only what the upper one adds; what is below it belongs to the lower one.
                let top = upper.and_then(input).map(|it| of_layers(graph, Some(it), 1));
                found.extend(top.into_iter().flatten());
            }
            Op::Build(_) => {}
        }
    }
    found.resize(layers, "created by buildkit".to_owned());
    found.reverse();
    found
}

fn source_text(source: &SourceOp) -> String {
    let identifier = source.identifier.as_str();
    let (scheme, rest) = identifier.split_once("://").unwrap_or(("", identifier));
    match scheme {
        // BuildKit's client calls a named context so when it sends it.
        "local" => match rest.strip_prefix("context:") {
            Some(name) => format!("local source for ctx-{name}"),
            None => format!("local source for {rest}"),
        },
        "docker-image" | "oci-layout" => format!("pulled from {rest}"),
        "git" => {
            let remote = source.attrs.get("git.fullurl").map_or(rest, String::as_str);
            let reference = rest.split_once('#').map_or("", |it| it.1);
            format!("git snapshot for {remote}#{reference}")
        }
        _ => format!("http url {identifier}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rbuild_solver::llb::Meta;
    use rbuild_solver::llb::op::{FileOp, MergeOp};

    use super::*;

    fn source(identifier: &str) -> Op {
        let identifier = identifier.to_owned();
        Op::Source(SourceOp { identifier, attrs: BTreeMap::new(), platform: None })
    }

    fn file(count: u32) -> Op {
        let platform = (count > 0).then(|| "linux/amd64".parse().unwrap());
        Op::File(FileOp { actions: Vec::new(), platform })
    }

    #[test]
    fn a_source_is_all_below_the_steps() {
        let mut graph = Graph::default();
        let base = graph.add_edge(source("docker-image://a:1@sha256:0"), &[], Meta::default());
        let step = graph.add_edge(file(0), &[base], Meta::default());
        assert_eq!(
            of_layers(&graph, Some(step), 3),
            ["pulled from a:1@sha256:0", "pulled from a:1@sha256:0", "fileop target"]
        );
        assert!(of_layers(&graph, None, 0).is_empty());
    }

    #[test]
    fn merged_layers_follow_one_another() {
        let mut graph = Graph::default();
        let base = graph.add_edge(source("local://context:tree"), &[], Meta::default());
        let linked = graph.add_edge(file(1), &[], Meta::default());
        let merged = graph.add_edge(Op::Merge(MergeOp), &[base, linked], Meta::default());
        assert_eq!(
            of_layers(&graph, Some(merged), 2),
            ["local source for ctx-tree", "fileop target"]
        );
    }
}
