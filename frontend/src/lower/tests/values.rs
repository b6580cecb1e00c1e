//! Variables: scopes, order, platform arguments; instructions of the configuration.

use expect_test::expect;

use super::*;

#[test]
fn scopes() {
    case(
        "ARG G=global\nARG H=$G-2\nFROM busybox AS a\nARG G\nARG H=own\nARG X=x\nENV X=env\n\
         RUN echo $G $H $X\nFROM a\nRUN child\n",
    )
    .arg("H", "given")
    .steps(&expect![[r#"
        v0 <- [] [a 1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (3-3)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [a 2/2] RUN echo global given env (8-8)
            ["/bin/sh", "-c", "echo $G $H $X"] in / ["PATH=/bin", "G=global", "H=given", "X=env"]
        v2 <- [v1] [stage-1 1/1] RUN child (10-10)
            ["/bin/sh", "-c", "child"] in / ["G=global", "H=given", "PATH=/bin", "X=env"]
        linux/amd64 is v2
    "#]]);
}

#[test]
fn arguments_in_history() {
    case("FROM busybox\nARG A=1 B\nARG C\nENV A=2\nRUN x\nRUN [\"y\", \"z\"]\n")
        .arg("C", "three")
        .history(&expect![[r#"
            - ARG A=1 B
            - ARG C=three
            - ENV A=2
            + RUN |3 A=2 B= C=three /bin/sh -c x # buildkit
            + RUN |3 A=2 B= C=three y z # buildkit
        "#]]);
}

#[test]
fn proxies_are_not_in_the_history() {
    let case = case("FROM busybox\nRUN x\n").arg("HTTP_PROXY", "http://p");
    case.history(&expect![[r#"
        + RUN /bin/sh -c x # buildkit
    "#]]);
    case.steps(&expect![[r#"
        v0 <- [] [1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [2/2] RUN x (2-2)
            ["/bin/sh", "-c", "x"] in / ["PATH=/bin"]
            http proxy http://p
        linux/amd64 is v1
    "#]]);
}

#[test]
fn platform_arguments() {
    case("FROM busybox\nARG TARGETPLATFORM TARGETARCH BUILDOS TARGETSTAGE\nRUN x\n")
        .with(|it| it.platforms = vec![Platform::new("linux", "arm64")])
        .history(&expect![[r#"
            - ARG TARGETPLATFORM=linux/arm64 TARGETARCH=arm64 BUILDOS=linux TARGETSTAGE=default
            + RUN |4 TARGETPLATFORM=linux/arm64 TARGETARCH=arm64 BUILDOS=linux TARGETSTAGE=default /bin/sh -c x # buildkit
        "#]]);
}

#[test]
fn instructions_of_the_configuration() {
    let case = case(
        "FROM busybox\nENV a=1 b=$a\nENV c $a x\nLABEL l=\"$a b\" m='$a'\nEXPOSE 80 90-91/udp $a\n\
         VOLUME /v $a\nUSER u$a\nSTOPSIGNAL SIGTERM\nSHELL [\"/bin/bash\", \"-c\"]\n\
         CMD echo \"$a\"\nENTRYPOINT [\"e\", \"\\\"\"]\nMAINTAINER me $a\n\
         HEALTHCHECK --interval=90s --retries=2 CMD true\n",
    );
    case.history(&expect![[r#"
        - ENV a=1 b=
        - ENV c=1 x
        - LABEL l=1 b m=$a
        - EXPOSE [1/tcp 80/tcp 90/udp 91/udp]
        - VOLUME [/v 1]
        - USER u1
        - STOPSIGNAL SIGTERM
        - SHELL [/bin/bash -c]
        - CMD ["/bin/bash" "-c" "echo \"$a\""]
        - ENTRYPOINT ["e" "\""]
        - MAINTAINER me $a
        - HEALTHCHECK {Test:[CMD-SHELL true] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}
    "#]]);
    case.run_config(&expect![[r#"
        {
          "User": "u1",
          "ExposedPorts": {
            "1/tcp": {},
            "80/tcp": {},
            "90/udp": {},
            "91/udp": {}
          },
          "Env": [
            "PATH=/bin",
            "a=1",
            "b=",
            "c=1 x"
          ],
          "Entrypoint": [
            "e",
            "\""
          ],
          "Cmd": [
            "/bin/bash",
            "-c",
            "echo \"$a\""
          ],
          "Healthcheck": {
            "Test": [
              "CMD-SHELL",
              "true"
            ],
            "Interval": 90000000000,
            "Retries": 2
          },
          "ArgsEscaped": true,
          "Volumes": {
            "/v": {},
            "1": {}
          },
          "Labels": {
            "l": "1 b",
            "m": "$a"
          },
          "StopSignal": "SIGTERM",
          "Shell": [
            "/bin/bash",
            "-c"
          ]
        }"#]]);
    assert_eq!(case.config().author, "me $a");
}

#[test]
fn directories() {
    let case = case(
        "FROM busybox\nWORKDIR a\nWORKDIR /b//c/\nWORKDIR ../d\nUSER x:5\nWORKDIR /\nWORKDIR e\n",
    )
    .with(|it| drop(it.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "1".to_owned())));
    case.history(&expect![[r#"
        + 1970-01-01T00:00:01Z WORKDIR /a
        + 1970-01-01T00:00:01Z WORKDIR /b//c/
        + 1970-01-01T00:00:01Z WORKDIR /b/d
        - 1970-01-01T00:00:01Z USER x:5
        - 1970-01-01T00:00:01Z WORKDIR /
        + 1970-01-01T00:00:01Z WORKDIR /e
    "#]]);
    case.steps(&expect![[r#"
        v0 <- [] [1/6] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [2/6] WORKDIR a (2-2)
            input 0: directory /a 755 at 1000000000
        v2 <- [v1] [3/6] WORKDIR /b//c/ (3-3)
            input 0: directory /b/c 755 at 1000000000
        v3 <- [v2] [4/6] WORKDIR ../d (4-4)
            input 0: directory /b/d 755 at 1000000000
        v4 <- [v3] [5/6] WORKDIR e (7-7)
            input 0: directory /e 755 owner=x:5 at 1000000000
        linux/amd64 is v4
    "#]]);
}

#[test]
fn epochs() {
    let given =
        case("FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL a=b\n").arg("SOURCE_DATE_EPOCH", "60");
    given.history(&expect![[r#"
        - 1970-01-01T00:01:00Z ARG SOURCE_DATE_EPOCH=60
        - 1970-01-01T00:01:00Z LABEL a=b
    "#]]);
    let declared = case("ARG SOURCE_DATE_EPOCH=61\nFROM scratch\nLABEL a=b\n");
    assert_eq!(declared.lower().targets[0].epoch, Some(61));
    let empty = case("FROM scratch\n").arg("SOURCE_DATE_EPOCH", "");
    assert_eq!(empty.lower().targets[0].epoch, None);
    case("FROM scratch\n").arg("SOURCE_DATE_EPOCH", "soon").refused(&expect![[r#"
        error: invalid SOURCE_DATE_EPOCH: soon
         --> Dockerfile
          = help: give seconds since 1970-01-01: `--build-arg SOURCE_DATE_EPOCH=1700000000`
    "#]]);
}

#[test]
fn warnings() {
    case(
        "ARG V=x\nFROM --platform=linux/amd64 busybox AS a\nENV k v\nRUN x\nENV P=$PTAH Q=$V\n\
         ARG API_KEY\nWORKDIR w\nCMD a\nCMD b\nEXPOSE 80/TCP 1:2\n\
         FROM --platform=$TARGETPLATFORM $VV$V\nCOPY node_modules/x /\nCOPY --from=a / /\n",
    )
    .with(|it| it.target = None)
    .arg("V", "busybox")
    .file("context", ".dockerignore", "node_modules\n")
    .warnings(&expect![[r#"
        FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 2)
        UndefinedArgInFrom: FROM argument 'VV' is not declared (did you mean V?) (line 11)
        RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 11)
        LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 3)
        UndefinedVar: Usage of undefined variable '$PTAH' (did you mean $PATH?) (line 5)
        UndefinedVar: Usage of undefined variable '$V' (did you mean $k?) (line 5)
        SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY") (line 6)
        WorkdirRelativePath: Relative workdir "w" can have unexpected results if the base image changes (line 7)
        JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 8)
        MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 8)
        JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 9)
        ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1:2' (line 10)
        ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 10)
        CopyIgnoredFile: Attempting to Copy file "node_modules/x" that is excluded by .dockerignore (line 12)
    "#]]);
}

#[test]
fn base_images_of_other_platforms_and_bad_defaults() {
    case("ARG I\nFROM $I\n").arg("I", "busybox").warnings(&expect![[r#"
        InvalidDefaultArgInFrom: Default value for ARG $I results in empty or invalid base image name (line 2)
    "#]]);
}
