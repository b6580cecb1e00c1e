//! `docs/dockerfile.md`, row by row: what it calls done is built, what it calls refused is refused with the message that it
//! names. Rows that a test of their own shows better are named at the end; a row that nothing runs fails.

use std::collections::BTreeSet;
use std::path::Path;

use rbuild_tests::image::{Layer, OPEN};
use rbuild_tests::space::TestSpace;

/// The first cells of a row, and how they are told apart where several have the same.
type Row = &'static str;

/// A row that is done, without a step: the Dockerfile behind `FROM scratch` (unless it has a `FROM`), flags, and `path=text` of
/// the tree or `/pointer=value` of the configuration.
const DONE: &[(Row, &str, &[&str], &[&str])] = &[
    (
        "| `# syntax=` `docker/dockerfile`",
        "# syntax=docker/dockerfile-upstream:1.4-labs\nFROM scratch\nCOPY --parents d/a /\n",
        &[],
        &["d/a=a"],
    ),
    (
        "`# escape=`",
        "# escape=`\nFROM scratch\nLABEL a=x\\y b=`\n1\n",
        &[],
        &["/config/Labels/a=x\\y"],
    ),
    ("`# check=skip=", "# check=skip=all;error=true\nFROM scratch AS A\nLABEL a=b\n", &[], &[]),
    (
        "Byte order mark",
        "\u{feff}FROM scratch\r\nLABEL a=b \\\r\n# between\r\n\r\n c=d\r\nCMD [\"x\", y]\r\n",
        &[],
        &["/config/Labels/c=d", "/config/Cmd/2=[\"x\", y]"],
    ),
    (
        "Here-documents",
        "ARG V=v\nCOPY <<-\"q\" <<p /\n\t$V\nq\n$V\np\nADD <<r /s\nr\n",
        &[],
        &["q=$V\n", "p=v\n", "s="],
    ),
    (
        "`$x`, `${x}`",
        "ARG v=abcabc e=\nLABEL a=$v b=${v} c=${n:-d} d=${e-d} e=${v:+y} f=${e+y} g=${v#*b} h=${v##*b} i=${v%b*} j=${v%%b*} \
         k=${v/b/x} l=${v//b/x} m=${v:?} n=${v?}\n",
        &[],
        &[
            "/config/Labels/a=abcabc",
            "/config/Labels/b=abcabc",
            "/config/Labels/c=d",
            "/config/Labels/d=",
            "/config/Labels/e=y",
            "/config/Labels/f=y",
            "/config/Labels/g=cabc",
            "/config/Labels/h=c",
            "/config/Labels/i=abca",
            "/config/Labels/j=a",
            "/config/Labels/k=axcabc",
            "/config/Labels/l=axcaxc",
            "/config/Labels/m=abcabc",
            "/config/Labels/n=abcabc",
        ],
    ),
    ("`<Dockerfile>.dockerignore`", "COPY d /\n", &["-f", "Named"], &["a=a", "!b"]),
    (
        "| `FROM` | name, number",
        "FROM scratch AS one\nCOPY a /one\nFROM one\nCOPY --from=0 one /zero\nCOPY --from=named a /two\n",
        &["--build-context", "named=d"],
        &["one=top", "zero=top", "two=a"],
    ),
    (
        "| `ARG` | global",
        "ARG V=1\nFROM scratch\nLABEL a=$V\nARG V\n# W is said\nARG W=2\nLABEL b=$V c=$W\n",
        &["--build-arg", "W=3"],
        &["/config/Labels/a=", "/config/Labels/b=1", "/config/Labels/c=3"],
    ),
    (
        "| `ENV`, `LABEL` |",
        "ENV A=1 B=\"2 3\"\nENV C 4  5\nLABEL a b c\n",
        &[],
        &["/config/Env/2=B=2 3", "/config/Env/3=C=4  5", "/config/Labels/a=b c"],
    ),
    (
        "| `COPY` |",
        "FROM scratch AS s\nCOPY a /\nFROM scratch\nCOPY --from=s --chown=1:2 --chmod=600 /a /one\nCOPY --link --chmod=u+x,go= a /two\n\
         COPY --parents --exclude=b d/./* /p/\nCOPY --parents ./d/a /q/\n",
        &[],
        &["one=top", "two=top", "p/a=a", "!p/b", "q/d/a=a"],
    ),
    (
        "| | `--chown`, `--chmod`, `--link`, `--exclude`, `--checksum`",
        "ADD --chown=3 --chmod=0640 --link --exclude=b d /x/\nADD --unpack=false t.tar /t\n",
        &[],
        &["x/a=a", "!x/b", "!t/in"],
    ),
    (
        "| `CMD`, `ENTRYPOINT`",
        "SHELL [\"/s\", \"-x\"]\nENTRYPOINT e\nCMD [\"c\"]\nHEALTHCHECK --interval=1m --timeout=2s --start-period=3s --start-interval=4s \
         --retries=5 CMD h\n",
        &[],
        &[
            "/config/Entrypoint/0=/s",
            "/config/Cmd/0=c",
            "/config/Shell/1=-x",
            "/config/Healthcheck/Test/1=h",
            "/config/Healthcheck/StartInterval=4000000000",
        ],
    ),
    (
        "`EXPOSE`, `VOLUME`",
        "EXPOSE 80-81/udp\nVOLUME /v [\"/w\"]\nUSER 1:2\nWORKDIR /a\nWORKDIR b\nSTOPSIGNAL SIGINT\n",
        &[],
        &[
            "/config/ExposedPorts/81~1udp={}",
            "/config/Volumes/~1v={}",
            "/config/User=1:2",
            "/config/WorkingDir=/a/b",
            "/config/StopSignal=SIGINT",
        ],
    ),
    (
        "| `ONBUILD` |",
        "USER 1\nONBUILD COPY a /\nONBUILD LABEL x=y\n",
        &[],
        &["/config/OnBuild/1=LABEL x=y"],
    ),
    ("`MAINTAINER`", "MAINTAINER me\n", &[], &["/author=me"]),
    (
        "`HTTP_PROXY`",
        "LABEL a=$HTTP_PROXY\nARG HTTP_PROXY\nLABEL b=$HTTP_PROXY\n",
        &["--build-arg", "HTTP_PROXY=http://127.0.0.1:9"],
        &["/config/Labels/a=", "/config/Labels/b=http://127.0.0.1:9"],
    ),
    (
        "`TARGETPLATFORM`",
        "ARG TARGETPLATFORM\nARG TARGETOS\nARG TARGETARCH\nARG TARGETVARIANT\nARG TARGETSTAGE\nARG BUILDOS\n\
         LABEL a=$TARGETPLATFORM b=$TARGETOS c=$TARGETARCH d=$TARGETVARIANT e=$TARGETSTAGE f=$BUILDOS\n",
        &["--platform", "linux/arm/v6"],
        &[
            "/config/Labels/a=linux/arm/v6",
            "/config/Labels/b=linux",
            "/config/Labels/c=arm",
            "/config/Labels/d=v6",
            "/config/Labels/e=default",
            "/config/Labels/f=linux",
        ],
    ),
    (
        "`BUILDKIT_SYNTAX`",
        "COPY a /\n",
        &["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"],
        &["a=top"],
    ),
    (
        "`BUILDKIT_DOCKERFILE_CHECK`",
        "# check=error=true\nFROM scratch AS A\nCOPY a /\n",
        &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing"],
        &["a=top"],
    ),
    (
        "`BUILDKIT_SBOM_SCAN_CONTEXT`",
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=1\nFROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nCOPY a /\n",
        &["--build-arg", "BUILDKIT_SBOM_SCAN_STAGE=true"],
        &["a=top"],
    ),
    (
        "`BUILDKIT_INLINE_CACHE`",
        "COPY a /\n",
        &["--build-arg", "BUILDKIT_INLINE_CACHE=0"],
        &["a=top"],
    ),
];

