//! What a RUN step sees, may do, and leaves behind.

use expect_test::expect;
use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use rbuild_tests::tree::Tree;

/// Builds these instructions on top of busybox and returns the tree.
fn step(instructions: &str) -> Tree {
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", &format!("FROM @BASE@\n{instructions}\n"));
    space.image(&[]).tree()
}

#[test]
fn a_step_is_root_in_a_world_of_its_own() {
    needs!(Ids, Program("busybox"));
    let tree = step(
        "RUN { id -u; id -g; hostname; ls /proc | grep -c '^[0-9]' ; cat /proc/1/comm | wc -l; pwd; } > /seen",
    );
    let seen = tree.read("seen");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], ["0", "0", "buildkitsandbox"], "{seen}");
    assert!(lines[3].parse::<u32>().unwrap() < 10, "processes outside are visible:\n{seen}");
    assert_eq!(lines[5], "/", "{seen}");
}

#[test]
fn owners_and_special_bits_are_kept() {
    needs!(Ids, Program("busybox"));
    let tree = step(
        "RUN mkdir /d && touch /d/a /d/b && chown 1234:4321 /d/a && chown app:app /d/b && chmod 4755 /d/b \
         && ln /d/a /d/c && ln -s a /d/l && mkfifo /d/p && chmod 1777 /d",
    );
    let tree = Tree {
        nodes: tree
            .nodes
            .into_iter()
            .filter(|(path, _)| path.split('/').next() == Some("d"))
            .collect(),
    };
    expect![[r#"
        d1777 0:0 d
        -0644 1234:4321 d/a
        -4755 1000:1000 d/b
        h0644 1234:4321 d/c -> d/a
        l0777 0:0 d/l -> a
        p0644 0:0 d/p
    "#]]
    .assert_eq(&tree.to_string());
}

#[test]
fn only_what_a_step_changed_is_in_its_layer() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN rm -r /home/app && echo x > /etc/new && cat /etc/passwd > /dev/null\n",
    );
    let image = space.image(&[]);
    let layer = image.layer(image.layers().len() - 1);
    assert_eq!(layer.paths(), ["etc", "etc/new", "home", "home/.wh.app"]);
}

#[test]
fn files_made_for_the_step_never_enter_the_layer() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         RUN cat /etc/hosts /etc/resolv.conf > /copy && ls /dev > /dev-list\n\
         RUN --mount=type=cache,target=/a/cache --mount=type=tmpfs,target=/a/tmp true\n",
    );
    let tree = space.image(&[]).tree();
    for path in ["etc/hosts", "etc/resolv.conf", "dev/null", "proc/self", "a", "a/cache", "a/tmp"] {
        assert!(!tree.nodes.contains_key(path), "`{path}` was left behind:\n{tree}");
    }
    assert!(tree.read("copy").contains("localhost"), "{}", tree.read("copy"));
    for device in ["null", "zero", "full", "random", "urandom", "tty", "shm", "pts", "fd", "stdin"]
    {
        assert!(tree.read("dev-list").lines().any(|line| line == device), "no {device} in /dev");
    }
}

