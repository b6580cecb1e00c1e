//! How RUN is held: what the command line wants, and what this place allows.

use rbuild_solver::llb::op::Op;
use rbuild_solver::llb::{Graph, VertexId};
use rbuild_solver::sandbox::rung::{Rung, Wanted};
use rbuild_solver::solve::Solver;
use rbuild_solver::worker::client::{Isolation as Held, Worker};

use crate::cli::raw::Isolation;
use crate::cli::request::Request;
use crate::report::{Failure, Kind};

/// What `--isolation` and `--require-isolation` mean to the worker.
///
/// # Errors
///
/// If they ask for a rung that this version does not have, or contradict each other.
pub fn wanted(request: &Request) -> Result<Wanted, Failure> {
    let only = match request.isolation {
        Isolation::Auto => None,
        Isolation::Userns => Some(Rung::Userns),
        Isolation::UsernsSingle => Some(Rung::UsernsSingle),
        Isolation::Chroot => Some(Rung::Chroot),
        Isolation::Ptrace => {
            let text = format!("--isolation={}: {MISSING}", name(request.isolation));
            let hint = "`rbuild doctor` shows what works here";
            return Err(Failure::new(Kind::Host, text).hint(hint));
        }
    };
    let least = match request.require_isolation {
        None | Some(Isolation::Auto | Isolation::Ptrace) => None,
        Some(Isolation::Chroot) => Some(Rung::Chroot),
        Some(Isolation::Userns) => Some(Rung::Userns),
        Some(Isolation::UsernsSingle) => Some(Rung::UsernsSingle),
    };
    match (only, least) {
        (None, None) => Ok(Wanted::Auto),
        (None, Some(least)) => Ok(Wanted::AtLeast(least)),
        (Some(only), Some(least)) if only > least => {
            let (only, least) = (only.name(), least.name());
            let text = format!("--isolation={only} is weaker than --require-isolation={least}");
            Err(Failure::new(Kind::Host, text).hint("give one of the two flags only"))
        }
        (Some(only), _) => Ok(Wanted::Only(only)),
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
        return Err(nothing(&found, request));
    }
    if let Some(unsuited) = found.unsuited {
        let text = format!("RUN cannot work in the store: {unsuited}");
        let hint = "`rbuild doctor` shows what the store's place allows";
        return Err(Failure::new(Kind::Host, text).hint(hint));
    }
    let driver = match (found.overlay, found.helper) {
        (true, false) => "overlay",
        (true, true) => "fuse-overlayfs",
        (false, _) => "plain",
    };
    let why = if found.why.is_empty() { String::new() } else { format!(" ({})", found.why) };
    let line = format!("[internal] isolation {}, {driver} snapshots{why}", found.rung);
    solver.events.task(&line).end(Ok::<(), Failure>(()))
}

/// Whether steps can be held here in any way, as far as that is known or quickly asked.
pub fn is_possible(worker: &Worker) -> bool {
    // Where nobody answers it is found out later.
    worker.known().is_none_or(|it| worker.wanted().rungs().any(|rung| it.rung(rung).is_ok()))
}

/// Why nothing can run here.
pub async fn impossible(worker: &Worker, request: &Request) -> Failure {
    match worker.isolation().await {
        Ok(found) => nothing(&found, request),
        Err(failure) => rbuild_solver::solve::SolveError::from(failure).into(),
    }
}

fn nothing(found: &Held, request: &Request) -> Failure {
    let (text, hint) = match request.require_isolation {
        Some(required) if required != Isolation::Auto => (
            format!("--require-isolation={} is not possible here", name(required)),
            "`rbuild doctor` shows what is, and the ways out",
        ),
        _ => (
            "RUN cannot be contained here".to_owned(),
            "a Dockerfile without RUN builds here; `rbuild doctor` shows all that was tried",
        ),
    };
    Failure::new(Kind::Host, format!("{text}: {}", found.why)).hint(hint)
}
