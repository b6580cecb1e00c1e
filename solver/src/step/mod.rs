//! One operation: what it gets, what it returns, who carries it out.

pub mod exec;
pub mod file;
pub mod image;
pub mod merge;
pub mod run;
pub mod select;

use std::sync::Arc;

use crate::llb::VertexId;
use crate::llb::op::Op;
use crate::solve::drive::{Build, Outcome};
use crate::solve::{SolveError, SolveErrorKind};
use crate::worker::proto::Chain;

/// Results of a vertex's inputs, in their order; none for a tree from outside.
#[derive(Clone, Debug)]
pub struct StepInputs {
    /// The results.
    pub outcomes: Vec<Option<Outcome>>,
}

/// What a step made.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// The tree of each output.
    pub outputs: Vec<Chain>,
    /// Whether the last layer was planned and not written.
    pub planned_only: bool,
}

/// Carries out the operation of a vertex.
///
/// # Errors
///
/// Why it failed.
pub async fn run(
    build: &Arc<Build>,
    id: VertexId,
    inputs: &StepInputs,
) -> Result<StepResult, SolveError> {
    match &build.request.graph[id].op {
        Op::Exec(op) => run::exec(build, id, op, inputs).await,
        Op::File(op) => file::apply(build, id, op, inputs).await,
        Op::Merge(_) => merge::merge(build, id, inputs).await,
        Op::Diff(op) => merge::diff(build, id, *op, inputs).await,
        Op::Build(_) => {
            Err(SolveError::user("graphs inside of images (llbbuild) are not supported"))
        }
        Op::Source(source) => Err(SolveError::new(
            SolveErrorKind::Bug,
            format!("the source {} cannot run", source.identifier),
        )),
    }
}

/// The tree of an input.
///
/// # Errors
///
/// If it is a tree from outside, or the producer has no such output.
pub async fn input_chain(
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
        Some(outside) => file::import(build, outside).await,
        None => Err(SolveError::new(SolveErrorKind::Bug, "an input has no result")),
    }
}
