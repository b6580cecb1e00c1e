//! `rbuild cell`: the keeper of one step, and the step's process until it becomes the command.
//!
//! The keeper has one thread. It lives as long as the step and what the step leaves behind, and
//! ends all of that when the command has ended, when the worker hangs up, or when it is told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitOptions};
use rustix::thread::CapabilitySet;

use super::calls::{self, Wanted};
use super::changes::Mounts;
use super::fence::{self, Reach};
use super::plan::{ANSWERED, Cell, Secret, WITHHELD};
use super::serve::{Served, Server, memory};
use crate::sandbox::caps::{self, number};
use crate::sandbox::init::{self, InitError};
use crate::sandbox::plan::{HostPath, Process, Report};
use crate::sandbox::sys::{self, Ended, Fork, Listener};
use crate::sandbox::{bpf, cgroup, seccomp};
use crate::worker::wire::{self, WireError};

/// Exit status of a keeper that could not do its work; the worker hears why by message.
const SETUP_FAILED: u8 = 125;

/// Most bytes of a secret: BuildKit's own limit for one is 500 KiB.
const MAX_SECRET_BYTES: usize = 16 << 20;

/// The hidden command.
///
/// The keeper has a guard around it, and a session of its own: a signal to the group of whoever
/// started the build, which cannot be caught, does not reach the step, so it must not reach these.
pub(crate) fn main() -> ExitCode {
    // Fails only where it is the first of its session already.
    let _ = rustix::process::setsid();
    let own = Some(rustix::process::getpid());
    let guarded = rustix::process::set_child_subreaper(own).map_err(io::Error::from);
    match guarded.and_then(|()| sys::fork_single_threaded()) {
        Ok(Fork::Parent(keeper)) => guard(keeper),
        Ok(Fork::Child) => match keep() {
            Ok(code) => code,
            // Nobody is left to tell: the worker sees the closed socket.
            Err(_) => ExitCode::from(SETUP_FAILED),
        },
        Err(_) => ExitCode::from(SETUP_FAILED),
    }
}

/// Waits for the keeper. What it could not end itself ends here.
fn guard(keeper: i32) -> ExitCode {
    // Only the keeper talks to the worker.
    drop(sys::take_stdin());
    let ended = sys::wait_for(keeper);
    if ended.is_ok_and(|it| it.code_or_signal == 0) {
        return ExitCode::SUCCESS;
    }
    end_all(Reach::Everybody);
    ExitCode::from(SETUP_FAILED)
}

fn keep() -> Result<ExitCode, WireError> {
    let worker = sys::take_stdin()?;
    let Some((cell, fds)) = wire::receive::<Cell>(worker.as_fd())? else {
        return Ok(ExitCode::SUCCESS);
    };
    match start(&cell, &fds) {
        Ok(Side::Keeper(keeper)) => {
            let report = keeper.watch(worker.as_fd());
            wire::send(worker.as_fd(), &report, &[])?;
            Ok(ExitCode::SUCCESS)
        }
        // Of the step's process: the keeper has heard it.
        Ok(Side::Step) => Ok(ExitCode::from(SETUP_FAILED)),
        Err(error) => {
            wire::send(worker.as_fd(), &init::failed(&error), &[])?;
            Ok(ExitCode::from(SETUP_FAILED))
        }
    }
}

/// Which process this is after the fork.
enum Side {
    /// The keeper.
    Keeper(Box<Keeper>),
    /// The step's process, which could not become its command.
    Step,
}

/// The keeper of a step that has been started.
struct Keeper {
    /// The step's first process.
    pid: i32,
    process: OwnedFd,
    /// Where that tells of itself until it becomes the command.
    told: OwnedFd,
    reach: Reach,
    served: Option<Served>,
    server: Option<Server>,
    /// What it has made that cannot tell what it is.
    made: Vec<Report>,
    /// What went wrong with it.
    failure: Option<Report>,
    /// Whether nobody can be asked.
    unanswered: bool,
}

/// Makes the process. Where all goes well it returns in the keeper only: the other process has
/// become the command.
fn start(cell: &Cell, fds: &[OwnedFd]) -> Result<Side, InitError> {
    init::adjust_oom_score();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(init::call("become the reaper of the step"))?;
    let reach = fence::keep_to_own();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(cell.root.as_path(), flags, Mode::empty())
        .map_err(init::call("open the step's tree"))?;
    let secrets = secrets(cell, &root, fds).map_err(init::call("hold a secret in memory"))?;
    let (told, tells) = UnixStream::pair().map_err(init::call("make a socket"))?;
    let forked = sys::fork_single_threaded().map_err(init::call("fork the step's process"))?;
    match forked {
        Fork::Child => {
            drop((told, secrets));
            let tells = OwnedFd::from(tells);
            let Err(report) = become_command(cell, reach, &root, fds, tells.as_fd());
            // A keeper that is gone ends this process as well.
            drop(wire::send(tells.as_fd(), &report, &[]));
            Ok(Side::Step)
        }
        Fork::Parent(pid) => {
            let number = rustix::process::Pid::from_raw(pid);
            let number = number.ok_or_else(|| init::broken("no process"))?;
            let process = rustix::process::pidfd_open(number, PidfdFlags::empty())
                .map_err(init::call("watch the step's process"))?;
            let (nodes, hostname, network) = (cell.nodes, cell.hostname.clone(), cell.network);
            let mounts = mounts(cell);
            let served = Served { root, nodes, secrets, hostname, reach, network, mounts };
            let served = Some(served);
            let (server, failure, unanswered, told) = (None, None, false, told.into());
            Ok(Side::Keeper(Box::new(Keeper {
                pid,
                process,
                told,
                reach,
                served,
                server,
                made: Vec::new(),
                failure,
                unanswered,
            })))
        }
    }
}

