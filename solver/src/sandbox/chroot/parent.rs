//! The worker's side of one step on this rung: arranges its tree, starts its keeper, waits, puts
//! everything back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rbuild_store::local::Store;
use rustix::fs::{Mode, OFlags};

use super::arrange::Arrangement;
use super::caches::{CacheError, Caches, Loan};
use super::plan::{Cell, Nodes, Secret};
use super::stock::{Set, Stock};
use super::system;
use crate::causes::chain;
use crate::sandbox::apply::KernelError;
use crate::sandbox::init::STDERR;
use crate::sandbox::mounts::{Layout, Mount, Source, Tree};
use crate::sandbox::parent::{End, Killer, Outcome, RunError};
use crate::sandbox::plan::{HostPath, Litter, Process, Report};
use crate::sandbox::{target, tree_copy};
use crate::snapshot::Rootfs;
use crate::snapshot::inodes::Records;
use crate::snapshot::owner::Record;
use crate::worker::wire;

/// What a step's log says where nobody can answer it.
const UNSERVED: &str = "rbuild: warning: another program listens to the system calls of this \
    container already (a container manager, or rbuild within rbuild): /proc and /sys of this step \
    are all but empty, and its secrets cannot be read\n";

/// One step, ready to be arranged.
#[derive(Debug)]
pub(in crate::sandbox) struct Step<'a> {
    /// Where caches are.
    pub(in crate::sandbox) store: &'a Store,
    /// Who has them.
    pub(in crate::sandbox) caches: &'a Caches,
    /// What each step has.
    pub(in crate::sandbox) stock: &'a Stock,
    /// Who holds it.
    pub(in crate::sandbox) keepers: &'a Keepers,
    /// Whether another step is to come.
    pub(in crate::sandbox) another: bool,
    /// This program.
    pub(in crate::sandbox) program: &'a Path,
    /// An empty directory of the step's own, on the file system of its tree.
    pub(in crate::sandbox) hold: PathBuf,
    /// Trees, mounts, files.
    pub(in crate::sandbox) layout: &'a Layout,
    /// The process.
    pub(in crate::sandbox) process: Process,
    /// Descriptor of the group that limits it, if there is one.
    pub(in crate::sandbox) cgroup: Option<usize>,
    /// Whether it may talk to other machines.
    pub(in crate::sandbox) network: bool,
}

/// Runs the process of `step` to its end. `fds` are standard output, standard error, and the values
/// of secrets.
///
/// # Errors
///
/// If it could not be set up; a process that ran and failed is an [`Outcome`].
pub(in crate::sandbox) fn run(
    step: &Step<'_>,
    fds: &[BorrowedFd<'_>],
    killer: &Killer,
) -> Result<Outcome, RunError> {
    let Tree::Directory(root) = &step.layout.root else {
        return Err(broken("the tree of the step is no directory"));
    };
    // Before the arrangement, which ends first.
    let lent = lend(step)?;
    let mut all = Arrangement::new(root.as_path(), &step.hold).map_err(|it| setup(&it))?;
    let mut cell = Cell {
        root: root.clone(),
        hostname: step.layout.hostname.clone(),
        process: step.process.clone(),
        nodes: Nodes::Real,
        secrets: Vec::new(),
        cgroup: step.cgroup,
        network: step.network,
        mounts: Vec::new(),
    };
    if step.layout.root_readonly {
        cell.mounts.push((PathBuf::new().into(), true));
    }
    let files = [step.layout.resolv_conf.as_path(), step.layout.hosts.as_path()];
    let set = step.stock.take(files);
    let set = set.map_err(|source| failed("make /dev, /proc and /sys of a step", &source))?;
    arrange(&mut all, step.layout, &mut cell, (&set, &lent))?;
    let stubs = all.stubs();
    let outcome = keep(step, &cell, fds, killer);
    let untouched = all.untouched(set.dir());
    let undone = all.undo();
    let outcome = outcome?;
    undone.map_err(|source| failed("take the mounts of a step out of its tree", &source))?;
    let kept = step.stock.give_back(set, untouched);
    kept.map_err(|source| failed("remove /dev, /proc and /sys of a step", &source))?;
    for cache in lent.into_values() {
        cache.give_back().map_err(|error| lending(&error))?;
    }
    Ok(Outcome { stubs, ..outcome })
}

/// Takes the caches that a step mounts, by the index of the mount, always in the same order.
fn lend<'a>(step: &Step<'a>) -> Result<BTreeMap<usize, Loan<'a>>, RunError> {
    let places = step.store.layout().cache_mounts();
    let mounts = step.layout.mounts.iter().enumerate();
    let mut homes: Vec<(&Path, usize)> = mounts
        .filter_map(|(index, mount)| match &mount.source {
            Source::Host(path) => Some((path.as_path(), index)),
            Source::Tree { .. } | Source::Tmpfs { .. } | Source::Secret { .. } => None,
        })
        .filter(|it| it.0.starts_with(&places))
        .collect();
    homes.sort_unstable();
    let mut lent = BTreeMap::new();
    for (home, index) in homes {
        let now = step.hold.join(format!("cache-{index}"));
        let loan = step.caches.take(step.store, home, &now).map_err(|error| lending(&error))?;
        lent.insert(index, loan);
    }
    Ok(lent)
}

