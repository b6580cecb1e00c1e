//! A place of its own for each test: a context, a store, a home, results; and running `rbuild` in it.

use std::io::{Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::host::{self, User};
use crate::ran::{Ran, Running};
use crate::{binary, registry::Registry};

/// A place of its own.
#[derive(Debug)]
pub struct TestSpace {
    folder: TempDir,
    runner: User,
    /// What stands for `@NAME@` in files and arguments.
    words: Vec<(String, String)>,
}

impl TestSpace {
    /// A place for the user whom the tests run `rbuild` as.
    ///
    /// # Panics
    ///
    /// If it can not be made: no test could mean anything then. The same holds for everything here.
    pub fn new() -> Self {
        Self::of(host::runner().clone())
    }

    /// A place where the test's own user runs `rbuild`.
    pub fn own() -> Self {
        Self::of(host::ourselves())
    }

    fn of(runner: User) -> Self {
        let folder =
            tempfile::Builder::new().prefix("rbuild-test-").tempdir().expect("a temporary folder");
        let space = Self { folder, runner, words: Vec::new() };
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(space.folder.path(), open).expect("own folder");
        for name in ["context", "store", "home", "out", "tmp"] {
            space.dir(name);
        }
        space
    }

    /// A place with a registry that serves `busybox`, whose name stands for `@BASE@`; its address for `@REGISTRY@`.
    pub fn with_busybox() -> (Self, Registry) {
        Self::new().offer_busybox()
    }

    /// The same where the test's own user runs `rbuild`.
    pub fn own_with_busybox() -> (Self, Registry) {
        Self::own().offer_busybox()
    }

    fn offer_busybox(self) -> (Self, Registry) {
        let registry = Registry::start();
        registry.put("busybox", "1", crate::base::busybox());
        let mut space = self;
        space.word("REGISTRY", registry.address());
        space.word("BASE", &format!("{}/busybox:1", registry.address()));
        (space, registry)
    }

    /// Lets `@NAME@` stand for a value in files that are written and arguments that are given from now on.
    pub fn word(&mut self, name: &str, value: &str) {
        self.words.push((format!("@{name}@"), value.to_owned()));
    }

    fn replaced(&self, text: &str) -> String {
        let out = self.path("out").to_string_lossy().into_owned();
        let mut text =
            text.replace("@OUT@", &out).replace("@SPACE@", &self.folder.path().to_string_lossy());
        for (name, value) in &self.words {
            text = text.replace(name, value);
        }
        text
    }

    /// The path of something in this place: `context/Dockerfile`, `out/app.tar`, …
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Makes a folder that belongs to who runs `rbuild`.
    pub fn dir(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("could not make `{}`: {error}", path.display()));
        self.give(&path);
        path
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, text: &str) {
        self.write_bytes(&format!("context/{name}"), self.replaced(text).as_bytes());
    }

    /// Writes a file anywhere in this place.
    pub fn write_bytes(&self, below: &str, content: &[u8]) {
        let path = self.path(below);
        let parent = Path::new(below)
            .parent()
            .map(|parent| parent.to_string_lossy().into_owned())
            .unwrap_or_default();
        self.dir(&parent);
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("could not write `{}`: {error}", path.display()));
        self.give(&path);
    }

    fn give(&self, path: &Path) {
        if self.runner != host::ourselves() {
            let given =
                std::os::unix::fs::lchown(path, Some(self.runner.uid), Some(self.runner.gid));
            given.unwrap_or_else(|error| {
                panic!("could not give `{}` away: {error}", path.display())
            });
        }
    }

    /// `rbuild` with this place's store and home, and with nothing of our own environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary::rbuild());
        command.args(args.iter().map(|arg| self.replaced(arg)));
        command.env_clear().current_dir(self.path("context")).stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("RBUILD_ROOT", self.path("store"));
        command.env("USER", &self.runner.name);
        self.as_runner(&mut command);
        command
    }

    /// Lets another program run as who runs `rbuild`.
    pub fn as_runner<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if self.runner != host::ourselves() {
            command.uid(self.runner.uid).gid(self.runner.gid);
        }
        command
    }

    /// Runs `rbuild ARGS`.
    pub fn run(&self, args: &[&str]) -> Ran {
        Running::start(&mut self.command(args)).wait()
    }

    /// Runs `rbuild ARGS` with variables in its environment.
    pub fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.envs(variables.iter().map(|(name, value)| (name, self.replaced(value))));
        Running::start(&mut command).wait()
    }

    /// Runs `rbuild build --progress=plain ARGS CONTEXT`.
    pub fn build(&self, args: &[&str]) -> Ran {
        self.run(&build_args(args))
    }

    /// Runs `rbuild build --progress=plain ARGS CONTEXT` with another context than the folder, and bytes on standard
    /// input.
    pub fn build_of(&self, context: &str, args: &[&str], input: &[u8]) -> Ran {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(input).and_then(|()| file.rewind()).expect("a whole file");
        let mut command =
            self.command(&[&["build", "--progress=plain"], args, &[context]].concat());
        Running::start(command.stdin(file)).wait()
    }

    /// The same into an OCI archive, which is read.
    pub fn image_of(&self, context: &str, args: &[&str], input: &[u8]) -> crate::image::Image {
        let all = [args, &["-o", "type=oci,dest=@OUT@/image.tar"]].concat();
        self.build_of(context, &all, input).success();
        crate::image::Image::read(&self.path("out/image.tar"))
    }

    /// Starts `rbuild build --progress=plain ARGS CONTEXT` and goes on.
    pub fn start_build(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(&build_args(args)))
    }

    /// Builds into an OCI archive and reads it.
    pub fn image(&self, args: &[&str]) -> crate::image::Image {
        let mut all = args.to_vec();
        all.extend(["-o", "type=oci,dest=@OUT@/image.tar"]);
        self.build(&all).success();
        crate::image::Image::read(&self.path("out/image.tar"))
    }

    /// The text of a file that a build has written.
    pub fn read(&self, below: &str) -> String {
        let path = self.path(below);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("could not read `{}`: {error}", path.display()))
    }
}

impl Default for TestSpace {
    fn default() -> Self {
        Self::new()
    }
}

fn build_args<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["build", "--progress=plain"], args, &["."]].concat()
}

impl Drop for TestSpace {
    fn drop(&mut self) {
        // Files of subordinate ids can be removed only in a user namespace that has them.
        if host::is_root() || std::fs::remove_dir_all(self.folder.path()).is_ok() {
            return;
        }
        let removal = Command::new("unshare")
            .args(["--map-root-user", "--map-auto", "rm", "-rf"])
            .arg(self.folder.path())
            .stderr(Stdio::null())
            .status();
        drop(removal);
    }
}
