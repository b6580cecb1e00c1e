//! File systems of a test's own: small ones, and such as lack something. Only root can mount them.

use std::path::PathBuf;
use std::process::Command;

use crate::space::TestSpace;

/// A mounted file system; it is taken off when this goes.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts a new file system of a kind that lives in memory in the directory `name` of `space`, for
    /// who runs `rbuild` there.
    ///
    /// # Panics
    ///
    /// If it can not be mounted.
    pub fn mount(space: &TestSpace, name: &str, kind: &str, options: &str) -> Self {
        let at = space.dir(name);
        let mounted =
            Command::new("mount").args(["-t", kind, "-o", options, "none"]).arg(&at).status();
        assert!(mounted.is_ok_and(|it| it.success()), "could not mount {kind}");
        let disk = Self(at);
        space.dir(&format!("{name}/store"));
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["--lazy"]).arg(&self.0).status());
    }
}
