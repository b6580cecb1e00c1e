//! File systems of a test's own: small ones, and such as lack something. Only root can mount them.

use std::path::PathBuf;
use std::process::Command;

use crate::host;
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

impl Disk {
    /// The same, but of a kind that needs a disk, which is a file of so many megabytes.
    ///
    /// # Panics
    ///
    /// If it can not be made or mounted.
    pub fn in_a_file(space: &TestSpace, name: &str, kind: &str, megabytes: u64) -> Self {
        let file = space.path(&format!("{name}.img"));
        let made = std::fs::File::create(&file).and_then(|it| it.set_len(megabytes << 20));
        let run = |command: &mut Command| command.output().is_ok_and(|it| it.status.success());
        let mkfs = host::program(&format!("mkfs.{kind}")).expect("the test needs it");
        let at = space.dir(name);
        let mounted = made.is_ok()
            && run(Command::new(mkfs).arg("-q").arg(&file))
            && run(Command::new("mount").args(["-o", "loop"]).args([&file, &at]));
        assert!(mounted, "could not mount {kind}");
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
