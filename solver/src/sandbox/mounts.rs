//! The mounts of a step, as steps of its plan. Pure.
//!
//! Order matters: a later mount can hide an earlier one, never the reverse, so what the Dockerfile
//! mounts comes after what every step has, in the order in which it was written.

use super::plan::{HostPath, Litter, NewFs, Restrict, Slot, Step};

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
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
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
    /// Bytes of `/dev/shm`; 0 is 64 MiB.
    pub shm_size: u64,
    /// Whether the network namespace is new.
    pub own_network: bool,
    /// Whether the kernel has `/proc/kcore`, which is linked to then (and masked).
    pub kcore: bool,
    /// Whether nothing is hidden and nothing is read-only.
    pub insecure: bool,
    /// What becomes of mount points that had to be made.
    pub litter: Litter,
}

/// Bytes of `/dev/shm` where nothing else is asked (Docker's default).
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Bytes of `/dev` itself (runc's default).
const DEV_BYTES: u64 = 64 << 20;

/// The device nodes that every step has, bound from the host.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in `/dev`, as runc makes them.
const LINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// What a step may look at but not change.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a step does not see: containerd's list, and the host's cgroups.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/fs/cgroup",
    "/sys/kernel/debug",
];

/// The steps that build the file system of a step's process and make it its root.
pub fn steps(layout: &Layout) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut slots = 0..;
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
    if layout.own_network {
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
        steps.push(Step::Memory);
        steps.append(&mut secrets);
        steps.push(Step::Clear);
    }
    placed
}

/// What every step has: `/proc`, `/dev`, `/sys`, and who is who on the network.
fn system(layout: &Layout, steps: &mut Vec<Step>, next: &mut impl FnMut() -> Slot) {
    let mount = |fs, at: &str, restrict| Step::Mount {
        fs,
        at: at.to_owned(),
        restrict,
        litter: Litter::Keep,
    };
    steps.push(mount(NewFs::Proc, "/proc", Restrict::INERT));
    let nosuid = Restrict { suid: true, ..Restrict::NOTHING };
    steps.push(mount(NewFs::Tmpfs { size: DEV_BYTES, mode: 0o755 }, "/dev", nosuid));
    for node in NODES {
        let slot = next();
        let path = format!("/dev/{node}");
        steps.push(Step::Take { slot, from: HostPath::from(&path) });
        let litter = Litter::Keep;
        steps.push(Step::Place { slot, at: path, restrict: Restrict::NOTHING, litter });
    }
    let pts = Restrict { suid: true, exec: true, ..Restrict::NOTHING };
    steps.push(mount(NewFs::Devpts, "/dev/pts", pts));
    let size = if layout.shm_size == 0 { DEFAULT_SHM_BYTES } else { layout.shm_size };
    steps.push(mount(NewFs::Tmpfs { size, mode: 0o1777 }, "/dev/shm", Restrict::INERT));
    steps.push(mount(NewFs::Mqueue, "/dev/mqueue", Restrict::INERT));
    let core = layout.kcore.then_some(("/dev/core", "/proc/kcore"));
    for (at, target) in LINKS.into_iter().chain(core) {
        steps.push(Step::Symlink { at: at.to_owned(), target: target.to_owned() });
    }
    sysfs(layout, steps, next);
    for (from, at) in [(&layout.resolv_conf, "/etc/resolv.conf"), (&layout.hosts, "/etc/hosts")] {
        let slot = next();
        steps.push(Step::Take { slot, from: from.clone() });
        let (restrict, litter) = (Restrict::ALL, layout.litter);
        steps.push(Step::Place { slot, at: at.to_owned(), restrict, litter });
    }
    if !layout.insecure {
        steps.extend(READ_ONLY.map(|at| Step::ReadOnly { at: at.to_owned() }));
        steps.extend(MASKED.map(|at| Step::Mask { at: at.to_owned() }));
    }
}

