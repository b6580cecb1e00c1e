//! Trees made of other trees' layers.

use super::input::{StepResult, input_chain};
use crate::llb::VertexId;
use crate::llb::op::DiffOp;
use crate::solve::SolveError;
use crate::solve::build::{Build, StepInputs};
use crate::worker::proto::Chain;

/// The layers of all inputs on top of each other.
///
/// # Errors
///
/// If an input has no layers.
pub async fn merge(
    build: &Build,
    id: VertexId,
    inputs: &StepInputs,
) -> Result<StepResult, SolveError> {
    let mut chain = Chain::new();
    for input in 0..build.request.graph[id].inputs.len() {
        chain.extend(input_chain(build, id, inputs, input).await?);
    }
    Ok(StepResult { outputs: vec![chain], planned_only: false, written: Vec::new() })
}

/// What the upper tree has on top of the lower one.
///
/// # Errors
///
/// If the upper tree was not built upon the lower one.
pub async fn diff(
    build: &Build,
    id: VertexId,
    op: DiffOp,
    inputs: &StepInputs,
) -> Result<StepResult, SolveError> {
    let lower = match op.lower {
        Some(input) => input_chain(build, id, inputs, input).await?,
        None => Chain::new(),
    };
    let upper = match op.upper {
        Some(input) => input_chain(build, id, inputs, input).await?,
        None => Chain::new(),
    };
    let chain = upper.strip_prefix(lower.as_slice()).ok_or_else(|| {
        SolveError::user("the difference of two trees is supported only where the upper one is built upon the lower one")
    })?;
    Ok(StepResult { outputs: vec![chain.to_vec()], planned_only: false, written: Vec::new() })
}
