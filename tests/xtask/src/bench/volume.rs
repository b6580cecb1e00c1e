//! A fresh file system of its own for each builder, where we may mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, output, succeeds};
use crate::users::{self, Ids};

/// How large it may grow: sparse, so that it takes only what is written.
const SIZE: &str = "24G";

/// A folder for one builder; on an ext4 of its own if root could mount it.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) path: PathBuf,
    mounted: bool,
}

impl Volume {
    /// Makes the folder `path`, and mounts a fresh file system there if we are root.
    pub(super) fn make(path: &Path, user: Option<&Ids>) -> Outcome<Self> {
        users::own_folder(path, user)?;
        let mounted = user.is_some() && mount_fresh(path);
        if mounted {
            users::own_folder(path, user)?;
        } else {
            println!("note: `{}` is on the file system that is there", path.display());
        }
        Ok(Self { path: path.to_owned(), mounted })
    }

    /// Makes it as empty as it was: by another fresh file system if it can be, since ext4 looks for a
    /// place beside what was just deleted; else by removing everything in it, whoever owns it.
    pub(super) fn clear(&mut self, user: Option<&Ids>) -> Outcome {
        if self.mounted && succeeds(Command::new("umount").arg(&self.path)) {
            self.mounted = mount_fresh(&self.path);
            return users::own_folder(&self.path, user).map(drop);
        }
        let find = |program: &str, before: &[&str]| {
            let mut command = Command::new(program);
            command.args(before).arg(&self.path).args(["-mindepth", "1", "-delete"]);
            output(&mut command).map(drop)
        };
        // An ordinary user reaches the files of subordinate ids only in a namespace that has them.
        if user.is_some() {
            find("find", &[])
        } else {
            find("unshare", &["--map-root-user", "--map-auto", "find"])
        }
    }
}

/// Mounts a new file system at `path`, and tells whether that went well.
fn mount_fresh(path: &Path) -> bool {
    let image = path.with_extension("ext4");
    // What the one before took of the disk is given back.
    drop(std::fs::remove_file(&image));
    succeeds(Command::new("truncate").args(["-s", SIZE]).arg(&image))
        && succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
        && succeeds(Command::new("mount").args(["-o", "loop,noatime"]).arg(&image).arg(path))
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            drop(Command::new("umount").args(["--lazy", "--detach-loop"]).arg(&self.path).status());
            drop(std::fs::remove_file(self.path.with_extension("ext4")));
        }
    }
}
