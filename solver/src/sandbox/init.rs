//! `rbuild init`: the supervisor of one step, and the step's process until it becomes the command.
//!
//! The worker starts it as pid 1 of a new pid namespace with a socket as standard input, most often
//! before the step is known: what all steps have is made ready, and then it waits for the plan. It
//! has one thread from start to end, so that it may fork. The parent side only waits: it keeps the
//! worker's ids and capabilities, and its end is the end of everything inside.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::apply::{ApplyError, KernelError, apply};
use super::identity::{Identity, identity};
use super::kernel::Linux;
use super::limits::{Limit, clamp};
use super::plan::{NetworkNamespace, Plan, Pretend, Process, Report, Skeleton};
use super::sys::{self, Fork, Listener};
use super::{bpf, caps, seccomp, supervisor};
use crate::causes::chain;
use crate::worker::wire;

/// Indices of the descriptors that come with every plan, before those that the plan itself numbers.
pub const STDOUT: usize = 0;
/// See [`STDOUT`].
pub const STDERR: usize = 1;

/// Most bytes of `/etc/passwd` and `/etc/group` that are looked at.
const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;

/// Exit status of an init that could not do its work; the worker hears why by message.
const SETUP_FAILED: u8 = 125;

/// How much readier the kernel is to kill a step than rbuild when memory runs out.
const OOM_SCORE_ADJUST: i32 = 100;

