//! A real registry: Debian's `docker-registry` as a process of its own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::host::program;

/// A running `docker-registry`. It ends with this value.
#[derive(Debug)]
pub struct DockerRegistry {
    _folder: TempDir,
    child: Child,
    address: String,
}

impl DockerRegistry {
    /// Starts one that lets everybody in.
    ///
    /// # Panics
    ///
    /// If it does not start: `needs!(Program("docker-registry"))` says so before.
    pub fn start() -> Self {
        Self::in_folder(tempfile::tempdir().expect("a temporary folder"), "")
    }

    /// Starts one that wants a name and a password.
    ///
    /// # Panics
    ///
    /// If it does not start, or `htpasswd` is not installed.
    pub fn guarded(name: &str, password: &str) -> Self {
        let line = Command::new("htpasswd")
            .args(["-nbB", name, password])
            .output()
            .expect("htpasswd is installed");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("htpasswd");
        std::fs::write(&file, line.stdout).expect("own folder");
        let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", file.display());
        Self::in_folder(folder, &auth)
    }

    fn in_folder(folder: TempDir, auth: &str) -> Self {
        let address = free_address();
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{auth}",
            storage.display()
        );
        std::fs::write(&config, text).expect("own folder");
        let child = serve(&config);
        let registry = Self { _folder: folder, child, address };
        registry.wait();
        registry
    }

    fn wait(&self) {
        // Connections are refused until it listens; half a minute is for a machine that is very busy.
        let mut attempts = 0;
        while TcpStream::connect(&self.address).is_err() {
            attempts += 1;
            assert!(attempts < 1500, "docker-registry did not start");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Host and port, as in the name of an image.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The digest that it has for a tag, none if it has no such image.
    ///
    /// # Panics
    ///
    /// If it can not be asked.
    pub fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
        write!(stream, "HEAD /v2/{repository}/manifests/{tag} HTTP/1.0\r\nhost: tests\r\naccept: {accept}\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let name = "docker-content-digest: ";
        answer
            .lines()
            .find(|line| line.to_lowercase().starts_with(name))
            .map(|line| line[name.len()..].trim().to_owned())
    }
}

fn serve(config: &Path) -> Child {
    let binary = program("docker-registry").expect("docker-registry is installed");
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("docker-registry starts")
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