/// `/sys`: the host's, read-only; in a network namespace of its own a new one, which shows that
/// namespace's devices.
fn sysfs(layout: &Layout, steps: &mut Vec<Step>, next: &mut impl FnMut() -> Slot) {
    let restrict = if layout.insecure { Restrict::INERT } else { Restrict::ALL };
    let (at, litter) = ("/sys".to_owned(), Litter::Keep);
    if layout.own_network {
        steps.push(Step::Mount { fs: NewFs::Sysfs, at, restrict, litter });
    } else {
        let slot = next();
        steps.push(Step::Take { slot, from: "/sys".into() });
        steps.push(Step::Place { slot, at, restrict, litter });
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
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn overlay() -> Tree {
        Tree::Overlay {
            lowers: vec!["/s/2".into(), "/s/1".into()],
            upper: Some(("/s/3".into(), "/s/3.work".into())),
        }
    }

    fn layout() -> Layout {
        Layout {
            root: overlay(),
            root_readonly: false,
            mounts: Vec::new(),
            hosts: "/t/hosts".into(),
            resolv_conf: "/t/resolv".into(),
            hostname: "buildkitsandbox".into(),
            shm_size: 0,
            own_network: false,
            kcore: true,
            insecure: false,
            litter: Litter::RemoveWithParents,
        }
    }

    #[track_caller]
    fn check(layout: &Layout, expect: &Expect) {
        let mut text = String::new();
        for step in steps(layout) {
            text.extend([step.to_string(), "\n".to_owned()]);
        }
        expect.assert_eq(&text);
    }

    #[test]
    fn an_ordinary_step() {
        check(
            &layout(),
            &expect![[r#"
            overlay /s/2:/s/1 upper=/s/3 work=/s/3.work
            root
            mount proc /proc rw,nosuid,nodev,noexec
            mount tmpfs size=67108864 mode=0755 /dev rw,nosuid
            take #0 = /dev/null
            place #0 /dev/null rw
            take #1 = /dev/zero
            place #1 /dev/zero rw
            take #2 = /dev/full
            place #2 /dev/full rw
            take #3 = /dev/random
            place #3 /dev/random rw
            take #4 = /dev/urandom
            place #4 /dev/urandom rw
            take #5 = /dev/tty
            place #5 /dev/tty rw
            mount devpts /dev/pts rw,nosuid,noexec
            mount tmpfs size=67108864 mode=1777 /dev/shm rw,nosuid,nodev,noexec
            mount mqueue /dev/mqueue rw,nosuid,nodev,noexec
            symlink /dev/ptmx -> pts/ptmx
            symlink /dev/fd -> /proc/self/fd
            symlink /dev/stdin -> /proc/self/fd/0
            symlink /dev/stdout -> /proc/self/fd/1
            symlink /dev/stderr -> /proc/self/fd/2
            symlink /dev/core -> /proc/kcore
            take #6 = /sys
            place #6 /sys ro,nosuid,nodev,noexec
            take #7 = /t/resolv
            place #7 /etc/resolv.conf ro,nosuid,nodev,noexec (stub and parents go)
            take #8 = /t/hosts
            place #8 /etc/hosts ro,nosuid,nodev,noexec (stub and parents go)
            read-only /proc/bus
            read-only /proc/fs
            read-only /proc/irq
            read-only /proc/sys
            read-only /proc/sysrq-trigger
            mask /proc/acpi
            mask /proc/asound
            mask /proc/interrupts
            mask /proc/kcore
            mask /proc/keys
            mask /proc/latency_stats
            mask /proc/sched_debug
            mask /proc/scsi
            mask /proc/timer_list
            mask /proc/timer_stats
            mask /sys/firmware
            mask /sys/devices/virtual/powercap
            mask /sys/fs/cgroup
            mask /sys/kernel/debug
            hostname buildkitsandbox
            pivot-root
        "#]],
        );
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "the text is long")]
    fn every_kind_of_mount() {
        let mount = |at: &str, readonly, source| Mount { at: at.into(), readonly, source };
        let tree = Tree::Overlay { lowers: vec!["/s/b".into(), "/s/a".into()], upper: None };
        let one = Tree::Directory("/s/c".into());
        let layout = Layout {
            mounts: vec![
                mount("/m", true, Source::Tree { tree, selector: "out/f".into() }),
                mount("/n", false, Source::Tree { tree: one, selector: String::new() }),
                mount("/c", false, Source::Host("/store/cache-mounts/x".into())),
                mount("/t", false, Source::Tmpfs { size: 1 << 20 }),
                mount(
                    "/run/secrets/a",
                    true,
                    Source::Secret { from: 2, uid: 0, gid: 0, mode: 0o400 },
                ),
                mount("/b", true, Source::Secret { from: 3, uid: 5, gid: 6, mode: 0o444 }),
            ],
            root_readonly: true,
            own_network: true,
            insecure: true,
            ..layout()
        };
        check(
            &layout,
            &expect![[r#"
            overlay /s/b:/s/a
            keep #0 = scratch:out/f
            clear
            directory /s/c
            keep #1 = scratch:
            clear
            take #2 = /store/cache-mounts/x
            memory
            write 3 from=2 owner=0:0 mode=0400
            keep #3 = scratch:3
            write 4 from=3 owner=5:6 mode=0444
            keep #4 = scratch:4
            clear
            overlay /s/2:/s/1 upper=/s/3 work=/s/3.work
            root
            mount proc /proc rw,nosuid,nodev,noexec
            mount tmpfs size=67108864 mode=0755 /dev rw,nosuid
            take #5 = /dev/null
            place #5 /dev/null rw
            take #6 = /dev/zero
            place #6 /dev/zero rw
            take #7 = /dev/full
            place #7 /dev/full rw
            take #8 = /dev/random
            place #8 /dev/random rw
            take #9 = /dev/urandom
            place #9 /dev/urandom rw
            take #10 = /dev/tty
            place #10 /dev/tty rw
            mount devpts /dev/pts rw,nosuid,noexec
            mount tmpfs size=67108864 mode=1777 /dev/shm rw,nosuid,nodev,noexec
            mount mqueue /dev/mqueue rw,nosuid,nodev,noexec
            symlink /dev/ptmx -> pts/ptmx
            symlink /dev/fd -> /proc/self/fd
            symlink /dev/stdin -> /proc/self/fd/0
            symlink /dev/stdout -> /proc/self/fd/1
            symlink /dev/stderr -> /proc/self/fd/2
            symlink /dev/core -> /proc/kcore
            mount sysfs /sys rw,nosuid,nodev,noexec
            take #11 = /t/resolv
            place #11 /etc/resolv.conf ro,nosuid,nodev,noexec (stub and parents go)
            take #12 = /t/hosts
            place #12 /etc/hosts ro,nosuid,nodev,noexec (stub and parents go)
            place #0 /m ro (stub and parents go)
            place #1 /n rw (stub and parents go)
            place #2 /c rw (stub and parents go)
            mount tmpfs size=1048576 mode=1777 /t rw,nosuid (stub and parents go)
            place #3 /run/secrets/a ro,nosuid,nodev,noexec (stub and parents go)
            place #4 /b ro,nosuid,nodev,noexec (stub and parents go)
            freeze-root
            hostname buildkitsandbox
            loopback
            pivot-root
        "#]],
        );
    }
}
