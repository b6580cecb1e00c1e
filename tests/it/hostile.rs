//! What a step tries that means harm, on each rung that this place allows. `hostile/attacks.c` has the
//! attacks that need system calls; here is what is seen from outside.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Command;

use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;

/// All that `attacks.c` tries.
const ATTACKS: [&str; 26] = [
    "read-outside",
    "write-outside",
    "chroot-escape",
    "passed-descriptor",
    "inherited-descriptors",
    "outside-processes",
    "neighbours",
    "signals-by-descriptor",
    "programs",
    "visible-processes",
    "abstract-socket",
    "mounts",
    "namespaces",
    "the-kernel",
    "raw-disk",
    "more-capabilities",
    "listener",
    "racing-pointers",
    "keepers-memory",
    "program-in-memory",
    "handles",
    "typing",
    "slow-memory",
    "bad-pointers",
    "more-namespaces",
    "propagation",
];

/// Places, and the rungs that they allow: an ordinary user's, and root's.
fn places() -> Vec<(TestSpace, Registry, Vec<&'static str>)> {
    let mut places = Vec::new();
    let mut add = |(space, registry): (TestSpace, Registry), rungs: &[&'static str]| {
        space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
        let allowed = |rung: &&&str| {
            // 3: the host refuses; 2: no such rung.
            !matches!(space.build(&[&format!("--isolation={rung}")]).code, Some(2 | 3))
        };
        let rungs: Vec<_> = rungs.iter().filter(allowed).copied().collect();
        if !rungs.is_empty() {
            places.push((space, registry, rungs));
        }
    };
    add(TestSpace::with_busybox(), &["userns", "userns-single"]);
    add(TestSpace::own_with_busybox(), &["chroot"]);
    assert!(!places.is_empty(), "no rung works here");
    places
}

/// Compiles the attacks into the context.
fn compile(space: &TestSpace) {
    let source = space.path("tmp/attacks.c");
    std::fs::write(&source, include_str!("hostile/attacks.c")).unwrap();
    let program = space.path("context/attack");
    let compiled = Command::new("gcc")
        .args(["-static", "-O1", "-pthread", "-w", "-o"])
        .args([&program, &source])
        .status();
    assert!(compiled.unwrap().success(), "the attacks do not compile");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// All that is below a folder, with modes and contents.
fn listing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        let content = std::fs::read_to_string(entry.path()).unwrap_or_default();
        found.push(format!(
            "{} {:o} {content}",
            entry.file_name().display(),
            metadata.permissions().mode()
        ));
    }
    found.sort();
    found
}

/// Whether a process runs that has this word in its command line.
fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn no_attack_gets_out_of_the_step() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    for (space, _registry, rungs) in &places() {
        compile(space);
        // Everybody may read and write it, who can reach it.
        space.write_bytes("outside/marker", b"outside");
        let outside = space.path("outside");
        std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o777)).unwrap();
        let marker = outside.join("marker");
        std::fs::set_permissions(&marker, std::fs::Permissions::from_mode(0o666)).unwrap();
        let before = listing(&outside);
        let own = std::process::id();
        let name = format!("rbuild-hostile-{own}");
        let _socket =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();

        let attack = format!("/attack {} {own} {name}", marker.display());
        space.write(
            "Dockerfile",
            &format!(
                "FROM @BASE@\nCOPY attack /attack\nRUN cp /attack /setuid && chmod 4755 /setuid\n\
             RUN {attack} > /by-root\n\
             USER app\n\
             RUN {attack} > /tmp/by-app && {} > /tmp/by-setuid\n",
                attack.replace("/attack", "/setuid")
            ),
        );
        for rung in rungs {
            let ran = space.run_with(
                &[("RBUILD_TEST_CANARY", "CANARY")],
                &[
                    "build",
                    "--progress=plain",
                    "--no-cache",
                    &format!("--isolation={rung}"),
                    "-o",
                    "type=oci,dest=@OUT@/image.tar",
                    ".",
                ],
            );
            ran.success();
            let tree = rbuild_tests::image::Image::read(&space.path("out/image.tar")).tree();
            for log in ["by-root", "tmp/by-app", "tmp/by-setuid"] {
                let text = tree.read(log);
                let kept: Vec<_> = text.lines().map(|it| it.trim_start_matches("kept ")).collect();
                assert_eq!(kept, ATTACKS, "{rung}, {log}");
            }
            assert_eq!(listing(&outside), before, "{rung}: something outside was changed");
        }
    }
}

#[test]
fn nothing_that_a_step_starts_outlives_it() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    for (space, _registry, rungs) in &places() {
        compile(space);
        for rung in rungs {
            let word = format!("lingering-{}-{rung}", std::process::id());
            space.write(
            "Dockerfile",
            &format!(
                "FROM @BASE@\nCOPY attack /attack\nRUN /attack linger {word} && echo \"$(ls -d /proc/[0-9]* | wc -l)\" > /processes\n"
            ),
        );
            let tree = space.image(&[&format!("--isolation={rung}"), "--no-cache"]).tree();
            assert!(tree.nodes.contains_key("processes"));
            assert!(!runs(&word), "{rung}: a process outlived its step");
        }
    }
}

