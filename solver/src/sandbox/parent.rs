//! The worker's side of one step: starts `rbuild init`, hands it the plan, waits, kills.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::plan::{Plan, Report, Stub};
use super::supervisor::{self, Records, Running};
use super::sys;
use crate::tree::view::View;
use crate::worker::wire::{self, WireError};

/// Why a step's process could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The process of `rbuild init` could not be made.
    #[error("cannot start the step's process")]
    Start(#[source] io::Error),
    /// It ended without a word.
    #[error("the step's supervisor was killed")]
    Lost,
    /// The conversation with it broke.
    #[error("cannot talk to the step's supervisor")]
    Wire(#[from] WireError),
    /// It could not set the step up.
    #[error("{text}")]
    Setup {
        /// Whether the Dockerfile asks for something impossible.
        user: bool,
        /// What, and why.
        text: String,
    },
}

/// How a step's process ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How.
    pub end: End,
    /// Processor time, microseconds.
    pub cpu_micros: u64,
    /// Largest resident set, bytes.
    pub max_rss: u64,
    /// Mount points to remove from what the step wrote.
    pub stubs: Vec<Stub>,
    /// Owners that are recorded nowhere else.
    pub(super) records: Records,
    /// Whether nobody could answer for what the host does not have.
    pub unanswered: bool,
}

impl Outcome {
    /// Of a step that was ended before it did anything.
    pub fn cancelled() -> Self {
        let records = Records::new();
        let (end, stubs) = (End::Cancelled, Vec::new());
        Self { end, cpu_micros: 0, max_rss: 0, stubs, records, unanswered: false }
    }
}

/// How a process ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It exited.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// [`Killer::kill`] did.
    Cancelled,
    /// Its program could not be started: exit code as a shell would give it, and why.
    NotStarted(i32, String),
}

/// Ends a running step from another thread.
#[derive(Clone, Debug, Default)]
pub struct Killer(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    killed: bool,
    pidfd: Option<OwnedFd>,
    /// To a supervisor that must not be killed, as nobody else can end the step.
    socket: Option<UnixStream>,
}

impl Killer {
    /// Ends the step, now or as soon as it starts; all of its processes are gone with it.
    pub fn kill(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.killed = true;
        if let Some(pidfd) = &state.pidfd {
            // It may have ended by itself just now.
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
        if let Some(socket) = &state.socket {
            drop(socket.shutdown(std::net::Shutdown::Write));
        }
    }

    /// Whether [`Self::kill`] was called.
    pub fn killed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).killed
    }

    fn arm(&self, pidfd: OwnedFd) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pidfd = Some(pidfd);
        if self.killed() {
            self.kill();
        }
    }

    /// As a supervisor understands it that ends its step when its socket does.
    pub(super) fn arm_socket(&self, socket: UnixStream) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).socket = Some(socket);
        if self.killed() {
            self.kill();
        }
    }

    pub(super) fn disarm(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.pidfd, state.socket) = (None, None);
    }
}

/// Runs the process of `plan` to its end. `program` is this program, where a step that gets hold of
/// it cannot write to it. `fds` are standard output, standard error, and what the
/// plan numbers from there on. `view` is the tree that the step starts from, `known` what is recorded
/// of its inodes already, which comes back with what the step adds.
///
/// This happens on a thread of its own: it enters a pid namespace for its children, after which the
/// kernel lets it start no threads, and the step dies with it.
///
/// # Errors
///
/// If the process could not be set up; one that ran and failed is an [`Outcome`].
pub fn run(
    program: &Path,
    plan: &Plan,
    fds: &[BorrowedFd<'_>],
    killer: &Killer,
    (view, known): (&View, &Records),
) -> Result<Outcome, RunError> {
    let (tell, told) = mpsc::channel::<OwnedFd>();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, move || run_here(program, plan, fds, killer, &tell))
            .map_err(RunError::Start)?;
        // Until the step's thread has ended. Without a supervisor the step's calls fail.
        let pretend = plan.process.pretend;
        let supervisors: Vec<_> = told
            .iter()
            .map_while(|it| supervisor::start(it, (view.clone(), known.clone()), pretend).ok())
            .collect();
        let outcome = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let added = supervisors.into_iter().flat_map(Running::join);
        let records = known.iter().map(|(inode, record)| (*inode, *record)).chain(added).collect();
        Ok(Outcome { records, ..outcome? })
    })
}

