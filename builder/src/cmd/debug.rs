//! `rbuild debug`: what each stage of the straight line makes of a Dockerfile.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use rbuild_solver::cache::definition_parts;
use rbuild_solver::llb::{VertexId, dump};
use rbuild_solver::solve::EventSink;

use super::build::runtime;
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
    // Nobody looks at the progress.
    let (sender, _) = mpsc::channel();
    let events = EventSink::new(sender);
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
        DebugWhat::Keys => {
            let mut out = String::new();
            for id in graph.needed(&targets) {
                let parts = definition_parts(&graph[id].op);
                writeln!(out, "v{} {}", id.index(), graph[id].meta.name)
                    .expect("writing to a string");
                for (name, digest) in parts.iter() {
                    writeln!(out, "    {name} {digest}").expect("writing to a string");
                }
            }
            print(&out)
        }
        DebugWhat::Plan => {
            let mut out = String::new();
            for id in graph.needed(&targets) {
                writeln!(out, "{}", graph[id].meta.name).expect("writing to a string");
            }
            print(&out)
        }
        DebugWhat::Ast => Err(Failure::new(Kind::Bug, "the tree is printed before")),
    }
}
