//! Runs a process in the worker, with its cache mounts locked and its output in the event log.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rbuild_store::digest::{Digest, Hasher};
use rbuild_store::lock::KeyLock;
use tokio::io::AsyncReadExt as _;

use super::exec::{self, CacheMount, PlannedExec};
use super::input::{StepResult, input_chain};
use crate::event::{EventKind, Stream};
use crate::llb::VertexId;
use crate::llb::op::{CacheSharing, ExecOp};
use crate::solve::build::{Build, StepInputs};
use crate::solve::{EventSink, Layers, SolveError, blocking};
use crate::worker::client::Exited;
use crate::worker::proto::{Chain, ExitStatus, MountSource};

/// Bytes of output read at once.
const OUTPUT_CHUNK: usize = 64 * 1024;

/// Runs the process of `op`.
///
/// # Errors
///
/// `User` if it fails; the text has its arguments and exit code.
pub async fn exec(
    build: &Arc<Build>,
    id: VertexId,
    op: &ExecOp,
    inputs: &StepInputs,
) -> Result<StepResult, SolveError> {
    let mut chains = Vec::with_capacity(inputs.outcomes.len());
    for input in 0..inputs.outcomes.len() {
        let chain = input_chain(build, id, inputs, input).await?;
        build.layers.chain_on_disk(&chain).await?;
        chains.push(chain);
    }
    let mut planned = exec::plan(
        op,
        &|input| chains.get(input).cloned().unwrap_or_default(),
        build.solver.session.as_ref(),
        &build.request.exec,
        &mut Layers::new_id,
    )?;
    planned.request.another = build.steps_left.fetch_sub(1, Ordering::Relaxed) > 1;
    let locks = lock_caches(build, &mut planned).await?;
    let ended = call(build, id, &mut planned).await?;
    drop(locks);
    check(build, op, ended.status)?;
    let written = ended.layers.into_iter().map(|it| (it.layer.0.to_string(), it.size)).collect();
    Ok(StepResult { outputs: outputs(op, &chains, &planned), planned_only: false, written })
}

/// The tree of each output: what is below with the new layer, or what was mounted read-only.
fn outputs(op: &ExecOp, chains: &[Chain], planned: &PlannedExec) -> Vec<Chain> {
    let count =
        op.mounts.iter().filter_map(|mount| mount.output).max().map_or(0, |highest| highest + 1);
    (0..count)
        .map(|number| {
            if let Some(output) = planned.outputs.get(&number) {
                output.base.iter().chain([&output.layer]).cloned().collect()
            } else {
                let mount = op.mounts.iter().find(|mount| mount.output == Some(number));
                mount.and_then(|it| chains.get(it.input?)).cloned().unwrap_or_default()
            }
        })
        .collect()
}

fn check(build: &Build, op: &ExecOp, status: ExitStatus) -> Result<(), SolveError> {
    let valid = &op.meta.valid_exit_codes;
    let how = match status {
        ExitStatus::Code(code) if valid.contains(&code) || (valid.is_empty() && code == 0) => {
            return Ok(());
        }
        ExitStatus::Code(code) => format!("exit code: {code}"),
        // A shell's convention, which BuildKit's users know from its messages.
        ExitStatus::Signal(signal) => {
            format!("exit code: {} (killed by signal {signal})", 128 + signal)
        }
        ExitStatus::OutOfMemory => {
            "cannot allocate memory: the process was killed because memory ran out".to_owned()
        }
        ExitStatus::Cancelled => return Err(SolveError::cancelled()),
    };
    if build.solver.cancel.is_cancelled() {
        return Err(SolveError::cancelled());
    }
    Err(SolveError::user(exec::failed_text(op, &how)))
}

