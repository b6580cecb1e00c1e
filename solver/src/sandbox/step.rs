//! One `Exec` request from its first to its last act, in the worker.
//!
//! Trees are prepared, everything else the step mounts is made or found, the plan is written, the
//! process runs, stubs are removed, and what is to be kept is committed. What fails on the way is
//! thrown away.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::fuse::{self, Mounted};
use super::held::{Held, pretend, remove_stubs, root_tree, start, tree};
use super::hold::{Hold, Holder};
use super::init::{STDERR, STDOUT};
use super::mounts::Tree;
use super::mounts::{self, Layout, Mount, Source, System};
use super::network::{self, Lease, Networks};
use super::parent::{End, Killer, Outcome, RunError, Starting, Waiting};
use super::plan::{HostPath, Litter, Plan, Pretend, Process};
use super::relay::Relay;
use super::{caps, chroot, files, limits};
use crate::snapshot::{Access, LayerStore, Prepared};
use crate::worker::proto::{
    Answer, Committed, ExecMount, ExecRequest, Expected, Failure, FailureKind, FdIndex,
    MountSource, Network,
};

/// What a step's log says where its owners are lost.
const FLATTENED: &str = "rbuild: warning: another program listens to the system calls of this \
    container already (a container manager, or rbuild within rbuild), so owners cannot be recorded: \
    all files of this step belong to root in the image\n";

/// How the steps of a worker are held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// In namespaces, with mounts.
    Namespaces {
        /// The helper that makes overlays, where the kernel cannot.
        fuse: Option<PathBuf>,
    },
    /// With neither: see [`super::chroot`].
    Chroot,
}

/// What all steps of a worker share.
#[derive(Debug)]
pub struct Steps {
    way: Way,
    store: PathBuf,
    work: PathBuf,
    program: PathBuf,
    /// Generated files by content: most steps of a build have the same.
    generated: Mutex<BTreeMap<String, PathBuf>>,
    networks: Networks,
    holder: Holder,
    /// How many overlays a helper has made.
    mounts: AtomicU64,
    caches: chroot::Caches,
    stock: chroot::Stock,
    keepers: chroot::Keepers,
    /// The process of the next step, started while the one before runs.
    next: Mutex<Option<Starting>>,
    /// Processes of steps whose mounts the kernel takes off.
    ending: Mutex<Vec<Waiting>>,
}

impl Steps {
    /// Works on the store at `store`, with `work` for what only lives as long as the worker.
    ///
    /// # Errors
    ///
    /// If `work` cannot be made.
    pub fn new(
        store: &Path,
        work: &Path,
        network: &network::Options,
        way: Way,
    ) -> io::Result<Self> {
        for dir in ["files", "relays"] {
            fs::create_dir_all(work.join(dir))?;
        }
        for dir in mounts::SCRATCH {
            fs::create_dir_all(work.join("mnt").join(dir))?;
        }
        Ok(Self {
            store: store.to_owned(),
            work: work.to_owned(),
            program: match &way {
                Way::Namespaces { .. } => super::program::bound(&work.join("program")),
                // A step has no /proc that leads to it.
                Way::Chroot => PathBuf::from("/proc/self/exe"),
            },
            way,
            generated: Mutex::default(),
            networks: Networks::new(network.clone()),
            holder: Holder::default(),
            mounts: AtomicU64::default(),
            caches: chroot::Caches::default(),
            stock: chroot::Stock::new(work.join("stock")),
            keepers: chroot::Keepers::default(),
            next: Mutex::default(),
            ending: Mutex::default(),
        })
    }

