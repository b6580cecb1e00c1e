//! The loop that joins keys, cache, scheduler, steps and events.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::task::JoinSet;

use super::build::{Build, Outcome, StepInputs};
use super::error::{SolveError, SolveErrorKind};
use super::keys::Selections;
use super::layers::Layers;
use super::needs::{self, Need};
use super::outside;
use super::recall::Recalled;
use super::trees::Trees;
use super::{Counts, SolveRequest, Solved, Solver};
use crate::cache::KeyParts;
use crate::event::EventKind;
use crate::llb::op::Op;
use crate::llb::{Edge, VertexId};
use crate::sandbox::limits::open_files;
use crate::sched::Scheduler;
use crate::step;
use crate::worker::proto::{Chain, Request};

/// Most steps that run at the same time.
const MAX_PARALLEL_STEPS: usize = 64;

/// Descriptors of the worker that a step takes at most while it runs: its network's sockets, its
/// pipes, its directories, the processes that hold and prepare it. Seen: 16 on average.
const FILES_PER_STEP: u64 = 24;

/// Builds the targets of `request`.
///
/// # Errors
///
/// The first failure, with its vertex; everything that ran is stopped then, and nothing unfinished
/// is left in the store.
pub async fn solve(solver: &Solver, request: SolveRequest) -> Result<Solved, SolveError> {
    let Begun { build, needed, mut found, runs } = begin(solver, request).await?;
    let counts = build.report_found(&needed, &runs, &found);
    let build = Arc::new(build);
    drive(&build, &mut found, &runs).await?;

    let mut trees = Vec::with_capacity(build.request.targets.len());
    for edge in &build.request.targets {
        trees.push(tree(&build, &found, *edge).await?);
    }
    Ok(Solved { trees, layers: Arc::clone(&build.layers), counts })
}

/// What [`solve`] would do with each vertex that the targets need, and the named parts of its key
/// by definition. Nothing runs.
///
/// # Errors
///
/// Something outside cannot be found, or the store cannot be read.
pub async fn forecast(
    solver: &Solver,
    request: SolveRequest,
) -> Result<Vec<(VertexId, KeyParts, Fate)>, SolveError> {
    let Begun { mut build, needed, found, runs } = begin(solver, request).await?;
    let fate = |id: VertexId| match (runs[id.index()], build.outside.contains_key(&id)) {
        (true, _) => Fate::Runs,
        (false, true) => Fate::Outside,
        (false, false) if found.contains_key(&id) => Fate::Cached,
        (false, false) => Fate::Unneeded,
    };
    let fates: Vec<_> = needed.iter().map(|&id| (id, fate(id))).collect();
    let all = fates.into_iter();
    Ok(all.map(|(id, fate)| (id, build.definition.remove(&id).unwrap_or_default(), fate)).collect())
}

/// What becomes of a vertex.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It runs, or an image is pulled.
    Runs,
    /// Its result is known.
    Cached,
    /// It comes from outside of the build and is only looked at.
    Outside,
    /// Nothing that runs needs it.
    Unneeded,
}

/// A build before anything runs.
struct Begun {
    build: Build,
    needed: Vec<VertexId>,
    found: HashMap<VertexId, Outcome>,
    runs: Vec<bool>,
}

/// Finds what is outside and what is known, and decides what runs.
async fn begin(solver: &Solver, request: SolveRequest) -> Result<Begun, SolveError> {
    let graph = Arc::clone(&request.graph);
    let targets: Vec<VertexId> = request.targets.iter().map(|edge| edge.vertex).collect();
    let needed = graph.needed(&targets);
    for &id in &needed {
        solver.events.declare(&graph, id);
    }
    let layers = Arc::new(Layers::new(
        Arc::clone(&solver.store),
        solver.worker.clone(),
        Arc::clone(&solver.session),
        solver.events.clone(),
        request.now,
    ));
    let (images, outside) = tokio::try_join!(
        step::image::chains(solver, &graph, &needed, &layers),
        outside::find_all(solver, &graph, &needed, &layers),
    )?;
    let mut build = Build {
        solver: solver.clone(),
        layers,
        images,
        outside,
        needs: Vec::new(),
        steps_left: AtomicUsize::new(0),
        trees: Trees::default(),
        selections: Selections::new(),
        definition: HashMap::new(),
        request,
    };
    build.selections = step::select::outside(&build, &needed).await?;
    build.definition = build.definition_keys(&needed);
    let mut found = build.look_up(&needed)?;
    build.save_stat_caches();

    let need = Need {
        wanted: true,
        exported: build.request.seal.is_some(),
        files: build.request.files,
        listing: false,
    };
    let wanted: Vec<(VertexId, Need)> = targets.iter().map(|&id| (id, need)).collect();
    let mut runs = loop {
        let (needs, runs) = needs::decide(&graph, &wanted, |id, need| match found.get(&id) {
            Some(outcome) if step::image::is_image(&graph[id].op) => {
                // An image runs if its files are read: then it is pulled.
                !(need.files || need.listing) || outcome.outputs.iter().all(Vec::is_empty)
            }
            Some(outcome) => build.serves(outcome, need),
            None => build.outside.contains_key(&id),
        });
        let lost = build.out_of_reach(&found, (&needs, &runs)).await?;
        if lost.is_empty() {
            build.needs = needs;
            break runs;
        }
        // What has to be made again may need more than is needed now.
        for id in lost {
            found.remove(&id);
        }
    };
    for &id in &needed {
        runs[id.index()] &= !build.outside.contains_key(&id);
        if runs[id.index()] && matches!(graph[id].op, Op::Exec(_)) {
            *build.steps_left.get_mut() += 1;
        }
    }
    Ok(Begun { build, needed, found, runs })
}

