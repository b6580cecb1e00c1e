//! Names, numbers, what is needed, what progress shows.

use std::fmt::Write as _;

use expect_test::expect;

use super::*;

#[test]
fn names_of_steps() {
    case("FROM busybox AS build\nRUN a\nFROM busybox\nRUN b\nCOPY --from=build /x /\nUSER 1\n")
        .steps(&expect![[r#"
            v0 <- [] [build 1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/busybox:latest@sha256:ab
            v1 <- [v0] [build 2/2] RUN a (2-2)
                ["/bin/sh", "-c", "a"] in / ["PATH=/bin"]
            v2 <- [v0] [stage-1 2/3] RUN b (4-4)
                ["/bin/sh", "-c", "b"] in / ["PATH=/bin"]
            v3 <- [v2 v1] [stage-1 3/3] COPY --from=build /x / (5-5)
                input 0: copy /x of input 1 to / (path)
            linux/amd64 is v3
        "#]]);
}

#[test]
fn equal_stages_are_one() {
    let lowered = case("FROM busybox AS a\nRUN x\nFROM busybox AS b\nRUN x\nFROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n").lower();
    // The image, the step, two copies.
    assert_eq!(lowered.graph.len(), 4);
}

#[test]
fn numbers_and_names_in_any_case() {
    case("FROM scratch AS Build\nCOPY a /\nFROM scratch\nCOPY --from=0 /a /0\nCOPY --from=BUILD /a /1\n")
        .steps(&expect![[r#"
            v0 <- [] [internal] load build context
                local://context
                local.followpaths=["a"]
            v1 <- [v0] [build 1/1] COPY a / (2-2)
                nothing: copy /a of input 0 to / (path)
            v2 <- [v1] [stage-1 1/2] COPY --from=0 /a /0 (4-4)
                nothing: copy /a of input 0 to /0 (path)
            v3 <- [v2 v1] [stage-1 2/2] COPY --from=BUILD /a /1 (5-5)
                input 0: copy /a of input 1 to /1 (path)
            linux/amd64 is v3
        "#]]);
}

#[test]
fn long_stages_align_their_numbers() {
    let lowered =
        case("FROM busybox\nRUN 2\nRUN 3\nRUN 4\nRUN 5\nRUN 6\nRUN 7\nRUN 8\nRUN 9\nRUN 10\n")
            .lower();
    let names: Vec<&str> =
        lowered.graph.ids().map(|id| lowered.graph[id].meta.name.as_str()).collect();
    assert!(names[0].starts_with("[ 1/10] FROM"), "{names:?}");
    assert_eq!(names[9], "[10/10] RUN 10");
}

#[test]
fn a_chain_as_long_as_the_file() {
    let mut text = String::from("FROM busybox AS s0\n");
    for number in 1..3000 {
        let before = number - 1;
        writeln!(text, "FROM s{before} AS s{number}\nCOPY --from=s{before} /a /")
            .expect("writing to a string");
    }
    case(Box::leak(text.into_boxed_str())).lower();
}

#[test]
fn no_cache() {
    let all = case("FROM busybox AS a\nRUN x\nWORKDIR /w\nFROM a AS b\nCOPY x /\n");
    let only = all.with(|it| it.no_cache = crate::options::NoCache::Stages(vec!["A".to_owned()]));
    only.steps(&expect![[r#"
        v0 <- [] [a 1/3] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [a 2/3] RUN x (2-2) no cache
            ["/bin/sh", "-c", "x"] in / ["PATH=/bin"]
        v2 <- [v1] [a 3/3] WORKDIR /w (3-3)
            input 0: directory /w 755
        v3 <- [] [internal] load build context
            local://context
            local.followpaths=["x"]
        v4 <- [v2 v3] [b 1/1] COPY x / (5-5)
            input 0: copy /x of input 1 to / (path)
        linux/amd64 is v4
    "#]]);
}

#[test]
fn targets() {
    let case = case("FROM busybox AS one\nLABEL n=1\nFROM busybox AS two\nLABEL n=2\n")
        .with(|it| it.target = Some("ONE".to_owned()))
        .with(|it| drop(it.labels.insert("given".to_owned(), "yes".to_owned())));
    expect![[r#"{"given": "yes", "n": "1"}"#]]
        .assert_eq(&format!("{:?}", case.config().config.labels));
}
