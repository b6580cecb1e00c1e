//! What the keeper of a step is told, as data: the contract between the worker and `rbuild cell`.

use serde::{Deserialize, Serialize};

use crate::sandbox::caps::number;
use crate::sandbox::plan::{HostPath, Process};

/// Capabilities that a step on this rung never has, though others have them: with `SYS_CHROOT` it
/// could leave its tree, with `MKNOD` and `NET_RAW` reach the machine behind the container.
pub(super) const WITHHELD: u64 =
    1 << number::SYS_CHROOT | 1 << number::MKNOD | 1 << number::NET_RAW | 1 << number::SYS_ADMIN;

/// What the keeper does for a step that is root: without `FSETID` who writes to a set-user-id file takes
/// the bit away, as the kernel has it in a user namespace, and the keeper sets the bits of groups.
pub(super) const ANSWERED: u64 = 1 << number::FSETID;

/// What the keeper of a step must know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Cell {
    /// The tree that becomes the step's root.
    pub(super) root: HostPath,
    /// What the step takes its host for.
    pub(super) hostname: String,
    /// The process.
    pub(super) process: Process,
    /// How devices are had.
    pub(super) nodes: Nodes,
    /// Files in memory.
    pub(super) secrets: Vec<Secret>,
    /// Descriptor of the group that limits it, if there is one.
    pub(super) cgroup: Option<usize>,
    /// Whether it may talk to other machines.
    pub(super) network: bool,
    /// Where it mounts something, in the tree (no leading `/`; empty for the root), and whether that
    /// can only be read.
    pub(super) mounts: Vec<(HostPath, bool)>,
}

/// How a step has its devices.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Nodes {
    /// As nodes in its `/dev`.
    Real,
    /// By descriptors of the container's nodes: none could be made, or none could be opened.
    Injected,
}

/// A secret, and the place in the tree that stands for it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Secret {
    /// Where it really lies in the tree: no leading `/`.
    pub(super) path: HostPath,
    /// Inode of the place.
    pub(super) inode: u64,
    /// Descriptor that yields its bytes.
    pub(super) from: usize,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Permission bits.
    pub(super) mode: u32,
}
