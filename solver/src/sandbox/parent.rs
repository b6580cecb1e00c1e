//! The worker's side of one step: starts `rbuild init`, ahead of its step where one will follow,
//! hands it the plan, waits, kills.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};
use rustix::thread::UnshareFlags;

use super::plan::{Plan, Report, Skeleton, Stub};
use super::supervisor::{self, Records, Running, Start};
use super::sys;
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
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
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

/// A process of `rbuild init` that is being started.
#[derive(Debug)]
pub struct Starting {
    skeleton: Skeleton,
    started: mpsc::Receiver<Result<(UnixStream, OwnedFd), RunError>>,
}

impl Starting {
    /// Starts one. `program` is this program, where a step that gets hold of it cannot write to it.
    ///
    /// It has a thread of its own, which stays until it has ended: the thread enters a pid namespace
    /// for its children, after which the kernel lets it start no threads, and the process dies with
    /// it.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn new(program: &Path, skeleton: Skeleton) -> Result<Self, RunError> {
        let (tell, started) = mpsc::channel();
        let (program, first) = (program.to_owned(), skeleton.clone());
        let work = move || match start(&program, &first) {
            Ok((socket, pidfd, mut child)) => {
                // Where nobody listens any more the socket closes, and the process ends.
                drop(tell.send(Ok((socket, pidfd))));
                drop(child.wait());
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        std::thread::Builder::new().name("init".to_owned()).spawn(work).map_err(RunError::Start)?;
        Ok(Self { skeleton, started })
    }

    /// What it makes ready.
    pub fn skeleton(&self) -> &Skeleton {
        &self.skeleton
    }

    /// Waits until it has started.
    ///
    /// # Errors
    ///
    /// If it could not be.
    pub fn wait(self) -> Result<Waiting, RunError> {
        let (socket, pidfd) = self.started.recv().map_err(|_| RunError::Lost)??;
        Ok(Waiting { socket, pidfd })
    }
}

fn start(program: &Path, skeleton: &Skeleton) -> Result<(UnixStream, OwnedFd, Child), RunError> {
    sys::unshare(UnshareFlags::NEWPID).map_err(RunError::Start)?;
    let (ours, theirs) = UnixStream::pair().map_err(RunError::Start)?;
    let child = spawn(program, theirs).map_err(RunError::Start)?;
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(RunError::Lost)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|errno| RunError::Start(errno.into()))?;
    wire::send(ours.as_fd(), skeleton, &[])?;
    Ok((ours, pidfd, child))
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

/// A process of `rbuild init` that waits for its plan.
#[derive(Debug)]
pub struct Waiting {
    socket: UnixStream,
    pidfd: OwnedFd,
}

impl Waiting {
    /// Runs the process of `plan` to its end. `fds` are standard output, standard error, and what
    /// the plan numbers from there on. What is recorded of the tree's inodes already comes back with
    /// what the step adds.
    ///
    /// When this returns the step's processes are gone, but not yet its mounts: see [`Self::end`].
    ///
    /// # Errors
    ///
    /// If the process could not be set up; one that ran and failed is an [`Outcome`].
    pub(super) fn run(
        &self,
        plan: &Plan,
        fds: &[BorrowedFd<'_>],
        killer: &Killer,
        from: &Start,
    ) -> Result<Outcome, RunError> {
        let mut supervisors = Vec::new();
        let pretend = plan.process.pretend;
        let outcome = self.converse(plan, fds, killer, &mut |listener| {
            // Without a supervisor the step hears of it by the failure of its next call.
            supervisors.extend(supervisor::start(listener, from.clone(), pretend));
        });
        killer.disarm();
        if outcome.is_err() {
            self.kill();
        }
        let added = supervisors.into_iter().flat_map(Running::join);
        let known = from.known.iter().map(|(inode, record)| (*inode, *record));
        let records = known.chain(added).collect();
        Ok(Outcome { records, ..outcome? })
    }

    /// Waits until nothing is left of the process, its mounts included.
    pub fn end(self) {
        let Self { socket, pidfd } = self;
        drop(socket);
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        while poll(&mut fds, None) == Err(Errno::INTR) {}
    }

    fn kill(&self) {
        // It may have ended by itself just now.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn converse(
        &self,
        plan: &Plan,
        fds: &[BorrowedFd<'_>],
        killer: &Killer,
        listen: &mut dyn FnMut(OwnedFd),
    ) -> Result<Outcome, RunError> {
        killer.arm(self.pidfd.try_clone().map_err(RunError::Start)?);
        let cancelled = |stubs| Outcome { stubs, ..Outcome::cancelled() };
        let mut unanswered = false;
        let mut stubs = Vec::new();
        let mut not_started = None;
        // If it ended before it got the plan it has said why.
        let sent = wire::send(self.socket.as_fd(), plan, fds);
        let mut listener = None;
        loop {
            wait(&self.socket, &mut listener, listen);
            let (report, fds) = match wire::receive::<Report>(self.socket.as_fd()) {
                Ok(Some(received)) => received,
                Ok(None) | Err(_) if killer.killed() => return Ok(cancelled(stubs)),
                Ok(None) => return Err(sent.err().map_or(RunError::Lost, RunError::Wire)),
                Err(error) => return Err(error.into()),
            };
            match report {
                Report::Ready { stubs: made } => stubs = made,
                Report::Listener => listener = fds.into_iter().next(),
                // Supervisors of this kind are on our side.
                Report::Made { .. } => {}
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
}

/// Waits until init says something. A listener is handed on with the first call that it tells of:
/// most steps never make one.
fn wait(socket: &UnixStream, listener: &mut Option<OwnedFd>, listen: &mut dyn FnMut(OwnedFd)) {
    while let Some(waiting) = listener.take() {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&waiting, PollFlags::IN)];
        if poll(&mut fds, None).is_err_and(|errno| errno != Errno::INTR) {
            return;
        }
        let (said, asked) = (fds[0].revents(), fds[1].revents());
        if asked.contains(PollFlags::IN) {
            listen(waiting);
        } else if asked.is_empty() {
            *listener = Some(waiting);
        }
        if !said.is_empty() {
            return;
        }
    }
}
