//! The demonstration: from a fresh machine to an image that runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::registry::Registry;
use crate::run::{Outcome, headline, output, program, remove_dir, root, run, succeeds};
use crate::{base, binary, packages, users};

/// The base image of the example, as its Dockerfile names it.
const BASE: &str = "docker.io/library/busybox:latest";

/// `cargo xtask demo`.
pub(crate) fn demo() -> Outcome {
    let host = Host::look()?;
    packages::ensure(&host, packages::ROOTLESS);
    packages::ensure(&host, packages::DEMO);
    if !host.root && !users::ensure_ranges(&host, &host.user)? {
        println!(
            "without subordinate ids rbuild uses a weaker rung of isolation; `rbuild doctor` explains"
        );
    }
    let rbuild = binary::release(&host)?;
    let folder = binary::target_folder()?.join("demo");
    remove_dir(&folder)?;

    headline("what rbuild finds here");
    run(Command::new(&rbuild).arg("doctor"))?;

    let mut build = Build { rbuild, context: root().join("examples/hello"), base: None };
    build.base = build.find_base(&folder)?;
    headline("building examples/hello: as an archive, and as a folder");
    let archive = folder.join("hello.tar");
    run(build
        .command()
        .args(["-t", "hello:1", "-o"])
        .arg(format!("type=oci,dest={}", archive.display()))
        .arg(&build.context))?;
    headline("building it again: everything is cached");
    let tree = folder.join("tree");
    run(build
        .command()
        .arg("-o")
        .arg(format!("type=local,dest={}", tree.display()))
        .arg(&build.context))?;
    if let Some(registry) = Registry::start(&folder)? {
        headline("pushing it to a registry");
        let name = format!("{}/hello:1", registry.address);
        run(build.command().args(["-t", &name, "--push"]).arg(&build.context))?;
    }
    headline("running the result");
    start(&archive, &tree)?;
    headline("done");
    println!("archive: {}", archive.display());
    println!("rbuild:  {}", build.rbuild.display());
    Ok(())
}

/// What all builds of the demonstration share.
struct Build {
    rbuild: PathBuf,
    context: PathBuf,
    /// A local base image, where Docker Hub can not be reached.
    base: Option<PathBuf>,
}

impl Build {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.rbuild);
        command.args(["build", "--progress=plain"]);
        if let Some(layout) = &self.base {
            command.arg("--build-context").arg(format!("{BASE}=oci-layout://{}", layout.display()));
        }
        command
    }

    /// Tries to reach the base image; makes one of busybox-static where that fails.
    fn find_base(&self, folder: &Path) -> Outcome<Option<PathBuf>> {
        headline(&format!("looking for {BASE}"));
        let probe = folder.join("probe");
        crate::run::write(&probe.join("Dockerfile"), format!("FROM {BASE}\n"))?;
        if succeeds(Command::new("timeout").arg("60").arg(&self.rbuild).arg("build").arg(&probe)) {
            println!("Docker Hub has it");
            return Ok(None);
        }
        println!(
            "Docker Hub can not be reached: making the base image from this machine's busybox"
        );
        base::busybox_layout(&folder.join("base")).map(Some)
    }
}

/// Runs the image with podman, or the folder in a user namespace where podman is missing or cannot run here.
fn start(archive: &Path, tree: &Path) -> Outcome {
    if program("podman").is_some() {
        match with_podman(archive) {
            Ok(()) => return Ok(()),
            Err(refused) => println!("({refused}: in a changed root instead)"),
        }
    } else {
        println!("(there is no podman here: in a changed root instead)");
    }
    run(Command::new("unshare")
        .args(["--user", "--map-root-user", "--root"])
        .arg(tree)
        .arg("/bin/hello"))
}

fn with_podman(archive: &Path) -> Outcome {
    let from = format!("oci-archive:{}", archive.display());
    let id = output(Command::new("podman").args(["pull", "--quiet", &from]))?;
    let id = id.lines().last().unwrap_or_default().to_owned();
    // Podman's own limits, above those of this session, are refused in most containers; groups in many.
    let limits = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--cgroups=disabled"];
    run(Command::new("podman").args(["run", "--rm", "--network=none"]).args(limits).arg(&id))
}
