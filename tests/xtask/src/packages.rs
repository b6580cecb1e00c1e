//! Debian packages that tasks use: which are missing, and installing them where we may.

use crate::host::Host;
use crate::run::{Outcome, headline, output, program};

/// One thing that a task uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// The program, or the path of a file, whose presence shows that the package is there.
    pub(crate) program: &'static str,
    /// Debian's name of the package.
    pub(crate) package: &'static str,
    /// What the task can not do without it.
    pub(crate) purpose: &'static str,
}

const fn need(program: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { program, package, purpose }
}

/// What building rbuild takes.
pub(crate) const BUILD: &[Need] = &[
    need("cc", "gcc", "compiling the C in the dependencies"),
    need(
        "musl-gcc",
        "musl-tools",
        "the static binary; without it rbuild is linked to this host's libc",
    ),
];

/// What running rbuild as an ordinary user takes.
pub(crate) const ROOTLESS: &[Need] =
    &[need("newuidmap", "uidmap", "RUN steps of an ordinary user with more than one id")];

/// What the demonstration takes besides.
pub(crate) const DEMO: &[Need] = &[
    need("busybox", "busybox-static", "a base image where Docker Hub can not be reached"),
    need("docker-registry", "docker-registry", "pushing the result to a registry on this machine"),
];

/// What the tests take besides.
pub(crate) const TESTS: &[Need] = &[
    need("busybox", "busybox-static", "the small base image"),
    need("docker-registry", "docker-registry", "a real registry"),
    need("htpasswd", "apache2-utils", "a registry with passwords"),
    need("podman", "podman", "running the images that were built"),
    need("crun", "crun", "running a bundle made from an image"),
    need("skopeo", "skopeo", "a second opinion on images"),
    need("umoci", "umoci", "a second opinion on layers"),
    need("mmdebstrap", "mmdebstrap", "the Debian base image"),
    need("git", "git", "git contexts"),
    need("zstd", "zstd", "archives compressed with zstd"),
    need("xz", "xz-utils", "archives compressed with xz"),
    need("bzip2", "bzip2", "archives compressed with bzip2"),
    need("setfattr", "attr", "files with extended attributes"),
    need("setcap", "libcap2-bin", "files with capabilities"),
    need("mkfs.ext4", "e2fsprogs", "a file system that fills up"),
    need("ssh-agent", "openssh-client", "forwarding an ssh agent"),
    need("sshd", "openssh-server", "repositories that are reached by ssh"),
];

/// What the benchmarks take besides.
pub(crate) const BENCH: &[Need] = &[
    need("busybox", "busybox-static", "the small base image"),
    need("docker-registry", "docker-registry", "a registry to pull from and push to"),
    need("skopeo", "skopeo", "putting base images into the registry"),
    need("buildah", "buildah", "a peer to compare with"),
    need("runc", "runc", "what buildah starts its steps with"),
    need("mmdebstrap", "mmdebstrap", "the Debian base image"),
    need("mkfs.ext4", "e2fsprogs", "a file system for each builder"),
];

/// What compiling for the other processor takes.
pub(crate) const CROSS: &[Need] = &[
    need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "compiling the C for aarch64"),
    need(
        "/usr/aarch64-linux-gnu/include/stdlib.h",
        "libc6-dev-arm64-cross",
        "compiling the C for aarch64",
    ),
];

/// `cargo xtask setup`: everything, so that the other tasks find nothing to install.
pub(crate) fn setup() -> Outcome {
    let host = Host::look()?;
    let all: Vec<Need> = [BUILD, CROSS, ROOTLESS, DEMO, TESTS].concat();
    if ensure(&host, &all).is_empty() {
        println!("every package that a task needs is installed");
    }
    Ok(())
}

/// Those of `needs` whose program is not there.
pub(crate) fn missing(needs: &[Need]) -> Vec<Need> {
    let mut absent: Vec<Need> =
        needs.iter().copied().filter(|need| program(need.program).is_none()).collect();
    absent.sort_by_key(|need| need.package);
    absent.dedup_by_key(|need| need.package);
    absent
}

/// Installs what is missing of `needs` if this user may, and returns what is still missing after having said so.
pub(crate) fn ensure(host: &Host, needs: &[Need]) -> Vec<Need> {
    let absent = missing(needs);
    if absent.is_empty() {
        return absent;
    }
    if host.as_root("apt-get").is_some() {
        install(host, &absent);
    }
    let absent = missing(needs);
    if !absent.is_empty() {
        let names: Vec<&str> = absent.iter().map(|need| need.package).collect();
        println!("missing on this machine; going on without:");
        for need in &absent {
            println!("  {:<22} {}", need.package, need.purpose);
        }
        println!("  to install: apt-get install {}", names.join(" "));
    }
    absent
}

/// Tries all packages at once, then after a fresh list, then one by one, so that one bad name does not block the others.
fn install(host: &Host, needs: &[Need]) {
    let names: Vec<&str> = needs.iter().map(|need| need.package).collect();
    headline(&format!("installing {}", names.join(" ")));
    if apt(host, &install_args(&names)) {
        return;
    }
    apt(host, &["update", "-q"]);
    if apt(host, &install_args(&names)) {
        return;
    }
    for name in names {
        apt(host, &install_args(&[name]));
    }
}

fn install_args<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(names);
    args
}

fn apt(host: &Host, args: &[&str]) -> bool {
    let Some(mut command) = host.as_root("env") else { return false };
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"])
        .args(args);
    println!("$ apt-get {}", args.join(" "));
    match output(&mut command) {
        Ok(_) => true,
        Err(failure) => {
            println!("{failure}");
            false
        }
    }
}
