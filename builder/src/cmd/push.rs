//! `rbuild push`: an image of the store into its registry.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use rbuild_solver::solve::EventSink;

use super::build::runtime;
use super::open_store;
use crate::cli::raw::{Progress, Push};
use crate::env::Env;
use crate::output::{parse_name, push_stored};
use crate::progress;
use crate::report::{Failure, Kind};
use crate::session::images::Images;

/// Pushes.
///
/// # Errors
///
/// If there is no such image, or the registry refuses.
pub fn run(raw: &Push, root: &Path, env: &Env) -> Result<(), Failure> {
    let name = parse_name("push", &raw.name)?;
    let store = open_store(root)?;
    let tag = store.db()?.tag(&name.to_string())?.ok_or_else(|| {
        Failure::new(Kind::User, format!("there is no image named {name}"))
            .hint("`rbuild images` lists them")
    })?;
    let images = Images::new(Arc::clone(&store), env.clone(), false);
    let (sender, receiver) = mpsc::channel();
    let terminal = env.stderr_is_terminal;
    let renderer = std::thread::spawn(move || {
        progress::show(Progress::Plain, terminal, &receiver, &mut std::io::stderr());
    });
    let events = EventSink::new(sender);
    let task = events.task(&format!("pushing {name}"));
    let result = runtime()?.block_on(push_stored(&store, &images, &task, &name, &tag.target));
    let result = task.end(result);
    drop(events);
    // The renderer ends with the last sender; if it panicked, the push is none the worse.
    drop(renderer.join());
    result
}