fn lending(error: &CacheError) -> RunError {
    RunError::Setup { user: false, text: chain(error) }
}

fn arrange(
    all: &mut Arrangement,
    layout: &Layout,
    cell: &mut Cell,
    (set, lent): (&Set, &BTreeMap<usize, Loan<'_>>),
) -> Result<(), RunError> {
    cell.nodes = set.nodes;
    let directories = set.directories().map(|it| (it, Litter::Keep));
    let files = set.files().map(|it| (it, layout.litter));
    for ((at, item), litter) in directories.into_iter().chain(files) {
        let placed = all.put(at, &item, litter).map_err(|it| setup(&it))?;
        cell.mounts.push((placed.path.into(), false));
    }
    for (index, mount) in layout.mounts.iter().enumerate() {
        place(all, index, mount, layout.litter, cell, lent)?;
    }
    Ok(())
}

fn place(
    all: &mut Arrangement,
    index: usize,
    mount: &Mount,
    litter: Litter,
    cell: &mut Cell,
    lent: &BTreeMap<usize, Loan<'_>>,
) -> Result<(), RunError> {
    let item = all.held(&format!("mount-{index}"));
    let is_there = all.is_there(&mount.at);
    let mut put = |item: &Path| all.put(&mount.at, item, litter).map_err(|it| setup(&it));
    let placed = match &mount.source {
        Source::Tmpfs { .. } => {
            system::memory(&item).map_err(|error| failed("make a directory", &error))?;
            put(&item)?
        }
        Source::Secret { from, uid, gid, mode } => {
            system::secret(&item, *mode)
                .map_err(|error| failed("make a secret's place", &error))?;
            let placed = put(&item)?;
            let (path, inode) = (HostPath(placed.path.clone()), placed.inode);
            let (from, uid, gid, mode) = (*from, *uid, *gid, *mode);
            cell.secrets.push(Secret { path, inode, from, uid, gid, mode });
            placed
        }
        Source::Tree { tree, selector } => {
            copy(tree, selector, &item)?;
            put(&item)?
        }
        Source::Host(from) => match lent.get(&index) {
            // That it cannot be written to is no fence: so it is written to in vain.
            Some(cache) if mount.readonly => {
                tree_copy::copy(&Rootfs::Dir(cache.now().to_owned()), "", &item)
                    .map_err(|error| failed("copy a cache", &error))?;
                put(&item)?
            }
            Some(cache) => put(cache.now())?,
            None => put(from.as_path())?,
        },
    };
    let around = |it: &&(HostPath, bool)| {
        let at = it.0.as_path();
        !at.as_os_str().is_empty() && placed.path.starts_with(at)
    };
    let outer = cell.mounts.iter().filter(around).max_by_key(|it| it.0.as_path().as_os_str().len());
    if !is_there && outer.is_some_and(|it| it.1) {
        let source = rustix::io::Errno::ROFS.into();
        return Err(setup(&KernelError::MountPoint { at: mount.at.clone(), source }));
    }
    cell.mounts.push((placed.path.into(), mount.readonly));
    Ok(())
}

fn copy(tree: &Tree, selector: &str, to: &Path) -> Result<(), RunError> {
    let Tree::Directory(from) = tree else {
        return Err(broken("a tree of the step is no directory"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(from.as_path(), flags, Mode::empty())
        .map_err(|errno| failed("open a tree", &errno.into()))?;
    match target::resolve(&root, selector).map(drop) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            return Err(setup(&KernelError::NotFound(selector.to_owned())));
        }
        Err(errno) => return Err(failed("open a path of a tree", &errno.into())),
    }
    tree_copy::copy_any(&Rootfs::Dir(from.0.clone()), selector, to)
        .map_err(|error| failed("copy what a step mounts", &error))
}

/// Keepers that were started before their step, and those whose step has ended.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Keepers {
    next: Mutex<Option<Started>>,
    ending: Mutex<Vec<Child>>,
}

/// A keeper that waits for its step. It ends when nobody can tell it of one.
#[derive(Debug)]
struct Started {
    child: Child,
    socket: UnixStream,
}

impl Keepers {
    /// Starts the keeper of the next step.
    pub(in crate::sandbox) fn start(&self, program: &Path) -> Result<(), RunError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_none() {
            *next = Some(Started::new(program)?);
        }
        Ok(())
    }

    /// Takes a keeper that is about to end off the hands of who has waited for its step.
    fn let_go(&self, child: Child) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.retain_mut(|it| matches!(it.try_wait(), Ok(None)));
        ending.push(child);
    }

    fn take(&self, program: &Path) -> Result<Started, RunError> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        next.map_or_else(|| Started::new(program), Ok)
    }
}