/// The tree of a target.
async fn tree(
    build: &Build,
    found: &HashMap<VertexId, Outcome>,
    edge: Edge,
) -> Result<Chain, SolveError> {
    if let Some(outside) = build.outside.get(&edge.vertex) {
        return step::import(build, outside).await;
    }
    let outcome = found.get(&edge.vertex).and_then(|it| it.outputs.get(edge.output));
    outcome.cloned().ok_or_else(|| {
        let name = &build.request.graph[edge.vertex].meta.name;
        SolveError::new(
            SolveErrorKind::Bug,
            format!("`{name}` has no result number {}", edge.output),
        )
        .at(edge.vertex)
    })
}

/// Runs what must run, as much as possible at the same time.
async fn drive(
    build: &Arc<Build>,
    found: &mut HashMap<VertexId, Outcome>,
    runs: &[bool],
) -> Result<(), SolveError> {
    let graph = &build.request.graph;
    let running: Vec<VertexId> = graph.ids().filter(|id| runs[id.index()]).collect();
    let done: Vec<VertexId> = graph
        .ids()
        .filter(|id| {
            !runs[id.index()] && (found.contains_key(id) || build.outside.contains_key(id))
        })
        .collect();
    let mut scheduler = Scheduler::new(graph, &running, &done);
    build.expect(&running);
    let mut tasks: JoinSet<(VertexId, Result<Outcome, SolveError>)> = JoinSet::new();
    let mut seals: JoinSet<Result<(), SolveError>> = JoinSet::new();
    let room = usize::try_from(open_files() / FILES_PER_STEP).unwrap_or(MAX_PARALLEL_STEPS);
    let at_once = room.clamp(1, MAX_PARALLEL_STEPS);
    loop {
        while tasks.len() < at_once
            && let Some(id) = scheduler.start_next()
        {
            let inputs = build.inputs(id, found);
            let build = Arc::clone(build);
            tasks.spawn(async move { (id, run(&build, id, inputs).await) });
        }
        let ended = tokio::select! {
            ended = tasks.join_next() => ended,
            Some(sealed) = seals.join_next(), if !seals.is_empty() => {
                flatten(sealed)?;
                continue;
            }
            () = build.solver.cancel.cancelled() => return stop(build, tasks).await,
        };
        let Some(ended) = ended else { break };
        let (id, result) = ended.map_err(|error| {
            SolveError::new(SolveErrorKind::Bug, format!("a step panicked: {error}"))
        })?;
        match result {
            Ok(outcome) => {
                build.seal_in_background(id, &outcome, &mut seals);
                found.insert(id, outcome);
                scheduler.finish(id, true);
            }
            Err(error) => {
                scheduler.finish(id, false);
                build.solver.cancel.cancel();
                drop(stop(build, tasks).await);
                return Err(error);
            }
        }
    }
    while let Some(sealed) = seals.join_next().await {
        flatten(sealed)?;
    }
    Ok(())
}

fn flatten(
    joined: Result<Result<(), SolveError>, tokio::task::JoinError>,
) -> Result<(), SolveError> {
    joined.unwrap_or_else(|error| {
        Err(SolveError::new(SolveErrorKind::Bug, format!("sealing panicked: {error}")))
    })
}

/// Waits for what still runs: every step has been told to stop.
async fn stop(
    build: &Build,
    mut tasks: JoinSet<(VertexId, Result<Outcome, SolveError>)>,
) -> Result<(), SolveError> {
    debug_assert!(build.solver.cancel.is_cancelled(), "steps end only if they are told to");
    while tasks.join_next().await.is_some() {}
    Err(SolveError::cancelled())
}

