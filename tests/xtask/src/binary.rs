//! Building the binary `rbuild`.

use std::path::{Path, PathBuf};

use crate::host::{Host, exists, static_target};
use crate::packages;
use crate::run::{Failure, Outcome, cargo, headline, output, program, run, succeeds};

/// Builds the release binary, static where the target for it is installed or can be, and returns its path.
///
/// `RBUILD_BIN` names one that is there already.
pub(crate) fn release(host: &Host) -> Outcome<PathBuf> {
    if let Some(given) = std::env::var_os("RBUILD_BIN").filter(|given| !given.is_empty()) {
        return Ok(given.into());
    }
    packages::ensure(host, packages::BUILD);
    let target = static_target();
    headline("building rbuild");
    let folder = target_folder()?;
    if program("musl-gcc").is_some() && ensure_target(&target) {
        run(cargo().args(["build", "--release", "--package", "rbuild", "--target", &target]))?;
        return Ok(folder.join(target).join("release/rbuild"));
    }
    println!(
        "note: no `{target}` on this machine; rbuild is linked to this host's libc instead of being static"
    );
    run(cargo().args(["build", "--release", "--package", "rbuild"]))?;
    Ok(folder.join("release/rbuild"))
}

/// Whether the standard library for a target is installed, after having tried to install it.
pub(crate) fn ensure_target(target: &str) -> bool {
    let installed = || {
        let sysroot = output(
            std::process::Command::new("rustc")
                .args(["--print", "sysroot"])
                .current_dir(crate::run::root()),
        );
        sysroot.is_ok_and(|sysroot| {
            exists(Path::new(&sysroot).join("lib/rustlib").join(target).join("lib"))
        })
    };
    installed() || {
        println!("$ rustup target add {target}");
        succeeds(
            std::process::Command::new("rustup")
                .args(["target", "add", target])
                .current_dir(crate::run::root()),
        ) && installed()
    }
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Outcome<PathBuf> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let value =
        metadata.split("\"target_directory\":\"").nth(1).and_then(|rest| rest.split('"').next());
    value.map(PathBuf::from).ok_or_else(|| Failure::new("cargo metadata named no target directory"))
}