/// A row that is refused: Dockerfile, flags, exit code, message. What stands in backticks in the row is in the message.
const REFUSED: &[(Row, &str, &[&str], i32, &str)] = &[
    (
        "`# syntax=` of anything else",
        "# syntax=x/y\nFROM scratch\n",
        &[],
        1,
        "the frontend `x/y` is not supported",
    ),
    (
        "`BUILDKIT_SYNTAX`",
        "",
        &["--build-arg", "BUILDKIT_SYNTAX=x/y"],
        1,
        "the frontend `x/y` is not supported",
    ),
    (
        "`--mount` of another type",
        "RUN --mount=type=bnid,target=/x y\n",
        &[],
        1,
        "unsupported mount type \"bnid\"",
    ),
    (
        "`--mount` of another type",
        "RUN --mount=type=bnid,target=/x y\n",
        &[],
        1,
        "did you mean bind?",
    ),
    (
        "`--network=host`",
        "RUN --network=host y\n",
        &[],
        1,
        "entitlement network.host is not allowed",
    ),
    (
        "`--security=insecure`",
        "RUN --security=insecure y\n",
        &[],
        1,
        "entitlement security.insecure is not allowed",
    ),
    ("`--device`", "RUN --device=a.com/b=c y\n", &[], 1, "RUN --device=a.com/b=c is not supported"),
    ("| `ONBUILD` |", "ONBUILD FROM x\n", &[], 1, "FROM isn't allowed as an ONBUILD trigger"),
    (
        "| `ONBUILD` |",
        "ONBUILD MAINTAINER x\n",
        &[],
        1,
        "MAINTAINER isn't allowed as an ONBUILD trigger",
    ),
    (
        "| `ONBUILD` |",
        "ONBUILD ONBUILD RUN x\n",
        &[],
        1,
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
    ),
    (
        "| | `--chown`, `--chmod`, `--link`, `--exclude`, `--checksum`",
        "ADD --checksum=sha256:00 a /\n",
        &[],
        1,
        "checksum requires HTTP(S) or Git sources",
    ),
    (
        "`BUILDKIT_DOCKERFILE_CHECK`",
        "MAINTAINER x\n",
        &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"],
        1,
        "lint violation found for rules: MaintainerDeprecated",
    ),
    (
        "`BUILDKIT_DISABLE_FILEOP`",
        "COPY a /\n",
        &["--build-arg", "BUILDKIT_DISABLE_FILEOP=true"],
        1,
        "BUILDKIT_DISABLE_FILEOP",
    ),
    (
        "`BUILDKIT_MULTI_PLATFORM`",
        "",
        &["--build-arg", "BUILDKIT_MULTI_PLATFORM=maybe"],
        1,
        "invalid boolean value for multi-platform: maybe",
    ),
    (
        "`SOURCE_DATE_EPOCH` in seconds",
        "COPY a /\n",
        &["--build-arg", "SOURCE_DATE_EPOCH=soon"],
        1,
        "invalid SOURCE_DATE_EPOCH: soon",
    ),
    (
        "`BUILDKIT_MULTI_PLATFORM`",
        "",
        &["--build-arg=BUILDKIT_MULTI_PLATFORM=0", "--platform=linux/amd64,linux/arm64"],
        1,
        "BUILDKIT_MULTI_PLATFORM=0: an image of several platforms is an index",
    ),
    (
        "| `compression=estargz`",
        "",
        &["-o", "type=image,unpack=true"],
        2,
        "`unpack` is not supported: ",
    ),
    (
        "| `compression=estargz`",
        "",
        &["-o", "type=oci,compression=estargz,dest=x"],
        2,
        "estargz is not supported",
    ),
    (
        "| `compression=estargz`",
        "",
        &["-o", "type=local,mode=delete,dest=x"],
        2,
        "mode=delete is not supported",
    ),
    (
        "| an attribute of another type",
        "",
        &["-o", "type=local,dest=x,push=true"],
        2,
        "type=local has no `push`",
    ),
    (
        "`--build-context NAME=target:…`",
        "",
        &["--build-context", "n=target:x"],
        2,
        "targets of bake files are not supported",
    ),
];

