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

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

pub use super::refusal::Refusal;
use super::wire::{self, WireError};
use crate::sandbox::host::Facts;
use crate::sandbox::idmap::{self, Extent};
use crate::sandbox::probe::{self, Answers, Question};
use crate::snapshot::{Driver, MapKey, Ownership};

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

/// `--isolation`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Wanted {
    /// The strongest rung that the host allows.
    #[default]
    Auto,
    /// That rung; an error where the host refuses it.
    Only(Rung),
    /// The strongest rung that the host allows, but none that is weaker than this.
    AtLeast(Rung),
}

impl Wanted {
    /// The rungs to try, the strongest first.
    pub fn rungs(self) -> impl Iterator<Item = Rung> {
        let is_wanted = move |rung: &Rung| match self {
            Self::Auto => true,
            Self::Only(only) => *rung == only,
            Self::AtLeast(least) => *rung <= least,
        };
        Rung::ALL.into_iter().filter(is_wanted)
    }
}

/// How a step is held, the strongest way first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Rung {
    /// A user namespace with a range of ids.
    Userns,
    /// A user namespace with one id; all others are pretended.
    UsernsSingle,
    /// No namespace: a directory as root, and a fence around it.
    Chroot,
}

impl Rung {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Userns, Self::UsernsSingle, Self::Chroot];

    /// As `--isolation` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Userns => "userns",
            Self::UsernsSingle => "userns-single",
            Self::Chroot => "chroot",
        }
    }
}

/// `--snapshotter`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Snapshotter {
    /// Overlay where the store's file system can hold one, else plain.
    #[default]
    Auto,
    /// Overlay; anything else is an error.
    Overlay,
    /// Whole trees by reflink or copy.
    Plain,
}

/// From the build process, after the maps are written.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Mapped {
    /// Which mapping it is: part of directory names in the store.
    pub key: MapName,
}

/// A [`MapKey`] as it goes over the wire.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum MapName {
    /// The host's own ids.
    Root,
    /// Ids 1 to `count` are `base` and up.
    Range {
        /// First subordinate id.
        base: u32,
        /// How many.
        count: u32,
    },
    /// One id, which is root.
    Single,
}

impl MapName {
    /// What the host can hold of an image's ownership.
    pub fn ownership(self) -> Ownership {
        match self {
            Self::Root | Self::Range { .. } => Ownership::Real,
            Self::Single => Ownership::Recorded,
        }
    }

    /// As the snapshots name it.
    pub fn key(self) -> MapKey {
        match self {
            Self::Root => MapKey::root(),
            Self::Range { base, count } => MapKey::range(base, count),
            Self::Single => MapKey::single(),
        }
    }
}

