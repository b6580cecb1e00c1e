//! Refusals in, words out.

use expect_test::{Expect, expect};

use super::*;

fn unshare(errno: i32) -> Refusal {
    Refusal { call: "unshare(CLONE_NEWUSER)".into(), errno, detail: String::new() }
}

fn newuidmap(detail: &str) -> Refusal {
    Refusal { call: "newuidmap".into(), errno: 0, detail: detail.into() }
}

#[track_caller]
fn check(refusal: Refusal, facts: &Facts, expect: &Expect) {
    expect.assert_eq(&explain(refusal, facts).to_string());
}

fn user() -> Facts {
    let program = "/usr/local/bin/rbuild".into();
    Facts {
        uid: 1000,
        bounding: u64::MAX,
        program,
        range_command: "usermod …".into(),
        ..Facts::default()
    }
}

#[test]
fn in_a_docker_container() {
    check(
        unshare(libc::EPERM),
        &Facts { uid: 0, seccomp: 2, ..user() },
        &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (EPERM)
            the container's seccomp profile blocks unshare(2), as Docker's and containerd's defaults do
            - docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined
            - Kubernetes: hostUsers: false, and capabilities: add: [SYS_ADMIN] (safe there: it reaches no further than the pod)"#]],
    );
    check(
        unshare(libc::EPERM),
        &Facts { seccomp: 2, ..user() },
        &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (EPERM)
            the container's seccomp profile blocks unshare(2), as Docker's and containerd's defaults do
            - Kubernetes: runAsUser: 0, without runAsNonRoot: true and without capabilities: drop: [ALL] (RUN is then held by `chroot`); docker run --user 0
            - Kubernetes: hostUsers: false, and capabilities: add: [SYS_ADMIN]
            - Kubernetes: seccompProfile: type: Unconfined, or a Localhost profile with unshare(2)
            - docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"#]],
    );
}