/// Rows that other tests run.
const ELSEWHERE: &[(Row, &str)] = &[
    ("| | `--platform` |", "examples::several_platforms"),
    ("| `RUN` | shell form", "rows::rows_with_steps"),
    ("`--mount=type=bind`", "rows::rows_with_steps, mounts"),
    ("`--mount=type=cache`", "mounts::a_cache_has_an_id_an_owner_and_a_beginning"),
    ("`--mount=type=tmpfs`", "mounts::a_tmpfs_has_the_size_that_was_asked_for"),
    ("`--mount=type=secret`", "mounts::secrets_have_a_mode_an_owner_and_a_place"),
    ("`--mount=type=ssh`", "mounts::the_agents_socket_is_the_steps_alone"),
    ("`--network=default`", "rows::rows_with_steps"),
    ("`--security=sandbox`", "rows::rows_with_steps"),
    ("| `ADD` | local files", "rows::archives_of_each_kind"),
    (
        "http and https, git",
        "copy::a_file_from_the_web_is_private_and_as_old_as_the_server_says, copy::repositories_are_added",
    ),
    (
        "`SOURCE_DATE_EPOCH=context`",
        "reproducible::an_epoch_can_be_the_time_of_a_commit_a_file_or_a_stage",
    ),
    ("`BUILDKIT_SANDBOX_HOSTNAME`", "rows::rows_with_steps"),
    ("`BUILDKIT_CACHE_MOUNT_NS`", "rows::rows_with_steps"),
    (
        "`BUILDKIT_CONTEXT_KEEP_GIT_DIR`",
        "contexts::a_kept_repository_tells_its_commit_and_its_address",
    ),
    ("Directory; `-`", "contexts"),
    ("| git with", "contexts::a_repository_is_a_context"),
    ("| http: tar", "contexts::a_web_server_has_an_archive_or_a_dockerfile"),
    ("`--build-context NAME=` directory", "rows::named_contexts"),
    (
        "| `type=image` (",
        "output::an_image_can_have_its_digest_in_its_name, output::an_image_is_pushed_to_a_registry",
    ),
    ("| `type=oci`, `type=docker`", "output::a_docker_archive_names_its_image"),
    ("| of all these:", "output::compression_is_as_asked"),
    ("| `source-date-epoch`", "output::an_output_can_have_a_time_of_its_own"),
    ("| `type=cacheonly`", "output::an_output_can_have_a_time_of_its_own"),
    ("`type=local`, `type=tar` of one", "output, output_trees"),
    ("| of several platforms", "output_trees::each_platform_has_its_directory"),
    ("| device nodes", "output_trees::a_tar_has_device_nodes"),
    ("`--check`, `--call=check`", "questions::what_a_dockerfile_offers_is_told"),
    ("`--call=outline`", "questions::what_a_dockerfile_offers_is_told"),
    ("`,format=json`", "questions::what_a_dockerfile_offers_is_told"),
    ("Warnings during a build", "questions::what_a_dockerfile_offers_is_told"),
    ("`rbuild explain-rule", "questions::what_a_dockerfile_offers_is_told"),
];

