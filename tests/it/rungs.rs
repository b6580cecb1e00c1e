//! One image, however its steps are held and its layers are made.

use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;

/// What tells rungs and drivers apart where one of them is wrong: owners, set-id bits, links, what is
/// made by who is not root and by who changes its user, a directory that hands its group on.
pub(crate) const DOCKERFILE: &str = "\
FROM @BASE@
RUN mkdir /d && cd /d && echo a > a && ln a b && ln -s a l && chown -h 7:8 l && chown 5:6 a \
 && chmod 6755 a && mkfifo p && chown 1:2 p && mkdir g && chown 3:4 g && chmod 2775 g && mkdir g/in \
 && mkdir /w && chown 1234:4321 /w
USER 1234:4321
RUN cd /w && echo x > f && chmod 640 f && ln -s f l && mkdir d && mkfifo p && mv l m
USER 0
RUN rm /d/b && mv /d/p /d/q && mv /w/m /w/n && echo more >> /w/f && rm -r /d/g/in
RUN --mount=type=cache,target=/c,uid=9 --mount=type=tmpfs,target=/t echo x > /c/x && echo y > /t/y
";

#[test]
fn every_rung_and_driver_gives_the_same_digest() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", DOCKERFILE);
    let mut digests = Vec::new();
    for isolation in ["userns", "userns-single"] {
        for driver in ["overlay", "plain"] {
            let arguments = [
                &format!("--isolation={isolation}"),
                &format!("--snapshotter={driver}"),
                "--no-cache",
                "--build-arg=SOURCE_DATE_EPOCH=1000000000",
                "--iidfile=@OUT@/id",
                "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
            ];
            space.build(&arguments).success();
            digests.push((isolation, driver, space.read("out/id")));
        }
    }
    assert!(digests.iter().all(|it| it.2 == digests[0].2), "{digests:?}");
}

#[test]
fn a_store_without_attributes_gives_the_same_digest() {
    needs!(Root, Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let _disk = rbuild_tests::disk::Disk::mount(&space, "plain", "ramfs", "mode=755");
    // Owners of what was there before, and of what a step only writes to.
    let more = "RUN [ $(stat -c %u:%a /home/app) = 1000:750 ] && [ $(stat -c %u:%a /d/a) = 5:6755 ] \\\n \
                && echo again >> /w/f && mv /home/app /home/other && mv /d/g /g\n\
                RUN [ $(stat -c %u:%a /home/other) = 1000:750 ] && touch /home/other\n";
    space.write("Dockerfile", &format!("{DOCKERFILE}{more}"));
    let build = |root: &str, isolation: &str| {
        let arguments = [
            &format!("--root=@SPACE@/{root}"),
            "build",
            &format!("--isolation={isolation}"),
            "--build-arg=SOURCE_DATE_EPOCH=1000000000",
            "--iidfile=@OUT@/id",
            "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
            ".",
        ];
        space.run(&arguments).success();
        space.read("out/id")
    };
    let expected = build("store", "userns");
    assert_eq!(build("plain/store/one", "userns-single"), expected);
    assert_eq!(build("plain/store/range", "userns"), expected);
}

#[test]
fn a_rung_that_is_not_there_is_an_error_of_the_host() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let ran = space.build(&["--isolation=ptrace"]);
    assert_eq!(ran.code, Some(3), "{}", ran.story());
    let ran = space.build(&["--isolation=userns-single", "--require-isolation=userns"]);
    assert_eq!(ran.code, Some(3), "{}", ran.story());
    assert!(ran.stderr.contains("--isolation=userns-single is weaker"), "{}", ran.story());
}
