//! What a step's process gets, as data: the contract between the worker and `rbuild init`.
//!
//! A [`Plan`] is complete: init adds nothing but what only the step's root can tell (who `USER`
//! is, where the program lies). It prints as text, one line a step, for tests and for people.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::Limit;

/// A path on the host, in the worker's mount namespace. Absolute.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostPath(#[serde(with = "path_bytes")] pub PathBuf);

impl HostPath {
    /// As a path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl<T: Into<PathBuf>> From<T> for HostPath {
    fn from(path: T) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0.display())
    }
}

/// A path in the step's root: absolute, resolved inside of it and never outside.
pub type RootPath = String;

/// Number of a mount that was prepared and waits to be placed.
pub type Slot = usize;

/// What the processes of many steps have in common: init makes it ready before it knows its step.
/// It fills slots that the steps of the plan use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Skeleton(pub Vec<Step>);

/// Everything else about one process.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// Where the process's network comes from.
    pub network: NetworkNamespace,
    /// Descriptor by which the process enters a cgroup of its own, if it has one.
    pub cgroup: Option<usize>,
    /// Mounts and the like, in order.
    pub steps: Vec<Step>,
    /// The process.
    pub process: Process,
}

/// The network namespace of a process.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum NetworkNamespace {
    /// That of the worker.
    Shared,
    /// A new one, with a loopback interface that is up.
    New,
    /// One that is there: index of its descriptor.
    Join(usize),
}

/// What a mount does not allow.
#[expect(clippy::struct_excessive_bools, reason = "one for each flag that the kernel has")]
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Restrict {
    /// Writing.
    pub write: bool,
    /// Set-user-id and file capabilities.
    pub suid: bool,
    /// Device nodes.
    pub dev: bool,
    /// Executing.
    pub exec: bool,
}

impl Restrict {
    /// Nothing is forbidden.
    pub const NOTHING: Self = Self { write: false, suid: false, dev: false, exec: false };
    /// Only writing is.
    pub const WRITE: Self = Self { write: true, suid: false, dev: false, exec: false };
    /// `nosuid,nodev,noexec`.
    pub const INERT: Self = Self { write: false, suid: true, dev: true, exec: true };
    /// `ro,nosuid,nodev,noexec`.
    pub const ALL: Self = Self { write: true, suid: true, dev: true, exec: true };
}

/// What becomes of a mount point that had to be made.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Litter {
    /// It stays in the tree (`/proc`, `/sys`, `/dev`: as runc leaves them).
    Keep,
    /// It is removed after the step; parents that were made for it stay.
    Remove,
    /// It is removed after the step, with the parents that were made for it.
    RemoveWithParents,
}

/// A file system that the kernel makes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum NewFs {
    /// Files in memory.
    Tmpfs {
        /// Bytes; 0 is the kernel's default.
        size: u64,
        /// Permission bits of its root.
        mode: u32,
    },
    /// The processes of the caller's pid namespace; the host's own where a new one is refused.
    Proc,
    /// Terminals, none of them yet.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// The devices that the caller's network namespace sees; the host's where it is refused.
    Sysfs,
}

