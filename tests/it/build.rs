//! From a Dockerfile to an image: what each instruction leaves in the tree and in the config.

use expect_test::expect;
use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;
use serde_json::json;

#[test]
fn a_dockerfile_without_run_needs_nothing_of_the_machine() {
    let space = TestSpace::new();
    space.write(
        "Dockerfile",
        "FROM scratch\nCOPY hello.txt /greetings/\nENV A=b\nCMD [\"/hello\"]\n",
    );
    space.write("hello.txt", "hello\n");
    let image = space.image(&[]);
    expect![[r#"
        d0755 0:0 greetings
        -0644 0:0 greetings/hello.txt
    "#]]
    .assert_eq(&image.tree().to_string());
    assert_eq!(image.tree().read("greetings/hello.txt"), "hello\n");
    assert_eq!(image.config()["config"]["Cmd"], json!(["/hello"]));
}

#[test]
fn the_final_stage_carries_only_what_is_copied_into_it() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS build\n\
         WORKDIR /src\n\
         COPY main.txt .\n\
         RUN tr a-z A-Z < main.txt > /product && echo waste > /waste\n\
         FROM scratch\n\
         COPY --from=build --chown=7:8 --chmod=0711 /product /product\n",
    );
    space.write("main.txt", "source\n");
    let image = space.image(&[]);
    expect![[r#"
        -0711 7:8 product
    "#]]
    .assert_eq(&image.tree().to_string());
    assert_eq!(image.tree().read("product"), "SOURCE\n");
}

#[test]
fn instructions_of_the_config_reach_the_config() {
    let space = TestSpace::new();
    space.write(
        "Dockerfile",
        "FROM scratch\n\
         MAINTAINER somebody\n\
         ENV NAME=value OTHER=\"two words\"\n\
         LABEL org.example.key=\"label value\"\n\
         EXPOSE 80 53/udp\n\
         VOLUME [\"/data\"]\n\
         USER 1000:1000\n\
         WORKDIR /work\n\
         STOPSIGNAL SIGQUIT\n\
         HEALTHCHECK --interval=5s --retries=2 CMD [\"/check\"]\n\
         SHELL [\"/bin/ash\", \"-c\"]\n\
         ENTRYPOINT [\"/entry\"]\n\
         CMD one two\n\
         ONBUILD RUN true\n",
    );
    let config = space.image(&[]).config();
    assert_eq!(config["author"], "somebody");
    let inner = &config["config"];
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(inner["Env"], json!([path, "NAME=value", "OTHER=two words"]));
    assert_eq!(inner["Labels"], json!({ "org.example.key": "label value" }));
    assert_eq!(inner["ExposedPorts"], json!({ "80/tcp": {}, "53/udp": {} }));
    assert_eq!(inner["Volumes"], json!({ "/data": {} }));
    assert_eq!(inner["User"], "1000:1000");
    assert_eq!(inner["WorkingDir"], "/work");
    assert_eq!(inner["StopSignal"], "SIGQUIT");
    assert_eq!(inner["Healthcheck"]["Test"], json!(["CMD", "/check"]));
    assert_eq!(inner["Healthcheck"]["Interval"], 5_000_000_000_u64);
    assert_eq!(inner["Healthcheck"]["Retries"], 2);
    assert_eq!(inner["Entrypoint"], json!(["/entry"]));
    assert_eq!(inner["Cmd"], json!(["/bin/ash", "-c", "one two"]));
    assert_eq!(inner["Shell"], json!(["/bin/ash", "-c"]));
    assert_eq!(inner["OnBuild"], json!(["RUN true"]));
}

#[test]
fn arguments_and_variables_are_expanded() {
    let space = TestSpace::new();
    space.write(
        "Dockerfile",
        "ARG WHERE=/default\n\
         FROM scratch\n\
         ARG WHERE\n\
         ARG MODE=plain\n\
         ENV TARGET=${WHERE}/${MODE:-none} UNSET=${NOTHING:-fallback} SET=${MODE:+yes}\n\
         COPY file ${TARGET}/\n\
         LABEL literal='$MODE' escaped=\\$MODE\n",
    );
    space.write("file", "x");
    let image = space.image(&["--build-arg", "WHERE=/chosen"]);
    assert_eq!(image.tree().read("chosen/plain/file"), "x");
    let config = image.config();
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&json!("UNSET=fallback")) && env.contains(&json!("SET=yes")), "{env:?}");
    assert_eq!(config["config"]["Labels"], json!({ "literal": "$MODE", "escaped": "$MODE" }));
}