#[test]
fn the_kernel_is_out_of_reach() {
    needs!(Ids, Program("busybox"));
    let tree = step(
        "RUN (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo sysctl >> /reached; \
         (echo x > /proc/sysrq-trigger) 2>/dev/null && echo sysrq >> /reached; \
         (mkdir /sys/x) 2>/dev/null && echo sys >> /reached; \
         mount -t tmpfs none /mnt 2>/dev/null && echo mount >> /reached; \
         mknod /b b 8 0 && [ $(head -c 512 /b | wc -c) -gt 0 ] && echo disk >> /reached; \
         head -c1 /proc/kcore >/dev/null 2>&1 && echo kcore >> /reached; \
         unshare -U true 2>/dev/null && echo unshare >> /reached; \
         chroot / /bin/true || echo no-chroot >> /reached; \
         grep -E '^(CapBnd|CapEff|Seccomp|NoNewPrivs)' /proc/self/status > /status; true",
    );
    assert!(!tree.nodes.contains_key("reached"), "{}", tree.read("reached"));
    let status = tree.read("status");
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(status.contains("CapBnd:\t00000000a80425fb"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn a_user_of_the_image_is_looked_up_there() {
    needs!(Ids, Program("busybox"));
    let tree = step("USER app\nWORKDIR /home/app\nRUN id > who; echo $HOME >> who\n");
    let who = tree.read("home/app/who");
    assert_eq!(who, "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n/home/app\n");
    assert_eq!(tree.at("home/app/who").uid, 1000);
}

#[test]
fn leftover_processes_end_with_the_step() {
    needs!(Ids, Program("busybox"));
    let tree = step("RUN (setsid sh -c 'sleep 987654' &) ; echo done > /done");
    assert_eq!(tree.read("done"), "done\n");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines =
        processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    assert!(!lines.any(|line| line.contains("987654")), "the process outlived its step");
}

#[test]
fn orphans_are_reaped() {
    needs!(Ids, Program("busybox"));
    let tree = step(
        "RUN sh -c '(sh -c \"exit 0\" &) ; exit 0'; i=0; \
         while grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | grep -q .; do i=$((i+1)); [ $i -lt 100 ] || exit 1; sleep 0.05; done; \
         echo none > /zombies",
    );
    assert_eq!(tree.read("zombies"), "none\n");
}

#[test]
fn secrets_are_seen_by_their_step_alone() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write_bytes("home/token", b"s3cr3t-value");
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         RUN --mount=type=secret,id=token,required=true cmp /run/secrets/token /run/secrets/token && wc -c < /run/secrets/token > /size\n\
         RUN --mount=type=secret,id=token,env=TOKEN [ ${#TOKEN} = 12 ]\n\
         RUN [ ! -e /run/secrets/token ]\n",
    );
    let image = space.image(&["--secret", "id=token,src=@SPACE@/home/token"]);
    assert_eq!(image.tree().read("size").trim(), "12");
    assert!(!image.tree().nodes.contains_key("run/secrets"), "{}", image.tree());
    let grep = std::process::Command::new("grep")
        .args(["-rl", "s3cr3t-value"])
        .arg(space.path("store"))
        .output()
        .unwrap();
    assert!(grep.stdout.is_empty(), "the secret is in {}", String::from_utf8_lossy(&grep.stdout));
    space.build(&["--no-cache"]).ended(1).says("token");
}

#[test]
fn mounts_bring_files_in_and_keep_caches() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("data.txt", "from the context\n");
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS other\nRUN echo from a stage > /made\n\
         FROM @BASE@\n\
         RUN --mount=type=bind,target=/ctx --mount=type=bind,from=other,source=/made,target=/made cat /ctx/data.txt /made > /both\n\
         RUN --mount=type=cache,target=/c echo 1 >> /c/log\n\
         RUN --mount=type=cache,target=/c echo 2 >> /c/log; cp /c/log /log\n\
         RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/big bs=1M count=2 2>/dev/null\n",
    );
    let tree = space.image(&[]).tree();
    assert_eq!(tree.read("both"), "from the context\nfrom a stage\n");
    assert_eq!(tree.read("log"), "1\n2\n");
}

#[test]
fn the_network_can_be_denied() {
    needs!(Ids, Program("busybox"));
    let (space, registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN ip -o link | wc -l > /links; cat /proc/net/route | wc -l >> /links\n",
    );
    let tree = space.image(&["--network", "none"]).tree();
    assert_eq!(tree.read("links"), "1\n1\n", "only the loopback interface, and no route");
    let (host, port) = registry.address().split_once(':').unwrap();
    space.write("Dockerfile", &format!("FROM @BASE@\nRUN --network=host nc -z {host} {port} || wget -q -O /dev/null http://{host}:{port}/v2/\n"));
    space.build(&["--allow", "network.host"]).success();
}

#[test]
fn a_step_does_not_reach_services_on_this_host() {
    needs!(Ids, Program("busybox"));
    let (space, registry) = TestSpace::with_busybox();
    let port = registry.address().split(':').next_back().unwrap();
    space.write("Dockerfile", &format!("FROM @BASE@\nRUN if wget -q -O /dev/null http://127.0.0.1:{port}/v2/; then echo reached; exit 1; fi\n"));
    space.build(&[]).success();
}

#[test]
fn name_servers_can_be_given() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN cp /etc/resolv.conf /seen\n");
    let tree = space.image(&["--dns=192.0.2.1", "--dns=2001:db8::1"]).tree();
    let seen = tree.read("seen");
    assert!(seen.starts_with("nameserver 192.0.2.1\nnameserver 2001:db8::1\n"), "{seen}");
    assert!(!tree.nodes.contains_key("etc/resolv.conf"), "it is no file of the image");
}

#[test]
fn hosts_can_be_added() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN grep example.test /etc/hosts > /found\n");
    let tree = space.image(&["--add-host", "example.test:10.1.2.3"]).tree();
    assert!(tree.read("found").starts_with("10.1.2.3"), "{}", tree.read("found"));
}

#[test]
fn overlay_and_plain_make_the_same_image() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN mkdir -p /a/b && echo 1 > /a/b/c && ln /a/b/c /a/hard && chown -R app /a && rm /etc/group\n\
         RUN rm -r /a/b && mkdir /a/b && chmod 700 /a\nCOPY --chown=app Dockerfile /a/b/\n",
    );
    let digests: Vec<String> = ["overlay", "plain"]
        .iter()
        .map(|snapshotter| {
            let output = format!("type=oci,dest=@OUT@/{snapshotter}.tar,rewrite-timestamp=true");
            let root = format!("@SPACE@/store/{snapshotter}");
            let args = [
                "--root",
                &root,
                "build",
                "--progress=plain",
                "--snapshotter",
                snapshotter,
                "-o",
                &output,
                ".",
            ];
            space.run_with(&[("SOURCE_DATE_EPOCH", "1700000000")], &args).success();
            rbuild_tests::image::Image::read(&space.path(&format!("out/{snapshotter}.tar")))
                .digest()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn root_can_build_too() {
    needs!(Root, Program("busybox"));
    let registry = Registry::start();
    registry.put("busybox", "1", rbuild_tests::base::busybox());
    let space = TestSpace::own();
    space.write(
        "Dockerfile",
        &format!(
            "FROM {}/busybox:1\nRUN touch /t && chown 1234:4321 /t && id -u > /id\n",
            registry.address()
        ),
    );
    let tree = space.image(&[]).tree();
    assert_eq!((tree.at("t").uid, tree.at("t").gid), (1234, 4321));
    assert_eq!(tree.read("id"), "0\n");
}
