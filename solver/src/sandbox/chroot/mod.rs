//! The rung `chroot`: a step without namespaces and without mount(2), for root in a container whose
//! profile forbids both.
//!
//! ```text
//!  worker                                   rbuild cell: the keeper                 the step
//!  ------                                   -----------------------                 --------
//!  arrange: /dev, /proc, mounts are
//!  exchanged into the tree by rename(2)
//!  spawns the keeper, sends the Cell ─────> forks: its guard ends the step, should
//!                                           the keeper be killed
//!                                           reaps what is orphaned, may signal
//!                                           nobody but its own
//!                                           forks ────────────────────────────────> chroot, fence, filter,
//!                                           answers what the tree cannot: <──────── capabilities, execve
//!                                           /proc, /sys, devices, secrets
//!                      <──────── Ended ──── kills what is left, reaps it
//!  arrangement undone, snapshot committed
//! ```
//!
//! What always holds:
//!
//! - The root of a step is a tree of its own in the store, never that of the container, and no
//!   descriptor of a directory outside of it ever gets in. `CAP_SYS_CHROOT` is gone before the command
//!   starts, and a Landlock fence ([`fence`]) keeps even who gets out from opening anything there.
//! - What the tree shows instead of mounts lies in it under its own name for as long as the step runs
//!   ([`arrange`]), and was exchanged with what is there otherwise: a killed build leaves at most a
//!   borrowed cache in a tree, which the journal (`rbuild_store::lent`) leads the next one to.
//! - Secrets are files in memory; what lies in the tree is an empty place of the same size.
//! - Answers of the keeper ([`serve`]) are fidelity, not a fence: it opens what the step could open
//!   with the step's own ids, or what is in a list of harmless files.

mod arrange;
mod caches;
mod calls;
mod cell;
mod changes;
mod fence;
mod links;
mod parent;
mod paths;
mod plan;
mod serve;
mod stock;
mod system;

use std::fs;
use std::io;
use std::path::Path;

pub(super) use caches::Caches;
pub(crate) use cell::main;
pub(super) use parent::{Keepers, Step, run};
pub(super) use stock::Stock;

use super::caps::{self, number};
use super::refusal::Refusal;

/// What the caller must have beside `CAP_SYS_CHROOT`, which is tried.
const NEEDED: [(u8, &str); 7] = [
    (number::CHOWN, "CAP_CHOWN"),
    (number::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (number::FOWNER, "CAP_FOWNER"),
    (number::FSETID, "CAP_FSETID"),
    (number::KILL, "CAP_KILL"),
    (number::SETGID, "CAP_SETGID"),
    (number::SETUID, "CAP_SETUID"),
];

/// Whether this rung can be had, as far as the caller's rights go.
///
/// # Errors
///
/// What is missing.
pub(crate) fn allowed() -> Result<(), Refusal> {
    // The root stays what it is: this only asks whether it could be changed.
    rustix::process::chroot("/").map_err(|errno| Refusal::new("chroot(2)", &errno.into()))?;
    let held = rustix::thread::capabilities(None)
        .map_err(|errno| Refusal::new("capget(2)", &errno.into()))?;
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(number, _)| !caps::has(held.effective.bits(), *number))
        .map(|it| it.1)
        .collect();
    if !lacking.is_empty() {
        let (call, detail) = ("capabilities".to_owned(), format!("no {}", lacking.join(", ")));
        return Err(Refusal { call, errno: 0, detail });
    }
    Ok(())
}

/// Whether this rung can be had for steps whose trees are on the file system of `work`.
///
/// # Errors
///
/// What is missing.
pub(crate) fn allowed_in(work: &Path) -> Result<(), Refusal> {
    allowed()?;
    // A volume of a server that takes nobody for root gives nothing away.
    let probe = work.join("chown");
    let tried = fs::write(&probe, "")
        .and_then(|()| std::os::unix::fs::chown(&probe, Some(1), Some(1)))
        .and_then(|()| fs::remove_file(&probe));
    tried.map_err(|error: io::Error| Refusal::new("chown(2) in the store", &error))
}