#[test]
fn by_sysctl() {
    check(
        unshare(libc::ENOSPC),
        &user(),
        &expect![[r#"
            unshare(CLONE_NEWUSER): over the limit (ENOSPC)
            the host allows no (more) user namespaces: user.max_user_namespaces is 0 or used up
            - sysctl -w user.max_user_namespaces=15000"#]],
    );
    let facts = Facts { unprivileged_userns_clone: Some(0), ..user() };
    check(
        unshare(libc::EPERM),
        &facts,
        &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (EPERM)
            the kernel forbids ordinary users to make user namespaces
            - sysctl -w kernel.unprivileged_userns_clone=1"#]],
    );
    check(
        unshare(libc::EPERM),
        &user(),
        &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (EPERM)
            a security policy forbids it, or rbuild runs inside of a chroot
            - run rbuild outside of the chroot"#]],
    );
}

#[test]
fn by_ubuntu() {
    let call = "mount(MS_PRIVATE)".into();
    let refusal = Refusal { call, errno: libc::EACCES, detail: String::new() };
    check(
        refusal,
        &Facts { apparmor_restricts: Some(1), ..user() },
        &expect![[r#"
            mount(MS_PRIVATE): Permission denied (EACCES)
            Ubuntu's AppArmor policy lets rbuild create a user namespace but strips its capabilities
            - allow it for this program, as root: put
                abi <abi/4.0>,
                include <tunables/global>
                profile rbuild /usr/local/bin/rbuild flags=(unconfined) {
                  userns,
                  include if exists <local/rbuild>
                }
              into /etc/apparmor.d/rbuild and load it: apparmor_parser -r /etc/apparmor.d/rbuild
            - or for all: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"#]],
    );
}

#[test]
fn by_a_container_profile() {
    let call = "mount(MS_PRIVATE)".into();
    let refusal = Refusal { call, errno: libc::EACCES, detail: String::new() };
    let label = "docker-default (enforce)".into();
    check(
        refusal,
        &Facts { label, ..user() },
        &expect![[r#"
            mount(MS_PRIVATE): Permission denied (EACCES)
            the security profile `docker-default (enforce)` forbids it
            - docker run --security-opt apparmor=unconfined --security-opt label=disable"#]],
    );
}

#[test]
fn five_ways_to_have_no_range() {
    check(
        newuidmap("not installed (Debian package `uidmap`)"),
        &user(),
        &expect![[r#"
        newuidmap: not installed (Debian package `uidmap`)
        ids beyond one's own are handed out by newuidmap and newgidmap
        - apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)"#]],
    );
    let eperm = "write to uid_map failed: Operation not permitted";
    check(
        newuidmap(eperm),
        &Facts { no_new_privs: true, ..user() },
        &expect![[r#"
            newuidmap: write to uid_map failed: Operation not permitted
            no_new_privs is set, so that newuidmap has no privilege to use
            - Kubernetes: allowPrivilegeEscalation: true"#]],
    );
    check(
        newuidmap(eperm),
        &Facts { bounding: 0xa804_25fb, ..user() },
        &expect![[r#"
            newuidmap: write to uid_map failed: Operation not permitted
            newuidmap is setuid root, which is not enough in a container without CAP_SYS_ADMIN in its bounding set
            - in the image: chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; setcap cap_setuid=ep /usr/bin/newuidmap; setcap cap_setgid=ep /usr/bin/newgidmap"#]],
    );
    check(
        newuidmap(eperm),
        &user(),
        &expect![[r#"
            newuidmap: write to uid_map failed: Operation not permitted
            newuidmap lost its setuid bit or file capabilities, perhaps in a copy of an image
            - chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap, or install the package again"#]],
    );
    let denied = "uid range [1-65536) -> [100000-165535) not allowed";
    check(
        newuidmap(denied),
        &user(),
        &expect![[r#"
            newuidmap: uid range [1-65536) -> [100000-165535) not allowed
            /etc/subuid or /etc/subgid has no such range for this user
            - usermod …"#]],
    );
    let call = "/etc/subuid".into();
    let detail = "no range of 65535 ids for user dev";
    let refusal = Refusal { call, errno: 0, detail: detail.into() };
    check(
        refusal,
        &user(),
        &expect![[r#"
            /etc/subuid: no range of 65535 ids for user dev
            a range of ids is needed to give files to the users of an image
            - usermod …"#]],
    );
}

#[test]
fn facts_of_a_status_file() {
    let status = "Name:\tx\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
                  NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
    let facts = Facts::parse(status);
    assert_eq!((facts.seccomp, facts.no_new_privs), (2, true));
    assert_eq!((facts.caps, facts.bounding), (0xa804_25fb, 0xa804_25fb));
}

#[test]
fn what_no_rung_hangs_on() {
    let store_fs = "overlay".to_owned();
    let facts = Facts { store_fs, ..user() };
    let mut text = String::new();
    for (call, errno) in [
        ("an overlay in the store", 0),
        ("an overlay by fuse-overlayfs", 0),
        ("chown(2) in the store", libc::EPERM),
        ("symlink(2) in the store", libc::EPERM),
        ("programs in the store", 0),
        ("mount(2) of proc", libc::EPERM),
        ("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)", libc::EBUSY),
        ("pivot_root(2)", libc::EPERM),
        ("chroot(2)", libc::EPERM),
        ("ioctl(FICLONE)", libc::EOPNOTSUPP),
        ("setxattr(user.rbuild)", libc::EOPNOTSUPP),
        ("opening /dev/fuse", libc::EACCES),
        ("opening /dev/net/tun", libc::ENOENT),
        ("a cgroup", 0),
        ("/proc/self/uid_map", 0),
    ] {
        let refusal = Refusal { call: call.into(), errno, detail: String::new() };
        text.extend([explain(refusal, &facts).to_string(), "\n".to_owned()]);
    }
    expect![[r#"
        an overlay in the store
        the store is on overlay, where no overlay can be written
        - put the store on a volume: --root DIR or RBUILD_ROOT (Kubernetes: an emptyDir; docker run -v; GitLab: below /builds)
        an overlay by fuse-overlayfs
        images would not be those of other places, so it is used only if it is asked for
        - --snapshotter=fuse-overlayfs, if no step moves such files
        chown(2) in the store: Operation not permitted (EPERM)
        files of the store cannot belong to the users of an image, as on a network file system that decides about owners itself (root squash): owners are recorded beside the files
        - put the store on a local disk: --root DIR or RBUILD_ROOT
        symlink(2) in the store: Operation not permitted (EPERM)
        the file system of the store cannot hold the files of an image
        - put the store on a Linux file system: --root DIR or RBUILD_ROOT
        programs in the store
        whole trees are made in the store, from which no step could start a program
        - put the store where programs run: --root DIR or RBUILD_ROOT
        mount(2) of proc: Operation not permitted (EPERM)
        the place's own /proc is partly hidden, so the kernel mounts no other: steps see a copy of it, which shows processes around them, but their pid namespace keeps them apart
        - docker run --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked
        seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER): Device or resource busy (EBUSY)
        another program answers system calls here already (a container manager, or rbuild within rbuild), and there can be one only: without a range of ids all files of a step are root's
        - give rbuild a range of ids, or start it outside
        pivot_root(2): Operation not permitted (EPERM)
        the container's profile forbids it; rbuild does without
        chroot(2): Operation not permitted (EPERM)
        only root may
        ioctl(FICLONE): Operation not supported on transport endpoint (EOPNOTSUPP)
        files cannot share blocks there: whole trees are copied
        setxattr(user.rbuild): Operation not supported on transport endpoint (EOPNOTSUPP)
        the file system of the store has no such attributes
        opening /dev/fuse: Permission denied (EACCES)
        its owner and mode, or the list of the container's devices, keep rbuild out
        - docker run --device /dev/fuse
        opening /dev/net/tun: No such file or directory (ENOENT)
        there is no such device, as usual in containers
        - docker run --device /dev/net/tun
        a cgroup
        limits such as --memory hold each process alone, as far as they can
        - systemd-run --user --scope -p Delegate=yes rbuild build …
        /proc/self/uid_map
        rbuild runs as root of a user namespace with few ids, and has no more to give
        - start what is around it with 65536 ids (podman run --uidmap 0:1:65536)
    "#]].assert_eq(&text);
}
