//! What cannot be lowered, and what is said then.

use expect_test::{Expect, expect};

use super::*;

#[track_caller]
fn check(dockerfile: &'static str, want: &Expect) {
    case(dockerfile).refused(want);
}

#[test]
fn stages() {
    check(
        "FROM busybox AS base\nFROM scratch\nCOPY --from=1 a /\n",
        &expect![[r#"
            error: circular dependency detected on stage: stage-1
             --> Dockerfile:3:1
              |
            3 | COPY --from=1 a /
              | ^^^^^^^^^^^^^^^^^
              = help: a stage cannot take files from itself: name an earlier one
        "#]],
    );
    check(
        "FROM busybox\nCOPY --from=5 a /\n",
        &expect![[r#"
        error: invalid stage index 5
         --> Dockerfile:2:1
          |
        2 | COPY --from=5 a /
          | ^^^^^^^^^^^^^^^^^
          = help: stages are counted from 0
    "#]],
    );
    check(
        "FROM busybox\nCOPY --from=$x a /\n",
        &expect![[r#"
        error: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround
         --> Dockerfile:2:1
          |
        2 | COPY --from=$x a /
          | ^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nCOPY --from=a x /\n",
        &expect![[r#"
            error: circular dependency detected on stage: a
             --> Dockerfile:4:1
              |
            4 | COPY --from=a x /
              | ^^^^^^^^^^^^^^^^^
              = note: each needs files of the next: a, b, a
              = help: move what they share into a stage that needs none of them
        "#]],
    );
    check(
        "FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nFROM a\n",
        &expect![[r#"
            error: cannot copy from stage "b", it needs to be defined before current stage "a"
             --> Dockerfile:2:13
              |
            2 | COPY --from=b x /
              |             ^
        "#]],
    );
    case("FROM busybox AS build\n").with(|it| it.target = Some("biuld".to_owned())).refused(
        &expect![[r#"
            error: target stage "biuld" could not be found (did you mean build?)
             --> Dockerfile
              = help: stages are: build
        "#]],
    );
}

#[test]
fn a_process_without_a_program() {
    check(
        "FROM busybox\nRUN []\n",
        &expect![[r#"
        error: RUN has no arguments: `[]` names no program
         --> Dockerfile:2:1
          |
        2 | RUN []
          | ^^^^^^
          = help: write `RUN ["program", "argument"]`, or a command for the shell
    "#]],
    );
}

#[test]
fn bases() {
    check(
        "FROM ${x}\n",
        &expect![[r#"
            error: base name (${x}) should not be blank
             --> Dockerfile:1:6
              |
            1 | FROM ${x}
              |      ^^^^
              = help: declare the variable with ARG before the first FROM
        "#]],
    );
    check(
        "FROM busibox\n",
        &expect![[r#"
        error: busibox: docker.io/library/busibox:latest: not found (did you mean busybox?)
         --> Dockerfile:1:1
          |
        1 | FROM busibox
          | ^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM Upper\n",
        &expect![[r#"
        error: failed to parse stage name "Upper": `Upper` is not an image name (invalid reference format): repository name must be lowercase: `Upper`
         --> Dockerfile:1:1
          |
        1 | FROM Upper
          | ^^^^^^^^^^
    "#]],
    );
    check(
        "ARG p\nFROM --platform=$p busybox\n",
        &expect![[r#"
            error: empty platform value from expression $p
             --> Dockerfile:2:17
              |
            2 | FROM --platform=$p busybox
              |                 ^^
        "#]],
    );
    check(
        "FROM --platform=a/b/c/d busybox\n",
        &expect![[r#"
            error: failed to parse platform a/b/c/d: `a/b/c/d`: cannot parse platform specifier (expected os/architecture[/variant])
             --> Dockerfile:1:17
              |
            1 | FROM --platform=a/b/c/d busybox
              |                 ^^^^^^^
              = help: for example linux/amd64, linux/arm/v7
        "#]],
    );
}

#[test]
fn values() {
    check(
        "FROM busybox\nENV a=${b:?is needed}\n",
        &expect![[r#"
        error: Syntax error - can't find = in "needed}". Must be of the form: name=value
         --> Dockerfile:2:15
          |
        2 | ENV a=${b:?is needed}
          |               ^^^^^^^
          = help: quote a value that has blanks in it
    "#]],
    );
    check(
        "FROM busybox\nSTOPSIGNAL no\n",
        &expect![[r#"
            error: invalid signal: no
             --> Dockerfile:2:12
              |
            2 | STOPSIGNAL no
              |            ^^
              = help: a name such as SIGTERM, or a number
        "#]],
    );
    check(
        "FROM busybox\nEXPOSE x\n",
        &expect![[r#"
            error: invalid containerPort: x
             --> Dockerfile:2:8
              |
            2 | EXPOSE x
              |        ^
        "#]],
    );
    check(
        "FROM busybox\nVOLUME $x\n",
        &expect![[r#"
            error: VOLUME specified can not be an empty string
             --> Dockerfile:2:8
              |
            2 | VOLUME $x
              |        ^^
        "#]],
    );
}

#[test]
fn copies() {
    check(
        "FROM busybox\nCOPY --chmod=9 a /\n",
        &expect![[r#"
        error: invalid chmod parameter: '9'. it should be octal string and between 0 and 07777
         --> Dockerfile:2:1
          |
        2 | COPY --chmod=9 a /
          | ^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM busybox\nCOPY https://h/x /\n",
        &expect![[r#"
        error: source can't be a URL for COPY
         --> Dockerfile:2:1
          |
        2 | COPY https://h/x /
          | ^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM busybox\nCOPY https://h/x.git /\n",
        &expect![[r#"
        error: source can't be a git ref for COPY
         --> Dockerfile:2:1
          |
        2 | COPY https://h/x.git /
          | ^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM busybox\nADD --checksum=sha256:12 https://h/x /\n",
        &expect![[r#"
        error: invalid checksum digest length: sha256:12
         --> Dockerfile:2:1
          |
        2 | ADD --checksum=sha256:12 https://h/x /
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM busybox\nADD --checksum=sha256:12 x /\n",
        &expect![[r#"
        error: checksum requires HTTP(S) or Git sources
         --> Dockerfile:2:1
          |
        2 | ADD --checksum=sha256:12 x /
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM busybox\nADD --keep-git-dir=false https://h/x.git?keep-git-dir=1 /\n",
        &expect![[r#"
            error: inconsistent keep-git-dir configuration
             --> Dockerfile:2:1
              |
            2 | ADD --keep-git-dir=false https://h/x.git?keep-git-dir=1 /
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn runs() {
    check(
        "FROM busybox\nRUN --security=insecure x\n",
        &expect![[r#"
        error: entitlement security.insecure is not allowed
         --> Dockerfile:2:1
          |
        2 | RUN --security=insecure x
          | ^^^^^^^^^^^^^^^^^^^^^^^^^
          = help: allow it with `--allow security.insecure`
    "#]],
    );
    check(
        "FROM busybox\nRUN --network=host x\n",
        &expect![[r#"
        error: entitlement network.host is not allowed
         --> Dockerfile:2:1
          |
        2 | RUN --network=host x
          | ^^^^^^^^^^^^^^^^^^^^
          = help: allow it with `--allow network.host`
    "#]],
    );
    check(
        "FROM busybox\nRUN --device=nvidia.com/gpu x\n",
        &expect![[r#"
        error: RUN --device=nvidia.com/gpu is not supported
         --> Dockerfile:2:1
          |
        2 | RUN --device=nvidia.com/gpu x
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          = help: devices of the host are not given to a build; remove the flag
    "#]],
    );
    check(
        "FROM busybox\nRUN --mount=target=/ x\n",
        &expect![[r#"
        error: invalid mount target "/"
         --> Dockerfile:2:1
          |
        2 | RUN --mount=target=/ x
          | ^^^^^^^^^^^^^^^^^^^^^^
          = help: name a directory below the root: `target=/path`
    "#]],
    );
    check(
        "FROM busybox\nRUN --mount=type=$t,target=/x x\n",
        &expect![[r#"
        error: unsupported mount type ""
         --> Dockerfile:2:1
          |
        2 | RUN --mount=type=$t,target=/x x
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        "FROM busybox AS a\nRUN --mount=from=later,target=/x x\nFROM busybox AS later\nFROM a\n",
        &expect![[r#"
            error: cannot mount from stage "later" to "/x", stage needs to be defined before current command
             --> Dockerfile:2:1
              |
            2 | RUN --mount=from=later,target=/x x
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn too_much() {
    let mut text = String::from("FROM scratch\nENV a=0123456789abcdef\n");
    for _ in 0..40 {
        text.push_str("ENV a=$a$a$a$a\n");
    }
    let result = case(Box::leak(text.into_boxed_str())).try_lower();
    assert!(result.is_err_and(|error| error.contains("longer than")));
    let ports = "EXPOSE 0-65535 0-65535 0-65535\n".repeat(300);
    let text = format!("FROM scratch\n{ports}");
    let result = case(Box::leak(text.into_boxed_str())).try_lower();
    assert!(result.is_err_and(|error| error.contains("expand to more than")));
}

proptest::proptest! {
    /// Whatever is written, there is an answer.
    #[test]
    fn never_panics(lines in proptest::collection::vec(line(), 0..12)) {
        let text = lines.join("\n");
        let _answer = case(Box::leak(text.into_boxed_str())).try_lower();
    }
}

/// A line that may be an instruction.
fn line() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;

    let keyword = prop::sample::select(
        &[
            "FROM",
            "ARG",
            "RUN",
            "COPY",
            "ADD",
            "ENV",
            "LABEL",
            "EXPOSE",
            "VOLUME",
            "USER",
            "WORKDIR",
            "CMD",
            "ENTRYPOINT",
            "HEALTHCHECK",
            "STOPSIGNAL",
            "SHELL",
            "ONBUILD COPY",
            "MAINTAINER",
        ][..],
    );
    let word = prop::sample::select(
        &[
            "busybox",
            "scratch",
            "onbuild",
            "AS",
            "a",
            "b",
            "0",
            "1",
            "x=1",
            "$x",
            "${x:-$y}",
            "\"q",
            "'",
            "/",
            ".",
            "..",
            "/./",
            "--from=a",
            "--from=1",
            "--link",
            "--parents",
            "--chown=a:b",
            "--chmod=u+x",
            "--mount=type=cache,target=$x",
            "--mount=from=b,target=/m",
            "--network=none",
            "80-90/udp",
            "http://h/x",
            "https://h/r.git#a:b",
            "git@h:x?tag=",
            "[\"a\"]",
            "CMD",
            "NONE",
            "--platform=$x",
            "--platform=linux/arm",
            "\u{fe}é",
            "*",
            "!",
        ][..],
    );
    (keyword, prop::collection::vec(word, 0..5))
        .prop_map(|(keyword, words)| format!("{keyword} {}", words.join(" ")))
}
