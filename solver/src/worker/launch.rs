//! Starting the worker: its process, its user namespace, its id maps.
//!
//! ```text
//!  rbuild                                       rbuild worker (one thread so far)
//!  spawn, with a socket as standard input ────>
//!  Setup ─────────────────────────────────────> unshare(NEWUSER)
//!        <───────────────────────────────────── Unshared, or Refused
//!  write the maps (or have newuidmap do it)
//!  Mapped ────────────────────────────────────> become root, own mount namespace, threads
//!        <───────────────────────────────────── Ready, or Refused
//!  requests ──────────────────────────────────>
//! ```
//!
//! The thread that spawns the worker must live as long as the worker, which dies with it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::wire::{self, WireError};
use crate::sandbox::give_ids::{MapName, own_ids, write_maps, write_single};
use crate::sandbox::host::Facts;
use crate::sandbox::probe::{self, Answers, Question};
use crate::sandbox::refusal::Refusal;
use crate::sandbox::rung::{Rung, Wanted};
use crate::snapshot::Driver;

/// What the worker works on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Setup {
    /// Root of the store: absolute, there already.
    pub store: PathBuf,
    /// Which snapshots to make.
    pub snapshotter: Snapshotter,
    /// Which network steps have by default.
    pub network: crate::sandbox::network::Options,
    /// How to hold steps.
    pub isolation: Wanted,
    /// Whether overlays can be made in the store, where that is known: else why not.
    pub overlay: Option<Result<(), String>>,
}

/// `--snapshotter`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Snapshotter {
    /// Overlay where the store's file system can hold one, else plain.
    #[default]
    Auto,
    /// Overlay; anything else is an error.
    Overlay,
    /// Overlay by the helper `fuse-overlayfs`; anything else is an error.
    FuseOverlayfs,
    /// Whole trees by reflink or copy.
    Plain,
}

/// From the build process, after the maps are written.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Mapped {
    /// Which mapping it is: part of directory names in the store.
    pub key: MapName,
}

