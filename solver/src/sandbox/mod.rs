//! How a step is held: namespaces, mounts, identity, limits, filter.
//!
//! ```text
//!  worker (in the user namespace)          supervisor                      the step
//!  ------------------------------          ----------                      --------
//!  parent: own thread, new pid namespace
//!        └─ spawns `rbuild init` ────────> pid 1 of the outer namespace
//!                                          new mount, ipc, uts namespaces
//!                                          and a second pid namespace
//!                                          forks ────────────────────────> pid 1 of the inner one
//!                  Skeleton ─────────────────────────────────────────────> apply(Skeleton)
//!  (all this while the step before runs)
//!
//!  step: request + snapshot -> Plan ─────────────────────────────────────> cgroup and network
//!                                                                          apply(Plan), identity,
//!                      <────────────────────────────────────── stubs       filter, capabilities
//!                                                                          execve of the command
//!                      <───────────── status, usage          waits
//!  stubs removed, snapshot committed
//! ```
//!
//! The command is pid 1 of its own namespace, as under BuildKit and runc, so nothing of rbuild is
//! visible to it and everything it leaves behind ends with it. The supervisor is pid 1 of a
//! namespace around that one: it dies with the worker's thread (`PR_SET_PDEATHSIG`), it never
//! changes its ids (which would clear that), and when it dies the kernel kills all that is inside.
//!
//! Facts ([`host`]), plan ([`plan`], [`mounts`], [`caps`], [`seccomp`], [`identity`], [`idmap`],
//! [`files`], [`limits`], [`resources`]: pure), apply ([`apply`]: one call per step) and system calls ([`sys`],
//! the only file with `unsafe`) are apart.

pub mod apply;
mod asked;
pub mod bpf;
mod cache;
pub mod caps;
pub mod cgroup;
pub(crate) mod chroot;
pub mod files;
pub(crate) mod fuse;
pub mod give_ids;
mod held;
pub(crate) mod helper;
mod hold;
pub mod host;
pub mod identity;
pub mod idmap;
pub mod init;
pub mod kernel;
pub mod limits;
mod mount_api;
pub mod mounts;
pub mod network;
pub(crate) mod overlay;
pub mod parent;
pub mod plan;
pub mod probe;
mod program;
pub mod refusal;
mod relay;
pub mod resources;
pub mod rung;
pub mod seccomp;
mod seccomp_table;
pub mod step;
mod supervisor;
pub mod sys;
mod target;
mod tree_copy;