/// Where the step mounts what, as it sees it.
fn mounts(cell: &Cell) -> Mounts {
    let seen = |path: &HostPath| [b"/", path.as_path().as_os_str().as_encoded_bytes()].concat();
    Mounts::new(cell.mounts.iter().map(|(path, readonly)| (seen(path), *readonly)))
}

/// Puts secrets into files in memory that cannot be written to, and makes their places as large.
fn secrets(cell: &Cell, root: &OwnedFd, fds: &[OwnedFd]) -> io::Result<Vec<(Secret, OwnedFd)>> {
    let mut all = Vec::new();
    for secret in &cell.secrets {
        let source = fds.get(secret.from).ok_or_else(|| io::Error::from(Errno::BADF))?;
        let bytes = read_all(source)?;
        let file = memory("secret", &bytes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(secret.mode))?;
        let owner = (rustix::fs::Uid::from_raw(secret.uid), rustix::fs::Gid::from_raw(secret.gid));
        rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::openat(root, secret.path.as_path(), flags, Mode::empty())?;
        rustix::fs::ftruncate(&place, bytes.len() as u64)?;
        rustix::fs::fchown(&place, Some(owner.0), Some(owner.1))?;
        all.push((secret.clone(), file));
    }
    Ok(all)
}

/// All of a file or pipe. Where a file was read to before does not matter: other steps may read the
/// same open file.
fn read_all(from: &OwnedFd) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let got = match rustix::io::pread(from, &mut buffer, bytes.len() as u64) {
            Err(Errno::SPIPE) => rustix::io::read(from, &mut buffer)?,
            other => other?,
        };
        bytes.extend_from_slice(&buffer[..got]);
        if got == 0 {
            return Ok(bytes);
        }
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(Errno::FBIG.into());
        }
    }
}

fn become_command(
    cell: &Cell,
    reach: Reach,
    root: &OwnedFd,
    fds: &[OwnedFd],
    keeper: BorrowedFd<'_>,
) -> Result<Infallible, Report> {
    let process = &cell.process;
    let failed = |error: InitError| init::failed(&error);
    let enter = || -> Result<init::Prepared, InitError> {
        if let Some(index) = cell.cgroup {
            let door = fds.get(index).ok_or_else(|| init::broken("no such cgroup"))?;
            cgroup::enter(door.as_fd()).map_err(init::call("enter the step's cgroup"))?;
        }
        rustix::process::fchdir(root).map_err(init::call("enter the step's tree"))?;
        rustix::process::chroot(".").map_err(init::call("make the tree the root"))?;
        rustix::process::chdir("/").map_err(init::call("enter the root"))?;
        let ready = init::prepare(process, fds)?;
        fence::confine(root).map_err(init::call("fence the step in"))?;
        Ok(ready)
    };
    let ready = enter().map_err(failed)?;
    let caps = lower(cell, reach, keeper)?;
    init::become_user(&Process { caps, ..process.clone() }, &ready.identity).map_err(failed)?;
    let program = init::look_up(&process.args[0], &ready.path, &process.cwd)?;
    let args: Vec<&CStr> = ready.args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = ready.env.iter().map(CString::as_c_str).collect();
    init::bind(process).map_err(failed)?;
    sys::reset_signals();
    let error = sys::execute(&program, &args, &env);
    let text = format!("exec {}: {error}", program.to_string_lossy());
    Err(Report::NotStarted { code: 126, text })
}