/// From the worker while it starts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Boot {
    /// It is in a user namespace without maps.
    Unshared,
    /// It takes requests.
    Ready {
        /// Whether its snapshots are overlays.
        overlay: bool,
        /// Whether these are made by a helper.
        helper: bool,
        /// Why not by overlay, where that was to be found out.
        why_plain: Option<String>,
        /// Whether nothing was known, and all that a build wants to know was found to be well.
        well: bool,
    },
    /// It cannot go on.
    Refused(Refusal),
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The process could not be made.
    #[error("cannot start the worker process")]
    Spawn(#[source] io::Error),
    /// It ended early, or spoke another language.
    #[error("the worker process ended before it was ready")]
    Lost(#[source] Option<WireError>),
    /// The host does not allow what the worker needs: for each rung that was tried, why.
    #[error("{}", .0.iter().map(|it| it.1.to_string()).collect::<Vec<_>>().join("; "))]
    Refused(Vec<(Rung, Refusal)>),
}

/// A worker that is ready.
#[derive(Debug)]
pub struct Launched {
    /// Its process.
    pub child: Child,
    /// The other end of its standard input.
    pub socket: UnixStream,
    /// Which ids it has.
    pub map: MapName,
    /// Whether its snapshots are overlays.
    pub overlay: bool,
    /// Whether these are made by a helper.
    pub helper: bool,
    /// Why not, where that was to be found out.
    pub why_plain: Option<String>,
    /// How steps are held.
    pub rung: Rung,
    /// Stronger rungs, and why the host refuses them.
    pub refused: Vec<(Rung, Refusal)>,
    /// What it has found out about the place, if nothing was known and nothing is amiss.
    pub found: Option<Answers>,
}

/// How a worker makes its snapshots: see [`Launched`].
struct Snapshots {
    overlay: bool,
    helper: bool,
    why_plain: Option<String>,
    well: bool,
}

/// Why one rung cannot be had.
enum Failed {
    /// The host refuses it.
    Refused(Refusal),
    /// Something else went wrong.
    Launch(LaunchError),
}

impl From<LaunchError> for Failed {
    fn from(error: LaunchError) -> Self {
        Self::Launch(error)
    }
}

/// Starts a worker on the strongest rung that the host allows, or the one that is wanted, and waits
/// until it is ready. Rungs of which it is known that the host refuses them are not tried. Where
/// nothing is known yet the worker itself finds out: asking first would take as long again.
///
/// # Errors
///
/// If the process cannot be made or the host refuses it a namespace or ids.
pub fn launch(setup: &Setup) -> Result<Launched, LaunchError> {
    match launch_with(setup, probe::kept(&setup.store, setup.isolation).as_ref()) {
        // Before giving up: what is known may be out of date.
        Err(LaunchError::Refused(_)) => {
            launch_with(setup, probe::renew(&setup.store, &Question::OF_A_BUILD).as_ref())
        }
        result => result,
    }
}

fn launch_with(setup: &Setup, known: Option<&Answers>) -> Result<Launched, LaunchError> {
    let automatic = known.filter(|_| setup.snapshotter == Snapshotter::Auto);
    let overlay = automatic.map(|it| it.overlay(|| Facts::of(&setup.store)));
    let setup = Setup { overlay, ..setup.clone() };
    let mut refused = Vec::new();
    for rung in setup.isolation.rungs() {
        if let Some(Err(refusal)) = known.map(|it| it.rung(rung)) {
            refused.push((rung, refusal));
            continue;
        }
        match climb(&setup, rung) {
            Ok(launched) => {
                // What is behind a refusal is not known by climbing down from it.
                let found = launched.found.filter(|_| refused.is_empty());
                return Ok(Launched { refused, found, ..launched });
            }
            Err(Failed::Launch(error)) => return Err(error),
            Err(Failed::Refused(refusal)) => {
                probe::forget(&setup.store);
                refused.push((rung, refusal));
            }
        }
    }
    Err(LaunchError::Refused(refused))
}

/// Starts a worker on one rung.
fn climb(setup: &Setup, rung: Rung) -> Result<Launched, Failed> {
    let (ours, theirs) = UnixStream::pair().map_err(LaunchError::Spawn)?;
    let mut child = Command::new("/proc/self/exe")
        .arg("worker")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(LaunchError::Spawn)?;
    match handshake(setup, rung, &ours, child.id()) {
        Ok((map, Snapshots { overlay, helper, why_plain, well })) => {
            let refused = Vec::new();
            let (socket, map) = (ours, map);
            let found = well.then(|| Answers::of_worker(rung));
            Ok(Launched { child, socket, map, overlay, helper, why_plain, rung, refused, found })
        }
        Err(error) => {
            // It ends by itself when its socket does; this is sooner.
            drop(child.kill());
            drop(child.wait());
            Err(error)
        }
    }
}

fn handshake(
    setup: &Setup,
    rung: Rung,
    socket: &UnixStream,
    pid: u32,
) -> Result<(MapName, Snapshots), Failed> {
    let lost = |error: WireError| LaunchError::Lost(Some(error));
    let answer = || -> Result<Boot, LaunchError> {
        let got = wire::receive::<Boot>(socket.as_fd()).map_err(lost)?;
        got.map(|it| it.0).ok_or(LaunchError::Lost(None))
    };
    let setup = Setup { isolation: Wanted::Only(rung), ..setup.clone() };
    wire::send(socket.as_fd(), &setup, &[]).map_err(lost)?;
    let key = match (answer()?, rung) {
        (Boot::Unshared, Rung::Userns) => write_maps(pid),
        (Boot::Unshared, Rung::UsernsSingle) => write_single(&pid.to_string(), own_ids()),
        (Boot::Ready { overlay, helper, why_plain, well }, Rung::Chroot) => {
            return Ok((MapName::Root, Snapshots { overlay, helper, why_plain, well }));
        }
        (Boot::Refused(refusal), _) => Err(refusal),
        (Boot::Unshared | Boot::Ready { .. }, _) => return Err(LaunchError::Lost(None).into()),
    };
    let key = key.map_err(Failed::Refused)?;
    wire::send(socket.as_fd(), &Mapped { key }, &[]).map_err(lost)?;
    match answer()? {
        Boot::Ready { overlay, helper, why_plain, well } => {
            Ok((key, Snapshots { overlay, helper, why_plain, well }))
        }
        Boot::Unshared => Err(LaunchError::Lost(None).into()),
        Boot::Refused(refusal) => Err(Failed::Refused(refusal)),
    }
}

/// The driver that `overlay` stands for.
pub const fn driver(overlay: bool) -> Driver {
    if overlay { Driver::Overlay } else { Driver::Plain }
}
