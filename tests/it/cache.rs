//! What is not done again, and what must be.

use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;

/// Two stages, one of which uses one file and one argument.
fn project() -> (TestSpace, Registry) {
    let (space, registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS build\n\
         COPY used.txt /src/\n\
         RUN cat /src/used.txt > /made\n\
         ARG LEVEL=1\n\
         RUN echo level $LEVEL > /level\n\
         FROM @BASE@\n\
         COPY --from=build /made /made\n\
         RUN echo last > /last\n",
    );
    space.write("used.txt", "used\n");
    space.write("other.txt", "other\n");
    (space, registry)
}

#[test]
fn a_second_build_does_nothing_and_says_so() {
    needs!(Ids, Program("busybox"));
    let (space, registry) = project();
    let first = space.image(&[]).digest();
    registry.forget();
    let again = space.build(&["-o", "type=oci,dest=@OUT@/again.tar"]).success();
    again.cached("RUN cat").cached("COPY --from=build").cached("RUN echo last");
    let blobs: Vec<String> =
        registry.requests().into_iter().filter(|asked| asked.contains("/blobs/")).collect();
    assert!(blobs.is_empty(), "nothing but manifests may be asked for: {blobs:?}");
    let second = rbuild_tests::image::Image::read(&space.path("out/again.tar")).digest();
    assert_eq!(first, second);
}

#[test]
fn a_cached_build_needs_no_namespace() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = project();
    space.build(&[]).success();
    // Without newuidmap nothing could be started.
    let args = ["build", "--progress=plain", "."];
    space.run_with(&[("PATH", "/nowhere")], &args).success().cached("RUN echo last");
}

#[test]
fn a_file_that_no_step_uses_changes_nothing() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = project();
    space.build(&[]).success();
    space.write("other.txt", "changed\n");
    space.build(&[]).success().cached("COPY used.txt").cached("RUN cat").cached("RUN echo last");
}

#[test]
fn the_time_of_a_file_does_not_matter() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = project();
    space.build(&[]).success();
    space.write("used.txt", "used\n");
    let later = std::time::UNIX_EPOCH + std::time::Duration::from_hours(400_000);
    std::fs::File::options()
        .write(true)
        .open(space.path("context/used.txt"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    space.build(&[]).success().cached("COPY used.txt").cached("RUN cat");
}

#[test]
fn a_changed_file_runs_its_steps_again_and_explain_says_why() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = project();
    space.build(&[]).success();
    space.write("used.txt", "changed\n");
    let ran = space.build(&["--explain"]).success();
    ran.ran("COPY used.txt").ran("RUN cat").ran("RUN echo last").says("used.txt");
}

#[test]
fn a_step_that_makes_the_same_again_lets_the_rest_be() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let dockerfile = |comment: &str| {
        format!(
            "FROM @BASE@ AS build\nRUN echo same > /made # {comment}\n\
             FROM @BASE@\nCOPY --from=build /made /made\nRUN echo last > /last\n"
        )
    };
    space.write("Dockerfile", &dockerfile("one"));
    space.build(&[]).success();
    space.write("Dockerfile", &dockerfile("two"));
    space
        .build(&[])
        .success()
        .ran("RUN echo same")
        .cached("COPY --from=build")
        .cached("RUN echo last");
}

#[test]
fn an_argument_invalidates_only_what_comes_after_it() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = project();
    space.build(&["--target", "build"]).success();
    let ran = space.build(&["--target", "build", "--build-arg", "LEVEL=2"]).success();
    ran.cached("RUN cat").ran("RUN echo level");
}

#[test]
fn no_cache_runs_everything() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = project();
    space.build(&[]).success();
    space.build(&["--no-cache"]).success().ran("RUN cat").ran("RUN echo last");
}

#[test]
fn a_failed_step_is_not_remembered() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN --mount=type=cache,target=/memory [ -e /memory/tried ] || { touch /memory/tried; exit 3; }\n",
    );
    space.build(&[]).ended(1);
    space.build(&[]).success();
}
