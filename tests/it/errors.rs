//! Bad input: each a message with place, cause and way out, the exit code of its kind, and a store that is whole.

use rbuild_tests::needs;
use rbuild_tests::ran::Ran;
use rbuild_tests::space::TestSpace;

/// Builds a Dockerfile that can not work, and shows afterwards that the store still does.
fn refused(dockerfile: &str) -> Ran {
    let space = TestSpace::new();
    space.write("present.txt", "x");
    space.write("Dockerfile", dockerfile);
    let ran = space.build(&[]);
    works(&space);
    ran
}

/// The store is whole: a simple build succeeds in it.
#[track_caller]
fn works(space: &TestSpace) {
    space.write("Dockerfile.simple", "FROM scratch\nCOPY Dockerfile.simple /x\n");
    space.build(&["-f", "Dockerfile.simple"]).success();
}

#[test]
fn a_missing_dockerfile_is_named() {
    let space = TestSpace::new();
    space.build(&[]).ended(1).says("Dockerfile").says_a_way_out();
    space.build(&["-f", "other/Containerfile"]).ended(1).says("other/Containerfile");
    works(&space);
}

#[test]
fn a_missing_context_is_named() {
    let space = TestSpace::new();
    space.run(&["build", "nowhere"]).ended(1).says("nowhere");
}

#[test]
fn an_unknown_instruction_shows_its_line_and_the_nearest_name() {
    let ran = refused("FROM scratch\n\nCOPPY present.txt /\n").ended(1);
    ran.says("Dockerfile:3").says("COPPY present.txt /").says("COPY");
}

#[test]
fn an_unknown_stage_is_told_with_the_nearest_name() {
    let ran = refused("FROM scratch AS builder\nCOPY present.txt /\nFROM scratch\nCOPY --from=bulider /present.txt /\n").ended(4);
    ran.says("Dockerfile:4").says("bulider");
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch AS builder\nCOPY Dockerfile /\n");
    space.build(&["--target", "bulider"]).ended(1).says("bulider").says("builder");
}

#[test]
fn a_cycle_of_stages_is_refused() {
    let ran = refused(
        "FROM scratch AS one\nCOPY --from=two / /\nFROM scratch AS two\nCOPY --from=one / /\n",
    )
    .ended(1);
    ran.says("Dockerfile:").says("--from=").says("one");
}

#[test]
fn a_missing_file_is_told_with_the_nearest_name() {
    let ran = refused("FROM scratch\nCOPY presnt.txt /\n").ended(1);
    ran.says("Dockerfile:2").says("presnt.txt").says("present.txt");
}

#[test]
fn an_ignored_file_is_told_to_be_ignored() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY secret.txt /\n");
    space.write("secret.txt", "x");
    space.write(".dockerignore", "*.txt\n");
    space.build(&[]).ended(1).says("Dockerfile:2").says("secret.txt").says(".dockerignore");
}

#[test]
fn an_empty_dockerfile_and_one_without_from_are_refused() {
    refused("").ended(1);
    refused("# only a comment\n").ended(1);
    refused("RUN true\n").ended(1).says("Dockerfile:1").says("FROM");
}

#[test]
fn a_wrong_flag_is_told_with_the_nearest_name() {
    let space = TestSpace::new();
    space.run(&["build", "--buildarg", "A=b", "."]).ended(2).says("--build-arg");
    space.run(&["build", "-o", "type=ocl,dest=x", "."]).ended(2).says("ocl").says("oci");
    refused("FROM scratch\nCOPY --chowm=1 present.txt /\n")
        .ended(1)
        .says("Dockerfile:2")
        .says("chowm")
        .says("chown");
}

#[test]
fn a_failing_command_shows_its_output_its_line_and_its_status() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN true\nRUN echo the reason; \\\n    exit 42\nRUN true\n",
    );
    let ran = space.build(&[]).ended(1);
    ran.says("the reason")
        .says("Dockerfile:3")
        .says(">>> RUN echo the reason")
        .says("exit code: 42");
    works(&space);
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN [\"/no/such/program\"]\n");
    space.build(&[]).ended(1).says("Dockerfile:2").says("/no/such/program");
    space.write("Dockerfile", "FROM scratch\nRUN echo x\n");
    space.build(&[]).ended(1).says("Dockerfile:2").says("/bin/sh");
}

#[test]
fn a_full_disk_is_the_hosts_fault_and_the_store_survives_it() {
    needs!(Root);
    let space = TestSpace::new();
    let disk = rbuild_tests::disk::Disk::mount(&space, "small", "tmpfs", "size=24m");
    space.write("Dockerfile", "FROM scratch\nCOPY big /\n");
    let mut noise = vec![0u8; 48 << 20];
    let mut state = 1u64;
    for byte in &mut noise {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = state.to_be_bytes()[0];
    }
    space.write_bytes("context/big", &noise);
    let root = ["--root", "@SPACE@/small/store"];
    space
        .run(&[&root[..], &["build", "-t", "big:1", "."]].concat())
        .ended(3)
        .says("space")
        .says_a_way_out();
    std::fs::remove_file(space.path("context/big")).unwrap();
    space.write("big", "small");
    space.run(&[&root[..], &["build", "-t", "big:1", "."]].concat()).success();
    drop(disk);
}

#[test]
fn no_namespaces_is_the_hosts_fault_with_a_remedy() {
    needs!(Root, Ids, Program("busybox"), Program("prlimit"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let ran = space.run_with(
        &[("PATH", "/nowhere")],
        &["build", "--progress=plain", "--require-isolation", "userns", "."],
    );
    ran.ended(3).says("newuidmap").says("uidmap").says("rbuild doctor");
    works(&space);
}

#[test]
fn a_store_that_can_not_be_written_is_named() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    space.run(&["--root", "/proc/nothing", "build", "."]).ended(3).says("/proc/nothing");
}
