//! The mounts of a step, as steps of its plan. Pure.
//!
//! Order matters: a later mount can hide an earlier one, never the reverse, so what the Dockerfile
//! mounts comes after what every step has, in the order in which it was written.

use super::plan::{HostPath, Litter, NewFs, Restrict, Skeleton, Slot, Step};

/// A tree on the host that can be mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tree {
    /// Directories on top of each other, topmost first.
    Overlay {
        /// At least one; at least two where there is no `upper`.
        lowers: Vec<HostPath>,
        /// Where writes go, and its work directory.
        upper: Option<(HostPath, HostPath)>,
    },
    /// One directory.
    Directory(HostPath),
}

/// What the Dockerfile mounts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Where: absolute.
    pub at: String,
    /// Whether the process cannot write to it.
    pub readonly: bool,
    /// What.
    pub source: Source,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A path in a tree.
    Tree {
        /// The tree.
        tree: Tree,
        /// Resolved inside the tree; empty means all of it.
        selector: String,
    },
    /// A file or directory of the host (a cache, a relay's socket).
    Host(HostPath),
    /// Files in memory.
    Tmpfs {
        /// Bytes; 0 is the kernel's default.
        size: u64,
    },
    /// A file in memory that only this step sees.
    Secret {
        /// Descriptor that yields its bytes.
        from: usize,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
}

/// What the mounts of a step depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    /// The root.
    pub root: Tree,
    /// Whether the process cannot write to the root.
    pub root_readonly: bool,
    /// What the Dockerfile mounts, in order.
    pub mounts: Vec<Mount>,
    /// A file that becomes `/etc/hosts`.
    pub hosts: HostPath,
    /// A file that becomes `/etc/resolv.conf`.
    pub resolv_conf: HostPath,
    /// Host name.
    pub hostname: String,
    /// What most steps of a build share.
    pub system: System,
    /// What becomes of mount points that had to be made.
    pub litter: Litter,
}

/// What `/proc`, `/dev` and `/sys` of a step depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct System {
    /// Bytes of `/dev/shm`; 0 is 64 MiB.
    pub shm_size: u64,
    /// Whether the network namespace is new.
    pub own_network: bool,
    /// Whether the kernel has `/proc/kcore`, which is linked to then (and masked).
    pub kcore: bool,
    /// Whether nothing is hidden and nothing is read-only.
    pub insecure: bool,
}