/// Why the step's process did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("cannot {what}")]
    Call { what: &'static str, source: io::Error },
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Identity(#[from] super::identity::IdentityError),
    #[error("cannot make the working directory `{path}`")]
    Cwd { path: String, source: io::Error },
    #[error("an argument or variable of the command has a zero byte")]
    Zero,
}

pub(super) fn call<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> InitError {
    move |source| InitError::Call { what, source: source.into() }
}

/// The hidden command.
pub fn main() -> ExitCode {
    match supervise() {
        Ok(code) => code,
        // Nobody is left to tell: the worker sees the closed socket.
        Err(_) => ExitCode::from(SETUP_FAILED),
    }
}

fn supervise() -> Result<ExitCode, wire::WireError> {
    // The parent is outside of our pid namespace, so its number says nothing; if it is gone
    // already, the socket is closed, and no plan comes.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket = sys::take_stdin()?;
    adjust_oom_score();
    let (report, code) = match split() {
        Ok(Fork::Parent(pid)) => {
            let ended = sys::wait_for(pid)?;
            let sys::Ended { code_or_signal, cpu_micros, max_rss } = ended;
            (Report::Ended { code_or_signal, cpu_micros, max_rss }, ExitCode::SUCCESS)
        }
        Ok(Fork::Child) => match become_step(socket.as_fd())? {
            Some(report) => (report, ExitCode::from(SETUP_FAILED)),
            None => return Ok(ExitCode::SUCCESS),
        },
        Err(error) => (failed(&error), ExitCode::from(SETUP_FAILED)),
    };
    wire::send(socket.as_fd(), &report, &[])?;
    Ok(code)
}

/// Makes the namespaces and, in them, the process that becomes the command.
fn split() -> Result<Fork, InitError> {
    let flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    sys::unshare(flags).map_err(call("make the step's namespaces"))?;
    sys::fork_single_threaded().map_err(call("fork the step's process"))
}

/// Makes ready what every step has, waits for the plan, and becomes its command. Returns why it
/// could not, or nothing where no plan comes.
fn become_step(socket: BorrowedFd<'_>) -> Result<Option<Report>, wire::WireError> {
    let Some((skeleton, _)) = wire::receive::<Skeleton>(socket)? else { return Ok(None) };
    let mut linux = Linux::default();
    if let Err(error) = apply(&skeleton.0, &mut linux) {
        return Ok(Some(failed(&error.into())));
    }
    let Some((plan, fds)) = wire::receive::<Plan>(socket)? else { return Ok(None) };
    linux.take(fds);
    let Err(report) = become_command(&plan, &mut linux, socket);
    Ok(Some(report))
}

/// Enters the plan's cgroup, which is the topmost one that the step sees.
fn enter_cgroup(cgroup: Option<usize>, fds: &[OwnedFd]) -> Result<(), InitError> {
    if let Some(index) = cgroup {
        let door = fds.get(index).ok_or_else(|| broken("no such cgroup"))?;
        super::cgroup::enter(door.as_fd()).map_err(call("enter the step's cgroup"))?;
    }
    // A kernel may lack cgroup namespaces (they are an option).
    drop(sys::unshare(UnshareFlags::NEWCGROUP));
    Ok(())
}

/// Enters the plan's network.
fn enter_network(network: NetworkNamespace, fds: &[OwnedFd]) -> Result<(), InitError> {
    match network {
        NetworkNamespace::Shared => Ok(()),
        NetworkNamespace::New => {
            sys::unshare(UnshareFlags::NEWNET).map_err(call("make the step's network"))
        }
        NetworkNamespace::Join(index) => {
            let namespace = fds.get(index).ok_or_else(|| broken("no such network"))?;
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
                .map_err(call("join the build's network"))
        }
    }
}

fn become_command(
    plan: &Plan,
    linux: &mut Linux,
    socket: BorrowedFd<'_>,
) -> Result<Infallible, Report> {
    enter_cgroup(plan.cgroup, linux.fds()).map_err(|error| failed(&error))?;
    enter_network(plan.network, linux.fds()).map_err(|error| failed(&error))?;
    apply(&plan.steps, linux).map_err(|error| failed(&error.into()))?;
    let process = &plan.process;
    let ready = prepare(process, linux.fds()).map_err(|error| failed(&error))?;
    let report = Report::Ready { stubs: linux.stubs() };
    wire::send(socket, &report, &[]).map_err(|error| host(&error))?;
    lower(process, &ready.identity, socket)?;
    let program = look_up(&process.args[0], &ready.path, &process.cwd)?;
    let args: Vec<&CStr> = ready.args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = ready.env.iter().map(CString::as_c_str).collect();
    bind(process).map_err(|error| failed(&error))?;
    sys::reset_signals();
    let error = sys::execute(&program, &args, &env);
    let text = format!("exec {}: {error}", program.to_string_lossy());
    Err(Report::NotStarted { code: 126, text })
}

/// Holds the process to its limits: last, since they may leave us nothing to work with.
pub(super) fn bind(process: &Process) -> Result<(), InitError> {
    super::hold::run_on(&process.cpus).map_err(call("choose the step's processors"))?;
    // That one says who a process is where ids are pretended.
    let carrier = process.pretend == Pretend::Ids;
    let mut limits =
        process.limits.iter().filter(|it| !carrier || it.resource != supervisor::CARRIER);
    limits.try_for_each(|limit| set_limit(*limit)).map_err(call("set a resource limit"))
}

/// What `execve` needs, made while the process still may everything.
pub(super) struct Prepared {
    pub(super) identity: Identity,
    pub(super) args: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) path: String,
}

/// Everything between the mounts and the giving up of privileges.
pub(super) fn prepare(process: &Process, fds: &[OwnedFd]) -> Result<Prepared, InitError> {
    let identity = identity(
        &process.user,
        &accounts("/etc/passwd").unwrap_or_default(),
        &accounts("/etc/group").unwrap_or_default(),
    )?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter(&process.cwd)?;
    rustix::process::setsid().map_err(call("make a session"))?;
    stdio(fds, identity.uid).map_err(call("connect the step's output"))?;
    sys::close_on_exec_from(3).map_err(call("close descriptors"))?;

    let mut env = process.env.clone();
    let value = |env: &[String], name: &str| {
        env.iter().rev().find_map(|it| it.strip_prefix(name)).map(str::to_owned)
    };
    if value(&env, "HOME=").is_none_or(|it| it.is_empty()) {
        env.retain(|it| !it.starts_with("HOME="));
        env.push(format!("HOME={}", identity.home));
    }
    let path = value(&env, "PATH=").unwrap_or_default();
    let c_strings = |all: &[String]| -> Result<Vec<CString>, InitError> {
        all.iter().map(|it| CString::new(it.as_str()).map_err(|_| InitError::Zero)).collect()
    };
    if process.args.is_empty() {
        return Err(broken("no command"));
    }
    Ok(Prepared { identity, args: c_strings(&process.args)?, env: c_strings(&env)?, path })
}

