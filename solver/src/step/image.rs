//! Images: layers by name, pulled only when somebody reads their files.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::EventKind;
use crate::llb::op::{FileActionKind, FileInput, Op};
use crate::llb::{Graph, VertexId};
use crate::solve::build::{Build, Outcome, StepInputs};
use crate::solve::{Layers, SolveError, Solver};
use crate::worker::proto::Chain;

/// Whether the operation is an image.
pub fn is_image(op: &Op) -> bool {
    op.source().is_some_and(|it| {
        matches!(it.identifier.split_once("://"), Some(("docker-image" | "oci-layout", _)))
    })
}

/// The layers of all images that `needed` vertices name. Nothing is downloaded but manifests.
///
/// # Errors
///
/// If one cannot be found; the error names the vertex.
pub async fn chains(
    solver: &Solver,
    graph: &Graph,
    needed: &[VertexId],
    layers: &Layers,
) -> Result<HashMap<VertexId, Chain>, SolveError> {
    let images = needed.iter().copied().filter(|id| is_image(&graph[*id].op));
    let found = images.map(async |id| {
        let vertex = &graph[id];
        let Some(op) = vertex.op.source() else { return Ok((id, Chain::new())) };
        let found = solver.session.image_layers(&op.identifier, op.platform.as_ref()).await;
        let mut chain = Chain::new();
        for layer in found.map_err(|error| SolveError::from(error).at(id))? {
            let below = chain.clone();
            chain.push(layers.add_pulled(&op.identifier, vertex.digest, layer, below));
        }
        Ok::<_, SolveError>((id, chain))
    });
    Ok(futures_util::future::try_join_all(found).await?.into_iter().collect())
}

/// Brings an image's layers into the store as far as they are needed.
///
/// # Errors
///
/// If a layer cannot be downloaded or unpacked.
pub async fn pull(build: &Arc<Build>, id: VertexId, _: StepInputs) -> Result<Outcome, SolveError> {
    let vertex = &build.request.graph[id];
    let Some(chain) = build.images.get(&id) else {
        return Err(SolveError::user(format!("{} was not resolved", vertex.meta.name)));
    };
    let need = build.needs[id.index()];
    let events = &build.solver.events;
    events.send(vertex.digest, EventKind::Started);
    let pulled = async {
        match copied_from(&build.request.graph, id) {
            Some(paths) if !need.files => {
                build.layers.expect_reads(chain, &paths).await;
                build.layers.listings(chain).await?;
            }
            Some(_) | None => build.layers.chain_on_disk(chain).await?,
        }
        Ok::<_, SolveError>(())
    };
    let result = tokio::select! {
        result = pulled => result,
        () = build.solver.cancel.cancelled() => Err(SolveError::cancelled()),
    };
    let error = result.as_ref().err().map(ToString::to_string);
    events.send(vertex.digest, EventKind::Completed { error });
    result?;
    Ok(Outcome { outputs: vec![chain.clone()], key: build.definition_key(id), planned_only: false })
}

/// What copies take of a vertex: paths without a slash at their ends, up to the first wildcard. None
/// where one may take anything.
fn copied_from(graph: &Graph, id: VertexId) -> Option<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for user in graph.ids() {
        let vertex = &graph[user];
        let Op::File(op) = &vertex.op else { continue };
        for action in &op.actions {
            if let (FileActionKind::Copy(copy), Some(FileInput::Input(input))) =
                (&action.kind, &action.secondary)
                && vertex.inputs.get(*input).is_some_and(|edge| edge.vertex == id)
            {
                let names = copy.src.split('/').filter(|name| !matches!(*name, "" | "."));
                let plain = names.take_while(|name| !name.contains(['*', '?', '[', '\\']));
                let path = plain.collect::<Vec<_>>().join("/");
                if path.is_empty() || path.split('/').any(|name| name == "..") {
                    return None;
                }
                paths.push(path.into_bytes());
            }
        }
    }
    Some(paths)
}
