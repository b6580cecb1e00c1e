//! Named contexts and main contexts that are not local.

use expect_test::expect;

use super::*;
use crate::options::{MainContext, NamedContext};

fn with_context(dockerfile: &'static str, name: &str, context: NamedContext) -> Case {
    case(dockerfile).with(|it| drop(it.named_contexts.insert(name.to_owned(), context)))
}

fn local() -> NamedContext {
    NamedContext::Local { source: "lib".to_owned() }
}

#[test]
fn in_place_of_an_image() {
    with_context("FROM busybox\nRUN x\n", "busybox", local())
        .file("lib", ".dockerignore", "*.o")
        .steps(&expect![[r#"
            v0 <- [] [context busybox] load from client
                local://lib
                local.excludepatterns=["*.o"]
            v1 <- [v0] [1/2] RUN x (2-2)
                ["/bin/sh", "-c", "x"] in / ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
            linux/amd64 is v1
        "#]]);
    with_context(
        "FROM old\nRUN x\n",
        "old",
        NamedContext::Image("docker-image://alpine".to_owned()),
    )
    .steps(&expect![[r#"
        v0 <- [] [context old] docker.io/library/alpine:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/alpine:latest@sha256:ab
        v1 <- [v0] [1/2] RUN x (2-2)
            ["/bin/sh", "-c", "x"] in / ["PATH=/sbin:/bin"]
        linux/amd64 is v1
    "#]]);
}

#[test]
fn in_place_of_a_stage() {
    let text =
        "FROM missing AS lib\nRUN never\nFROM scratch\nCOPY --from=lib a /\nCOPY --from=lib b /\n";
    with_context(text, "lib", local()).steps(&expect![[r#"
        v0 <- [] [context lib] load from client
            local://lib
            local.followpaths=["a","b"]
        v1 <- [v0] [stage-1 1/2] COPY --from=lib a / (4-4)
            nothing: copy /a of input 0 to / (path)
        v2 <- [v1 v0] [stage-1 2/2] COPY --from=lib b / (5-5)
            input 0: copy /b of input 1 to / (path)
        linux/amd64 is v2
    "#]]);
    with_context(text, "lib", NamedContext::Image("docker-image://full".to_owned()))
        .steps(&expect![[r#"
            v0 <- [] [context lib] docker.io/library/full:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/full:latest@sha256:ab
            v1 <- [v0] [stage-1 1/2] COPY --from=lib a / (4-4)
                nothing: copy /a of input 0 to / (path)
            v2 <- [v1 v0] [stage-1 2/2] COPY --from=lib b / (5-5)
                input 0: copy /b of input 1 to / (path)
            linux/amd64 is v2
        "#]]);
    let other = with_context(
        "FROM missing AS lib\nFROM lib\nRUN x\n",
        "lib",
        NamedContext::Image("docker-image://scratch".to_owned()),
    );
    other.steps(&expect![[r#"
        v0 <- [] [stage-1 1/1] RUN x (3-3)
            ["/bin/sh", "-c", "x"] in / ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        linux/amd64 is v0
    "#]]);
}

#[test]
fn in_copies_and_mounts() {
    let git = NamedContext::Source {
        identifier: "git://h/r".to_owned(),
        attrs: BTreeMap::from([("git.fullurl".to_owned(), "https://h/r".to_owned())]),
    };
    with_context(
        "FROM busybox\nCOPY --from=src /a /\nRUN --mount=from=src,target=/s x\n",
        "src",
        git,
    )
    .steps(&expect![[r#"
        v0 <- [] [internal] load git source git://h/r
            git://h/r
            git.fullurl=https://h/r
        v1 <- [] [stage-0 1/3] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v2 <- [v1 v0] [stage-0 2/3] COPY --from=src /a / (2-2)
            input 0: copy /a of input 1 to / (path)
        v3 <- [v2 v0] [stage-0 3/3] RUN --mount=from=src,target=/s x (3-3)
            ["/bin/sh", "-c", "x"] in / ["PATH=/bin"]
            mount /s ro input 1 Bind None
        linux/amd64 is v3
    "#]]);
}

#[test]
fn by_platform() {
    let text = "FROM old\n";
    let image = |name: &str| NamedContext::Image(format!("docker-image://{name}"));
    let both = with_context(text, "old", image("alpine"))
        .with(|it| drop(it.named_contexts.insert("old::linux/amd64".to_owned(), image("busybox"))));
    assert_eq!(both.config().config.cmd, Some(vec!["sh".to_owned()]));
}

#[test]
fn main_contexts() {
    let archive = MainContext::Source {
        identifier: "http://h/c.tgz".to_owned(),
        attrs: BTreeMap::from([("http.filename".to_owned(), "context".to_owned())]),
        unpack: true,
    };
    case("FROM scratch\nCOPY a /\n").with(|it| it.context = archive).steps(&expect![[r#"
        v0 <- [] [internal] load remote build context
            http://h/c.tgz
            http.filename=context
        v1 <- [v0] [internal] unpack remote build context
            nothing: copy /context of input 0 to / (unpack)
        v2 <- [v1] [1/1] COPY a / (2-2)
            nothing: copy /a of input 0 to / (path)
        linux/amd64 is v2
    "#]]);
}
