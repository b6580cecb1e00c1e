//! Where rbuild works: without a home, without namespaces, on stores of every kind.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rbuild_tests::needs;
use rbuild_tests::ran::{Ran, Running};
use rbuild_tests::space::TestSpace;

/// Runs `rbuild ARGS` as root of a user namespace with one id, in a place that the shell command
/// `script` has set up.
fn within(space: &TestSpace, script: &str, args: &[&str]) -> Ran {
    let inner = space.command(args);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{script}; exec \"$@\"")).arg("sh").arg(inner.get_program());
    command.args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(inner.get_current_dir().unwrap());
    space.as_runner(&mut command);
    Running::start(&mut command).wait()
}

/// No namespace of any user within.
const NO_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces";

#[test]
fn without_a_home() {
    let space = TestSpace::new();
    space.write("file", "x");
    space.write("Dockerfile", "FROM scratch\nCOPY --chown=5:6 file /\n");
    let output = "type=oci,dest=@OUT@/image.tar";
    let mut command = space.command(&["build", "-o", output, "."]);
    command.env("HOME", "/proc/nowhere").env_remove("RBUILD_ROOT");
    Running::start(&mut command).wait().success().says("rbuild-").says("--root DIR");
    let tree = rbuild_tests::image::Image::read(&space.path("out/image.tar")).tree();
    assert_eq!(tree.read("file"), "x");
    let mut command = space.command(&["build", "-o", output, "."]);
    command.env("HOME", "/proc/nowhere").env_remove("RBUILD_ROOT");
    Running::start(&mut command).wait().success().cached("COPY");
}

