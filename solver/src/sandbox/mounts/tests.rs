//! The steps of some layouts, as text.

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
        system: System { shm_size: 0, own_network: false, kcore: true, insecure: false },
        litter: Litter::RemoveWithParents,
    }
}

fn work() -> HostPath {
    "/w".into()
}

#[track_caller]
fn check(steps: &[Step], expect: &Expect) {
    let mut text = String::new();
    for step in steps {
        text.extend([step.to_string(), "\n".to_owned()]);
    }
    expect.assert_eq(&text);
}

#[test]
fn what_is_ready_before_the_step_is_known() {
    check(
        &skeleton(&layout().system, &work()).0,
        &expect![[r#"
            scratch /w/proc
            new proc rw,nosuid,nodev,noexec
            root
            read-only /bus
            read-only /fs
            read-only /irq
            read-only /sys
            read-only /sysrq-trigger
            mask /acpi
            mask /asound
            mask /interrupts
            mask /kcore
            mask /keys
            mask /latency_stats
            mask /sched_debug
            mask /scsi
            mask /timer_list
            mask /timer_stats
            lift #0
            scratch /w/dev
            new tmpfs size=67108864 mode=0755 rw,nosuid
            root
            take #3 = /dev/null
            place #3 /null rw
            take #3 = /dev/zero
            place #3 /zero rw
            take #3 = /dev/full
            place #3 /full rw
            take #3 = /dev/random
            place #3 /random rw
            take #3 = /dev/urandom
            place #3 /urandom rw
            take #3 = /dev/tty
            place #3 /tty rw
            mount devpts /pts rw,nosuid,noexec
            mount tmpfs size=67108864 mode=1777 /shm rw,nosuid,nodev,noexec
            mount mqueue /mqueue rw,nosuid,nodev,noexec
            symlink /ptmx -> pts/ptmx
            symlink /fd -> /proc/self/fd
            symlink /stdin -> /proc/self/fd/0
            symlink /stdout -> /proc/self/fd/1
            symlink /stderr -> /proc/self/fd/2
            symlink /core -> /proc/kcore
            lift #1
            scratch /w/sys
            directory /sys
            root
            mask /firmware
            mask /devices/virtual/powercap
            mask /fs/cgroup
            mask /kernel/debug
            lift #2
        "#]],
    );
}

#[test]
fn a_skeleton_without_the_hosts_network() {
    let system = System { shm_size: 1 << 20, own_network: true, kcore: false, insecure: true };
    check(
        &skeleton(&system, &work()).0,
        &expect![[r#"
            scratch /w/proc
            new proc rw,nosuid,nodev,noexec
            root
            lift #0
            scratch /w/dev
            new tmpfs size=67108864 mode=0755 rw,nosuid
            root
            take #3 = /dev/null
            place #3 /null rw
            take #3 = /dev/zero
            place #3 /zero rw
            take #3 = /dev/full
            place #3 /full rw
            take #3 = /dev/random
            place #3 /random rw
            take #3 = /dev/urandom
            place #3 /urandom rw
            take #3 = /dev/tty
            place #3 /tty rw
            mount devpts /pts rw,nosuid,noexec
            mount tmpfs size=1048576 mode=1777 /shm rw,nosuid,nodev,noexec
            mount mqueue /mqueue rw,nosuid,nodev,noexec
            symlink /ptmx -> pts/ptmx
            symlink /fd -> /proc/self/fd
            symlink /stdin -> /proc/self/fd/0
            symlink /stdout -> /proc/self/fd/1
            symlink /stderr -> /proc/self/fd/2
            lift #1
        "#]],
    );
}

#[test]
fn an_ordinary_step() {
    check(
        &steps(&layout(), &work()),
        &expect![[r#"
            scratch /w/root
            overlay /s/2:/s/1 upper=/s/3 work=/s/3.work
            root
            place #0 /proc rw
            place #1 /dev rw
            place #2 /sys ro,nosuid,nodev,noexec
            take #3 = /t/resolv
            place #3 /etc/resolv.conf ro,nosuid,nodev,noexec (stub and parents go)
            take #4 = /t/hosts
            place #4 /etc/hosts ro,nosuid,nodev,noexec (stub and parents go)
            hostname buildkitsandbox
            pivot-root
        "#]],
    );
}

#[test]
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
            mount("/run/secrets/a", true, Source::Secret { from: 2, uid: 0, gid: 0, mode: 0o400 }),
            mount("/b", true, Source::Secret { from: 3, uid: 5, gid: 6, mode: 0o444 }),
        ],
        root_readonly: true,
        system: System { own_network: true, insecure: true, ..layout().system },
        ..layout()
    };
    check(
        &steps(&layout, &work()),
        &expect![[r#"
            scratch /w/root
            overlay /s/b:/s/a
            keep #3 = scratch:out/f
            clear
            directory /s/c
            keep #4 = scratch:
            clear
            take #5 = /store/cache-mounts/x
            new tmpfs mode=0700 rw
            write 6 from=2 owner=0:0 mode=0400
            keep #6 = scratch:6
            write 7 from=3 owner=5:6 mode=0444
            keep #7 = scratch:7
            clear
            overlay /s/2:/s/1 upper=/s/3 work=/s/3.work
            root
            place #0 /proc rw
            place #1 /dev rw
            mount sysfs /sys rw,nosuid,nodev,noexec
            take #8 = /t/resolv
            place #8 /etc/resolv.conf ro,nosuid,nodev,noexec (stub and parents go)
            take #9 = /t/hosts
            place #9 /etc/hosts ro,nosuid,nodev,noexec (stub and parents go)
            place #3 /m ro (stub and parents go)
            place #4 /n rw (stub and parents go)
            place #5 /c rw (stub and parents go)
            mount tmpfs size=1048576 mode=1777 /t rw,nosuid (stub and parents go)
            place #6 /run/secrets/a ro,nosuid,nodev,noexec (stub and parents go)
            place #7 /b ro,nosuid,nodev,noexec (stub and parents go)
            freeze-root
            hostname buildkitsandbox
            loopback
            pivot-root
        "#]],
    );
}