/// Runs one vertex: a last look into the cache, by content, then the work itself.
async fn run(build: &Arc<Build>, id: VertexId, inputs: StepInputs) -> Result<Outcome, SolveError> {
    let vertex = &build.request.graph[id];
    if step::image::is_image(&vertex.op) {
        return step::image::pull(build, id, inputs).await.map_err(|error| error.at(id));
    }
    let events = &build.solver.events;
    let result = run_step(build, id, inputs).await.map_err(|error| error.at(id));
    let error = result.as_ref().err().map(ToString::to_string);
    events.send(vertex.digest, EventKind::Completed { error });
    result
}

async fn run_step(
    build: &Arc<Build>,
    id: VertexId,
    inputs: StepInputs,
) -> Result<Outcome, SolveError> {
    let vertex = &build.request.graph[id];
    let events = &build.solver.events;
    let selections = step::select::inside(build, id, &inputs).await?;
    let (parts, key) = build.real_key(id, &inputs, &selections);
    let use_cache = !vertex.meta.ignore_cache;
    let definition = build.definition.get(&id).map(KeyParts::key);
    if use_cache
        && definition != Some(key)
        && let Recalled::Here(outcome) = build.cached(key, id).await?
    {
        events.send(vertex.digest, EventKind::Cached);
        build.remember(id, definition, &outcome, Vec::new(), None)?;
        return Ok(outcome);
    }
    let lock = build.lock(key).await?;
    // Another build may have made it meanwhile, however short the wait was.
    let recalled = if use_cache { build.cached(key, id).await? } else { Recalled::Unknown };
    let out_of_reach = match recalled {
        Recalled::Here(outcome) => {
            events.send(vertex.digest, EventKind::Cached);
            return Ok(outcome);
        }
        Recalled::OutOfReach => true,
        Recalled::Unknown => false,
    };
    events.send(vertex.digest, EventKind::Started);
    if build.request.explain {
        let changed = build.explain(id, &parts, &selections)?;
        events.send(vertex.digest, EventKind::Missed { changed, out_of_reach });
    }
    let result = step::run(build, id, &inputs).await?;
    let outcome = Outcome { outputs: result.outputs, key, planned_only: result.planned_only };
    build.remember(id, definition, &outcome, result.written, Some((&parts, &selections)))?;
    drop(lock);
    Ok(outcome)
}

impl Build {
    /// Has the worker make ready what the first process needs, while images are pulled.
    fn expect(&self, running: &[VertexId]) {
        let graph = &self.request.graph;
        let process = |id: &VertexId| match &graph[*id].op {
            Op::Exec(op) => Some(step::exec::expected(op, &self.request.exec)),
            Op::File(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) | Op::Source(_) => None,
        };
        if let Some(expected) = running.iter().find_map(process) {
            let worker = self.solver.worker.clone();
            // The step itself says what is wrong.
            tokio::spawn(async move { worker.request(Request::Expect(expected), vec![]).await });
        }
    }

    /// Tells which results were found.
    fn report_found(
        &self,
        needed: &[VertexId],
        runs: &[bool],
        found: &HashMap<VertexId, Outcome>,
    ) -> Counts {
        let mut counts = Counts::default();
        for &id in needed {
            let vertex = &self.request.graph[id];
            if runs[id.index()] {
                counts.ran += 1;
            } else if found.contains_key(&id) {
                counts.cached += 1;
                self.solver.events.send(vertex.digest, EventKind::Cached);
                self.solver.events.send(vertex.digest, EventKind::Completed { error: None });
            }
        }
        counts
    }

    /// Starts to write the new layers of a result as blobs, if an output will want them.
    fn seal_in_background(
        self: &Arc<Self>,
        id: VertexId,
        outcome: &Outcome,
        seals: &mut JoinSet<Result<(), SolveError>>,
    ) {
        let Some(options) = self.request.seal.filter(|_| self.needs[id.index()].exported) else {
            return;
        };
        for layer in outcome.outputs.iter().filter_map(|chain| chain.last()) {
            if self.layers.pulled(layer).is_some() {
                continue;
            }
            let (build, layer) = (Arc::clone(self), layer.clone());
            let planned = outcome.planned_only.then(|| outcome.clone());
            seals.spawn(async move {
                build.layers.sealed(&layer, options).await?;
                // Now it can be had again without being worked out.
                match planned {
                    Some(outcome) => build.remember_written(id, &outcome),
                    None => Ok(()),
                }
            });
        }
    }
}
