//! `rbuild du` and `rbuild prune`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use rbuild_solver::worker::client::Worker;
use rbuild_solver::worker::launch::Snapshotter;
use rbuild_store::gc::{self, Plan, Policy};
use rbuild_store::local::Store;
use serde_json::json;

use super::build::runtime;
use super::{open_store, print, sweep};
use crate::cli::raw::{Du, Format, Prune};
use crate::cli::spec;
use crate::env::Env;
use crate::progress::bytes;
use crate::report::{Failure, Kind};

/// Shows what the store holds and how much.
///
/// # Errors
///
/// If the store cannot be read.
pub fn du(raw: &Du, root: &Path) -> Result<(), Failure> {
    let store = open_store(root)?;
    let usage = gc::usage(&store)?;
    let total = usage.layers.1 + usage.blobs.1 + usage.cache_mounts + usage.other;
    if raw.format == Some(Format::Json) {
        let line = json!({
            "root": store.root(), "images": usage.tags, "records": usage.records,
            "layers": {"count": usage.layers.0, "bytes": usage.layers.1},
            "blobs": {"count": usage.blobs.0, "bytes": usage.blobs.1},
            "cacheMounts": usage.cache_mounts, "other": usage.other,
            "total": total, "reclaimable": usage.reclaimable,
        });
        return print(&format!("{line}\n"));
    }
    let mut out = String::new();
    let mut row = |what: &str, count: String, size: u64| {
        writeln!(out, "{what:<14} {count:>7} {:>9}", bytes(size)).expect("writing to a string");
    };
    row("images", usage.tags.to_string(), 0);
    row("records", usage.records.to_string(), 0);
    row("layers", usage.layers.0.to_string(), usage.layers.1);
    row("blobs", usage.blobs.0.to_string(), usage.blobs.1);
    row("cache mounts", String::new(), usage.cache_mounts);
    row("other", String::new(), usage.other);
    row("total", String::new(), total);
    row("reclaimable", String::new(), usage.reclaimable);
    print(&out)
}

/// Shows what goes and how much, asks, and removes it.
///
/// # Errors
///
/// If another rbuild uses the store, the user says no, or the disk refuses.
pub fn prune(raw: &Prune, root: &Path, env: &Env) -> Result<(), Failure> {
    let keep =
        raw.keep_duration.as_deref().map(|it| spec::duration("--keep-duration", it)).transpose()?;
    let most = raw
        .max_used_space
        .as_deref()
        .map(|it| spec::byte_size("--max-used-space", it))
        .transpose()?;
    let store = Store::open_exclusive(root)?;
    let policy = Policy {
        // Without a limit everything that can be built again goes.
        unused_since: match (keep, most) {
            (Some(seconds), _) => Some(env.now.saturating_sub_unsigned(seconds)),
            (None, Some(_)) => None,
            (None, None) => Some(i64::MAX),
        },
        keep_bytes: most,
        extras: keep.is_none() && most.is_none(),
    };
    let tags = if raw.all { store.db()?.tags()? } else { Vec::new() };
    if raw.all
        && !raw.dry_run
        && !(raw.force
            || confirm_tags(&tags.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), env)?)
    {
        return Err(refused());
    }
    if !raw.dry_run {
        for tag in &tags {
            store.db()?.remove_tag(&tag.name)?;
        }
    }
    let plan = gc::plan(&store, &policy)?;
    show(&plan, &tags.iter().map(|it| it.name.as_str()).collect::<Vec<_>>())?;
    if raw.dry_run {
        return Ok(());
    }
    if !plan.is_empty() && !raw.force && !raw.all && !confirm("Remove this?", env)? {
        return Err(refused());
    }
    let mut left = gc::apply(&store, &plan)?;
    left.extend(store.sweep()?);
    let worker = Worker::new(store.root(), Snapshotter::Auto);
    runtime()?.block_on(sweep::remove_left(&store, &worker, left))?;
    print(&format!("freed {}\n", bytes(plan.bytes())))
}

fn refused() -> Failure {
    Failure::new(Kind::User, "nothing was removed")
}

fn show(plan: &Plan, tags: &[&str]) -> Result<(), Failure> {
    let mut out = String::new();
    for name in tags {
        writeln!(out, "image        {name}").expect("writing to a string");
    }
    for (layer, size) in &plan.layers {
        writeln!(out, "layer        {:<24} {:>9}", &layer[..layer.len().min(24)], bytes(*size))
            .expect("writing to a string");
    }
    for (blob, size) in &plan.blobs {
        writeln!(out, "blob         {:<24} {:>9}", &blob.0.hex()[..24], bytes(*size))
            .expect("writing to a string");
    }
    for (path, size) in &plan.extras {
        let name = path.file_name().unwrap_or(path.as_os_str()).display();
        writeln!(out, "directory    {name:<24} {:>9}", bytes(*size)).expect("writing to a string");
    }
    writeln!(out, "{} records, {} in all", plan.records.len(), bytes(plan.bytes()))
        .expect("writing to a string");
    print(&out)
}

fn confirm_tags(names: &[&str], env: &Env) -> Result<bool, Failure> {
    confirm(&format!("Remove {} images and everything else?", names.len()), env)
}

/// Asks on the terminal. Without one there is nobody to ask.
fn confirm(question: &str, env: &Env) -> Result<bool, Failure> {
    if !env.stdin_is_terminal {
        return Err(Failure::usage("there is no terminal to ask on")
            .hint("--force removes without asking, --dry-run only shows"));
    }
    drop(write!(std::io::stderr(), "{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::host("read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
