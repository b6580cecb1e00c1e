//! `RUN`: forms, here-documents, mounts, network, security.

use expect_test::expect;

use super::*;

#[test]
fn forms() {
    case("FROM busybox\nUSER u\nRUN a  \"b\" \\\n  $c\nRUN [\"a\", \"b c\"]\nSHELL [\"/bin/bash\", \"-c\"]\nRUN d\n")
        .steps(&expect![[r#"
            v0 <- [] [1/4] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/busybox:latest@sha256:ab
            v1 <- [v0] [2/4] RUN a  "b"   $c (3-4)
                ["/bin/sh", "-c", "a  \"b\"   $c"] in / ["PATH=/bin"]
                user u
            v2 <- [v1] [3/4] RUN ["a", "b c"] (5-5)
                ["a", "b c"] in / ["PATH=/bin"]
                user u
            v3 <- [v2] [4/4] RUN d (7-7)
                ["/bin/bash", "-c", "d"] in / ["PATH=/bin"]
                user u
            linux/amd64 is v3
        "#]]);
}

#[test]
fn here_documents() {
    case("FROM busybox\nRUN <<EOF\necho 1\necho $x\nEOF\nRUN cat <<A >/a && cat <<-B >/b\na\nA\n\tb\nB\n")
        .steps(&expect![[r#"
            v0 <- [] [1/3] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/busybox:latest@sha256:ab
            v1 <- [v0] [2/3] RUN <<EOF (echo 1...) (2-5)
                ["/bin/sh", "-c", "echo 1\necho $x\n"] in / ["PATH=/bin"]
            v2 <- [v1] [3/3] RUN cat <<A >/a && cat <<-B >/b (6-10)
                ["/bin/sh", "-c", "cat <<A >/a && cat <<-B >/b\na\nA\n\tb\nB"] in / ["PATH=/bin"]
            linux/amd64 is v2
        "#]]);
    case("FROM busybox\nRUN <<-'S'\n\t#!/bin/awk -f\n\tBEGIN{}\nS\n").steps(&expect![[r##"
        v0 <- [] [1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [] [internal] preparing inline document
            nothing: file /S 755 "#!/bin/awk -f\nBEGIN{}\n"
        v2 <- [v0 v1] [2/2] RUN <<-'S' (#!/bin/awk -f...) (2-5)
            ["/bin/sh", "-c", "/dev/pipes/S"] in / ["PATH=/bin"]
            mount /dev/pipes ro input 1 Bind None
        linux/amd64 is v2
    "##]]);
}

#[test]
fn mounts() {
    case(
        "FROM busybox AS tools\nFROM busybox\nWORKDIR /w\nARG D=dir\n\
         RUN --mount=target=.,rw --mount=from=tools,source=/bin,target=/t \
         --mount=type=cache,target=/c/$D --mount=type=cache,id=i,sharing=locked,target=/a,mode=0700,uid=3,gid=4,from=tools,source=/x \
         --mount=type=tmpfs,size=1k,target=/tmp/x --mount=type=secret,id=s \
         --mount=type=secret,id=e,env=E,required --mount=type=secret,source=f,target=rel,mode=0444,uid=1 \
         --mount=type=ssh --mount=type=ssh,id=k,target=/k,required make $E\n",
    )
    .steps(&expect![[r#"
        v0 <- [] [tools 1/1] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [v0] [stage-1 2/3] WORKDIR /w (3-3)
            input 0: directory /w 755
        v2 <- [] [internal] load build context
            local://context
        v3 <- [v1 v0 v2] [stage-1 3/3] RUN --mount=target=.,rw --mount=from=tools,source=/bin,target=/t --mount=type=cache,target=/c/dir --mount=type=cache,id=i,sharing=locked,target=/a,mode=0700,uid=3,gid=4,from=tools,source=/x --mount=type=tmpfs,size=1k,target=/tmp/x --mount=type=secret,id=s --mount=type=secret,id=e,env=E,required --mount=type=secret,source=f,target=rel,mode=0444,uid=1 --mount=type=ssh --mount=type=ssh,id=k,target=/k,required make **** (5-5)
            ["/bin/sh", "-c", "make $E"] in /w ["PATH=/bin", "D=dir", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]
            secret e in $E optional=false
            mount /a rw input 1/x Cache { id: "/i", sharing: Locked, mode: 493, uid: 0, gid: 0 } None
            mount /c/dir rw nothing Cache { id: "//c/dir", sharing: Shared, mode: 493, uid: 0, gid: 0 } None
            mount /t ro input 1/bin Bind None
            mount /tmp/x rw nothing Tmpfs { size: 1024 } None
            mount /w rw input 2 Bind None
            mount /run/secrets/s rw nothing Secret { id: "s", uid: 0, gid: 0, mode: 256, optional: true } None
            mount /w/rel rw nothing Secret { id: "f", uid: 1, gid: 0, mode: 292, optional: true } None
            mount /run/buildkit/ssh_agent.0 rw nothing Ssh { id: "default", uid: 0, gid: 0, mode: 384, optional: true } None
            mount /k rw nothing Ssh { id: "k", uid: 0, gid: 0, mode: 384, optional: false } None
        linux/amd64 is v3
    "#]]);
}

#[test]
fn owners_of_caches_and_their_name_space() {
    case("FROM busybox\nRUN --mount=type=cache,target=/c/../d,mode=0700,uid=3 x\n")
        .arg("BUILDKIT_CACHE_MOUNT_NS", "ns")
        .steps(&expect![[r#"
            v0 <- [] [stage-0 1/2] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/busybox:latest@sha256:ab
            v1 <- [v0] [stage-0 2/2] RUN --mount=type=cache,target=/c/../d,mode=0700,uid=3 x (2-2)
                ["/bin/sh", "-c", "x"] in / ["PATH=/bin"]
                mount /d rw nothing Cache { id: "ns//d", sharing: Shared, mode: 448, uid: 3, gid: 0 } None
            linux/amd64 is v1
        "#]]);
}

#[test]
fn networks_and_permissions() {
    case("FROM busybox\nRUN --network=none --security=sandbox a\nRUN --network=host --security=insecure b\n")
        .with(|it| it.allow = vec!["network.host".to_owned(), "security.insecure".to_owned()])
        .arg("BUILDKIT_SANDBOX_HOSTNAME", "box")
        .steps(&expect![[r#"
            v0 <- [] [1/3] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/busybox:latest@sha256:ab
            v1 <- [v0] [2/3] RUN --network=none --security=sandbox a (2-2)
                ["/bin/sh", "-c", "a"] in / ["PATH=/bin"]
                host name box
                None Sandbox
            v2 <- [v1] [3/3] RUN --network=host --security=insecure b (3-3)
                ["/bin/sh", "-c", "b"] in / ["PATH=/bin"]
                host name box
                Host Insecure
            linux/amd64 is v2
        "#]]);
}
