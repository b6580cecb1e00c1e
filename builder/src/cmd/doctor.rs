//! `rbuild doctor`: what this place allows, found out by trying it.

use std::fmt::Write as _;
use std::path::Path;

use rbuild_solver::sandbox::host::Explained;
use rbuild_solver::sandbox::network::Options;
use rbuild_solver::solve::SolveError;
use rbuild_solver::worker::client::{Isolation, try_rung};
use rbuild_solver::worker::launch::{Rung, Setup, Snapshotter, Wanted};
use serde_json::{Value, json};

use super::isolation::MISSING;
use super::{open_store, print};
use crate::cli::raw::{Doctor, Format};
use crate::report::Failure;

/// Rungs of the plan that this version does not have.
const PLANNED: [&str; 2] = ["chroot", "ptrace"];

/// A rung, and what became of it.
type Tried = (Rung, Result<Isolation, Explained>);

/// Tries every way to hold a step and tells what became of it.
///
/// # Errors
///
/// If the store cannot be opened or the worker fails for a reason other than a missing permission.
pub fn run(raw: &Doctor, root: &Path) -> Result<(), Failure> {
    let store = open_store(root)?;
    let setup = Setup {
        store: store.root().to_owned(),
        snapshotter: Snapshotter::Auto,
        network: Options::default(),
        isolation: Wanted::Auto,
    };
    let mut tried: Vec<Tried> = Vec::new();
    for rung in Rung::ALL {
        tried.push((rung, try_rung(&setup, rung).map_err(SolveError::from)?));
    }
    print(&match raw.format {
        Some(Format::Json) => format!("{}\n", as_json(&tried)),
        Some(Format::Text) | None => as_text(&tried),
    })
}

/// The strongest rung that works.
fn chosen(tried: &[Tried]) -> Option<&Isolation> {
    tried.iter().find_map(|it| it.1.as_ref().ok())
}

fn as_json(tried: &[Tried]) -> Value {
    let row = |(rung, found): &Tried| match found {
        Ok(_) => json!({"rung": rung.name(), "works": true}),
        Err(it) => json!({
            "rung": rung.name(),
            "works": false,
            "call": it.refusal.call,
            "errno": it.refusal.errno,
            "detail": it.refusal.detail,
            "cause": it.cause,
            "remedies": it.remedies,
        }),
    };
    let planned = PLANNED.map(|name| json!({"rung": name, "works": false, "cause": MISSING}));
    let rungs: Vec<Value> = tried.iter().map(row).chain(planned).collect();
    let found = chosen(tried);
    json!({
        "isolation": found.map_or("none", |it| it.rung),
        "overlay": found.is_some_and(|it| it.overlay),
        "why": found.map_or("", |it| &it.why),
        "rungs": rungs,
    })
}

fn as_text(tried: &[Tried]) -> String {
    let found = chosen(tried);
    let nothing = "none: RUN cannot be contained here, everything else works";
    let rung = found.map_or(nothing, |it| it.rung);
    let driver = match found {
        Some(it) if it.overlay => "overlay".to_owned(),
        Some(it) if !it.why.is_empty() => format!("plain ({})", it.why),
        Some(_) | None => "plain".to_owned(),
    };
    let mut text = format!("isolation: {rung}\nsnapshots: {driver}\n\n");
    for (rung, found) in tried {
        match found {
            Ok(_) => row(&mut text, rung.name(), "works"),
            Err(refused) => {
                row(&mut text, rung.name(), &format!("refused by {}", refused.refusal));
                for line in refused.to_string().lines().skip(1) {
                    row(&mut text, "", line);
                }
            }
        }
    }
    for name in PLANNED {
        row(&mut text, name, MISSING);
    }
    text
}

fn row(text: &mut String, name: &str, what: &str) {
    writeln!(text, "{name:<15}{what}").expect("writing to a string");
}
