//! One operation: what it gets, what it returns, who carries it out.

pub mod exec;
pub mod file;
pub mod image;
mod input;
pub mod merge;
pub mod run;
pub mod select;

use std::sync::Arc;

pub use input::{StepResult, import};

use crate::llb::VertexId;
use crate::llb::op::Op;
use crate::solve::build::{Build, StepInputs};
use crate::solve::{SolveError, SolveErrorKind};

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
