//! The rung `chroot`: no namespace, no mount, root only. What a step gets, and what it is kept from.

use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use rbuild_tests::tree::Tree;

/// A space in which rbuild runs as root.
fn space() -> (TestSpace, Registry) {
    TestSpace::own_with_busybox()
}

/// Builds these instructions on top of busybox and returns the tree.
fn step(instructions: &str) -> Tree {
    let (space, _registry) = space();
    space.write("Dockerfile", &format!("FROM @BASE@\n{instructions}\n"));
    space.image(&["--isolation=chroot"]).tree()
}

const DEVICES: &str = "RUN mkdir /n && cd /n && mknod c c 1 3 && mknod -m 600 /n/b b 8 1 && chown 7:8 b\nRUN mv /n/c /n/d\n";

/// Bits that root takes away by writing, and bits that it sets for groups that it is not in.
const SET_IDS: &str = "\
RUN cp /bin/busybox /s && chmod 6755 /s && cp -p /s /s1 && cp -p /s /s2 && echo >> /s1 && truncate -s 9 /s2 \
 && mkdir /i && chgrp 9 /i && chmod 2775 /i && cp /s /i/a && chmod g+s,u+s /i/a && cp -p /i/a /i/b && mkdir /i/d \
 && ln -s a /i/l && chmod 2755 /i/l && cd /i && tar -cf /t a b d && mkdir /u && tar -C /u -xpf /t && rm /t
";

