//! `rbuild build`: the straight line from the Dockerfile to the outputs.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use rbuild_frontend::ast::Instruction;
use rbuild_frontend::diagnostic::marked_excerpt;
use rbuild_solver::event::Event;
use rbuild_solver::llb::Graph;
use rbuild_solver::solve::{
    CancelToken, EventSink, ExecSettings, SolveError, SolveErrorKind, SolveRequest, Solved, Solver,
    solve,
};
use rbuild_solver::worker::client::Worker;
use rbuild_solver::worker::launch;
use rbuild_store::digest::{Digest, Hasher};
use rbuild_store::local::Store;
use rbuild_store::reference::Reference;

use super::plan::{self, Opened, Planned};
use super::sweep::Sweep;
use super::{call, isolation, open_store};
use crate::cli::output::{Output, OutputKind};
use crate::cli::raw::{Build, Progress, Snapshotter};
use crate::cli::request::{Method, Request};
use crate::cli::spec;
use crate::env::Env;
use crate::output::{
    Ahead, Exporter, Product, Response, names, of_layers, parse_name, seal_options,
};
use crate::progress;
use crate::report::{Failure, Kind};
use crate::session::LocalSession;
use crate::signal;

/// Threads of the runtime: everything that takes long happens on blocking threads.
const RUNTIME_THREADS: usize = 2;

/// Builds.
///
/// # Errors
///
/// What the user is told.
pub fn run(raw: &Build, root: &Path, env: &Env) -> Result<(), Failure> {
    let request = Request::new(raw, env)?;
    let store = open_store(root)?;
    let result = with_progress(&request, env, |events| {
        runtime()?.block_on(async {
            let opened = plan::open(&request, env, &store, events).await?;
            if request.call.method != Method::Build {
                return call::run(&request, opened, events).await;
            }
            let (sweep, worker) = (Sweep::start(&store), worker(&request, &store)?);
            let result = build(&request, env, &store, &worker, Arc::new(opened), events).await;
            // Who interrupts does not want to wait.
            if !matches!(&result, Err(failure) if failure.kind == Kind::Interrupted) {
                sweep.finish(&store, &worker).await;
            }
            result
        })
    });
    store.temp().clear();
    result
}

/// The runtime of a command.
///
/// # Errors
///
/// If the kernel refuses threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::host("start threads", &error))
}

/// Runs `work` with a renderer for its events, and waits until all is shown.
fn with_progress(
    request: &Request,
    env: &Env,
    work: impl FnOnce(&EventSink) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (sender, receiver) = mpsc::channel::<Event>();
    let (mode, terminal) = (request.progress, env.stderr_is_terminal);
    let mode = if request.call.method == Method::Build { mode } else { Progress::Quiet };
    let renderer = std::thread::spawn(move || {
        let mut out = std::io::BufWriter::new(std::io::stderr());
        progress::show(mode, terminal, &receiver, &mut out);
    });
    let events = EventSink::new(sender);
    let result = work(&events);
    drop(events);
    // The renderer ends with the last sender; if it panicked, the build is none the worse.
    drop(renderer.join());
    result
}

async fn build(
    request: &Request,
    env: &Env,
    store: &Arc<Store>,
    worker: &Worker,
    opened: Arc<Opened>,
    events: &EventSink,
) -> Result<(), Failure> {
    let tags =
        request.tags.iter().map(|it| parse_name("--tag", it)).collect::<Result<Vec<_>, _>>()?;
    let cancel = CancelToken::default();
    signal::watch(&cancel);
    let started = prepare(&opened, store, worker);
    if !started {
        possible(&opened, request, worker, events).await?;
    }
    let planned = lower(&opened, events).await;
    if started && planned.is_err() {
        // Said also where no registry answers. Where one does, there is a look before anything is pulled.
        drop(worker.isolation().await);
        possible(&opened, request, worker, events).await?;
    }
    let planned = planned?;
    warn(&planned, &opened, request);
    let ahead = ahead(request, &opened, store, &planned, &tags)?;
    let session = Arc::new(session(&opened, ahead.clone()));
    let (store, worker, events) = (Arc::clone(store), worker.clone(), events.clone());
    let solver = Solver { store, session, worker, events, cancel };
    let graph = Arc::new(planned.lowered.graph.clone());
    let solved = run_graph(&solver, request, env, &graph, &planned).await?;
    let products = products(&planned, &solved);
    let exporter = Exporter {
        store: Arc::clone(&solver.store),
        layers: Arc::clone(&solved.layers),
        worker: solver.worker.clone(),
        images: Arc::clone(&opened.images),
        ahead,
        events: solver.events.clone(),
        tags,
        annotations: request.annotations.clone(),
        multi_platform: plan::multi_platform(request),
        now: env.now,
    };
    let written = tokio::select! {
        written = exporter.write(&request.outputs, &products) => written,
        () = solver.cancel.cancelled() => Err(interrupted()),
    };
    finish(request, env, &written?)
}