/// From the worker while it starts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Boot {
    /// It is in a user namespace without maps.
    Unshared,
    /// It takes requests.
    Ready {
        /// The snapshots that it makes.
        overlay: bool,
        /// Why not by overlay, where that was to be found out.
        why_plain: Option<String>,
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
    /// Why not, where that was to be found out.
    pub why_plain: Option<String>,
    /// How steps are held.
    pub rung: Rung,
    /// Stronger rungs, and why the host refuses them.
    pub refused: Vec<(Rung, Refusal)>,
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
/// until it is ready. Rungs of which it is known that the host refuses them are not tried.
///
/// # Errors
///
/// If the process cannot be made or the host refuses it a namespace or ids.
pub fn launch(setup: &Setup) -> Result<Launched, LaunchError> {
    match launch_with(setup, probe::known(&setup.store).as_ref()) {
        // Before giving up: what is known may be out of date.
        Err(LaunchError::Refused(_)) => {
            launch_with(setup, probe::renew(&setup.store, &Question::OF_A_BUILD).as_ref())
        }
        result => result,
    }
}

fn launch_with(setup: &Setup, known: Option<&Answers>) -> Result<Launched, LaunchError> {
    let automatic = known.filter(|_| setup.snapshotter == Snapshotter::Auto);
    let overlay = automatic.map(|it| it.overlay(&Facts::of(&setup.store)));
    let setup = Setup { overlay, ..setup.clone() };
    let mut refused = Vec::new();
    for rung in setup.isolation.rungs() {
        if let Some(Err(refusal)) = known.map(|it| it.rung(rung)) {
            refused.push((rung, refusal));
            continue;
        }
        match climb(&setup, rung) {
            Ok(launched) => return Ok(Launched { refused, ..launched }),
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
        Ok((map, overlay, why_plain)) => {
            let refused = Vec::new();
            Ok(Launched { child, socket: ours, map, overlay, why_plain, rung, refused })
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
) -> Result<(MapName, bool, Option<String>), Failed> {
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
        (Boot::Ready { overlay, why_plain }, Rung::Chroot) => {
            return Ok((MapName::Root, overlay, why_plain));
        }
        (Boot::Refused(refusal), _) => Err(refusal),
        (Boot::Unshared | Boot::Ready { .. }, _) => return Err(LaunchError::Lost(None).into()),
    };
    let key = key.map_err(Failed::Refused)?;
    wire::send(socket.as_fd(), &Mapped { key }, &[]).map_err(lost)?;
    match answer()? {
        Boot::Ready { overlay, why_plain } => Ok((key, overlay, why_plain)),
        Boot::Unshared => Err(LaunchError::Lost(None).into()),
        Boot::Refused(refusal) => Err(Failed::Refused(refusal)),
    }
}

/// Gives the user namespace of a process (its number, or `self`) our own ids, and no others.
pub(crate) fn write_single(process: &str, (uid, gid): (u32, u32)) -> Result<MapName, Refusal> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{process}/{file}");
        fs::write(&path, text).map_err(|error| Refusal::new(format!("writing {file}"), &error))
    };
    write("setgroups", "deny")?;
    write("uid_map", &idmap::text(&idmap::single(uid)))?;
    write("gid_map", &idmap::text(&idmap::single(gid)))?;
    Ok(MapName::Single)
}

/// Effective user and group id.
pub(crate) fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Gives the user namespace of process `pid` its ids: all that we have ourselves where we may,
/// else our own and our subordinate ones.
pub(crate) fn write_maps(pid: u32) -> Result<MapName, Refusal> {
    let (uid, gid) = own_ids();
    if uid == 0 {
        let own = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let count = idmap::ids(&idmap::identity(&own));
        // Root of a namespace with few ids has no more to give.
        if count <= u64::from(idmap::MIN_RANGE) {
            let detail = format!("root has {count} of the 65536 ids that images use");
            return Err(Refusal { call: "/proc/self/uid_map".to_owned(), errno: 0, detail });
        }
        if write_directly(pid).is_ok() {
            return Ok(MapName::Root);
        }
    }
    let name = user_name(uid).unwrap_or_default();
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid) = (file("/etc/subuid"), file("/etc/subgid"));
    let uids = idmap::subordinate(&subuid, &name, uid);
    let gids = idmap::subordinate(&subgid, &name, uid);
    let enough = |ranges: &[(u32, u32)]| {
        ranges.iter().map(|it| u64::from(it.1)).sum::<u64>() >= u64::from(idmap::MIN_RANGE)
    };
    for (ranges, path) in [(&uids, "/etc/subuid"), (&gids, "/etc/subgid")] {
        if !enough(ranges) {
            let who = if name.is_empty() { uid.to_string() } else { name.clone() };
            let (least, call) = (idmap::MIN_RANGE, path.to_owned());
            let detail = format!("no range of {least} ids for user {who}");
            return Err(Refusal { call, errno: 0, detail });
        }
    }
    let maps = [("newuidmap", idmap::ranges(uid, &uids)), ("newgidmap", idmap::ranges(gid, &gids))];
    help(pid, &maps)?;
    let (base, _) = uids[0];
    let count = uids.iter().map(|it| it.1).sum();
    Ok(MapName::Range { base, count })
}

fn write_directly(pid: u32) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{file}"))?;
        fs::write(format!("/proc/{pid}/{file}"), idmap::text(&idmap::identity(&own)))?;
    }
    Ok(())
}

/// Has newuidmap(1) and newgidmap(1) write the maps, both at once.
fn help(pid: u32, maps: &[(&str, Vec<Extent>); 2]) -> Result<(), Refusal> {
    let mut running = Vec::new();
    for (program, map) in maps {
        let child = Command::new(program)
            .arg(pid.to_string())
            .args(idmap::arguments(map))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        running.push((*program, child));
    }
    for (program, child) in running {
        let output = child.and_then(Child::wait_with_output).map_err(|error| {
            let mut refusal = Refusal::new(program, &error);
            if error.kind() == io::ErrorKind::NotFound {
                refusal = Refusal {
                    call: program.to_owned(),
                    errno: 0,
                    detail: "not installed (Debian package `uidmap`)".to_owned(),
                };
            }
            refusal
        })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let text = text.trim();
            let own_name = text.strip_prefix(program).and_then(|it| it.strip_prefix(": "));
            let detail = own_name.unwrap_or(text).to_owned();
            return Err(Refusal { call: program.to_owned(), errno: 0, detail });
        }
    }
    Ok(())
}

/// The command that gives this user a range of ids.
pub(crate) fn range_command() -> String {
    let (uid, _) = own_ids();
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let texts = [file("/etc/subuid"), file("/etc/subgid")];
    let name = user_name(uid).unwrap_or_default();
    idmap::range_command(texts.each_ref().map(String::as_str), &name, uid)
}

/// The name of a user, as `/etc/subuid` may have it.
fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
    Some(user.name)
}

/// The driver that `overlay` stands for.
pub const fn driver(overlay: bool) -> Driver {
    if overlay { Driver::Overlay } else { Driver::Plain }
}
