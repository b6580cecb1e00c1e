//! The trees that a step is given, and what it gives back.

use std::sync::Arc;

use rbuild_store::entry::Kind;

use crate::llb::VertexId;
use crate::solve::build::{Build, StepInputs};
use crate::solve::outside::Outside;
use crate::solve::{Layers, Planned, SolveError, SolveErrorKind};
use crate::tree::fileop::Contents;
use crate::worker::proto::{Chain, Content};

/// What a step made.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// The tree of each output.
    pub outputs: Vec<Chain>,
    /// Whether the last layer was planned and not written.
    pub planned_only: bool,
    /// Layers that were written, and the bytes of their regular files.
    pub written: Vec<(String, u64)>,
}

/// The tree of an input.
///
/// # Errors
///
/// If it is a tree from outside, or the producer has no such output.
pub(super) async fn input_chain(
    build: &Build,
    id: VertexId,
    inputs: &StepInputs,
    input: usize,
) -> Result<Chain, SolveError> {
    let edge = build.request.graph[id].inputs[input];
    if let Some(outcome) = inputs.outcomes.get(input).and_then(Option::as_ref) {
        return outcome.outputs.get(edge.output).cloned().ok_or_else(|| {
            SolveError::new(
                SolveErrorKind::Bug,
                format!("an input has no result number {}", edge.output),
            )
        });
    }
    match build.outside.get(&edge.vertex) {
        Some(outside) => import(build, outside).await,
        None => Err(SolveError::new(SolveErrorKind::Bug, "an input has no result")),
    }
}

/// Makes a layer of a tree from outside (a context that is mounted).
///
/// # Errors
///
/// If the disk refuses.
pub async fn import(build: &Build, outside: &Outside) -> Result<Chain, SolveError> {
    let files = outside.listing.entries().iter().filter_map(|entry| match entry.kind {
        // Empty files need not be opened, and some (a socket of a context is one) cannot be.
        Kind::File { size: 0, .. } => Some(Content::Inline(Vec::new())),
        Kind::File { .. } => Some(Content::Tree { root: 0, path: entry.path.clone() }),
        Kind::Dir { .. }
        | Kind::Symlink { .. }
        | Kind::Hardlink { .. }
        | Kind::Char { .. }
        | Kind::Block { .. }
        | Kind::Fifo
        | Kind::Whiteout => None,
    });
    let contents = Contents { roots: vec![outside.root.clone()], files: files.collect() };
    let layer = Layers::new_id();
    let planned = Planned { listing: Arc::clone(&outside.listing), contents: Arc::new(contents) };
    build.layers.add_planned(&layer, planned);
    build.layers.on_disk(&layer).await?;
    Ok(vec![layer])
}
