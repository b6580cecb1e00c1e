//! Programs of the host that serve us and must not outlive us.
//!
//! Each is started through `rbuild helper`, which ties itself to its parent thread
//! (`PR_SET_PDEATHSIG`) before it becomes the program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::sys;
use crate::worker::wire;

/// Where programs are looked for: the worker has no environment.
const PATH: [&str; 6] =
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What `rbuild helper` becomes.
#[derive(Debug, Deserialize, Serialize)]
struct Start {
    program: PathBuf,
    arguments: Vec<String>,
}

/// Where the program of that name is, if it is installed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    PATH.iter().map(|dir| Path::new(dir).join(name)).find(|it| it.is_file())
}

/// Starts a program with `stdin` as its standard input. It dies with the thread that calls this;
/// its standard error can be read, and standard output goes nowhere.
///
/// # Errors
///
/// If no process can be started, or it is gone before it hears what to become.
pub(super) fn start(
    program: &Path,
    arguments: Vec<String>,
    stdin: BorrowedFd<'_>,
) -> io::Result<Child> {
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new("/proc/self/exe")
        .arg("helper")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let start = Start { program: program.to_owned(), arguments };
    wire::send(ours.as_fd(), &start, &[stdin]).map_err(io::Error::other)?;
    Ok(child)
}

/// The hidden command: becomes a program, with the descriptor that came with its name as standard input.
pub(crate) fn main() -> ExitCode {
    let failed = ExitCode::FAILURE;
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return failed;
    }
    let Ok(socket) = sys::take_stdin() else {
        return failed;
    };
    // If the parent is gone already, its end of the socket is.
    let Ok(Some((start, fds))) = wire::receive::<Start>(socket.as_fd()) else {
        return failed;
    };
    let Some(stdin) = fds.first() else {
        return failed;
    };
    if rustix::stdio::dup2_stdin(stdin).is_err() {
        return failed;
    }
    let words = [start.program.to_string_lossy().into_owned()].into_iter().chain(start.arguments);
    let words: Option<Vec<CString>> = words.map(|it| CString::new(it).ok()).collect();
    let Some(words) = words else {
        return failed;
    };
    // As a shell would start it: pasta takes a signal that is ignored already for a failure.
    sys::reset_signals();
    let arguments: Vec<_> = words.iter().map(CString::as_c_str).collect();
    if let Some(program) = arguments.first() {
        // It comes back only if it failed.
        drop(sys::execute(program, &arguments, &[c"PATH=/usr/bin:/bin:/usr/sbin:/sbin"]));
    }
    failed
}