/// A place with the files that the rows copy.
pub(crate) fn place() -> TestSpace {
    let space = TestSpace::new();
    space.write("a", "top");
    space.write("d/a", "a");
    space.write("d/b", "b");
    space.write("Named.dockerignore", "d/b\n");
    space.write_bytes("context/t.tar", &Layer::new().file("in", OPEN, "x").finish());
    space
}

/// Writes a Dockerfile, behind `FROM scratch` if it has no stage of its own; with several platforms' flags as they are.
fn write(space: &TestSpace, name: &str, text: &str) {
    let begins = text.trim_start_matches('\u{feff}').lines().any(|it| it.starts_with("FROM "));
    let text = if begins { text.to_owned() } else { format!("FROM scratch\n{text}") };
    space.write(name, &text);
}

#[test]
fn what_is_done_is_done() {
    let space = place();
    for (row, text, flags, wanted) in DONE {
        let name = if flags.contains(&"Named") { "Named" } else { "Dockerfile" };
        write(&space, name, text);
        let image = space.image(flags);
        let (tree, config) = (image.tree(), image.config());
        for wanted in *wanted {
            if let Some(gone) = wanted.strip_prefix('!') {
                assert!(!tree.nodes.contains_key(gone), "{row}: {gone}\n{tree}");
                continue;
            }
            let (place, value) = wanted.split_once('=').unwrap();
            if place.starts_with('/') {
                let found = config.pointer(place).unwrap_or_else(|| panic!("{row}: {config:#}"));
                let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                assert_eq!(found, value, "{row}: {place}");
            } else {
                assert_eq!(tree.read(place), value, "{row}: {place}\n{tree}");
            }
        }
    }
}

#[test]
fn what_is_refused_is_refused_with_that_message() {
    let space = place();
    for (row, text, flags, code, message) in REFUSED {
        write(&space, "Dockerfile", text);
        let ran = space.build(flags);
        assert_eq!(ran.code, Some(*code), "{row}\n{}", ran.story());
        ran.says(message);
    }
}

#[test]
fn one_platform_can_be_an_index_and_no_cache_is_inline() {
    let space = place();
    write(&space, "Dockerfile", "COPY a /\n");
    let index = "--build-arg=BUILDKIT_MULTI_PLATFORM=1";
    space
        .build(&[index, "-o", "type=oci,tar=false,dest=@OUT@/oci", "-o", "type=local,dest=@OUT@/l"])
        .success();
    let read = |path: &str| serde_json::from_str::<serde_json::Value>(&space.read(path)).unwrap();
    let digest = read("out/oci/index.json")["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let index = read(&format!("out/oci/blobs/{}", digest.replace(':', "/")));
    let architecture = rbuild_tests::image::architecture();
    assert_eq!(index["manifests"][0]["platform"]["architecture"], architecture);
    assert_eq!(space.read(&format!("out/l/linux_{architecture}/a")), "top");
    let inline = space.build(&["--build-arg=BUILDKIT_INLINE_CACHE=1"]).success();
    inline.says("BUILDKIT_INLINE_CACHE has no effect");
}

#[test]
fn every_row_is_run() {
    let docs = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dockerfile.md"),
    )
    .unwrap();
    let is_row =
        |it: &&str| it.starts_with("| ") && !it.starts_with("| What") && !it.ends_with("| State |");
    let rows: Vec<&str> = docs.lines().filter(is_row).collect();
    let done = DONE.iter().map(|it| it.0);
    let keys: BTreeSet<Row> =
        done.chain(REFUSED.iter().map(|it| it.0)).chain(ELSEWHERE.iter().map(|it| it.0)).collect();
    for key in &keys {
        assert!(rows.iter().any(|row| row.contains(key)), "no row has `{key}`");
    }
    for row in rows {
        assert!(keys.iter().any(|key| row.contains(key)), "nothing runs this row:\n{row}");
    }
}
