//! `rbuild worker`: takes requests until its socket ends, one thread for each.
//!
//! It dies with the thread that started it, and everything it started dies with it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_store::error::StoreError;
use rbuild_store::local::Store;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::launch::{Boot, Mapped, Setup, Snapshotter, driver};
use super::proto::{Answer, Chain, Failure, FailureKind, Request, Root};
use super::wire::{self, WireError};
use crate::sandbox::give_ids::MapName;
use crate::sandbox::parent::Killer;
use crate::sandbox::probe;
use crate::sandbox::refusal::Refusal;
use crate::sandbox::rung::{Rung, Wanted};
use crate::sandbox::step::{Steps, Way};
use crate::sandbox::{chroot, overlay, sys};
use crate::snapshot::{Error, LayerStore, Ownership, Source};

/// A request with its number.
#[derive(Debug, Deserialize, Serialize)]
pub struct Numbered<T> {
    /// Repeated by the answer.
    pub number: u64,
    /// What is asked or answered.
    pub body: T,
}

/// The hidden command.
pub fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        // The build process sees the closed socket.
        Err(_) => ExitCode::FAILURE,
    }
}

fn start() -> Result<(), WireError> {
    let socket = sys::take_stdin()?;
    let Some((setup, _)) = wire::receive::<Setup>(socket.as_fd())? else {
        return Ok(());
    };
    match enter(&setup, &socket) {
        Ok(Some(worker)) => {
            let (overlay, helper) = (worker.overlay, worker.helper);
            let (why_plain, well) = (worker.why_plain.clone(), worker.well);
            wire::send(socket.as_fd(), &Boot::Ready { overlay, helper, why_plain, well }, &[])?;
            let served = worker.serve(&socket);
            // Not left to the last holder: the thread of a request may be about to let go of it.
            worker.layers.store().temp().clear();
            served
        }
        Ok(None) => Ok(()),
        Err(Stop::Wire(error)) => Err(error),
        Err(Stop::Refused(refusal)) => wire::send(socket.as_fd(), &Boot::Refused(refusal), &[]),
    }
}