/// Bytes of `/dev/shm` where nothing else is asked (Docker's default).
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Bytes of `/dev` itself (runc's default).
const DEV_BYTES: u64 = 64 << 20;

/// The device nodes that every step has, bound from the host.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev`, as runc makes them.
const LINKS: [(&str, &str); 5] = [
    ("/ptmx", "pts/ptmx"),
    ("/fd", "/proc/self/fd"),
    ("/stdin", "/proc/self/fd/0"),
    ("/stdout", "/proc/self/fd/1"),
    ("/stderr", "/proc/self/fd/2"),
];

/// What a step may look at in `/proc` but not change.
const READ_ONLY: [&str; 5] = ["/bus", "/fs", "/irq", "/sys", "/sysrq-trigger"];

/// What a step does not see of `/proc`: containerd's list.
const MASKED: [&str; 10] = [
    "/acpi",
    "/asound",
    "/interrupts",
    "/kcore",
    "/keys",
    "/latency_stats",
    "/sched_debug",
    "/scsi",
    "/timer_list",
    "/timer_stats",
];

/// What a step does not see of `/sys`: containerd's list, and the host's cgroups.
const MASKED_SYS: [&str; 4] =
    ["/firmware", "/devices/virtual/powercap", "/fs/cgroup", "/kernel/debug"];

/// Where [`skeleton`] leaves what [`steps`] places.
const PROC: Slot = 0;
const DEV: Slot = 1;
const SYS: Slot = 2;
/// The first slot for anything else.
const FREE: Slot = 3;

/// Empty directories below the one that [`skeleton`] and [`steps`] are given.
pub const SCRATCH: [&str; 4] = ["root", "proc", "dev", "sys"];

/// One of [`SCRATCH`] becomes the scratch directory.
fn scratch(work: &HostPath, name: &str) -> Step {
    Step::Scratch { dir: work.as_path().join(name).into() }
}

/// The steps that need to know nothing of a step's tree: `/proc`, `/dev` and, where it is the host's,
/// `/sys`. Each is put together on a directory of its own in `work` and moved from there, since to
/// take a mount off waits for all processors.
pub fn skeleton(system: &System, work: &HostPath) -> Skeleton {
    let at = |at: &str| at.to_owned();
    let litter = Litter::Keep;
    let fs = NewFs::Proc;
    let restrict = Restrict::INERT;
    let mut steps = vec![scratch(work, "proc"), Step::New { fs, restrict }, Step::Root];
    if !system.insecure {
        steps.extend(READ_ONLY.map(|it| Step::ReadOnly { at: at(it) }));
        steps.extend(MASKED.map(|it| Step::Mask { at: at(it) }));
    }
    steps.push(Step::Lift { slot: PROC });

    let nosuid = Restrict { suid: true, ..Restrict::NOTHING };
    let fs = NewFs::Tmpfs { size: DEV_BYTES, mode: 0o755 };
    steps.extend([scratch(work, "dev"), Step::New { fs, restrict: nosuid }, Step::Root]);
    for node in NODES {
        let (slot, restrict) = (FREE, Restrict::NOTHING);
        steps.push(Step::Take { slot, from: HostPath::from(format!("/dev/{node}")) });
        steps.push(Step::Place { slot, at: format!("/{node}"), restrict, litter });
    }
    let mut mount = |fs, it, restrict| steps.push(Step::Mount { fs, at: at(it), restrict, litter });
    let pts = Restrict { suid: true, exec: true, ..Restrict::NOTHING };
    mount(NewFs::Devpts, "/pts", pts);
    let size = if system.shm_size == 0 { DEFAULT_SHM_BYTES } else { system.shm_size };
    mount(NewFs::Tmpfs { size, mode: 0o1777 }, "/shm", Restrict::INERT);
    mount(NewFs::Mqueue, "/mqueue", Restrict::INERT);
    let core = system.kcore.then_some(("/core", "/proc/kcore"));
    for (it, target) in LINKS.into_iter().chain(core) {
        steps.push(Step::Symlink { at: at(it), target: at(target) });
    }
    steps.push(Step::Lift { slot: DEV });

    if !system.own_network {
        let host = Step::Directory { from: "/sys".into() };
        steps.extend([scratch(work, "sys"), host, Step::Root]);
        if !system.insecure {
            steps.extend(MASKED_SYS.map(|it| Step::Mask { at: at(it) }));
        }
        steps.push(Step::Lift { slot: SYS });
    }
    Skeleton(steps)
}

/// The steps that build the file system of a step's process and make it its root, after those of
/// [`skeleton`].
pub fn steps(layout: &Layout, work: &HostPath) -> Vec<Step> {
    let mut steps = vec![scratch(work, "root")];
    let mut slots = FREE..;
    let mut next = move || -> Slot { slots.next().unwrap_or(usize::MAX) };

    // Everything that must be put together elsewhere, before the root covers the scratch directory.
    let placed: Vec<(usize, Slot)> = prepare(layout, &mut steps, &mut next);
    steps.extend([put(&layout.root), Step::Root]);
    system(layout, &mut steps, &mut next);
    for (index, mount) in layout.mounts.iter().enumerate() {
        let slot = placed.iter().find(|it| it.0 == index).map(|it| it.1);
        steps.extend(place(mount, slot, layout.litter));
    }
    if layout.root_readonly {
        steps.push(Step::FreezeRoot);
    }
    steps.push(Step::Hostname { name: layout.hostname.clone() });
    if layout.system.own_network {
        steps.push(Step::Loopback);
    }
    steps.push(Step::PivotRoot);
    steps
}

fn put(tree: &Tree) -> Step {
    match tree {
        Tree::Overlay { lowers, upper } => {
            Step::Overlay { lowers: lowers.clone(), upper: upper.clone() }
        }
        Tree::Directory(from) => Step::Directory { from: from.clone() },
    }
}

/// Keeps what the Dockerfile mounts in slots; yields which mount is in which slot.
fn prepare(
    layout: &Layout,
    steps: &mut Vec<Step>,
    next: &mut impl FnMut() -> Slot,
) -> Vec<(usize, Slot)> {
    let mut placed = Vec::new();
    let mut secrets = Vec::new();
    for (index, mount) in layout.mounts.iter().enumerate() {
        match &mount.source {
            Source::Tree { tree, selector } => {
                let slot = next();
                let keep = Step::Keep { slot, path: selector.clone() };
                steps.extend([put(tree), keep, Step::Clear]);
                placed.push((index, slot));
            }
            Source::Host(from) => {
                let slot = next();
                steps.push(Step::Take { slot, from: from.clone() });
                placed.push((index, slot));
            }
            Source::Tmpfs { .. } => {}
            Source::Secret { from, uid, gid, mode } => {
                let slot = next();
                let name = slot.to_string();
                let (from, uid, gid, mode) = (*from, *uid, *gid, *mode);
                let write = Step::Write { name: name.clone(), from, uid, gid, mode };
                secrets.extend([write, Step::Keep { slot, path: name }]);
                placed.push((index, slot));
            }
        }
    }
    if !secrets.is_empty() {
        let fs = NewFs::Tmpfs { size: 0, mode: 0o700 };
        steps.push(Step::New { fs, restrict: Restrict::NOTHING });
        steps.append(&mut secrets);
        steps.push(Step::Clear);
    }
    placed
}

/// What every step has: `/proc`, `/dev`, `/sys`, and who is who on the network.
fn system(layout: &Layout, steps: &mut Vec<Step>, next: &mut impl FnMut() -> Slot) {
    let litter = Litter::Keep;
    for (slot, at) in [(PROC, "/proc"), (DEV, "/dev")] {
        let restrict = Restrict::NOTHING;
        steps.push(Step::Place { slot, at: at.to_owned(), restrict, litter });
    }
    // In a network namespace of its own a new one, which shows that namespace's devices.
    let restrict = if layout.system.insecure { Restrict::INERT } else { Restrict::ALL };
    let at = "/sys".to_owned();
    if layout.system.own_network {
        steps.push(Step::Mount { fs: NewFs::Sysfs, at, restrict, litter });
        if !layout.system.insecure {
            steps.extend(MASKED_SYS.map(|it| Step::Mask { at: format!("/sys{it}") }));
        }
    } else {
        steps.push(Step::Place { slot: SYS, at, restrict, litter });
    }
    for (from, at) in [(&layout.resolv_conf, "/etc/resolv.conf"), (&layout.hosts, "/etc/hosts")] {
        let slot = next();
        steps.push(Step::Take { slot, from: from.clone() });
        let (restrict, litter) = (Restrict::ALL, layout.litter);
        steps.push(Step::Place { slot, at: at.to_owned(), restrict, litter });
    }
}

fn place(mount: &Mount, slot: Option<Slot>, litter: Litter) -> Option<Step> {
    let at = mount.at.clone();
    let write = mount.readonly;
    match (&mount.source, slot) {
        (Source::Tmpfs { size }, _) => {
            let fs = NewFs::Tmpfs { size: *size, mode: 0o1777 };
            let restrict = Restrict { write, suid: true, ..Restrict::NOTHING };
            Some(Step::Mount { fs, at, restrict, litter })
        }
        (Source::Secret { .. }, Some(slot)) => {
            Some(Step::Place { slot, at, restrict: Restrict::ALL, litter })
        }
        (Source::Tree { .. } | Source::Host(_), Some(slot)) => {
            let restrict = if write { Restrict::WRITE } else { Restrict::NOTHING };
            Some(Step::Place { slot, at, restrict, litter })
        }
        (Source::Tree { .. } | Source::Host(_) | Source::Secret { .. }, None) => None,
    }
}

#[cfg(test)]
mod tests;