/// Chooses and locks the directories of cache mounts.
async fn lock_caches(
    build: &Arc<Build>,
    planned: &mut PlannedExec,
) -> Result<Vec<KeyLock>, SolveError> {
    let mut locks = Vec::new();
    // Always in the same order, so that two steps with the same two caches do not wait for each other.
    let mut caches = planned.caches.clone();
    caches.sort_by_key(|cache| cache.key);
    for cache in caches {
        let (directory, lock) = lock_cache(build, &cache).await?;
        locks.extend(lock);
        if let MountSource::Cache { dir, .. } = &mut planned.request.mounts[cache.mount].source {
            *dir = directory;
        }
    }
    Ok(locks)
}

async fn lock_cache(
    build: &Arc<Build>,
    cache: &CacheMount,
) -> Result<(PathBuf, Option<KeyLock>), SolveError> {
    let store = &build.solver.store;
    let directory = |key: &Digest| PathBuf::from("cache-mounts").join(key.hex());
    let lock_key = |key: &Digest| {
        let mut hasher = Hasher::new();
        hasher.field(b"cache mount");
        hasher.field(key.as_bytes());
        hasher.finish()
    };
    match cache.sharing {
        CacheSharing::Shared => Ok((directory(&cache.key), None)),
        CacheSharing::Locked => {
            let (store, key) = (Arc::clone(store), lock_key(&cache.key));
            let wait = blocking(move || Ok(store.lock_key(&key)?));
            tokio::select! {
                lock = wait => Ok((directory(&cache.key), Some(lock?))),
                () = build.solver.cancel.cancelled() => Err(SolveError::cancelled()),
            }
        }
        CacheSharing::Private => {
            let mut key = cache.key;
            loop {
                if let Some(lock) = store.try_lock_key(&lock_key(&key))? {
                    return Ok((directory(&key), Some(lock)));
                }
                // Somebody has this one: the next of the row.
                key = Digest::of(key.as_bytes());
            }
        }
    }
}

/// Sends the request and follows the output until both ends are closed.
async fn call(
    build: &Arc<Build>,
    id: VertexId,
    planned: &mut PlannedExec,
) -> Result<Exited, SolveError> {
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let mut fds = std::mem::take(&mut planned.fds);
    fds.extend([stdout_end, stderr_end]);
    let vertex = build.request.graph[id].digest;
    let events = &build.solver.events;
    let mut execution = build.solver.worker.exec(planned.request.clone(), fds).await?;
    let ended = async {
        tokio::select! {
            ended = execution.wait() => return ended,
            () = build.solver.cancel.cancelled() => {}
        }
        execution.cancel();
        execution.wait().await
    };
    let (ended, (), ()) = tokio::join!(
        ended,
        follow(stdout, vertex, Stream::Stdout, events),
        follow(stderr, vertex, Stream::Stderr, events),
    );
    let mut ended = ended?;
    let cpu = Duration::try_from_secs_f64(ended.usage.cpu_seconds).unwrap_or_default();
    let peak_memory = ended.usage.peak_memory;
    events.send(vertex, EventKind::Took { cpu, peak_memory });
    for text in std::mem::take(&mut ended.notes) {
        let rule = "host".to_owned();
        events.send(vertex, EventKind::Warning { rule, text, location: None });
    }
    Ok(ended)
}

fn pipe() -> Result<(tokio::net::unix::pipe::Receiver, OwnedFd), SolveError> {
    let made = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(std::io::Error::from)
        .and_then(|(read, write)| {
            rustix::io::ioctl_fionbio(&read, true)?;
            Ok((tokio::net::unix::pipe::Receiver::from_owned_fd(read)?, write))
        });
    made.map_err(|error| SolveError::host("make a pipe", &error))
}

/// Reads the output of a process to its end into the event log.
async fn follow(
    mut pipe: tokio::net::unix::pipe::Receiver,
    vertex: Digest,
    stream: Stream,
    events: &EventSink,
) {
    let mut chunk = vec![0; OUTPUT_CHUNK];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        events.send(vertex, EventKind::Log { stream, data: chunk[..count].to_vec() });
    }
}