enum Stop {
    Wire(WireError),
    Refused(Refusal),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

fn refused<E: Into<io::Error>>(call: &'static str) -> impl Fn(E) -> Stop {
    move |error| Stop::Refused(Refusal::new(call, &error.into()))
}

/// Enters the namespaces; the process has one thread until it returns.
fn enter(setup: &Setup, socket: &OwnedFd) -> Result<Option<Worker>, Stop> {
    if setup.isolation == Wanted::Only(Rung::Chroot) {
        return stay(setup).map(Some);
    }
    // So that the build process, an ordinary user, may write our maps.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(refused("prctl(PR_SET_DUMPABLE)"))?;
    sys::unshare(UnshareFlags::NEWUSER).map_err(refused("unshare(CLONE_NEWUSER)"))?;
    wire::send(socket.as_fd(), &Boot::Unshared, &[])?;
    let Some((mapped, _)) = wire::receive::<Mapped>(socket.as_fd())? else {
        return Ok(None);
    };
    // Supplementary groups stay: what only they may read is read here. A step drops them.
    let gid = nix::unistd::Gid::from_raw(0);
    nix::unistd::setresgid(gid, gid, gid).map_err(refused("setresgid(0)"))?;
    let uid = nix::unistd::Uid::from_raw(0);
    nix::unistd::setresuid(uid, uid, uid).map_err(refused("setresuid(0)"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(refused("prctl(PR_SET_DUMPABLE)"))?;
    // After the change of ids, which clears it. If the parent is gone already, the socket ends.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(refused("prctl(PR_SET_PDEATHSIG)"))?;
    sys::unshare(UnshareFlags::NEWNS).map_err(refused("unshare(CLONE_NEWNS)"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(refused("mount(MS_PRIVATE)"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let unknown = setup.snapshotter == Snapshotter::Auto && setup.overlay.is_none();
    if unknown {
        probe::namespaces_apart().map_err(Stop::Refused)?;
    }

    let work = scratch(&setup.store)?;
    let path = setup.store.canonicalize().map_err(refused("realpath(3) of the store"))?;
    let store = Store::attach(path).map_err(|error| unusable(&error))?;
    let suits = unknown && look_around(&store, mapped.key)?;
    let Chosen { overlay, helper, why_plain } = choose(setup, &store)?;
    let way = Way::Namespaces { fuse: helper.clone() };
    let steps = Steps::new(&setup.store, &work, &setup.network, way)
        .map_err(refused("mkdir(2) in a tmpfs"))?;
    let key = mapped.key.key();
    let ownership = mapped.key.ownership();
    let layers = LayerStore::of(Arc::new(store), key, ownership, driver(overlay));
    let (steps, layers, helper) = (Arc::new(steps), Arc::new(layers), helper.is_some());
    let well = suits && overlay && !helper;
    Ok(Some(Worker { steps, layers, overlay, helper, why_plain, well }))
}

/// Asks of the store what else a build wants to know, where nothing is known yet.
fn look_around(store: &Store, map: MapName) -> Result<bool, Stop> {
    let dir = store.temp().dir().map_err(|error| unusable(&error))?;
    if map.ownership() == Ownership::Real {
        probe::owners(&dir).map_err(Stop::Refused)?;
    }
    Ok(probe::suits(&dir))
}

/// The worker of a place without namespaces, if it allows what the rung `chroot` needs.
fn stay(setup: &Setup) -> Result<Worker, Stop> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(refused("prctl(PR_SET_PDEATHSIG)"))?;
    if matches!(setup.snapshotter, Snapshotter::Overlay | Snapshotter::FuseOverlayfs) {
        let detail = "the rung `chroot` cannot mount".to_owned();
        let call = "an overlay in the store".to_owned();
        return Err(Stop::Refused(Refusal { call, errno: 0, detail }));
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let path = setup.store.canonicalize().map_err(refused("realpath(3) of the store"))?;
    let store = Arc::new(Store::attach(path).map_err(|error| unusable(&error))?);
    let work = store.temp().path("worker").map_err(|error| unusable(&error))?;
    fs::create_dir_all(&work).map_err(refused("mkdir(2) in the store"))?;
    chroot::allowed_in(&work).map_err(Stop::Refused)?;
    let steps = Steps::new(store.root(), &work, &setup.network, Way::Chroot)
        .map_err(refused("mkdir(2) in the store"))?;
    let key = MapName::Root;
    let layers = LayerStore::of(store, key.key(), key.ownership(), driver(false));
    let (steps, layers) = (Arc::new(steps), Arc::new(layers));
    Ok(Worker { steps, layers, overlay: false, helper: false, why_plain: None, well: false })
}

fn unusable(error: &StoreError) -> Stop {
    let detail = crate::causes::chain(error);
    Stop::Refused(Refusal { call: "opening the store".to_owned(), errno: 0, detail })
}

/// A file system in memory for what only lives as long as the worker. It is mounted in the worker's
/// own mount namespace, so that it is gone when the worker is, however that ends.
fn scratch(store: &Path) -> Result<PathBuf, Stop> {
    let dir = store.join("mnt");
    fs::create_dir_all(&dir).map_err(refused("mkdir(2) in the store"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", &dir, "tmpfs", flags, c"mode=0755")
        .map_err(refused("mount(2) of a tmpfs"))?;
    Ok(dir)
}

/// How trees of steps are put together.
struct Chosen {
    overlay: bool,
    /// Who makes overlays, if the kernel cannot.
    helper: Option<PathBuf>,
    /// Why not by the kernel's overlay; of a helper, what it does otherwise.
    why_plain: Option<String>,
}

/// How snapshots are made, found out by making one in the store itself.
fn choose(setup: &Setup, store: &Store) -> Result<Chosen, Stop> {
    // Below this process's own directory, which no other process sweeps.
    let place = || store.temp().path("overlay").map_err(|error| unusable(&error));
    let kernels = || Chosen { overlay: true, helper: None, why_plain: None };
    let by_helper = || -> Result<Result<Chosen, String>, Stop> {
        let found = crate::sandbox::fuse::works_in(&place()?);
        Ok(found.map(|it| {
            let why_plain = it.flaw.map(str::to_owned);
            Chosen { overlay: true, helper: Some(it.program), why_plain }
        }))
    };
    let refuse = |call: &str, detail| {
        Err(Stop::Refused(Refusal { call: call.to_owned(), errno: 0, detail }))
    };
    match (setup.snapshotter, &setup.overlay) {
        (Snapshotter::Plain, _) => Ok(Chosen { overlay: false, helper: None, why_plain: None }),
        (Snapshotter::Auto, Some(Ok(()))) => Ok(kernels()),
        (Snapshotter::Auto, known) => {
            let why = match known {
                Some(Err(why)) => why.clone(),
                _ => match overlay_works_in(&place()?)? {
                    Ok(()) => return Ok(kernels()),
                    Err(why) => why,
                },
            };
            // What makes another image is used only if it is asked for.
            let no_helper = match by_helper()? {
                Ok(Chosen { why_plain: Some(flaw), .. }) => flaw,
                Ok(chosen) => return Ok(chosen),
                Err(no_helper) => no_helper,
            };
            let why_plain = Some(format!("{why}; {no_helper}"));
            Ok(Chosen { overlay: false, helper: None, why_plain })
        }
        (Snapshotter::Overlay, _) => match overlay_works_in(&place()?)? {
            Ok(()) => Ok(kernels()),
            Err(detail) => refuse("an overlay in the store", detail),
        },
        (Snapshotter::FuseOverlayfs, _) => match by_helper()? {
            Ok(chosen) => Ok(chosen),
            Err(detail) => refuse(crate::sandbox::fuse::CALL, detail),
        },
    }
}

/// Whether the kernel's overlay works there. That one is taken off in the background: the process
/// has all its namespaces by now.
fn overlay_works_in(dir: &Path) -> Result<Result<(), String>, Stop> {
    let (works, tried) = overlay::works_in(dir);
    std::thread::Builder::new()
        .name("tried".to_owned())
        .spawn(move || drop(tried))
        .map_err(refused("a thread"))?;
    Ok(works)
}

struct Worker {
    steps: Arc<Steps>,
    layers: Arc<LayerStore>,
    overlay: bool,
    helper: bool,
    why_plain: Option<String>,
    well: bool,
}

impl Worker {
    /// Answers requests until the socket ends.
    fn serve(&self, socket: &OwnedFd) -> Result<(), WireError> {
        let answers = Arc::new(Mutex::new(socket.try_clone()?));
        let killers: Arc<Mutex<BTreeMap<u64, Killer>>> = Arc::default();
        while let Some((request, fds)) = wire::receive::<Numbered<Request>>(socket.as_fd())? {
            let Numbered { number, body } = request;
            if let Request::Cancel { number } = body {
                let all = killers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(killer) = all.get(&number) {
                    killer.kill();
                }
                continue;
            }
            let killer = Killer::default();
            if matches!(body, Request::Exec(_)) {
                let mut all = killers.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(number, killer.clone());
            }
            let (steps, layers) = (Arc::clone(&self.steps), Arc::clone(&self.layers));
            let (answers, killers) = (Arc::clone(&answers), Arc::clone(&killers));
            let work = move || {
                let body = if let Request::Exec(request) = body {
                    let result = steps.exec(&layers, &request, &fds, &killer);
                    killers.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                    result
                } else if let Request::Expect(expected) = body {
                    steps.expect(expected)
                } else {
                    answer(&layers, body, &fds)
                };
                // What the request brought is closed before its sender hears of the end.
                drop(fds);
                let body = body.unwrap_or_else(Answer::Failed);
                let socket = answers.lock().unwrap_or_else(PoisonError::into_inner);
                // A build process that is gone needs no answer.
                drop(wire::send(socket.as_fd(), &Numbered { number, body }, &[]));
            };
            std::thread::Builder::new().name(format!("request {number}")).spawn(work)?;
        }
        Ok(())
    }
}

/// Answers a request that needs no process: layers and files.
///
/// # Errors
///
/// As the request; `Exec`, `Expect` and `Cancel` are not among them.
pub fn answer(layers: &LayerStore, request: Request, fds: &[OwnedFd]) -> Result<Answer, Failure> {
    let fd = |index: usize| {
        let missing =
            || Failure { kind: FailureKind::Bug, text: "a descriptor is missing".to_owned() };
        fds.get(index).ok_or_else(missing)
    };
    let sources = |roots: Vec<Root>| -> Result<Vec<Source<'_>>, Failure> {
        roots
            .into_iter()
            .map(|root| {
                Ok(match root {
                    Root::Fd(index) => Source::Dir(fd(index)?.as_fd()),
                    Root::Layer(layer) => Source::Layer(layer),
                    Root::Store(path) => Source::Store(path),
                })
            })
            .collect()
    };
    let file = |index| -> Result<fs::File, Failure> {
        let own = fd(index)?.try_clone();
        own.map(fs::File::from)
            .map_err(|error| Failure { kind: FailureKind::Host, text: error.to_string() })
    };
    let result = match request {
        Request::Unpack { layer, stream, diff_id, below } => or_needs_below(
            layers
                .unpack(&layer, &mut file(stream)?, diff_id, &below)
                .map(|size| Answer::Unpacked { size }),
        ),
        Request::List { layer, stream, diff_id, below, like } => {
            let like = like.as_ref().map(|(paths, to)| (&paths[..], to.as_path()));
            let listed = layers.list(&layer, &mut file(stream)?, diff_id, &below, like);
            or_needs_below(listed.map(|()| Answer::Done))
        }
        Request::Extract { layer, stream, diff_id, files, to } => or_needs_below(
            layers.extract(&layer, &mut file(stream)?, diff_id, &files, &to).map(|()| Answer::Done),
        ),
        Request::Materialise { layer, roots, contents } => {
            layers.materialise(&layer, &sources(roots)?, &contents).map(|()| Answer::Done)
        }
        Request::Have { layer } => layers.have(&layer).map(Answer::Had),
        Request::Seal { layer, roots, contents, compression, clamp_mtime, blob } => {
            let blob = blob.as_deref();
            layers
                .seal(&layer, &sources(roots)?, &contents, compression, clamp_mtime, blob)
                .map(Answer::Sealed)
        }
        Request::HashFiles { files } => layers.hash_files(&files).map(Answer::Hashes),
        Request::ReadFile { layer, path, limit } => {
            layers.read_file(&layer, &path, limit).map(Answer::Bytes)
        }
        Request::ExportDir { chain, dest, mtime } => layers
            .export_dir(&chain, fd(dest)?.as_fd(), mtime)
            .map(|left_out| Answer::Exported { left_out }),
        Request::ExportTar { trees, dest, mtime } => export_tar(layers, &trees, file(dest)?, mtime),
        Request::Remove { paths } => layers.remove(&paths).map(|()| Answer::Done),
        Request::Exec(_) | Request::Expect(_) | Request::Cancel { .. } => {
            let text = "a step was asked of a place that runs none".to_owned();
            return Err(Failure { kind: FailureKind::Bug, text });
        }
    };
    result.map_err(|error| error.to_failure())
}

fn export_tar(
    layers: &LayerStore,
    trees: &[(String, Chain)],
    dest: fs::File,
    mtime: Option<i64>,
) -> Result<Answer, Error> {
    let mut out = io::BufWriter::with_capacity(1 << 20, dest);
    layers.export_tar(trees, &mut out, mtime)?;
    io::Write::flush(&mut out).map_err(|source| Error::Bug(source.to_string()))?;
    Ok(Answer::Done)
}

fn or_needs_below(result: Result<Answer, Error>) -> Result<Answer, Error> {
    match result {
        Err(Error::NeedsBelow) => Ok(Answer::NeedsBelow),
        result => result,
    }
}