    /// Runs the process of `request`. The calling thread must be the step's own.
    ///
    /// # Errors
    ///
    /// If it could not be started, or its result not be kept; a process that ran and failed is an
    /// answer.
    pub fn exec(
        &self,
        layers: &LayerStore,
        request: &ExecRequest,
        fds: &[OwnedFd],
        killer: &Killer,
    ) -> Result<Answer, Failure> {
        let mut held = Held::default();
        let network = self.lease(request.network, request.insecure)?;
        let hold = self.holder.hold(&request.resources).map_err(|error| host(&error))?;
        let outcome = self.run(layers, request, fds, (&network, &hold), killer, &mut held);
        let notes = network.notes();
        drop(network);
        drop(std::mem::take(&mut held.relays));
        let succeeded = matches!(&outcome, Ok(outcome) if matches!(outcome.end, End::Code(0)));
        // Nobody writes to the tree any more. An overlay's upper directory may be read while the
        // kernel takes the overlay off; a tree of our own has mounts in it until then.
        let overlaid =
            matches!(&held.root, Some((root, _)) if root.is_overlay()) && held.mounted.is_empty();
        let mut process = held.process.take();
        if let Some(process) = process.take_if(|_| !(succeeded && overlaid)) {
            process.end();
        }
        // A helper's overlays are off before anybody looks at what was written.
        let mut taken_off = std::mem::take(&mut held.mounted).into_iter();
        let taken_off = taken_off.try_for_each(Mounted::end).map_err(|error| host(&error));
        if !succeeded {
            // The step's own failure says more than one of the cleaning.
            drop(held.discard(layers));
            return outcome.map(|outcome| answer(&outcome, Vec::new(), (hold, notes)));
        }
        let outcome = outcome?;
        taken_off?;
        if let Some((root, _)) = &held.root {
            remove_stubs(root, &outcome)?;
            layers.keep_records(root, &outcome.records).map_err(|it| it.to_failure())?;
        }
        let committed = held.commit(layers);
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).extend(process);
        Ok(answer(&outcome, committed?, (hold, notes)))
    }

    /// Makes the network of the step that comes first, and starts its process.
    ///
    /// # Errors
    ///
    /// As the step itself would have.
    pub fn expect(&self, expected: Expected) -> Result<Answer, Failure> {
        let Expected { network, insecure, shm_size } = expected;
        if self.fuse().is_some() {
            // A process would not see what is mounted after it has started.
            return Ok(Answer::Done);
        }
        if self.way == Way::Chroot {
            self.keepers.start(&self.program).map_err(|it| refused(&it))?;
            return Ok(Answer::Done);
        }
        let own_network = self.lease(network, false)?.unused();
        let system = System { shm_size, own_network, kcore: has_kcore(), insecure };
        let skeleton = mounts::skeleton(&system, &self.scratch());
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_none() {
            *next = Some(Starting::new(&self.program, skeleton).map_err(|it| refused(&it))?);
        }
        Ok(Answer::Done)
    }

    fn lease(&self, network: Network, all: bool) -> Result<Lease<'_>, Failure> {
        let asked = match (&self.way, network) {
            // There is the container's network, and the build has said so.
            (Way::Chroot, Network::Default) if self.networks.is_a_matter_of_choice() => {
                Network::Host
            }
            (_, network) => network,
        };
        self.networks.lease(asked, all).map_err(|error| {
            let text = format!("cannot make the network of a step: {error}");
            Failure { kind: FailureKind::Host, text }
        })
    }

    fn run(
        &self,
        layers: &LayerStore,
        request: &ExecRequest,
        fds: &[OwnedFd],
        (network, hold): (&Lease<'_>, &Hold),
        killer: &Killer,
        held: &mut Held,
    ) -> Result<Outcome, Failure> {
        const { assert!(STDOUT == 0 && STDERR == 1, "the order of `passed`") };
        let mut passed = vec![fd(fds, request.stdout)?, fd(fds, request.stderr)?];
        let namespace = network.namespace(&mut passed);
        let layout = self.layout(layers, request, fds, (network, &mut passed), held)?;
        let mut process = process(request, pretend(layers, request)?)?;
        hold.apply(&mut process);
        let cgroup = hold.door().map(|door| {
            passed.push(door);
            passed.len() - 1
        });
        if self.way == Way::Chroot {
            let step = (request, process, cgroup);
            return self.run_without_mounts(layers, step, &layout, &passed, killer, held);
        }
        let plan = Plan {
            network: namespace,
            cgroup,
            steps: mounts::steps(&layout, &self.scratch()),
            process,
        };
        if killer.killed() {
            return Ok(Outcome::cancelled());
        }
        let start = held.root.as_ref().map(|it| start(layers, &it.0)).transpose()?;
        let start = start.unwrap_or_default();
        let another = request.another && self.fuse().is_none();
        let waiting = self.process(&layout.system, another).map_err(|it| refused(&it))?;
        let waiting = held.process.insert(waiting);
        // Their layers are lower directories of this overlay: they must be no upper ones by now.
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ending).into_iter().for_each(Waiting::end);
        drop(ending);
        let outcome =
            waiting.run(&plan, &passed, killer, &start).map_err(|error| refused(&error))?;
        if outcome.unanswered && plan.process.pretend == Pretend::Ids {
            let _ = rustix::io::write(passed[STDERR], FLATTENED.as_bytes());
        }
        tell(&outcome, passed[STDERR]);
        Ok(outcome)
    }

    fn run_without_mounts(
        &self,
        layers: &LayerStore,
        (request, process, cgroup): (&ExecRequest, Process, Option<usize>),
        layout: &Layout,
        passed: &[BorrowedFd<'_>],
        killer: &Killer,
        held: &Held,
    ) -> Result<Outcome, Failure> {
        let root = held.root.as_ref().ok_or_else(|| bug("a step without a root"))?;
        let step = chroot::Step {
            store: layers.store(),
            caches: &self.caches,
            stock: &self.stock,
            keepers: &self.keepers,
            another: request.another,
            program: &self.program,
            hold: root.0.make_dir("hold").map_err(|it| it.to_failure())?,
            layout,
            process,
            cgroup,
            network: request.network != Network::None,
        };
        if killer.killed() {
            return Ok(Outcome::cancelled());
        }
        let known = layers.known_records(&root.0).map_err(|it| it.to_failure())?;
        let mut outcome = chroot::run(&step, passed, killer).map_err(|error| refused(&error))?;
        // A number that is used again means what was made last.
        outcome.records = known.into_iter().chain(outcome.records).collect();
        tell(&outcome, passed[STDERR]);
        Ok(outcome)
    }

    /// Who makes overlays, if the kernel does not.
    fn fuse(&self) -> Option<&Path> {
        match &self.way {
            Way::Namespaces { fuse } => fuse.as_deref(),
            Way::Chroot => None,
        }
    }

    /// What is mounted of a prepared tree.
    fn tree(&self, prepared: &Prepared, mounted: &mut Vec<Mounted>) -> Result<Tree, Failure> {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let at = || self.work.join("fuse").join(number.to_string());
        let (rootfs, new) =
            fuse::shown(self.fuse(), prepared.rootfs(), at).map_err(|error| host(&error))?;
        mounted.extend(new);
        Ok(tree(&rootfs))
    }

    /// Where mounts are put together.
    fn scratch(&self) -> HostPath {
        self.work.join("mnt").into()
    }

    /// A process for a step: the one that was started for it, if it is as this one needs it. Where
    /// `another` step is to come, its process is started already.
    fn process(&self, system: &System, another: bool) -> Result<Waiting, RunError> {
        let skeleton = mounts::skeleton(system, &self.scratch());
        let start = || Starting::new(&self.program, skeleton.clone());
        let ready = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let process = match ready.filter(|it| *it.skeleton() == skeleton) {
            Some(ready) => ready.wait(),
            None => start()?.wait(),
        };
        if another {
            *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(start()?);
        }
        process
    }

    fn layout<'a>(
        &self,
        layers: &LayerStore,
        request: &ExecRequest,
        fds: &'a [OwnedFd],
        (network, passed): (&Lease<'_>, &mut Vec<BorrowedFd<'a>>),
        held: &mut Held,
    ) -> Result<Layout, Failure> {
        let mut root = None;
        let mut others = Vec::new();
        for mount in &request.mounts {
            if mount.dest == "/" {
                let prepared = root_tree(layers, mount)?;
                let tree = self.tree(&prepared.0, &mut held.mounted)?;
                held.root = Some(prepared);
                root = Some((tree, mount.readonly));
            } else {
                let source = self.source(layers, mount, fds, passed, held)?;
                let (at, readonly) = (mount.dest.clone(), mount.readonly);
                others.push(Mount { at, readonly, source });
            }
        }
        let (root, root_readonly) = root.ok_or_else(|| bug("a step without a root"))?;
        let own_network = network.is_own();
        let given = request.resolv_conf.as_deref().or_else(|| network.resolv_conf());
        let of_the_host = || {
            let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let elsewhere =
                if own_network { files::Loopback::Elsewhere } else { files::Loopback::Reachable };
            files::resolv_conf(&host, elsewhere)
        };
        let resolv_conf = given.map_or_else(of_the_host, str::to_owned);
        Ok(Layout {
            root,
            root_readonly,
            mounts: others,
            hosts: self.generated(files::hosts(
                &request.hostname,
                &request.extra_hosts,
                network.host_gateway(),
            ))?,
            resolv_conf: self.generated(resolv_conf)?,
            hostname: request.hostname.clone(),
            system: System {
                shm_size: request.shm_size,
                own_network,
                kcore: has_kcore(),
                insecure: request.insecure,
            },
            litter: if request.remove_stub_parents {
                Litter::RemoveWithParents
            } else {
                Litter::Remove
            },
        })
    }

    fn source<'a>(
        &self,
        layers: &LayerStore,
        mount: &ExecMount,
        fds: &'a [OwnedFd],
        passed: &mut Vec<BorrowedFd<'a>>,
        held: &mut Held,
    ) -> Result<Source, Failure> {
        match &mount.source {
            MountSource::Tree { chain, selector, commit } => {
                let access = if mount.readonly { Access::Read } else { Access::Write };
                let prepared = layers.prepare(chain, access).map_err(|it| it.to_failure())?;
                let tree = self.tree(&prepared, &mut held.mounted)?;
                held.trees.push((prepared, commit.clone()));
                Ok(Source::Tree { tree, selector: selector.clone() })
            }
            MountSource::Cache { dir, base, selector, mode, uid, gid } => {
                let new = super::cache::New { base, selector, mode: *mode, uid: *uid, gid: *gid };
                let is_lent = |dir: &Path| self.caches.has(dir);
                let dir = super::cache::open(layers, &self.store, dir, &new, is_lent, |prepared| {
                    let number = self.mounts.fetch_add(1, Ordering::Relaxed);
                    let at = || self.work.join("fuse").join(number.to_string());
                    fuse::shown(self.fuse(), prepared.rootfs(), at)
                })
                .map_err(|error| host(&error))?;
                Ok(Source::Host(dir.into()))
            }
            MountSource::Tmpfs { size } => Ok(Source::Tmpfs { size: *size }),
            MountSource::Secret { value, uid, gid, mode } => {
                passed.push(fd(fds, *value)?);
                let from = passed.len() - 1;
                Ok(Source::Secret { from, uid: *uid, gid: *gid, mode: *mode })
            }
            MountSource::Socket { path, uid, gid, mode } => {
                let relay = Relay::start(&self.work.join("relays"), path, (*uid, *gid), *mode)
                    .map_err(|error| host(&error))?;
                let path = relay.path().to_owned();
                held.relays.push(relay);
                Ok(Source::Host(path.into()))
            }
        }
    }

    /// A file with this content.
    fn generated(&self, text: String) -> Result<HostPath, Failure> {
        let mut known = self.generated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known.get(&text) {
            return Ok(path.clone().into());
        }
        let path = self.work.join("files").join(known.len().to_string());
        fs::write(&path, &text)
            .map_err(|error| host(&WriteError { path: path.clone(), source: error }))?;
        known.insert(text, path.clone());
        Ok(path.into())
    }
}