fn run_here(
    program: &Path,
    plan: &Plan,
    fds: &[BorrowedFd<'_>],
    killer: &Killer,
    listeners: &mpsc::Sender<OwnedFd>,
) -> Result<Outcome, RunError> {
    sys::unshare(UnshareFlags::NEWPID).map_err(RunError::Start)?;
    let (ours, theirs) = UnixStream::pair().map_err(RunError::Start)?;
    let mut child = spawn(program, theirs).map_err(RunError::Start)?;
    let outcome = converse(&mut child, &ours, plan, fds, killer, listeners);
    killer.disarm();
    drop(ours);
    if outcome.is_err() {
        // Whatever it is doing, nobody listens any more.
        drop(child.kill());
    }
    drop(child.wait());
    outcome
}

fn spawn(program: &Path, socket: UnixStream) -> io::Result<Child> {
    Command::new(program)
        .arg("init")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn converse(
    child: &mut Child,
    socket: &UnixStream,
    plan: &Plan,
    fds: &[BorrowedFd<'_>],
    killer: &Killer,
    listeners: &mpsc::Sender<OwnedFd>,
) -> Result<Outcome, RunError> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(RunError::Lost)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(|errno| RunError::Start(errno.into()))?;
    killer.arm(pidfd);
    let cancelled = |stubs| Outcome { stubs, ..Outcome::cancelled() };
    let mut unanswered = false;
    let mut stubs = Vec::new();
    let mut not_started = None;
    if let Err(error) = wire::send(socket.as_fd(), plan, fds) {
        return if killer.killed() { Ok(cancelled(stubs)) } else { Err(error.into()) };
    }
    let mut listener = None;
    loop {
        wait(socket, &mut listener, listeners);
        let (report, fds) = match wire::receive::<Report>(socket.as_fd()) {
            Ok(Some(received)) => received,
            Ok(None) | Err(_) if killer.killed() => return Ok(cancelled(stubs)),
            Ok(None) => return Err(RunError::Lost),
            Err(error) => return Err(error.into()),
        };
        match report {
            Report::Ready { stubs: made } => stubs = made,
            Report::Listener => listener = fds.into_iter().next(),
            Report::Unanswered => unanswered = true,
            Report::NotStarted { code, text } => not_started = Some((code, text)),
            Report::Failed { user, text } => return Err(RunError::Setup { user, text }),
            Report::Ended { code_or_signal, cpu_micros, max_rss } => {
                let end = match (not_started, code_or_signal) {
                    _ if killer.killed() => End::Cancelled,
                    (Some((code, text)), _) => End::NotStarted(code, text),
                    (None, code) if code >= 0 => End::Code(code),
                    (None, signal) => End::Signal(-signal),
                };
                let records = Records::new();
                return Ok(Outcome { end, cpu_micros, max_rss, stubs, records, unanswered });
            }
        }
    }
}

/// Waits until init says something. A listener is handed on with the first call that it tells of:
/// most steps never make one.
fn wait(socket: &UnixStream, listener: &mut Option<OwnedFd>, listeners: &mpsc::Sender<OwnedFd>) {
    while let Some(waiting) = listener.take() {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&waiting, PollFlags::IN)];
        if poll(&mut fds, None).is_err_and(|errno| errno != Errno::INTR) {
            return;
        }
        let (said, asked) = (fds[0].revents(), fds[1].revents());
        if asked.contains(PollFlags::IN) {
            // Nobody there: the step hears of it by the failure of its call.
            drop(listeners.send(waiting));
        } else if asked.is_empty() {
            *listener = Some(waiting);
        }
        if !said.is_empty() {
            return;
        }
    }
}
