//! A socket that a step can reach, whose connections go on to one of the host (an ssh agent).
//!
//! The step never sees the host's socket or its directory; when the step ends, so does the relay.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most connections of one relay at the same time: an agent answers quickly.
const MAX_CONNECTIONS: usize = 64;

/// Why a relay could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot offer the socket `{target}` to the step")]
pub(super) struct RelayError {
    target: PathBuf,
    source: io::Error,
}

/// A listening socket, until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    path: PathBuf,
    closed: Arc<AtomicBool>,
}

/// Names of the sockets of this process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Relay {
    /// Listens in `dir` and connects every caller with the socket at `target`.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made or not be given to `owner`.
    pub(super) fn start(
        dir: &Path,
        target: &Path,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<Self, RelayError> {
        let error = |source| RelayError { target: target.to_owned(), source };
        let name = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let path = dir.join(&name);
        let listener = listen(dir, &name).map_err(error)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(error)?;
        match std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)) {
            // There is one id only: the socket is the step's, whoever it takes itself for.
            Err(refusal) if refusal.raw_os_error() == Some(libc::EINVAL) => {}
            result => result.map_err(error)?,
        }
        let closed = Arc::new(AtomicBool::new(false));
        let (target, seen) = (target.to_owned(), Arc::clone(&closed));
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || accept(&listener, &target, &seen))
            .map_err(|source| RelayError { target: path.clone(), source })?;
        Ok(Self { path, closed })
    }

    /// The socket's path on the host.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        // Wakes the thread that waits for callers.
        drop(UnixStream::connect(&self.path));
        drop(fs::remove_file(&self.path));
    }
}

/// Listens at `dir/name`, however long that path is: a socket's address holds 107 bytes.
fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn accept(listener: &UnixListener, target: &Path, closed: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for caller in listener.incoming() {
        if closed.load(Ordering::Acquire) {
            return;
        }
        let Ok(caller) = caller else {
            return;
        };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        // A caller whose target does not answer sees its connection closed.
        let Ok(agent) = UnixStream::connect(target) else {
            continue;
        };
        open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&open);
        let work = move || {
            join(&caller, &agent);
            open.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("relay".to_owned()).spawn(work).is_err() {
            return;
        }
    }
}

/// Copies both ways until both sides have ended.
fn join(caller: &UnixStream, agent: &UnixStream) {
    let copy = |mut from: &UnixStream, mut to: &UnixStream| {
        // An error ends the connection like an end of file.
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(caller, agent));
        copy(agent, caller);
    });
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn words_go_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let agent = UnixListener::bind(dir.path().join("agent")).unwrap();
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let relay = Relay::start(&deep, &dir.path().join("agent"), me, 0o600).unwrap();
        assert_eq!(fs::metadata(relay.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let handle = fs::File::open(&deep).unwrap();
        let name = relay.path().file_name().unwrap().to_owned();
        let near = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join(name);
        let mut caller = UnixStream::connect(near).unwrap();
        let (mut answering, _) = agent.accept().unwrap();
        caller.write_all(b"question").unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        answering.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        answering.write_all(b"answer").unwrap();
        drop(answering);
        text.clear();
        caller.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        let path = relay.path().to_owned();
        drop(relay);
        assert!(!path.exists());
    }
}
