//! How RUN is held: what the command line wants, and what this place allows.

use rbuild_solver::llb::op::Op;
use rbuild_solver::llb::{Graph, VertexId};
use rbuild_solver::solve::Solver;
use rbuild_solver::worker::launch::{Rung, Wanted};

use crate::cli::raw::Isolation;
use crate::cli::request::Request;
use crate::report::{Failure, Kind};

/// What `--isolation` means to the worker.
///
/// # Errors
///
/// If it asks for a rung that this version does not have.
pub fn wanted(isolation: Isolation) -> Result<Wanted, Failure> {
    match isolation {
        Isolation::Auto => Ok(Wanted::Auto),
        Isolation::Userns => Ok(Wanted::Only(Rung::Userns)),
        Isolation::UsernsSingle => Ok(Wanted::Only(Rung::UsernsSingle)),
        Isolation::Chroot | Isolation::Ptrace => {
            let text = format!("--isolation={}: {MISSING}", name(isolation));
            Err(Failure::new(Kind::Host, text).hint("`rbuild doctor` shows what works here"))
        }
    }
}

/// What is said of the rungs that are planned.
pub const MISSING: &str = "this version of rbuild does not have this kind of isolation yet";

const fn name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Auto => "auto",
        Isolation::Userns => "userns",
        Isolation::UsernsSingle => "userns-single",
        Isolation::Chroot => "chroot",
        Isolation::Ptrace => "ptrace",
    }
}

/// The smaller the stronger.
fn weakness(name: &str) -> usize {
    let order = ["userns", "userns-single", "chroot", "ptrace"];
    order.iter().position(|it| *it == name).unwrap_or(order.len())
}

/// Sees to it that the steps of a build can run, and tells how. A build without steps needs nothing.
///
/// # Errors
///
/// If nothing can run here, or only in a weaker way than is required.
pub async fn check(
    solver: &Solver,
    request: &Request,
    graph: &Graph,
    targets: &[VertexId],
) -> Result<(), Failure> {
    let runs = graph.needed(targets).into_iter().any(|id| matches!(graph[id].op, Op::Exec(_)));
    if !runs {
        return Ok(());
    }
    let found = solver.worker.isolation().await.map_err(rbuild_solver::solve::SolveError::from)?;
    if found.rung == "none" {
        let text = format!("RUN cannot be contained here: {}", found.why);
        let hint = "a Dockerfile without RUN builds here; `rbuild doctor` shows all that was tried";
        return Err(Failure::new(Kind::Host, text).hint(hint));
    }
    if let Some(required) = request.require_isolation
        && required != Isolation::Auto
        && weakness(found.rung) > weakness(name(required))
    {
        let (required, rung, why) = (name(required), found.rung, &found.why);
        let text =
            format!("--require-isolation={required}: this place only allows `{rung}` ({why})");
        return Err(Failure::new(Kind::Host, text).hint("`rbuild doctor` shows the ways out"));
    }
    let driver = if found.overlay { "overlay" } else { "plain" };
    let why = if found.why.is_empty() { String::new() } else { format!(" ({})", found.why) };
    let line = format!("[internal] isolation {}, {driver} snapshots{why}", found.rung);
    solver.events.task(&line).end(Ok::<(), Failure>(()))
}