/// Starts the worker while registries are asked, if it is sure to be needed: there are steps, and
/// none can have been run before. Tells whether it is.
fn prepare(opened: &Opened, store: &Store, worker: &Worker) -> bool {
    let runs = |it: &Instruction| matches!(it, Instruction::Run(_));
    let is_new = || store.layout().layers().read_dir().is_ok_and(|mut it| it.next().is_none());
    let needed = opened.dockerfile.instructions.iter().any(runs) && is_new();
    if needed {
        worker.start_ahead();
    }
    needed
}

/// Ends a build whose steps cannot run here, as far as that is known.
async fn possible(
    opened: &Opened,
    request: &Request,
    worker: &Worker,
    events: &EventSink,
) -> Result<(), Failure> {
    if !isolation::is_possible(worker) && plan::has_run(opened, events) {
        return Err(isolation::impossible(worker, request).await);
    }
    Ok(())
}

/// Makes the graph where it may block.
async fn lower(opened: &Arc<Opened>, events: &EventSink) -> Result<Planned, Failure> {
    let gateway = opened.gateway(tokio::runtime::Handle::current(), events.clone());
    let opened = Arc::clone(opened);
    let lowered = tokio::task::spawn_blocking(move || plan::lower(&opened, &gateway)).await;
    lowered.unwrap_or_else(|error| {
        Err(Failure::new(Kind::Bug, format!("the frontend failed: {error}")))
    })
}

fn warn(planned: &Planned, opened: &Opened, request: &Request) {
    let mut text = String::new();
    let inline_cache = request.build_args.get("BUILDKIT_INLINE_CACHE");
    if inline_cache.is_some_and(|it| spec::boolean("", it).unwrap_or(false)) && !request.quiet {
        text.push_str(
            "warning: BUILDKIT_INLINE_CACHE has no effect: images carry no cache, the store has it\n\n",
        );
    }
    for warning in planned.warnings.iter().filter(|_| !request.quiet) {
        text.push_str(&warning.render(&opened.source));
        text.push('\n');
    }
    // Warnings that nobody reads do not stop a build.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// The worker that `request` asks for; nothing is started.
///
/// # Errors
///
/// The isolation that is wanted does not exist.
pub fn worker(request: &Request, store: &Store) -> Result<Worker, Failure> {
    let snapshotter = match request.snapshotter {
        Snapshotter::Auto => launch::Snapshotter::Auto,
        Snapshotter::Overlay => launch::Snapshotter::Overlay,
        Snapshotter::FuseOverlayfs => launch::Snapshotter::FuseOverlayfs,
        Snapshotter::Plain => launch::Snapshotter::Plain,
    };
    let isolation = isolation::wanted(request)?;
    let (store, network) = (store.root().to_owned(), request.steps_network.clone());
    Ok(Worker::with(launch::Setup { store, snapshotter, network, isolation, overlay: None }))
}

/// This user's files, secrets and credentials.
pub fn session(opened: &Opened, ahead: Option<Arc<Ahead>>) -> LocalSession {
    LocalSession {
        directories: opened.directories.clone(),
        offers: Arc::clone(&opened.remotes.offers),
        images: Arc::clone(&opened.images),
        remotes: Arc::clone(&opened.remotes),
        ahead,
    }
}

/// Layers that are pushed while the build goes on: those of the first output that is.
fn ahead(
    request: &Request,
    opened: &Opened,
    store: &Arc<Store>,
    planned: &Planned,
    tags: &[Reference],
) -> Result<Option<Arc<Ahead>>, Failure> {
    let pushes = |it: &&Output| matches!(it.kind, OutputKind::Image { push: true });
    let Some(output) = request.outputs.iter().find(pushes) else { return Ok(None) };
    let (store, images) = (Arc::clone(store), Arc::clone(&opened.images));
    let options = seal_options(&output.image, epoch(output, planned));
    let names = names(tags, &output.image)?;
    Ok(Some(Arc::new(Ahead::new(store, images, options, &names))))
}

/// The time that layers are set back to: the output's own, else the build's.
fn epoch(output: &Output, planned: &Planned) -> Option<i64> {
    let built = || planned.lowered.targets.first().and_then(|target| target.epoch);
    output.image.epoch.or_else(built)
}

async fn run_graph(
    solver: &Solver,
    request: &Request,
    env: &Env,
    graph: &Arc<Graph>,
    planned: &Planned,
) -> Result<Solved, Failure> {
    let asked = solve_request(request, env, graph, planned);
    let targets: Vec<_> = asked.targets.iter().map(|edge| edge.vertex).collect();
    // Before anything is pulled: where a step cannot run that would be in vain.
    isolation::check(solver, request, graph, &targets).await?;
    solve(solver, asked).await.map_err(|error| solve_failure(&error, graph))
}

/// What the solver is asked for.
pub fn solve_request(
    request: &Request,
    env: &Env,
    graph: &Arc<Graph>,
    planned: &Planned,
) -> SolveRequest {
    let image = request.outputs.iter().find(|it| it.wants_layers());
    SolveRequest {
        graph: Arc::clone(graph),
        targets: planned.lowered.targets.iter().filter_map(|target| target.edge).collect(),
        seal: image.map(|output| seal_options(&output.image, epoch(output, planned))),
        files: request.outputs.iter().any(Output::wants_files),
        exec: ExecSettings {
            shm_size: request.shm_size,
            resources: request.resources.clone(),
            resolv_conf: crate::cli::network::resolv_conf(&request.dns),
        },
        scope: scope(request),
        explain: request.explain,
        now: env.now,
    }
}

/// What the steps of this Dockerfile are explained against.
fn scope(request: &Request) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(format!("{:?}", request.context).as_bytes());
    hasher.field(format!("{:?}", request.file).as_bytes());
    hasher.field(format!("{:?}", request.target).as_bytes());
    hasher.finish()
}

