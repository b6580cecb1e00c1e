//! Facts about the machine and the person at it.

use std::path::Path;
use std::process::Command;

use crate::run::{Outcome, output, program, succeeds};

/// Who we are, and what we may do about it.
#[derive(Debug)]
pub(crate) struct Host {
    /// The user's name; empty if the user database does not know the id.
    pub(crate) user: String,
    /// Whether the effective user is root.
    pub(crate) root: bool,
    /// Whether `sudo` answers without a password.
    pub(crate) sudo: bool,
}

impl Host {
    /// Looks.
    pub(crate) fn look() -> Outcome<Self> {
        let root = output(Command::new("id").arg("-u"))? == "0";
        let user = output(Command::new("id").arg("-un")).unwrap_or_default();
        let sudo = !root
            && program("sudo").is_some()
            && succeeds(Command::new("sudo").args(["-n", "true"]));
        Ok(Self { user, root, sudo })
    }

    /// A command that runs with root's rights, or `None` where there is no way to it.
    pub(crate) fn as_root(&self, name: &str) -> Option<Command> {
        let path = program(name)?;
        if self.root {
            Some(Command::new(path))
        } else if self.sudo {
            let mut command = Command::new("sudo");
            command.arg("-n").arg(path);
            Some(command)
        } else {
            None
        }
    }
}

/// Whether CI runs us: then nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI")
        .is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// The target triple of the static binary for this machine's processor.
pub(crate) fn static_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Whether a file is there.
pub(crate) fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}
