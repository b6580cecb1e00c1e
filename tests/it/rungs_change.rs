//! A store whose layers were made on one rung, or by one driver or user, serves the others.

use std::os::unix::process::CommandExt as _;

use rbuild_tests::needs;
use rbuild_tests::ran::{Ran, Running};
use rbuild_tests::space::TestSpace;

/// Copies that are planned and copies that are on disk, a stage that is only read, owners of all
/// kinds, what only its owner may read, names of one file, devices, what hides what is below.
const DOCKERFILE: &str = "\
FROM @BASE@ AS made
COPY Dockerfile /copied
RUN mkdir /d && cp /copied /d/f && ln /d/f /d/l && chown 5:6 /d/f && mknod /d/n c 1 3 && mkfifo /d/p
RUN rm /d/l && echo more >> /d/f
FROM @BASE@
COPY --chown=7:8 Dockerfile /planned
RUN mkdir -m 700 /w && echo x > /w/f && chmod 600 /w/f && ln /w/f /w/l && ln -s f /w/s && chown -hR 1234:4321 /w && chmod 6711 /w/f
COPY --from=made /d /d
USER 1234:4321
RUN rm /w/l && mkdir /w/in && echo y > /w/in/y
USER 0
RUN rm -r /usr/bin && mkdir /usr/bin && stat -c '%n %u:%g' /d/* /w/* > /seen
ARG LEVEL=1
RUN --mount=type=bind,from=made,target=/m echo $LEVEL > /level && ls /m/d >> /level && cat /w/in/y >> /level
";

/// Who runs rbuild.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    /// Whom tests run it as.
    Runner,
    /// Root.
    Root,
}

/// How a build is made.
type Way = (Who, &'static str, &'static str);

fn build(space: &TestSpace, store: &str, (who, isolation, driver): Way, more: &[&str]) -> Ran {
    let root = format!("--root=@SPACE@/{store}");
    let isolation = format!("--isolation={isolation}");
    let driver = format!("--snapshotter={driver}");
    let time = "--build-arg=SOURCE_DATE_EPOCH=1000000000";
    let build = ["build", "--progress=plain", &isolation, &driver, time];
    let mut command = space.command(&[&[&root[..]], &build[..], more, &["."]].concat());
    if who == Who::Root {
        command.uid(0).gid(0);
    }
    Running::start(&mut command).wait()
}

/// The digest of the second of two builds in one store; the first leaves no blobs.
fn digest(space: &TestSpace, store: &str, first: Option<Way>, second: Way) -> String {
    space.dir(store);
    if let Some(first) = first {
        build(space, store, first, &[]).success();
    }
    let output = "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true";
    let more = ["--build-arg=LEVEL=2", "--iidfile=@OUT@/id", output];
    build(space, store, second, &more).success();
    space.read("out/id")
}

/// Goes from each of `first` to each of `second`, and expects one digest.
fn from_each_to_each(space: &TestSpace, dockerfile: &str, first: &[Way], second: &[Way]) {
    space.write("Dockerfile", dockerfile);
    let expected = digest(space, "fresh", None, first[0]);
    for (at, &from) in first.iter().enumerate() {
        for (number, &to) in second.iter().enumerate().filter(|it| *it.1 != from) {
            let found = digest(space, &format!("store{at}-{number}"), Some(from), to);
            assert_eq!(found, expected, "from {from:?} to {to:?}");
        }
    }
}

#[test]
fn a_user_changes_rung_and_driver() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let ways = ["userns", "userns-single"].map(|it| [(it, "overlay"), (it, "plain")]);
    let ways = ways.concat();
    let ways: Vec<Way> = ways.into_iter().map(|it| (Who::Runner, it.0, it.1)).collect();
    from_each_to_each(&space, DOCKERFILE, &ways, &ways);
}

#[test]
fn root_changes_rung() {
    needs!(Root, Program("busybox"));
    let (space, _registry) = TestSpace::own_with_busybox();
    let ways = ["userns", "userns-single", "chroot"].map(|it| (Who::Root, it, "auto"));
    from_each_to_each(&space, DOCKERFILE, &ways, &ways);
}

#[test]
fn root_goes_on_in_a_user_s_store() {
    needs!(Root, Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let first = ["userns", "userns-single"].map(|it| (Who::Runner, it, "auto"));
    let second = ["userns", "chroot"].map(|it| (Who::Root, it, "auto"));
    from_each_to_each(&space, DOCKERFILE, &first, &second);
}

#[test]
fn overlays_of_the_kernel_serve_a_helper_and_the_reverse() {
    needs!(Root, Program("busybox"), Program("fuse-overlayfs"), Fuse);
    let (space, _registry) = TestSpace::own_with_busybox();
    let ways = ["overlay", "fuse-overlayfs", "plain"].map(|it| (Who::Root, "userns", it));
    // Old versions of the helper lose set-user-id bits, and make files of pipes.
    let dockerfile = DOCKERFILE.replace("6711", "711").replace(" && mkfifo /d/p", "");
    from_each_to_each(&space, &dockerfile, &ways, &ways);
}

#[test]
fn what_may_be_read_is_taken_over_and_the_rest_is_made_again() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         RUN mkdir -m 700 /open && echo x > /open/f && chmod 600 /open/f\n\
         RUN mkdir -m 700 /closed && echo x > /closed/f && chown -R 5:6 /closed\n\
         ARG LEVEL=1\n\
         RUN echo $LEVEL\n",
    );
    let (range, single) = ((Who::Runner, "userns", "auto"), (Who::Runner, "userns-single", "auto"));
    build(&space, "store", range, &[]).success();
    // Nothing but the key is asked for: that is there.
    build(&space, "store", single, &[]).success().cached("RUN echo");
    let ran = build(&space, "store", single, &["--build-arg=LEVEL=2", "--explain"]).success();
    ran.cached("RUN mkdir -m 700 /open").says("torn, or of ids that this rung has not");
    // The other way round nothing is out of reach.
    let ran = build(&space, "store", range, &["--build-arg=LEVEL=3"]).success();
    ran.cached("RUN mkdir -m 700 /open").cached("RUN mkdir -m 700 /closed");
}
