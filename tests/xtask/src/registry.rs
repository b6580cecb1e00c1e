//! A registry process on this machine, for as long as a task needs it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Failure, Outcome, program, write};

/// How long a registry may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running `docker-registry`; it ends with this value.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    /// Host and port, as in the name of an image.
    pub(crate) address: String,
}

impl Registry {
    /// Starts one on a free port with its data in `folder`; `None` where the program is not installed.
    pub(crate) fn start(folder: &Path) -> Outcome<Option<Self>> {
        let Some(binary) = program("docker-registry") else { return Ok(None) };
        let address = free_address()?;
        let config = folder.join("registry.yml");
        let storage = folder.join("registry");
        write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
                storage.display()
            ),
        )?;
        let started = Command::new(binary)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = started
            .map_err(|error| Failure::new(format!("could not start docker-registry: {error}")))?;
        let registry = Self { child, address };
        let limit = Instant::now() + START_LIMIT;
        while TcpStream::connect(&registry.address).is_err() {
            if Instant::now() > limit {
                return Err(Failure::new("docker-registry did not answer"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(registry))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_address() -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.to_string())
        .map_err(|error| Failure::new(format!("found no free port: {error}")))
}
