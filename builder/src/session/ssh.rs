//! Agents for private key files (`--ssh NAME=KEY`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rbuild_solver::session::{SessionError, SessionErrorKind};

/// Tries until an agent listens; one try takes [`TRY`].
const TRIES: u32 = 200;
/// Time between two tries.
const TRY: std::time::Duration = std::time::Duration::from_millis(10);

/// Agents that were started for keys. They end with this value.
#[derive(Debug, Default)]
pub struct KeyAgents {
    started: Mutex<BTreeMap<String, Agent>>,
}

#[derive(Debug)]
struct Agent {
    socket: PathBuf,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl KeyAgents {
    /// The socket of an agent that has `keys`; the agent is started with the first question.
    ///
    /// # Errors
    ///
    /// If `ssh-agent` or `ssh-add` are not there or refuse a key.
    pub fn agent(&self, id: &str, keys: &[PathBuf]) -> Result<PathBuf, SessionError> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = started.get(id) {
            return Ok(agent.socket.clone());
        }
        let agent = start(keys).map_err(|text| SessionError {
            kind: SessionErrorKind::Host,
            text: format!("cannot serve the keys of --ssh {id}: {text}"),
            hint: Some(
                "give the socket of a running agent instead: --ssh NAME=$SSH_AUTH_SOCK".to_owned(),
            ),
        })?;
        let socket = agent.socket.clone();
        started.insert(id.to_owned(), agent);
        Ok(socket)
    }
}

fn start(keys: &[PathBuf]) -> Result<Agent, String> {
    let directory =
        tempfile::tempdir().map_err(|error| format!("no directory for the socket: {error}"))?;
    let socket = directory.path().join("agent");
    let process = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run ssh-agent: {error}"))?;
    let agent = Agent { socket, process, _directory: directory };
    wait_for(&agent.socket)?;
    for key in keys {
        let output = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &agent.socket)
            .env("SSH_ASKPASS_REQUIRE", "never")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run ssh-add: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("ssh-add {}: {}", key.display(), said.trim()));
        }
    }
    Ok(agent)
}

fn wait_for(socket: &Path) -> Result<(), String> {
    for _ in 0..TRIES {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        std::thread::sleep(TRY);
    }
    Err("ssh-agent does not listen".to_owned())
}