#[test]
fn the_digest_is_that_of_the_other_rungs() {
    needs!(Root, Program("busybox"));
    let (space, _registry) = space();
    space.write("Dockerfile", &format!("{}{DEVICES}{SET_IDS}", crate::rungs::DOCKERFILE));
    let mut digests = Vec::new();
    for isolation in ["userns", "chroot"] {
        let arguments = [
            &format!("--isolation={isolation}"),
            "--no-cache",
            "--build-arg=SOURCE_DATE_EPOCH=1000000000",
            "--iidfile=@OUT@/id",
            "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
        ];
        space.build(&arguments).success();
        digests.push(space.read("out/id"));
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_stands_for_mounts_leaves_nothing_behind() {
    needs!(Root, Program("busybox"));
    let before = step("RUN true").nodes;
    let after = step(
        "RUN --mount=type=cache,target=/c/d --mount=type=tmpfs,target=/t --mount=type=secret,id=none,target=/s/x \
         ls /proc /proc/self /proc/self/fd /sys /dev && echo x > /dev/shm/x && echo x > /c/d/x && echo x > /t/x \
         && echo mine > /etc/hosts && rm /etc/resolv.conf",
    );
    assert_eq!(before, after.nodes);
}

#[test]
fn files_of_the_kernel_are_the_step_s_own() {
    needs!(Root, Program("busybox"));
    let tree = step(
        "RUN { readlink /proc/self/exe; hostname; cat /proc/sys/kernel/hostname; readlink /proc/self/cwd; \
         echo in | cat /dev/stdin; readlink /proc/self/root; cat /proc/self/comm; ls /proc | grep -cx 1; \
         cat /proc/self/mounts | wc -l; test -c /dev/null && echo null; \
         head -c 3 /dev/zero | wc -c; ls /proc/self/fd/0 /dev/fd/0 | wc -l; } > /seen 2>&1",
    );
    let seen = tree.read("seen");
    let expected =
        "/bin/busybox\nbuildkitsandbox\nbuildkitsandbox\n/\nin\n/\ncat\n0\n4\nnull\n3\n2\n";
    assert_eq!(seen, expected);
}

#[test]
fn a_step_reaches_nothing_outside() {
    needs!(Root, Program("busybox"));
    // Each line says what was possible and must not be.
    let tree = step(
        "RUN touch /seen; bad() { echo \"$1\" >> /seen; }; \
         cat /proc/1/environ && bad environ; cat /proc/$PPID/maps && bad maps; \
         ls /proc/$PPID/root/ && bad root; ls /proc/$PPID/cwd/ && bad cwd; ls /proc/1/fd && bad fd; \
         ln -s /proc/1/root /r && ls /r/ && bad link; ls /proc/self/root/proc/1/root/ && bad roots; \
         kill -0 $PPID && bad signal; kill -9 1 && bad kill; renice -n 5 -p $PPID && bad renice; \
         chroot /bin /busybox true && bad chroot; mount -t tmpfs x /tmp && bad mount; \
         unshare -U true && bad namespace; mount --bind / /mnt && bad bind; \
         echo 1 > /proc/sys/vm/drop_caches && bad sysctl; echo b > /proc/sysrq-trigger && bad sysrq; \
         head -c 1 /proc/kcore && bad kcore; ls /sys/fs/cgroup/* && bad cgroup; \
         [ $(ls / | grep -c lost) = 0 ] || bad tree; \
         cd /proc/self/cwd/../../../../.. && [ -e bin/busybox ] || bad up; true",
    );
    assert_eq!(tree.read("seen"), "");
}

#[test]
fn nothing_of_a_step_lives_on() {
    needs!(Root, Program("busybox"));
    drop(step("RUN sleep 98765 & setsid sleep 98765 & (sleep 98765 &) ; true"));
    let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        line.contains("98765") && line.starts_with("sleep")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn users_are_held_to_their_rights() {
    needs!(Root, Program("busybox"));
    let tree = step(
        "RUN mkdir -m 700 /private && echo x > /private/x && mkdir -m 777 /open\n\
         USER 1234:4321\n\
         RUN { id -u; cat /private/x || echo no; cat /proc/self/status | grep Uid; \
         (echo out > /dev/stdout) | cat; cat /proc/self/cwd/private/x || echo no; } > /open/seen 2>/dev/null",
    );
    let seen = tree.read("open/seen");
    assert_eq!(seen, "1234\nno\nUid:\t1234\t1234\t1234\t1234\nout\nno\n");
}

#[test]
fn a_secret_is_read_and_lies_nowhere() {
    needs!(Root, Program("busybox"));
    let (space, _registry) = space();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN --mount=type=secret,id=s,target=/run/x cd /run && grep -q very-secret x && \
         grep -q very-secret /run/x && [ $(wc -c < /run/x) = 12 ] && ! echo > /run/x && \
         cp x /copied && rm /copied\n",
    );
    space.write_bytes("value", b"very-secret\n");
    let image = space.image(&["--isolation=chroot", "--secret=id=s,src=@SPACE@/value"]);
    assert!(!image.tree().nodes.contains_key("run"), "its place is gone");
}

#[test]
fn the_network_can_be_denied() {
    needs!(Root, Program("busybox"));
    let (space, registry) = space();
    let (host, port) = registry.address().split_once(':').unwrap();
    // The registry is on this host's loopback, which is the container's.
    let reach = format!("wget -q -O /dev/null http://{host}:{port}/v2/");
    space.write(
        "Dockerfile",
        &format!(
            "FROM @BASE@\nRUN {reach}\nRUN --network=none ! {reach} && [ $(ls /sys/class/net) = lo ]\n"
        ),
    );
    space.build(&["--isolation=chroot"]).success();
}

#[test]
fn a_cache_outlives_a_killed_build() {
    needs!(Root, Program("busybox"));
    let (space, _registry) = space();
    let run = |command: &str| {
        let text = format!("FROM @BASE@\nRUN --mount=type=cache,target=/c {command}\n");
        space.write("Dockerfile", &text);
    };
    run("echo kept > /c/kept");
    space.build(&["--isolation=chroot"]).success();
    run("cat /c/kept && mv /c /elsewhere && echo waiting && sleep 98764");
    let mut running = space.start_build(&["--isolation=chroot"]);
    running.until("waiting");
    running.signal("KILL");
    drop(running.wait());
    run("grep -q kept /c/kept");
    space.build(&["--isolation=chroot", "--no-cache"]).success();
}

#[test]
fn devices_are_kept_where_files_have_no_attributes() {
    needs!(Root, Program("busybox"));
    let (space, _registry) = space();
    let _disk = rbuild_tests::disk::Disk::mount(&space, "plain", "ramfs", "mode=755");
    space.write("Dockerfile", &format!("FROM @BASE@\n{DEVICES}"));
    let output = "--output=type=oci,dest=@OUT@/image.tar";
    let root = "--root=@SPACE@/plain/store";
    space.run(&[root, "build", "--isolation=chroot", output, "."]).success();
    let tree = rbuild_tests::image::Image::read(&space.path("out/image.tar")).tree();
    assert_eq!((tree.at("n/d").kind, tree.at("n/b").kind), ('c', 'b'));
}