/// A failed build with the Dockerfile lines of the step at fault.
pub fn solve_failure(error: &SolveError, graph: &Graph) -> Failure {
    let kind = match error.kind {
        SolveErrorKind::User => Kind::User,
        SolveErrorKind::Host => Kind::Host,
        SolveErrorKind::Remote => Kind::Remote,
        SolveErrorKind::Bug => Kind::Bug,
        SolveErrorKind::Cancelled => return interrupted(),
    };
    let mut failure = Failure::new(kind, format!("failed to solve: {}", error.text));
    failure.hint.clone_from(&error.hint);
    if let Some(id) = error.vertex {
        let location = graph[id].meta.location.as_ref();
        if let Some((location, file)) =
            location.and_then(|it| Some((it, graph.files.get(it.file)?)))
        {
            failure.excerpt = marked_excerpt(&file.name, &file.text, location.first, location.last);
        }
    }
    failure
}

impl From<SolveError> for Failure {
    fn from(error: SolveError) -> Self {
        solve_failure(&error, &Graph::default())
    }
}

fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "the build was interrupted")
}

/// Trees and configurations of the targets. One without a tree is empty.
fn products(planned: &Planned, solved: &Solved) -> Vec<Product> {
    let mut trees = solved.trees.iter();
    let targets = planned.lowered.targets.iter();
    targets
        .map(|target| {
            let chain = target.edge.and_then(|_| trees.next()).cloned().unwrap_or_default();
            Product {
                platform: target.platform.clone(),
                origins: of_layers(&planned.lowered.graph, target.edge, chain.len()),
                chain,
                config: target.config.clone(),
                epoch: target.epoch,
            }
        })
        .collect()
}

/// Tells what was made: files and standard output.
fn finish(request: &Request, env: &Env, response: &Response) -> Result<(), Failure> {
    let id = response.config.or(response.digest);
    if let (Some(path), Some(id)) = (&request.iidfile, id) {
        write_file(&env.cwd.join(path), id.to_string().as_bytes())?;
    }
    if let Some(path) = &request.metadata_file {
        let text =
            serde_json::to_vec_pretty(&response.metadata).expect("metadata has only string keys");
        write_file(&env.cwd.join(path), &text)?;
    }
    if request.quiet
        && !to_stdout(&request.outputs)
        && let Some(id) = id
    {
        super::print(&format!("{id}\n"))?;
    }
    if request.outputs.is_empty() && !request.quiet && request.progress != Progress::Rawjson {
        let note = "No output was asked for with -t, -o or --push: the result is only in the build cache.\n";
        drop(std::io::stderr().lock().write_all(note.as_bytes()));
    }
    Ok(())
}

fn to_stdout(outputs: &[Output]) -> bool {
    outputs.iter().any(|it| it.dest == crate::cli::output::Dest::Stdout)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure::host(&format!("write {}", path.display()), &error))
}
