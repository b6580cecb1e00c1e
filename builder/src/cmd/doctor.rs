//! `rbuild doctor`: what this place allows.

use std::path::Path;

use rbuild_solver::worker::client::Worker;
use rbuild_solver::worker::launch::Snapshotter;
use serde_json::json;

use super::build::runtime;
use super::{open_store, print};
use crate::cli::raw::{Doctor, Format};
use crate::report::Failure;

/// Starts a worker and tells how it is held.
///
/// # Errors
///
/// If the store cannot be opened or the worker fails for a reason other than a missing permission.
pub fn run(raw: &Doctor, root: &Path) -> Result<(), Failure> {
    let store = open_store(root)?;
    let worker = Worker::new(store.root(), Snapshotter::Auto);
    let found =
        runtime()?.block_on(worker.isolation()).map_err(rbuild_solver::solve::SolveError::from)?;
    if raw.format == Some(Format::Json) {
        let line = json!({"isolation": found.rung, "overlay": found.overlay, "why": found.why});
        return print(&format!("{line}\n"));
    }
    let driver = if found.overlay { "overlay" } else { "plain" };
    let mut text = format!("isolation: {}\nsnapshots: {driver}\n", found.rung);
    if !found.why.is_empty() {
        text.push_str(&found.why);
        text.push('\n');
    }
    print(&text)
}