/// One step of the set-up.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Step {
    /// An empty directory of the host is the scratch directory from here on.
    Scratch {
        /// Which.
        dir: HostPath,
    },
    /// Puts an overlay on the scratch directory.
    Overlay {
        /// Topmost first.
        lowers: Vec<HostPath>,
        /// Where writes go: upper directory and a fresh work directory.
        upper: Option<(HostPath, HostPath)>,
    },
    /// Puts a directory on the scratch directory.
    Directory {
        /// Which.
        from: HostPath,
    },
    /// Puts a new file system on the scratch directory.
    New {
        /// Which.
        fs: NewFs,
        /// How.
        restrict: Restrict,
    },
    /// Makes a file at the top of what is on the scratch directory.
    Write {
        /// Its name.
        name: String,
        /// Descriptor that yields the bytes.
        from: usize,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// Keeps what is on the scratch directory, with all that was mounted on it, for later.
    Lift {
        /// Under this number.
        slot: Slot,
    },
    /// Keeps a path of what is on the scratch directory for later.
    Keep {
        /// Under this number.
        slot: Slot,
        /// Resolved inside.
        path: String,
    },
    /// Takes the mount off the scratch directory.
    Clear,
    /// Keeps a path of the host for later.
    Take {
        /// Under this number.
        slot: Slot,
        /// Which path.
        from: HostPath,
    },
    /// What is on the scratch directory is the root from here on.
    Root,
    /// Mounts what was kept.
    Place {
        /// Which.
        slot: Slot,
        /// Where.
        at: RootPath,
        /// How.
        restrict: Restrict,
        /// If the mount point must be made.
        litter: Litter,
    },
    /// Mounts a new file system.
    Mount {
        /// Which.
        fs: NewFs,
        /// Where.
        at: RootPath,
        /// How.
        restrict: Restrict,
        /// If the mount point must be made.
        litter: Litter,
    },
    /// Makes a symbolic link in a mount of ours; one that is there stays.
    Symlink {
        /// Where.
        at: RootPath,
        /// To what.
        target: String,
    },
    /// Makes what is at a path read-only, if there is something.
    ReadOnly {
        /// Where.
        at: RootPath,
    },
    /// Hides what is at a path, if there is something: a directory becomes empty, a file becomes
    /// the null device.
    Mask {
        /// Where.
        at: RootPath,
    },
    /// Makes the root itself read-only.
    FreezeRoot,
    /// Names the host.
    Hostname {
        /// What it is called; where the caller may not, it keeps its name.
        name: String,
    },
    /// Brings the loopback interface up.
    Loopback,
    /// Makes the root the root, and takes the old one off.
    PivotRoot,
}

/// The process that a step runs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Process {
    /// Program and arguments; at least one.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute; made if missing.
    pub cwd: String,
    /// As `USER` has it.
    pub user: String,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Processors that it may run on; empty means those of the worker.
    pub cpus: Vec<u32>,
    /// Capabilities, a bit each; they bound everything the process ever gets.
    pub caps: u64,
    /// Whether the system call filter is put on.
    pub filtered: bool,
    /// What a supervisor answers for.
    pub pretend: Pretend,
}

/// What the host does not have and a supervisor makes up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Pretend {
    /// Devices that the process makes: they are recorded, and it sees them as empty files.
    NewDevices,
    /// Devices that it makes or finds in its tree.
    Devices,
    /// Devices, and all ids but one.
    Ids,
}

impl fmt::Display for Restrict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", if self.write { "ro" } else { "rw" })?;
        for (on, name) in [(self.suid, ",nosuid"), (self.dev, ",nodev"), (self.exec, ",noexec")] {
            write!(out, "{}", if on { name } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for NewFs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tmpfs { size: 0, mode } => write!(out, "tmpfs mode={mode:04o}"),
            Self::Tmpfs { size, mode } => write!(out, "tmpfs size={size} mode={mode:04o}"),
            Self::Proc => write!(out, "proc"),
            Self::Devpts => write!(out, "devpts"),
            Self::Mqueue => write!(out, "mqueue"),
            Self::Sysfs => write!(out, "sysfs"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlay { lowers, upper } => {
                write!(out, "overlay ")?;
                for (index, lower) in lowers.iter().enumerate() {
                    write!(out, "{}{lower}", if index == 0 { "" } else { ":" })?;
                }
                upper.as_ref().map_or(Ok(()), |(dir, work)| write!(out, " upper={dir} work={work}"))
            }
            Self::Directory { from } => write!(out, "directory {from}"),
            Self::New { fs, restrict } => write!(out, "new {fs} {restrict}"),
            Self::Write { name, from, uid, gid, mode } => {
                write!(out, "write {name} from={from} owner={uid}:{gid} mode={mode:04o}")
            }
            Self::Scratch { dir } => write!(out, "scratch {dir}"),
            Self::Lift { slot } => write!(out, "lift #{slot}"),
            Self::Keep { slot, path } => write!(out, "keep #{slot} = scratch:{path}"),
            Self::Clear => write!(out, "clear"),
            Self::Take { slot, from } => write!(out, "take #{slot} = {from}"),
            Self::Root => write!(out, "root"),
            Self::Place { slot, at, restrict, litter } => {
                write!(out, "place #{slot} {at} {restrict}{}", after(*litter))
            }
            Self::Mount { fs, at, restrict, litter } => {
                write!(out, "mount {fs} {at} {restrict}{}", after(*litter))
            }
            Self::Symlink { at, target } => write!(out, "symlink {at} -> {target}"),
            Self::ReadOnly { at } => write!(out, "read-only {at}"),
            Self::Mask { at } => write!(out, "mask {at}"),
            Self::FreezeRoot => write!(out, "freeze-root"),
            Self::Hostname { name } => write!(out, "hostname {name}"),
            Self::Loopback => write!(out, "loopback"),
            Self::PivotRoot => write!(out, "pivot-root"),
        }
    }
}