#[test]
fn directives_continuations_and_comments_are_read_as_buildkit_reads_them() {
    let space = TestSpace::new();
    space.write(
        "Dockerfile",
        "# syntax=docker/dockerfile:1\n\
         # escape=`\n\
         FROM scratch\n\
         ENV A=1 `\n\
         # a comment between\n\
         \n\
         \x20   B=c:\\path\n",
    );
    let config = space.image(&[]).config();
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&json!("A=1")) && env.contains(&json!("B=c:\\path")), "{env:?}");
}

#[test]
fn ignored_files_are_not_in_the_context() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY . /all/\n");
    space.write(".dockerignore", "*.log\nbuild\n!build/keep\n.dockerignore\nDockerfile\n");
    for name in ["a.txt", "b.log", "build/out", "build/keep", "deep/c.log"] {
        space.write(name, name);
    }
    let image = space.image(&[]);
    expect![[r#"
        d0755 0:0 all
        -0644 0:0 all/a.txt
        d0755 0:0 all/build
        -0644 0:0 all/build/keep
        d0755 0:0 all/deep
        -0644 0:0 all/deep/c.log
    "#]]
    .assert_eq(&image.tree().to_string());
}

#[test]
fn documents_within_the_dockerfile_become_files_and_scripts() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         ARG WHO=world\n\
         RUN <<EOF\n\
         echo one > /script\n\
         echo \"two $WHO\" >> /script\n\
         EOF\n\
         COPY <<-expanded <<'literal' /etc/\n\
         \thello $WHO\n\
         expanded\n\
         hello $WHO\n\
         literal\n",
    );
    let tree = space.image(&[]).tree();
    assert_eq!(tree.read("script"), "one\ntwo world\n");
    assert_eq!(tree.read("etc/expanded"), "hello world\n");
    assert_eq!(tree.read("etc/literal"), "hello $WHO\n");
}

#[test]
fn a_step_that_the_target_does_not_need_never_runs() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS broken\nRUN exit 9\nFROM @BASE@ AS wanted\nRUN echo wanted\nFROM broken\n",
    );
    space
        .build(&["--target", "wanted"])
        .success()
        .ran("RUN echo wanted")
        .keeps_quiet_about("exit 9");
    space.build(&[]).ended(1);
}

#[test]
fn independent_steps_run_side_by_side() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    // Each waits for the other: one after the other they would never end.
    let meet = |own: &str, other: &str| {
        format!(
            "FROM @BASE@ AS {own}\n\
             RUN --mount=type=cache,id=meet,target=/meet touch /meet/{own}; \
             i=0; until [ -e /meet/{other} ]; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done; echo {own} > /{own}\n"
        )
    };
    let both = "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    space.write("Dockerfile", &format!("{}{}{both}", meet("one", "two"), meet("two", "one")));
    assert_eq!(space.image(&[]).tree().paths(), ["one", "two"]);
}

#[test]
fn equal_steps_run_once() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS one\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
         FROM @BASE@ AS two\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
         FROM scratch\nCOPY --from=one /id /one\nCOPY --from=two /id /two\n",
    );
    let tree = space.image(&[]).tree();
    assert_eq!(tree.read("one"), tree.read("two"));
}

#[test]
fn every_noun_of_the_pipeline_can_be_printed() {
    needs!(Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS build\nRUN echo shown\nFROM scratch\nCOPY --from=build /etc /etc\n",
    );
    for (noun, part) in
        [("ast", "shown"), ("graph", "shown"), ("keys", "sha256:"), ("plan", "shown")]
    {
        let text = space.run(&["debug", noun, "."]).success().text();
        assert!(text.contains(part), "debug {noun} printed:\n{text}");
    }
    let dot = space.run(&["debug", "graph", "--dot", "."]).success().text();
    assert!(dot.starts_with("digraph"), "{dot}");
}
