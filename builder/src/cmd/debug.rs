//! `rbuild debug`: what each stage of the straight line makes of a Dockerfile.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use rbuild_solver::cache::KeyParts;
use rbuild_solver::llb::{Graph, VertexId, dump};
use rbuild_solver::solve::{self, CancelToken, EventSink, Fate, Solver};

use super::build::{self, runtime};
use super::{open_store, plan, print};
use crate::cli::raw::{Debug, DebugWhat};
use crate::cli::request::Request;
use crate::env::Env;
use crate::report::{Failure, Kind};

/// Prints.
///
/// # Errors
///
/// What is wrong with the Dockerfile or with what it names.
pub fn run(raw: &Debug, root: &Path, env: &Env) -> Result<(), Failure> {
    let request = Request::new(&raw.build, env)?;
    let store = open_store(root)?;
    let events = nobody();
    let runtime = runtime()?;
    let opened = Arc::new(runtime.block_on(plan::open(&request, env, &store, &events))?);
    if raw.what == DebugWhat::Ast {
        return print(&rbuild_frontend::dump::dump(&opened.dockerfile));
    }
    let gateway = opened.gateway(runtime.handle().clone(), events);
    let planned = plan::lower(&opened, &gateway)?;
    let graph = &planned.lowered.graph;
    let targets: Vec<VertexId> =
        planned.lowered.targets.iter().filter_map(|it| Some(it.edge?.vertex)).collect();
    match raw.what {
        DebugWhat::Graph if raw.dot => print(&dump::dot(graph, &targets)),
        DebugWhat::Graph => print(&dump::text(graph, &targets)),
        DebugWhat::Keys | DebugWhat::Plan => {
            let solver = Solver {
                session: Arc::new(build::session(&opened, None)),
                worker: build::worker(&request, &store)?,
                events: nobody(),
                cancel: CancelToken::default(),
                store,
            };
            let graph = Arc::new(graph.clone());
            let asked = build::solve_request(&request, env, &graph, &planned);
            let forecast = runtime.block_on(solve::forecast(&solver, asked));
            let forecast = forecast.map_err(|error| build::solve_failure(&error, &graph))?;
            let show = if raw.what == DebugWhat::Keys { keys } else { fates };
            print(&show(&graph, &forecast))
        }
        DebugWhat::Ast => Err(Failure::new(Kind::Bug, "the tree is printed before")),
    }
}

/// A log that nobody looks at.
fn nobody() -> EventSink {
    EventSink::new(mpsc::channel().0)
}

/// The key of each vertex with its named parts, inputs and what it selects from them included.
fn keys(graph: &Graph, forecast: &[(VertexId, KeyParts, Fate)]) -> String {
    let mut out = String::new();
    for (id, parts, _) in forecast {
        let (number, key) = (id.index(), parts.key().0);
        writeln!(out, "v{number} {}\n  = {key}", graph[*id].meta.name).expect(STRING);
        for (name, digest) in parts.iter() {
            writeln!(out, "    {name} {digest}").expect(STRING);
        }
    }
    out
}

/// What a build would do with each vertex.
fn fates(graph: &Graph, forecast: &[(VertexId, KeyParts, Fate)]) -> String {
    let mut out = String::new();
    for (id, _, fate) in forecast {
        let word = match fate {
            Fate::Runs => "run",
            Fate::Cached => "cached",
            Fate::Outside => "look",
            Fate::Unneeded => "skip",
        };
        writeln!(out, "{word:<7} {}", graph[*id].meta.name).expect(STRING);
    }
    out
}

/// Why writing cannot fail.
const STRING: &str = "writing to a string";