fn after(litter: Litter) -> &'static str {
    match litter {
        Litter::Keep => "",
        Litter::Remove => " (stub goes)",
        Litter::RemoveWithParents => " (stub and parents go)",
    }
}

/// What init tells the worker once it has its plan, in this order: `Ready`, `Listener` or
/// `Unanswered`, then `Ended`; or `Failed` instead of any.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Report {
    /// Everything is set up; the program starts now.
    Ready {
        /// What was made for the mounts and must go.
        stubs: Vec<Stub>,
    },
    /// With this message comes the descriptor that tells of the step's calls.
    Listener,
    /// Somebody outside listens already, and there can be one only: all owners will be root.
    Unanswered,
    /// What is meant by an inode that cannot carry a record: its device, number and time of birth in
    /// nanoseconds, and the record.
    Made {
        /// The inode.
        inode: (u64, u64, i64),
        /// As it is written elsewhere.
        record: String,
    },
    /// The program ended.
    Ended {
        /// Exit code, or the negative number of the signal.
        code_or_signal: i32,
        /// Processor time, user and system, microseconds.
        cpu_micros: u64,
        /// Largest resident set of one process, bytes.
        max_rss: u64,
    },
    /// The program could not be started, for a reason that the Dockerfile's author can mend.
    NotStarted {
        /// Exit code as a shell would give it: 126 or 127.
        code: i32,
        /// Why.
        text: String,
    },
    /// Something else could not be done.
    Failed {
        /// Whether the Dockerfile asks for something impossible; otherwise the host refuses.
        user: bool,
        /// What, and why.
        text: String,
    },
}

/// A mount point that was made for the step.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stub {
    /// Where it really is in the root, symbolic links resolved: no leading `/`.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// A directory, or an empty file.
    pub is_dir: bool,
}

/// Paths as JSON strings; those that are not UTF-8 as hex digits after a NUL, which no path has.
mod path_bytes {
    use std::fmt::Write as _;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Path, PathBuf};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = path.to_str() {
            return to.serialize_str(text);
        }
        let mut text = String::from("\0");
        for byte in path.as_os_str().as_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        let Some(hex) = text.strip_prefix('\0') else {
            return Ok(text.into());
        };
        let digits = |at: usize| hex.get(at..at + 2).and_then(|it| u8::from_str_radix(it, 16).ok());
        let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digits).collect();
        let bytes = bytes.ok_or_else(|| D::Error::custom("bad bytes of a path"))?;
        Ok(std::ffi::OsString::from_vec(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn any_path_survives_the_wire() {
        for bytes in [&b"/a b"[..], b"/caf\xc3\xa9", b"/\xff\x00\x01"] {
            let path = HostPath(std::ffi::OsString::from_vec(bytes.to_vec()).into());
            let text = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<HostPath>(&text).unwrap(), path, "{text}");
        }
        assert!(serde_json::from_str::<HostPath>("\"\\u0000zz\"").is_err());
        assert!(serde_json::from_str::<HostPath>("\"\\u0000é\"").is_err());
    }
}