#[test]
fn a_step_learns_nothing_of_the_secrets_of_another() {
    needs!(Ids, Program("busybox"));
    for (space, _registry, rungs) in &places() {
        space.write_bytes("home/token", b"s3cr3t-of-one-step");
        // Both run at the same time, and tell each other by the content of files that are there already: on
        // the rung `chroot` names are seen later.
        space.write(
        "Dockerfile",
        "FROM @BASE@ AS made\n\
         RUN --mount=type=cache,target=/c echo > /c/holds && echo > /c/looked && touch /made\n\
         FROM @BASE@ AS owner\n\
         COPY --from=made /made /made\n\
         RUN --mount=type=secret,id=token --mount=type=cache,target=/c \
          test -s /run/secrets/token && echo yes > /c/holds && while ! grep -q yes /c/looked; do usleep 10000; done; touch /held\n\
         FROM @BASE@ AS thief\n\
         COPY --from=made /made /made\n\
         RUN --mount=type=cache,target=/c while ! grep -q yes /c/holds; do usleep 10000; done; \
          for it in /run/secrets/* /proc/[0-9]*/root/run/secrets/* /proc/[0-9]*/cwd/run/secrets/* /proc/[0-9]*/environ \
            /proc/[0-9]*/fd/* /tmp/* /dev/shm/*; do [ -f $it ] && grep -q s3cr3t $it && echo $it; done > /found 2>/dev/null; \
          grep -rs s3cr3t /etc /run /tmp /var /dev/shm >> /found; cat /proc/mounts | grep -c secrets >> /found; \
          echo yes > /c/looked\n\
         FROM @BASE@\n\
         COPY --from=owner /held /held\n\
         COPY --from=thief /found /found\n",
    );
        for rung in rungs {
            let arguments = ["--secret=id=token,src=@SPACE@/home/token", "--no-cache"];
            let tree =
                space.image(&[&arguments[..], &[&format!("--isolation={rung}")]].concat()).tree();
            assert_eq!(tree.read("found"), "0\n", "{rung}");
        }
    }
}

#[test]
fn no_file_of_an_image_is_a_set_user_id_file_of_the_caller() {
    needs!(Ids, Program("busybox"), Program("find"));
    for (space, _registry, rungs) in &places() {
        space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN cp /bin/busybox /root-s && chmod 6755 /root-s && cp -a /root-s /app-s && chown app /app-s && chmod 6755 /app-s\n",
    );
        for rung in rungs {
            let tree = space.image(&[&format!("--isolation={rung}"), "--no-cache"]).tree();
            assert_eq!((tree.at("root-s").mode, tree.at("app-s").mode), (0o6755, 0o6755), "{rung}");
        }
        // Directories of layers can be entered by their owner alone: nobody else starts what is in them.
        let layers = std::fs::metadata(space.path("store/layers")).unwrap();
        let found = Command::new("find").arg(space.path("store")).args(["-perm", "/4000"]).output();
        let found = String::from_utf8_lossy(&found.unwrap().stdout).into_owned();
        assert!(found.is_empty() || layers.permissions().mode() & 0o777 == 0o700, "{found}");
    }
}

#[test]
fn trees_that_are_hard_to_walk_are_the_same_everywhere() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    let mut digests = Vec::new();
    for (space, _registry, rungs) in &places() {
        compile(space);
        space.write(
            "Dockerfile",
            "FROM @BASE@\nCOPY attack /attack\nRUN /attack wild\nRUN cd /wild && echo x > link-9 && rm link-1 pipe && mv link-2 moved\n\
             FROM scratch\nCOPY --from=0 /wild /wild\n",
        );
        for rung in rungs {
            let arguments = [
                &format!("--isolation={rung}"),
                "--no-cache",
                "--build-arg=SOURCE_DATE_EPOCH=1000000000",
                "--iidfile=@OUT@/id",
                "-o",
                "type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
            ];
            space.build(&arguments).success();
            digests.push((*rung, space.read("out/id")));
        }
    }
    assert!(digests.iter().all(|it| it.1 == digests[0].1), "{digests:?}");
}

#[test]
fn a_tree_that_is_too_deep_is_refused_and_removed() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    for (space, _registry, rungs) in &places() {
        compile(space);
        space.write("Dockerfile", "FROM @BASE@\nCOPY attack /attack\nRUN /attack deep\n");
        for rung in rungs {
            let ran = space.build(&[&format!("--isolation={rung}"), "--no-cache"]);
            ran.ended(3).keeps_quiet_about("bug");
        }
        space.run(&["prune", "--all", "--force"]).success();
        // A process that is about to end may still have its own directory there.
        let entries = |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten();
        let left = entries(space.path("store/tmp")).flat_map(|it| entries(it.unwrap().path()));
        let left: Vec<_> = left.map(|it| it.unwrap().file_name()).collect();
        assert!(left.is_empty(), "unfinished work is left: {left:?}");
    }
}
