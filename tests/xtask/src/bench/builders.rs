//! The builders that are compared, and how each is told the same thing.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::measure::peak_megabytes;
use super::volume::Volume;
use crate::run::{Failure, Outcome, output, program, write};
use crate::users::{self, Ids};

/// Where a build's result goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output<'a> {
    /// Nowhere but the builder's own store.
    Nothing,
    /// An OCI archive, compressed with gzip.
    Gzip(&'a Path),
    /// An OCI archive, compressed with zstd.
    Zstd(&'a Path),
    /// A registry.
    Push(&'a str),
}

/// One builder with a store of its own.
#[derive(Debug)]
pub(super) struct Builder {
    kind: Kind,
    volume: Volume,
    user: Option<Ids>,
}

#[derive(Debug)]
enum Kind {
    Rbuild { binary: PathBuf },
    Buildah,
    Buildkit { daemon: Option<Child> },
}

impl Builder {
    /// rbuild, and unless it runs `alone` the peers that are installed, each in a folder below `home`.
    pub(super) fn all(
        home: &Path,
        rbuild: &Path,
        user: Option<&Ids>,
        alone: bool,
    ) -> Outcome<Vec<Self>> {
        let binary = home.join("bin/rbuild");
        write(
            &binary,
            std::fs::read(rbuild)
                .map_err(|error| Failure::new(format!("could not read rbuild: {error}")))?,
        )?;
        output(Command::new("chmod").arg("755").arg(&binary))?;
        let mut kinds = vec![("rbuild", Kind::Rbuild { binary })];
        if !alone && program("buildah").is_some() {
            kinds.push(("buildah", Kind::Buildah));
        }
        let buildkit = ["buildkitd", "buildctl", "rootlesskit"];
        if !alone && buildkit.iter().all(|name| program(name).is_some()) {
            kinds.push(("BuildKit", Kind::Buildkit { daemon: None }));
        }
        kinds
            .into_iter()
            .map(|(name, kind)| {
                Ok(Self {
                    kind,
                    volume: Volume::make(&home.join(name), user)?,
                    user: user.cloned(),
                })
            })
            .collect()
    }

    /// The name for people.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Rbuild { .. } => "rbuild",
            Kind::Buildah => "buildah",
            Kind::Buildkit { .. } => "BuildKit",
        }
    }

    /// Ends what is running and empties the store.
    pub(super) fn reset(&mut self) -> Outcome {
        self.close();
        self.volume.clear(self.user.as_ref())
    }

    /// Ends what is running.
    pub(super) fn close(&mut self) {
        if let Kind::Buildkit { daemon } = &mut self.kind
            && let Some(mut child) = daemon.take()
        {
            drop(Command::new("kill").arg(child.id().to_string()).status());
            drop(child.wait());
        }
    }

    /// Starts what has to run before a build can be asked for.
    pub(super) fn open(&mut self) -> Outcome {
        let socket = self.socket();
        let command = self.as_user("rootlesskit");
        let root = self.volume.path.join("root");
        let Kind::Buildkit { daemon } = &mut self.kind else { return Ok(()) };
        if daemon.is_some() {
            return Ok(());
        }
        let mut command = command;
        command
            .args(["--net=host", "buildkitd", "--oci-worker-no-process-sandbox", "--addr", &socket])
            .arg("--root")
            .arg(root);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| Failure::new(format!("could not start buildkitd: {error}")))?;
        *daemon = Some(child);
        let limit = Instant::now() + Duration::from_secs(20);
        while output(self.as_user("buildctl").args(["--addr", &socket, "debug", "workers"]))
            .is_err()
        {
            if Instant::now() > limit {
                return Err(Failure::new("buildkitd did not answer"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.volume.path.join("buildkitd.sock").display())
    }

    /// Megabytes that building a context takes at most, those of a daemon included.
    pub(super) fn peak(&self, context: &Path, result: Output<'_>) -> Outcome<f64> {
        let daemon = match &self.kind {
            Kind::Buildkit { daemon } => daemon.as_ref().map(Child::id),
            Kind::Rbuild { .. } | Kind::Buildah => None,
        };
        peak_megabytes(&mut self.build(context, result), daemon)
    }

    /// The command that builds a context.
    pub(super) fn build(&self, context: &Path, result: Output<'_>) -> Command {
        match &self.kind {
            Kind::Rbuild { binary } => self.rbuild(binary, context, result),
            Kind::Buildah => self.buildah(context, result),
            Kind::Buildkit { .. } => self.buildkit(context, result),
        }
    }

    fn rbuild(&self, binary: &Path, context: &Path, result: Output<'_>) -> Command {
        let mut command = self.as_user(&binary.to_string_lossy());
        command.arg("--root").arg(self.volume.path.join("store")).args([
            "build",
            "--progress=plain",
            "--network=host",
        ]);
        command.args(["--allow", "network.host"]);
        match result {
            Output::Nothing => &mut command,
            Output::Gzip(path) => {
                command.arg("-o").arg(format!("type=oci,dest={}", path.display()))
            }
            Output::Zstd(path) => {
                command.arg("-o").arg(format!("type=oci,dest={},compression=zstd", path.display()))
            }
            Output::Push(name) => command.args(["-t", name, "--push"]),
        };
        command.arg(context);
        command
    }

    /// buildah writes no archive while it builds: a second command does, as its users do.
    fn buildah(&self, context: &Path, result: Output<'_>) -> Command {
        let store = format!(
            "--root {0}/root --runroot {0}/run --storage-driver overlay",
            self.volume.path.display()
        );
        let runtime = if program("runc").is_some() { "--runtime runc" } else { "" };
        let build = format!(
            "buildah {store} build {runtime} --quiet --layers --tls-verify=false --network=host -t bench {}",
            context.display()
        );
        let after = match result {
            Output::Nothing => String::new(),
            Output::Gzip(path) => {
                format!(" && buildah {store} push --quiet bench oci-archive:{}", path.display())
            }
            Output::Zstd(path) => {
                format!(
                    " && buildah {store} push --quiet --compression-format zstd bench oci-archive:{}",
                    path.display()
                )
            }
            Output::Push(name) => {
                format!(" && buildah {store} push --quiet --tls-verify=false bench docker://{name}")
            }
        };
        let mut command = self.as_user("sh");
        command.arg("-c").arg(format!("{build}{after}"));
        command
    }

    fn buildkit(&self, context: &Path, result: Output<'_>) -> Command {
        let mut command = self.as_user("buildctl");
        let place = context.display();
        command.args([
            "--addr",
            &self.socket(),
            "build",
            "--progress=plain",
            "--frontend",
            "dockerfile.v0",
        ]);
        command.args([format!("--local=context={place}"), format!("--local=dockerfile={place}")]);
        match result {
            Output::Nothing => &mut command,
            Output::Gzip(path) => {
                command.arg("--output").arg(format!("type=oci,dest={}", path.display()))
            }
            Output::Zstd(path) => command.arg("--output").arg(format!(
                "type=oci,dest={},compression=zstd,force-compression=true",
                path.display()
            )),
            Output::Push(name) => command
                .arg("--output")
                .arg(format!("type=image,name={name},push=true,registry.insecure=true")),
        };
        command
    }

    /// A program as the user who builds, with a home on the builder's volume.
    fn as_user(&self, name: &str) -> Command {
        let mut command = Command::new(program(name).unwrap_or_else(|| name.into()));
        let home = self.volume.path.join("home");
        // Where it can not be made the build says so.
        drop(users::own_folder(&home, self.user.as_ref()));
        command
            .current_dir(&self.volume.path)
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .env("TMPDIR", &home);
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME").stdin(Stdio::null());
        if let Some(ids) = &self.user {
            // In a user namespace buildkitd takes itself for the host's root unless this names another.
            command.uid(ids.uid).gid(ids.gid).env("USER", users::TEST_USER);
        }
        command
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.close();
    }
}