impl Started {
    fn new(program: &Path) -> Result<Self, RunError> {
        let (socket, theirs) = UnixStream::pair().map_err(RunError::Start)?;
        let child = Command::new(program)
            .arg("cell")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(RunError::Start)?;
        Ok(Self { child, socket })
    }
}

/// Gives the step to a keeper and follows what that says.
fn keep(
    step: &Step<'_>,
    cell: &Cell,
    fds: &[BorrowedFd<'_>],
    killer: &Killer,
) -> Result<Outcome, RunError> {
    let Started { mut child, socket } = step.keepers.take(step.program)?;
    let outcome = converse(&socket, cell, fds, killer, || {
        // The step runs; and if no other one can be had now, one is started when it is needed.
        if step.another {
            drop(step.keepers.start(step.program));
        }
    });
    killer.disarm();
    drop(socket);
    if outcome.as_ref().is_ok_and(|it| !matches!(it.end, End::Cancelled)) {
        // Nothing is left of the step: how the keeper itself ends nobody waits for.
        step.keepers.let_go(child);
    } else {
        // It ends when nobody listens, and the step with it.
        drop(child.wait());
    }
    outcome
}

fn converse(
    socket: &UnixStream,
    cell: &Cell,
    fds: &[BorrowedFd<'_>],
    killer: &Killer,
    sent: impl FnOnce(),
) -> Result<Outcome, RunError> {
    killer.arm_socket(socket.try_clone().map_err(RunError::Start)?);
    let (mut not_started, mut records) = (None, Records::new());
    if let Err(error) = wire::send(socket.as_fd(), cell, fds) {
        return if killer.killed() { Ok(Outcome::cancelled()) } else { Err(error.into()) };
    }
    sent();
    loop {
        let report = match wire::receive::<Report>(socket.as_fd()) {
            Ok(Some((report, _))) => report,
            Ok(None) | Err(_) if killer.killed() => return Ok(Outcome::cancelled()),
            Ok(None) => return Err(RunError::Lost),
            Err(error) => return Err(error.into()),
        };
        match report {
            Report::Ready { .. } | Report::Listener => {}
            Report::Made { inode: (device, number, birth), record } => {
                let record = Record::parse(record.as_bytes());
                records.extend(record.map(|it| ((device, number, birth.into()), it)));
            }
            Report::Unanswered => {
                let _ = rustix::io::write(fds[STDERR], UNSERVED.as_bytes());
            }
            Report::NotStarted { code, text } => not_started = Some((code, text)),
            Report::Failed { .. } if killer.killed() => return Ok(Outcome::cancelled()),
            Report::Failed { user, text } => return Err(RunError::Setup { user, text }),
            Report::Ended { code_or_signal, cpu_micros, max_rss } => {
                let end = match (not_started, code_or_signal) {
                    _ if killer.killed() => End::Cancelled,
                    (Some((code, text)), _) => End::NotStarted(code, text),
                    (None, code) if code >= 0 => End::Code(code),
                    (None, signal) => End::Signal(-signal),
                };
                return Ok(Outcome { end, cpu_micros, max_rss, records, ..Outcome::cancelled() });
            }
        }
    }
}

/// A place in the tree that cannot be had: the Dockerfile's fault, where it names it.
fn setup(error: &KernelError) -> RunError {
    let user = match error {
        KernelError::NotFound(_)
        | KernelError::MountPoint { .. }
        | KernelError::Dangling { .. } => true,
        KernelError::Call { .. } | KernelError::Plan(_) => false,
    };
    RunError::Setup { user, text: chain(error) }
}

fn failed(what: &str, error: &io::Error) -> RunError {
    RunError::Setup { user: false, text: format!("cannot {what}: {}", chain(error)) }
}

fn broken(what: &str) -> RunError {
    RunError::Setup { user: false, text: what.to_owned() }
}
