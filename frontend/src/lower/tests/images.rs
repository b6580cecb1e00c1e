//! What stages are from: images, triggers, platforms.

use expect_test::expect;

use super::*;

#[test]
fn a_stage_of_an_image() {
    case("FROM busybox\nRUN true\nWORKDIR /a\nCOPY x /y\n").steps(&expect![[r#"
        v0 <- [] [1/4] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [2/4] RUN true (2-2)
            ["/bin/sh", "-c", "true"] in / ["PATH=/bin"]
        v2 <- [v1] [3/4] WORKDIR /a (3-3)
            input 0: directory /a 755
        v3 <- [] [internal] load build context
            local://context
            local.followpaths=["x"]
        v4 <- [v2 v3] [4/4] COPY x /y (4-4)
            input 0: copy /x of input 1 to /y (path)
        linux/amd64 is v4
    "#]]);
}

#[test]
fn only_needed_images_are_asked_for_and_all_at_once() {
    let case = case(
        "FROM busybox AS a\nFROM alpine AS b\nFROM missing AS c\nFROM scratch\n\
         COPY --from=a /x /\nCOPY --from=b /x /\nCOPY --from=busybox /x /\n\
         RUN --mount=type=bind,from=full,target=/m true\n",
    );
    case.lower();
    expect!["[internal] load metadata for docker.io/library/busybox:latest + [internal] load metadata for docker.io/library/alpine:latest + [internal] load metadata for docker.io/library/full:latest"].assert_eq(&case.fake.asked.borrow().join("\n"));
}

#[test]
fn triggers_come_first_and_may_need_more() {
    let case = case("FROM onbuild AS a\nRUN last\nFROM a\nRUN child\n");
    expect![[r#"
        - ENV T=1
        + COPY /a /a # buildkit
        + RUN /bin/sh -c echo $T # buildkit
        + RUN /bin/sh -c last # buildkit
        + RUN /bin/sh -c child # buildkit
    "#]]
    .assert_eq(&show::history(&case.config()));
    expect![[r#"
        [internal] load metadata for docker.io/library/onbuild:latest
        [internal] load metadata for docker.io/library/alpine:latest"#]]
    .assert_eq(&case.fake.asked.borrow().join("\n"));
    case.steps(&expect![[r#"
        v0 <- [] [a 1/2] FROM docker.io/library/onbuild:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/onbuild:latest@sha256:ab
        v1 <- [] FROM docker.io/library/alpine:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/alpine:latest@sha256:ab
        v2 <- [v0 v1] [a 2/5] ONBUILD COPY --from=alpine /a /a (1-1)
            input 0: copy /a of input 1 to /a (path)
        v3 <- [v2] [a 3/5] ONBUILD RUN echo 1 (1-1)
            ["/bin/sh", "-c", "echo $T"] in / ["PATH=/bin", "T=1"]
        v4 <- [v3] [a 4/5] RUN last (2-2)
            ["/bin/sh", "-c", "last"] in / ["PATH=/bin", "T=1"]
        v5 <- [v4] [stage-1 1/1] RUN child (4-4)
            ["/bin/sh", "-c", "child"] in / ["PATH=/bin", "T=1"]
        linux/amd64 is v5
    "#]]);
    assert!(case.config().config.on_build.is_empty());
}

#[test]
fn triggers_of_a_stage() {
    let case =
        case("FROM busybox AS a\nONBUILD ENV X=1\nONBUILD RUN echo $X\nFROM a\nFROM a AS b\n");
    case.history(&expect![[r#"
        - ENV X=1
        + RUN /bin/sh -c echo $X # buildkit
    "#]]);
    let on_build = case.with(|it| it.target = Some("a".to_owned())).config().config.on_build;
    assert_eq!(on_build, ["ENV X=1", "RUN echo $X"]);
}

#[test]
fn configuration_is_inherited() {
    case("FROM full\nRUN x\n").run_config(&expect![[r#"
        {
          "User": "7",
          "Env": [
            "PATH=/bin",
            "A=1"
          ],
          "Entrypoint": [
            "e"
          ],
          "Cmd": [
            "c"
          ],
          "WorkingDir": "/w",
          "Labels": {
            "l": "1"
          },
          "Shell": [
            "/bin/ash",
            "-ec"
          ]
        }"#]]);
    case("FROM full\nRUN x\n").steps(&expect![[r#"
        v0 <- [] [1/2] FROM docker.io/library/full:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/full:latest@sha256:ab
        v1 <- [v0] [2/2] RUN x (2-2)
            ["/bin/ash", "-ec", "x"] in /w ["PATH=/bin", "A=1"]
            user 7
        linux/amd64 is v1
    "#]]);
    case("FROM full\nENTRYPOINT [\"n\"]\n").run_config(&expect![[r#"
        {
          "User": "7",
          "Env": [
            "PATH=/bin",
            "A=1"
          ],
          "Entrypoint": [
            "n"
          ],
          "WorkingDir": "/w",
          "Labels": {
            "l": "1"
          },
          "Shell": [
            "/bin/ash",
            "-ec"
          ]
        }"#]]);
    case("FROM scratch\n").run_config(&expect![[r#"
        {
          "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
          ],
          "WorkingDir": "/"
        }"#]]);
    case("FROM bare\n").run_config(&expect![[r#"
        {
          "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
          ]
        }"#]]);
}

#[test]
fn several_platforms() {
    let platforms = ["linux/amd64", "linux/arm64"].map(|it| it.parse().expect("a platform"));
    let case = case(
        "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETARCH\nRUN make\n\
         FROM busybox\nCOPY --from=build /out /\n",
    );
    let case = case.with(|it| {
        it.platforms = platforms.to_vec();
        it.multi_platform = true;
    });
    case.steps(&expect![[r#"
        v0 <- [] [linux/amd64 build 1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [linux/amd64 build 2/2] RUN make (3-3)
            ["/bin/sh", "-c", "make"] in / ["PATH=/bin", "TARGETARCH=amd64"]
        v2 <- [v0 v1] [linux/amd64 stage-1 2/2] COPY --from=build /out / (5-5)
            input 0: copy /out of input 1 to / (path)
        v3 <- [] [linux/arm64 stage-1 1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (4-4)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v4 <- [v0] [linux/amd64->arm64 build 2/2] RUN make (3-3)
            ["/bin/sh", "-c", "make"] in / ["PATH=/bin", "TARGETARCH=arm64"]
        v5 <- [v3 v4] [linux/arm64 stage-1 2/2] COPY --from=build /out / (5-5)
            input 0: copy /out of input 1 to / (path)
        linux/amd64 is v2
        linux/arm64 is v5
    "#]]);
    expect!["[linux/amd64 internal] load metadata for docker.io/library/busybox:latest + [linux/arm64 internal] load metadata for docker.io/library/busybox:latest"].assert_eq(&case.fake.asked.borrow().join("\n"));
}

#[test]
fn the_image_is_for_what_was_asked() {
    let explicit = case("FROM --platform=linux/arm64 busybox\n");
    assert_eq!(explicit.config().architecture, "arm64");
    let asked = explicit.with(|it| it.platforms = vec![Platform::new("linux", "riscv64")]);
    assert_eq!(asked.config().architecture, "riscv64");
    let scratch = case("FROM scratch\n");
    let scratch = scratch.with(|it| it.platforms = vec!["linux/arm/v6".parse().expect("is one")]);
    assert_eq!(scratch.config().variant.as_deref(), Some("v6"));
}