/// Gives up what the step must not have, but for its ids and what goes with them. Returns the
/// capabilities that it keeps.
fn lower(cell: &Cell, reach: Reach, keeper: BorrowedFd<'_>) -> Result<u64, Report> {
    let failed = |what| move |error: io::Error| init::failed(&init::call(what)(error));
    // Without a privilege that is never had here a filter asks for it; and with it no program has
    // more rights than who starts it.
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| failed("set no_new_privs")(errno.into()))?;
    let caps = cell.process.caps & !WITHHELD;
    // Whoever may not change the bounds has none to lose: no program gives more rights.
    let bound = |number: u8| {
        let one = CapabilitySet::from_bits_retain(1 << number);
        let _ = rustix::thread::remove_capability_from_bounding_set(one);
    };
    caps::missing(caps, caps::LAST).for_each(bound);
    if cell.process.filtered {
        let filter = seccomp::filter(bpf::Arch::HERE, caps);
        sys::install_filter(&filter, Listener::None)
            .map_err(failed("install the system call filter"))?;
    }
    let (network, readonly) = (cell.network, mounts(cell).any_readonly());
    let filter = |listens| calls::filter(Wanted { reach, listens, network, readonly });
    let what = "install the filter that asks the keeper";
    match sys::install_filter(&filter(true), Listener::New) {
        Ok(listener) => {
            let fds: Vec<_> = listener.iter().map(OwnedFd::as_fd).collect();
            wire::send(keeper, &Report::Listener, &fds)
                .map_err(|error| failed(what)(io::Error::other(error)))?;
            bound(number::FSETID);
            Ok(caps & !ANSWERED)
        }
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            sys::install_filter(&filter(false), Listener::None).map_err(failed(what))?;
            wire::send(keeper, &Report::Unanswered, &[])
                .map_err(|error| failed(what)(io::Error::other(error)))?;
            Ok(caps)
        }
        Err(error) => Err(failed(what)(error)),
    }
}

impl Keeper {
    /// Follows the step to its end, and sees to it that nothing of it is left.
    fn watch(mut self, worker: BorrowedFd<'_>) -> Report {
        let hung_up = self.follow(worker).is_err();
        // What it said last.
        self.hear_out();
        if hung_up {
            end_all(self.reach);
        }
        let ended = sys::wait_for(self.pid);
        end_all(self.reach);
        self.dismiss();
        for made in &self.made {
            drop(wire::send(worker, made, &[]));
        }
        if self.unanswered {
            drop(wire::send(worker, &Report::Unanswered, &[]));
        }
        match (self.failure.take(), ended) {
            (Some(report @ Report::Failed { .. }), _) => report,
            (Some(report), Ok(ended)) => {
                drop(wire::send(worker, &report, &[]));
                report_of(ended)
            }
            (None, Ok(ended)) => report_of(ended),
            (_, Err(error)) => init::failed(&init::call("wait for the step's process")(error)),
        }
    }

    /// Answers calls until the command has ended; an error if the worker hung up before.
    fn follow(&mut self, worker: BorrowedFd<'_>) -> Result<(), ()> {
        let mut hears = true;
        loop {
            // A place that is not looked at has the worker's socket again.
            let listener = self.server.as_ref().map_or(worker, Server::listener);
            // What has hung up would be told of again and again.
            let told = if hears { self.told.as_fd() } else { worker };
            let mut fds = [worker, self.process.as_fd(), told, listener]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(()),
            }
            let found = fds.map(|it| it.revents());
            // First, as it is what there is most of.
            if let Some(server) = &self.server
                && !found[3].is_empty()
            {
                // When the last of the step is gone, there is nobody to be heard.
                if !found[3].contains(PollFlags::IN) || !server.answer_next() {
                    self.dismiss();
                }
                if found[0].is_empty() && found[1].is_empty() && found[2].is_empty() {
                    continue;
                }
            }
            if !found[0].is_empty() {
                return Err(());
            }
            if hears && !found[2].is_empty() {
                hears = self.hear();
            }
            if !found[1].is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends the service.
    fn dismiss(&mut self) {
        self.made.extend(self.server.take().into_iter().flat_map(Server::made));
    }

    /// Takes one message of the step's process. False if that has become its command, or is gone.
    fn hear(&mut self) -> bool {
        let Ok(Some((report, fds))) = wire::receive::<Report>(self.told.as_fd()) else {
            return false;
        };
        match report {
            Report::Listener => {
                let listener = fds.into_iter().next();
                if let (Some(listener), Some(served)) = (listener, self.served.take()) {
                    // Where it cannot work the listener closes, and the step's calls fail.
                    self.server = Server::new(listener, served).ok();
                }
            }
            Report::Unanswered => self.unanswered = true,
            Report::NotStarted { .. } | Report::Failed { .. } => self.failure = Some(report),
            Report::Ready { .. } | Report::Ended { .. } | Report::Made { .. } => {}
        }
        true
    }

    fn hear_out(&mut self) {
        // The other end is closed: it has become the command, or is gone.
        let _ = rustix::io::ioctl_fionbio(&self.told, true);
        while self.hear() {}
    }
}

/// Kills all that descend from the caller, and waits until they are gone.
fn end_all(reach: Reach) {
    loop {
        match reach {
            // At once, so that nobody can get away by making others.
            Reach::Step => {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            Reach::Everybody => {
                for pid in descendants() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn report_of(ended: Ended) -> Report {
    let Ended { code_or_signal, cpu_micros, max_rss } = ended;
    Report::Ended { code_or_signal, cpu_micros, max_rss }
}

/// All processes that descend from the caller, and all that these have.
fn descendants() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name before may hold anything, brackets included.
        let parent = stat.rsplit_once(") ").and_then(|it| it.1.split(' ').nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut all, mut next) = (Vec::new(), vec![own]);
    while let Some(pid) = next.pop() {
        let own = children.remove(&pid).unwrap_or_default();
        all.extend(&own);
        next.extend(own);
    }
    all
}