#[test]
fn with_the_home_of_somebody_else() {
    needs!(Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let home = space.dir("closed");
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(&home, closed).unwrap();
    space.write("Dockerfile", "FROM @BASE@\nENV A=1\n");
    let mut command = space.command(&["build", "-o", "type=oci,dest=@OUT@/image.tar", "."]);
    command.env("HOME", &home);
    Running::start(&mut command).wait().success();
}

#[test]
fn a_build_without_steps_needs_no_namespace_and_gives_the_same_image() {
    needs!(Ids, Program("busybox"), Program("unshare"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("file", "x");
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS a\nCOPY --chown=5:6 --chmod=4755 file /\n\
         FROM @BASE@\nCOPY --from=a /home /file /x/\nWORKDIR /w\nADD --chown=7 file /w/\n",
    );
    let build = |name: &'static str| {
        let output = format!("type=oci,dest=@OUT@/{name}.tar,rewrite-timestamp=true");
        let root = format!("--root=@SPACE@/store/{name}");
        let id = format!("--iidfile=@OUT@/{name}");
        let args =
            [&root, "build", "--build-arg=SOURCE_DATE_EPOCH=1000000000", &id, "-o", &output, "."];
        args.map(str::to_owned)
    };
    let (with, without) = (build("with"), build("without"));
    space.run(&with.each_ref().map(String::as_str)).success();
    let args = [&without.each_ref().map(String::as_str)[..], &["-o", "type=tar,dest=@OUT@/t.tar"]];
    within(&space, NO_NAMESPACES, &args.concat()).success();
    assert_eq!(space.read("out/with"), space.read("out/without"));
    // What a place without namespaces has put into the store is not taken for more than it is.
    space.write("Dockerfile", "FROM @BASE@\nRUN [ $(stat -c %u:%g /home/app) = 1000:1000 ]\n");
    let args = ["--root=@SPACE@/store/without", "build", "--progress=plain", "."];
    within(&space, "true", &args).success().says("isolation userns-single");
}

#[test]
fn a_step_needs_a_namespace_and_says_how_to_get_one() {
    needs!(Program("busybox"), Program("unshare"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let ran = within(&space, NO_NAMESPACES, &["build", "--isolation=userns", "."]);
    ran.ended(3).says("unshare(CLONE_NEWUSER)").says("sysctl -w user.max_user_namespaces=");
}

#[test]
fn what_a_place_allows_is_asked_once() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let probes = || {
        let entries = std::fs::read_dir(space.path("store/probes")).unwrap();
        let mut all: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
        all.sort();
        all
    };
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    space.build(&[]).success().says("isolation userns, ");
    let [kept] = &probes()[..] else { panic!("{:?}", probes()) };
    let first = std::fs::read_to_string(kept).unwrap();
    if first.contains(r#"["Overlay",{"Ok":null}]"#) {
        // A worker that found all well has told, and nobody was asked.
        assert!(!first.contains("OneId"), "{first}");
    }
    // A build takes what is kept, right or wrong …
    let wrong = first.replace(
        r#"["Overlay",{"Ok":null}]"#,
        r#"["Overlay",{"Err":{"call":"x","errno":1,"detail":""}}]"#,
    );
    std::fs::write(kept, &wrong).unwrap();
    if wrong != first {
        space.build(&[]).success().says("no overlay: x");
    }
    // … the doctor never does, and what is no answer is asked again.
    space.run(&["doctor"]).success();
    assert_ne!(std::fs::read_to_string(kept).unwrap(), wrong);
    space.build(&[]).success().keeps_quiet_about("no overlay: x");
    std::fs::write(kept, "{").unwrap();
    space.build(&[]).success().says("isolation userns, ");
    assert!(std::fs::read_to_string(kept).unwrap().contains("OneId"));
    // Other facts have answers of their own.
    within(&space, "true", &["build", "."]).success();
    assert_eq!(probes().len(), 2);
}

#[test]
fn a_step_that_cannot_run_fails_the_build_before_anything_is_pulled() {
    needs!(Program("busybox"), Program("unshare"));
    let (space, registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let ran = within(&space, NO_NAMESPACES, &["build", "--isolation=auto", "."]);
    if ran.code == Some(0) {
        // There is a way that needs no namespace.
        return;
    }
    ran.ended(3).says_a_way_out();
    // The image's configuration is one; its layer would be another.
    let blobs = registry.requests().into_iter().filter(|it| it.contains("/blobs/"));
    assert!(blobs.count() <= 1, "{:?}", registry.requests());
}

#[test]
fn limits_hold_a_step_and_what_does_not_is_told() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN [ $(nproc) = 1 ] && [ $(ulimit -n) = 99 ]\n\
         RUN awk 'BEGIN { for (i = 0; i < 1000000; i++) a[i] = i }'\n",
    );
    let flags = ["--memory=16m", "--cpuset-cpus=0", "--ulimit=nofile=99:99", "--no-cache"];
    let ran = space.build(&flags).ended(1);
    // A cgroup kills the process; without one it gets no more memory, and that is said.
    let by_process = ran.stderr.contains("--memory holds each process alone");
    let killed = ran.stderr.contains("memory ran out");
    assert!(by_process != killed, "{}", ran.story());
    space.write("Dockerfile", "FROM @BASE@\nRUN [ $(nproc) = 1 ]\n");
    space.build(&["--memory=1g", "--cpuset-cpus=0"]).success().says(" of cpu, ");
    space.build(&["--memory=1m"]).ended(2).says("--memory");
    space.build(&["--cpuset-cpus=x"]).ended(2).says("--cpuset-cpus");
}

#[test]
fn a_store_that_no_step_could_work_in_says_where_to_put_it() {
    needs!(Root, Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let _disk = rbuild_tests::disk::Disk::mount(&space, "inert", "tmpfs", "noexec,mode=755");
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let root = "--root=@SPACE@/inert/store";
    let ran = space.run(&[root, "build", "--snapshotter=plain", "."]);
    ran.ended(3).says("mounted noexec").says("--root DIR").says_a_way_out();
    // An overlay is a file system of its own.
    space.run(&[root, "build", "--snapshotter=overlay", "."]).success();
    space.run(&["--root=/proc/store", "build", "."]).ended(3).says_a_way_out();
}