/// Gives up what the step must not have. After this the process is as hostile as its command.
fn lower(process: &Process, identity: &Identity, socket: BorrowedFd<'_>) -> Result<(), Report> {
    bound(process).map_err(|error| failed(&error))?;
    let (report, listener) = pretend(process.pretend).map_err(|error| failed(&error))?;
    let fds: Vec<_> = listener.iter().map(OwnedFd::as_fd).collect();
    wire::send(socket, &report, &fds).map_err(|error| host(&error))?;
    become_user(process, identity).map_err(|error| failed(&error))
}

/// From here on a supervisor answers for what the host does not have.
fn pretend(what: Pretend) -> Result<(Report, Option<OwnedFd>), InitError> {
    let doing = "install the filter that asks the supervisor";
    match sys::install_filter(&supervisor::filter(what), Listener::New) {
        Ok(listener) => Ok((Report::Listener, listener)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            if what == Pretend::Ids {
                sys::install_filter(&supervisor::filter_unanswered(), Listener::None)
                    .map_err(call(doing))?;
            }
            Ok((Report::Unanswered, None))
        }
        Err(error) => Err(call(doing)(error)),
    }
}

pub(super) fn bound(process: &Process) -> Result<(), InitError> {
    for number in caps::missing(process.caps, 63) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no further ones.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(call("bound the capabilities")(errno)),
        }
    }
    if process.filtered {
        let filter = seccomp::filter(bpf::Arch::HERE, process.caps);
        sys::install_filter(&filter, Listener::None)
            .map_err(call("install the system call filter"))?;
    }
    Ok(())
}

pub(super) fn become_user(process: &Process, identity: &Identity) -> Result<(), InitError> {
    let groups: Vec<nix::unistd::Gid> =
        identity.groups.iter().map(|&gid| nix::unistd::Gid::from_raw(gid)).collect();
    nix::unistd::setgroups(&groups).map_err(call("set the step's groups"))?;
    let gid = nix::unistd::Gid::from_raw(identity.gid);
    nix::unistd::setresgid(gid, gid, gid).map_err(call("set the step's group"))?;
    let uid = nix::unistd::Uid::from_raw(identity.uid);
    nix::unistd::setresuid(uid, uid, uid).map_err(call("set the step's user"))?;

    let mut sets = rustix::thread::capabilities(None).map_err(call("read the capabilities"))?;
    let bound = CapabilitySet::from_bits_retain(process.caps);
    sets.permitted &= bound;
    sets.effective = sets.permitted;
    sets.inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, sets).map_err(call("set the capabilities"))?;
    // Fails only where there is no such set.
    let _ = rustix::thread::clear_ambient_capability_set();
    Ok(())
}

/// The program that `name` means, as runc looks it up: no shell is tried, and without a slash only
/// the directories of `PATH` count.
pub(super) fn look_up(name: &str, path: &str, cwd: &str) -> Result<CString, Report> {
    let missing =
        |code, why: String| Report::NotStarted { code, text: format!("exec: \"{name}\": {why}") };
    let candidate =
        |path: String| CString::new(path).map_err(|_| missing(127, "bad name".to_owned()));
    if name.contains('/') {
        return match usable(name) {
            Ok(()) => candidate(name.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(missing(127, format!("stat {name}: no such file or directory")))
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                Err(missing(126, "is a directory".to_owned()))
            }
            Err(_) => Err(missing(126, "permission denied".to_owned())),
        };
    }
    for dir in path.split(':') {
        let dir = if dir.is_empty() { cwd } else { dir };
        let full = format!("{}/{name}", dir.trim_end_matches('/'));
        if usable(&full).is_ok() {
            return candidate(full);
        }
    }
    Err(missing(127, "executable file not found in $PATH".to_owned()))
}

