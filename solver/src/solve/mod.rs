//! One build: a graph in, trees out.
//!
//! 1. *Forward, no data needed.* What comes from outside is found: local files are listed, URLs
//!    and git references fetched. Then keys by definition, in index order, looked up at once.
//! 2. *Backward from the targets.* A vertex runs if a wanted one needs it and the cache has no
//!    result. A hit needs none of its inputs; a fully cached build touches no layer.
//! 3. *Forward, running.* A vertex whose inputs are there gets a second key, by content, where it
//!    copies from or mounts another stage. If that hits, it is done; otherwise it runs.

mod arrive;
pub(crate) mod build;
mod cancel;
mod drive;
mod error;
mod events;
mod explain;
pub(crate) mod keys;
mod layers;
mod needs;
pub(crate) mod outside;
mod recall;
mod trees;
mod unpack;

use std::sync::Arc;

use rbuild_store::digest::Digest;
use rbuild_store::local::Store;

pub use cancel::CancelToken;
pub use drive::{Fate, forecast, solve};
pub use error::{SolveError, SolveErrorKind};
pub use events::{EventSink, Task};
pub use layers::{Layers, Planned, Pulled, SealOptions, blocking};

use crate::llb::{Edge, Graph};
use crate::sandbox::resources::Resources;
use crate::session::Session;
use crate::worker::client::Worker;
use crate::worker::proto::Chain;

/// What a build works with.
#[derive(Clone)]
pub struct Solver {
    /// Where everything is kept.
    pub store: Arc<Store>,
    /// Where outside things come from.
    pub session: Arc<dyn Session>,
    /// Who works on files.
    pub worker: Worker,
    /// Where the event log goes.
    pub events: EventSink,
    /// Tells the build to stop.
    pub cancel: CancelToken,
}

impl std::fmt::Debug for Solver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Solver").finish_non_exhaustive()
    }
}

/// What is to be built.
#[derive(Clone, Debug)]
pub struct SolveRequest {
    /// The graph.
    pub graph: Arc<Graph>,
    /// Whose trees are wanted.
    pub targets: Vec<Edge>,
    /// How layers of the result become blobs; none if no output wants them.
    pub seal: Option<SealOptions>,
    /// Whether an output reads the files of the result.
    pub files: bool,
    /// Settings of processes.
    pub exec: ExecSettings,
    /// What the steps belong to (context, Dockerfile, target): a step's key is explained against
    /// the last one of the same name in the same scope.
    pub scope: Digest,
    /// Whether misses are explained.
    pub explain: bool,
    /// Seconds since the epoch.
    pub now: i64,
}

/// Settings of processes that are no part of the graph.
#[derive(Clone, Debug, Default)]
pub struct ExecSettings {
    /// Bytes of `/dev/shm`; 0 means the default.
    pub shm_size: u64,
    /// What each process may take of the machine.
    pub resources: Resources,
    /// Text of `/etc/resolv.conf`; none means that of the step's network.
    pub resolv_conf: Option<String>,
}

/// What was built.
#[derive(Debug)]
pub struct Solved {
    /// The tree of each target, in order.
    pub trees: Vec<Chain>,
    /// The layers, for outputs.
    pub layers: Arc<Layers>,
    /// Steps that ran, and steps that were found in the cache.
    pub counts: Counts,
}

/// How much work a build was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Steps that ran.
    pub ran: usize,
    /// Steps that were found in the cache.
    pub cached: usize,
}