/// Says why there was no process where its own words would have gone.
fn tell(outcome: &Outcome, errors: BorrowedFd<'_>) {
    if let End::NotStarted(_, text) = &outcome.end {
        let _ = rustix::io::write(errors, format!("{text}\n").as_bytes());
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write `{path}`")]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

fn has_kcore() -> bool {
    Path::new("/proc/kcore").exists()
}

fn process(request: &ExecRequest, pretend: Pretend) -> Result<Process, Failure> {
    let limits = limits::limits(&request.ulimits)
        .map_err(|error| Failure { kind: FailureKind::User, text: error.to_string() })?;
    Ok(Process {
        args: request.args.clone(),
        env: request.env.clone(),
        cwd: request.cwd.clone(),
        user: request.user.clone(),
        limits,
        cpus: Vec::new(),
        caps: if request.insecure { caps::ALL } else { caps::SANDBOX },
        filtered: !request.insecure,
        pretend,
    })
}

fn answer(
    outcome: &Outcome,
    layers: Vec<Committed>,
    (hold, mut notes): (Hold, Vec<String>),
) -> Answer {
    let (status, usage, more) = hold.end(outcome);
    notes.extend(more);
    Answer::Exited { status, usage, layers, notes }
}

fn fd(fds: &[OwnedFd], index: FdIndex) -> Result<BorrowedFd<'_>, Failure> {
    fds.get(index).map(OwnedFd::as_fd).ok_or_else(|| bug("a descriptor is missing"))
}

fn refused(error: &RunError) -> Failure {
    let kind = match error {
        RunError::Setup { user: true, .. } => FailureKind::User,
        RunError::Setup { user: false, .. } | RunError::Start(_) | RunError::Lost => {
            FailureKind::Host
        }
        RunError::Wire(_) => FailureKind::Bug,
    };
    Failure { kind, text: crate::causes::chain(error) }
}

fn host(error: &dyn std::error::Error) -> Failure {
    Failure { kind: FailureKind::Host, text: crate::causes::chain(error) }
}

fn bug(text: &str) -> Failure {
    Failure { kind: FailureKind::Bug, text: text.to_owned() }
}
