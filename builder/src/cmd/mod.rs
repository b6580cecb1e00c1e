//! From the command to the function.

pub mod build;
mod call;
mod debug;
mod doctor;
mod explain_rule;
mod images;
mod isolation;
mod plan;
mod prune;
mod push;
mod sweep;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::CommandFactory as _;
use rbuild_store::local::Store;

use crate::cli::raw::{Cli, Command};
use crate::env::Env;
use crate::place;
use crate::report::Failure;

/// Runs the command.
///
/// # Errors
///
/// What the user is told.
pub fn run(cli: &Cli, env: &Env) -> Result<(), Failure> {
    match &cli.command {
        Command::Build(raw) => build::run(raw, &root(cli, env)?, env),
        Command::Images(raw) => images::list(raw, &root(cli, env)?),
        Command::Du(raw) => prune::du(raw, &root(cli, env)?),
        Command::Prune(raw) => prune::prune(raw, &root(cli, env)?, env),
        Command::Rmi(raw) => images::remove(raw, &root(cli, env)?),
        Command::Push(raw) => push::run(raw, &root(cli, env)?, env),
        Command::Doctor(raw) => doctor::run(raw, &root(cli, env)?),
        Command::Debug(raw) => debug::run(raw, &root(cli, env)?, env),
        Command::ExplainRule(raw) => explain_rule::run(raw),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "rbuild", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
    }
}

/// The store's root.
fn root(cli: &Cli, env: &Env) -> Result<PathBuf, Failure> {
    let place = place::choose(cli.root.as_deref(), env)?;
    let quiet = matches!(&cli.command, Command::Build(raw) if raw.quiet);
    if let Some(note) = place.note.filter(|_| !quiet) {
        // A note that nobody reads stops nothing.
        drop(writeln!(std::io::stderr().lock(), "note: {note}"));
    }
    Ok(place.root)
}

/// Opens the store.
fn open_store(root: &std::path::Path) -> Result<Arc<Store>, Failure> {
    Store::open(root).map(Arc::new).map_err(|error| {
        let failure = Failure::from(error);
        // A newer format, and whatever else has a way out of its own.
        if failure.hint.is_some() || failure.text.contains("No space left") {
            return failure;
        }
        failure.hint("name a directory that can be written to with --root or RBUILD_ROOT")
    })
}

/// Prints a value as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("an answer has only string keys");
    print(&format!("{text}\n"))
}

/// Writes data to standard output. A closed reader is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::host("write to standard output", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
