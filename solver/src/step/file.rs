//! File operations: from trees to a plan, which is put on disk only if somebody reads it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rbuild_store::entry::Timestamp;
use rbuild_store::local::Store;

use super::input::{StepResult, input_chain};
use crate::llb::VertexId;
use crate::llb::op::FileOp;
use crate::solve::build::{Build, StepInputs};
use crate::solve::outside::Outside;
use crate::solve::{Layers, Planned, SolveError, SolveErrorKind, blocking};
use crate::tree::fileop::{self, FileOpError, Files, Host, Input, Layer, Plan};
use crate::worker::client::Worker;
use crate::worker::proto::{Chain, Root};

/// Largest file that is read whole, in bytes: `/etc/passwd`, `/etc/group`.
const MAX_READ: u64 = 16 << 20;

/// Names of a directory beyond this many are not looked at for one that was misspelt.
const MAX_NAMES: usize = 10_000;

/// Works out the layers that `op` makes.
///
/// # Errors
///
/// What `BuildKit` would refuse, in its words; or the host fails.
pub async fn apply(
    build: &Arc<Build>,
    id: VertexId,
    op: &FileOp,
    inputs: &StepInputs,
) -> Result<StepResult, SolveError> {
    let mut trees = Vec::with_capacity(inputs.outcomes.len());
    for input in 0..inputs.outcomes.len() {
        trees.push(input_tree(build, id, inputs, input).await?);
    }
    let host = LiveHost::new(build);
    let (op, now) = (op.clone(), Timestamp::from_secs(build.request.now));
    let evaluated =
        blocking(move || fileop::evaluate(&op, &trees, &host, now).map_err(SolveError::from))
            .await?;
    let mut outputs = Vec::with_capacity(evaluated.len());
    for output in evaluated {
        let mut chain = match output.base {
            Some(input) => input_chain(build, id, inputs, input).await?,
            None => Chain::new(),
        };
        let layer = Layers::new_id();
        let Plan { listing, contents } = output.plan;
        let planned = Planned { listing: Arc::new(listing), contents: Arc::new(contents) };
        build.layers.add_planned(&layer, planned);
        chain.push(layer);
        outputs.push(chain);
    }
    let files = build.needs[id.index()].files;
    if files {
        for layer in outputs.iter().filter_map(|chain| chain.last()) {
            build.layers.on_disk(layer).await?;
        }
    }
    Ok(StepResult { outputs, planned_only: !files, written: Vec::new() })
}

/// The tree of an input, for an evaluation.
///
/// # Errors
///
/// If a listing cannot be had.
pub async fn input_tree(
    build: &Build,
    id: VertexId,
    inputs: &StepInputs,
    input: usize,
) -> Result<Input, SolveError> {
    let edge = build.request.graph[id].inputs[input];
    if let Some(outside) = build.outside.get(&edge.vertex) {
        return Ok(outside_tree(outside));
    }
    let chain = input_chain(build, id, inputs, input).await?;
    let listings = build.layers.listings(&chain).await?;
    let layers = chain.iter().zip(listings).map(|(layer, listing)| Layer {
        listing,
        files: match build.layers.planned(layer) {
            Some(planned) => Files::Planned(planned.contents),
            None => Files::Root(Root::Layer(layer.clone())),
        },
    });
    Ok(Input { layers: layers.collect() })
}

/// A tree from outside, for an evaluation.
pub fn outside_tree(outside: &Outside) -> Input {
    Input {
        layers: vec![Layer {
            listing: Arc::clone(&outside.listing),
            files: Files::Root(outside.root.clone()),
        }],
    }
}

impl From<FileOpError> for SolveError {
    fn from(error: FileOpError) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "all else is what the Dockerfile asks for"
        )]
        match error {
            FileOpError::Read { .. } => Self::host("carry out a file operation", &error),
            FileOpError::Graph(_) => Self::new(SolveErrorKind::Bug, error.to_string()),
            FileOpError::Unpack { .. } => {
                let cause = std::error::Error::source(&error)
                    .map(|it| format!(": {it}"))
                    .unwrap_or_default();
                Self::user(format!("{error}{cause}"))
            }
            other => Self::user(other.to_string()),
        }
    }
}

/// Contents for an evaluation: of layers from the worker, of other trees from their directories.
#[derive(Debug)]
pub struct LiveHost {
    layers: Arc<Layers>,
    store: Arc<Store>,
    worker: Worker,
    runtime: tokio::runtime::Handle,
}

impl LiveHost {
    /// Must be made on the runtime, and used on a thread that may block.
    pub fn new(build: &Build) -> Self {
        Self {
            layers: Arc::clone(&build.layers),
            store: Arc::clone(&build.solver.store),
            worker: build.solver.worker.clone(),
            runtime: tokio::runtime::Handle::current(),
        }
    }
}

impl Host for LiveHost {
    fn open(&self, root: &Root, path: &[u8]) -> io::Result<Box<dyn io::Read + Send>> {
        let mut root = root.clone();
        if let Root::Layer(layer) = &root {
            let read = async {
                let path = path.to_vec();
                let found = self.layers.files_of(layer, || vec![path.clone()]).await;
                if let Root::Store(found) = found.map_err(|error| error.text)? {
                    return Ok(Err(Root::Store(found)));
                }
                let read = self.worker.read_file(layer.clone(), path, MAX_READ).await;
                read.map(Ok).map_err(|failure| failure.text)
            };
            match self.runtime.block_on(read).map_err(io::Error::other)? {
                Ok(bytes) => return Ok(Box::new(io::Cursor::new(bytes))),
                Err(place) => root = place,
            }
        }
        let root = &root;
        let directory = self.layers.directory(root).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(open_beneath(&directory, path)?))
    }

    fn stage(&self) -> io::Result<(Root, OwnedFd)> {
        let store = &self.store;
        let path = store.temp().path("unpacked").map_err(io::Error::other)?;
        std::fs::create_dir(&path)?;
        let directory = std::fs::File::open(&path)?;
        let below = path.strip_prefix(store.root()).map_err(io::Error::other)?;
        Ok((Root::Store(below.to_owned()), directory.into()))
    }
}

/// Opens a regular file below a directory, through no symbolic link.
///
/// # Errors
///
/// If it is not there or not a regular file.
pub fn open_beneath(directory: &std::path::Path, path: &[u8]) -> io::Result<std::fs::File> {
    open_below(std::fs::File::open(directory)?.as_fd(), path)
}

/// [`open_beneath`] a directory that is open.
///
/// # Errors
///
/// As [`open_beneath`].
pub fn open_below(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)?.into())
}

/// The names in a directory below a directory, through no symbolic link.
///
/// # Errors
///
/// If it is not there, or not a directory.
pub fn names_beneath(directory: &std::path::Path, path: &[u8]) -> io::Result<Vec<String>> {
    use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
    let at = std::fs::File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_empty() { b"." } else { path };
    let dir = Dir::new(rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)?)?;
    let names = dir.take(MAX_NAMES).filter_map(Result::ok);
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name != "." && name != "..").collect())
}