/// Whether the caller may execute the file at `path`.
fn usable(path: &str) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let access = rustix::fs::Access::EXEC_OK;
    rustix::fs::accessat(rustix::fs::CWD, path, access, rustix::fs::AtFlags::EACCESS)?;
    Ok(())
}

/// Makes the working directory if it is missing, and enters it: as root, who may always.
fn enter(cwd: &str) -> Result<(), InitError> {
    let failed = |source| InitError::Cwd { path: cwd.to_owned(), source };
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if let Err(error) = rustix::process::chdir(cwd) {
        if error != rustix::io::Errno::NOENT {
            return Err(failed(error.into()));
        }
        std::fs::create_dir_all(cwd).map_err(failed)?;
        rustix::process::chdir(cwd).map_err(|errno| failed(errno.into()))?;
    }
    Ok(())
}

/// Standard input ends at once, the outputs are the plan's; all belong to the step's user, so that
/// it can open `/dev/stdout`.
fn stdio(fds: &[OwnedFd], uid: u32) -> io::Result<()> {
    let (input, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let missing = || io::Error::from(io::ErrorKind::InvalidInput);
    let output = fds.get(STDOUT).ok_or_else(missing)?;
    let errors = fds.get(STDERR).ok_or_else(missing)?;
    rustix::stdio::dup2_stdin(&input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(errors)?;
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        // A terminal or a file of somebody else stays theirs.
        drop(std::os::unix::fs::fchown(fd, Some(uid), None));
    }
    Ok(())
}

/// A file of accounts, if it is one.
fn accounts(path: &str) -> Option<Vec<u8>> {
    use std::io::Read as _;
    // Not blocking: an image may have a pipe there.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_ACCOUNTS_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn set_limit(limit: Limit) -> Result<(), io::Error> {
    let all = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];
    let resource = usize::try_from(limit.resource).ok().and_then(|it| all.get(it).copied());
    let resource = resource.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let ours = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let granted = clamp(limit, ours);
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    let limit = Rlimit { current: bound(granted.soft), maximum: bound(granted.hard) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Makes the step a better victim than rbuild. Only lowering the score needs a privilege.
pub(super) fn adjust_oom_score() {
    let path = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(path).ok().and_then(|it| it.trim().parse::<i32>().ok());
    if let Some(now) = now {
        // Without it the kernel still has an opinion of its own.
        drop(std::fs::write(path, (now + OOM_SCORE_ADJUST).min(1000).to_string()));
    }
}

pub(super) fn broken(what: &'static str) -> InitError {
    let source = KernelError::Plan(what);
    InitError::Apply(ApplyError { index: 0, step: String::new(), source })
}

/// The error as the worker hears it.
pub(super) fn failed(error: &InitError) -> Report {
    let user = match error {
        InitError::Identity(_) | InitError::Cwd { .. } | InitError::Zero => true,
        InitError::Apply(error) => matches!(
            error.source,
            KernelError::NotFound(_)
                | KernelError::MountPoint { .. }
                | KernelError::Dangling { .. }
        ),
        InitError::Call { .. } => false,
    };
    if let (true, InitError::Apply(error)) = (user, error) {
        return Report::Failed { user, text: chain(&error.source) };
    }
    Report::Failed { user, text: chain(error) }
}

fn host(error: &dyn std::error::Error) -> Report {
    Report::Failed { user: false, text: chain(error) }
}
