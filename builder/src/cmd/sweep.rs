//! What builds that were killed have left in the store is removed beside the next one.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rbuild_solver::solve::SolveError;
use rbuild_solver::worker::client::Worker;
use rbuild_store::local::Store;

use crate::report::Failure;

/// A sweep under way.
#[derive(Debug)]
pub struct Sweep(Option<JoinHandle<()>>);

impl Sweep {
    /// Starts to remove what nobody works on any more. Where nothing is left, that is one look into
    /// one directory.
    pub fn start(store: &Arc<Store>) -> Self {
        let store = Arc::clone(store);
        // What cannot be removed is in nobody's way: the run after this tries again.
        let sweep = move || drop(store.sweep());
        Self(thread::Builder::new().name("sweep".to_owned()).spawn(sweep).ok())
    }

    /// Ends the sweep: what this process may not remove goes to `worker`, which is only started if
    /// there is something.
    pub async fn finish(self, store: &Store, worker: &Worker) {
        drop(self.0.map(JoinHandle::join));
        // Another look: the worker of a build that was killed just before this one was perhaps not
        // dead yet. As above, failures are nobody's business.
        let left = store.sweep().unwrap_or_default();
        drop(remove_left(store, worker, left).await);
    }
}

/// Has directories of subordinate ids removed, which only a worker can.
///
/// # Errors
///
/// There is no worker, or the disk refuses.
pub async fn remove_left(
    store: &Store,
    worker: &Worker,
    left: Vec<PathBuf>,
) -> Result<(), Failure> {
    if left.is_empty() {
        return Ok(());
    }
    let root = store.root();
    let below = left.iter().filter_map(|path| path.strip_prefix(root).ok().map(Into::into));
    worker.remove(below.collect()).await.map_err(SolveError::from)?;
    // Their lock files go with this look.
    store.sweep()?;
    Ok(())
}
