//! `COPY` and `ADD`.

use expect_test::expect;

use super::*;

#[test]
fn sources_and_flags() {
    case(
        "FROM busybox\nWORKDIR /w\nARG O=me\nCOPY --chown=$O:7 --chmod=0750 a b* ./d/\n\
         COPY --chmod=u+x --exclude=*.o --exclude=x/** . .\nCOPY --from=alpine /etc/*.conf /\n",
    )
    .steps(&expect![[r#"
        v0 <- [] [stage-0 1/5] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
            docker-image://docker.io/library/busybox:latest@sha256:ab
        v1 <- [] FROM docker.io/library/alpine:latest@sha256:abababababababababababababababababababababababababababababababab (6-6)
            docker-image://docker.io/library/alpine:latest@sha256:ab
        v2 <- [v0] [stage-0 2/5] WORKDIR /w (2-2)
            input 0: directory /w 755
        v3 <- [] [internal] load build context
            local://context
        v4 <- [v2 v3] [stage-0 3/5] COPY --chown=me:7 --chmod=0750 a b* ./d/ (4-4)
            input 0: copy /a of input 1 to /w/d/ (path owner=me:7 mode=750)
            action 0: copy /b* of input 1 to /w/d/ (path owner=me:7 mode=750)
        v5 <- [v4 v3] [stage-0 4/5] COPY --chmod=u+x --exclude=*.o --exclude=x/** . . (5-5)
            input 0: copy / of input 1 to /w/ (path mode=u+x exclude=["*.o", "x/**"])
        v6 <- [v5 v1] [stage-0 5/5] COPY --from=alpine /etc/*.conf / (6-6)
            input 0: copy /etc/*.conf of input 1 to / (path)
        linux/amd64 is v6
    "#]]);
}

#[test]
fn history() {
    case(
        "FROM busybox\nARG O=me\nCOPY --chown=$O --chmod=700 --link a \"b\" d/\n\
         ADD --chmod=u=rw x.tar /\nCOPY --parents a/./b /p/\nCOPY <<F <<\"G\" /h/\nf $O\nF\ng $O\nG\n",
    )
    .history(&expect![[r#"
        - ARG O=me
        + COPY --chown=me --chmod=700 a b d/ # buildkit
        + ADD --chmod=u=rw x.tar / # buildkit
        + COPY --parents a/./b /p/ # buildkit
        + COPY <<F <<G /h/ # buildkit
    "#]]);
}

#[test]
fn links() {
    case("FROM busybox\nCOPY --link a /b/\nCOPY --link --chmod=700 c /d\n")
        .steps(&expect![[r#"
            v0 <- [] [1/3] FROM docker.io/library/busybox:latest@sha256:abababababababababababababababababababababababababababababababab (1-1)
                docker-image://docker.io/library/busybox:latest@sha256:ab
            v1 <- [] [internal] load build context
                local://context
                local.followpaths=["a","c"]
            v2 <- [v1] [2/3] COPY --link a /b/ (2-2)
                nothing: copy /a of input 0 to /b/ (path)
            v3 <- [v0 v2] [2/3] LINK COPY --link a /b/ (2-2)
                merge
            v4 <- [v3 v1] [3/3] COPY --link --chmod=700 c /d (3-3)
                input 0: copy /c of input 1 to /d (path mode=700)
            linux/amd64 is v4
        "#]]);
    case("FROM scratch\nCOPY --link a /b/\n").steps(&expect![[r#"
        v0 <- [] [internal] load build context
            local://context
            local.followpaths=["a"]
        v1 <- [v0] [1/1] COPY --link a /b/ (2-2)
            nothing: copy /a of input 0 to /b/ (path)
        linux/amd64 is v1
    "#]]);
}

#[test]
fn here_documents() {
    case("FROM scratch\nENV V=1\nCOPY <<a <<'b' /d/\nx $V\na\ny $V\nb\n").steps(&expect![[r#"
        v0 <- [] [internal] preparing inline document
            nothing: file /a 644 "x 1\n"
        v1 <- [] [internal] preparing inline document
            nothing: file /b 644 "y $V\n"
        v2 <- [v0 v1] [1/1] COPY <<a <<b /d/ (3-7)
            nothing: copy /a of input 0 to /d/
            action 0: copy /b of input 1 to /d/
        linux/amd64 is v2
    "#]]);
}

#[test]
fn parents_and_pivot_points() {
    case("FROM scratch\nCOPY --parents a/b/./c/*.h x/y /d/\n").steps(&expect![[r#"
        v0 <- [] [internal] load build context
            local://context
            local.followpaths=["a/b/c/*.h","x/y"]
        v1 <- [v0] [1/1] COPY --parents a/b/./c/*.h x/y /d/ (2-2)
            nothing: copy /a/b of input 0 to /d/ (path include=["c/*.h"])
            action 0: copy / of input 0 to /d/ (path include=["x/y"] required=["/x/y"])
        linux/amd64 is v1
    "#]]);
}

#[test]
fn addresses() {
    case(
        "FROM scratch\nADD http://h/a%20b.tar?q=1 /d/\nADD --unpack https://h/ /e\n\
         ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/f /f\n\
         ADD --keep-git-dir --chown=3 https://h/r.git#v1:sub /g\nADD git@h:o/r.git?submodules=false /s\n\
         ADD local.tar /l\nADD --unpack=false local.tar /m\n",
    )
    .steps(&expect![[r#"
        v0 <- [] [1/7] ADD http://h/a%20b.tar?q=1 /d/ (2-2)
            http://h/a%20b.tar?q=1
            http.filename=a b.tar
        v1 <- [v0] [1/7] ADD http://h/a%20b.tar?q=1 /d/ (2-2)
            nothing: copy /a b.tar of input 0 to /d/
        v2 <- [] [2/7] ADD --unpack https://h/ /e (3-3)
            https://h/
            http.filename=__unnamed__
        v3 <- [v1 v2] [2/7] ADD --unpack https://h/ /e (3-3)
            input 0: copy /__unnamed__ of input 1 to /e (unpack)
        v4 <- [] [3/7] ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/f /f (4-4)
            https://h/f
            http.checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            http.filename=f
        v5 <- [v3 v4] [3/7] ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/f /f (4-4)
            input 0: copy /f of input 1 to /f
        v6 <- [] [4/7] ADD --keep-git-dir --chown=3 https://h/r.git#v1:sub /g (5-5)
            git://h/r.git#v1:sub
            git.authheadersecret=GIT_AUTH_HEADER
            git.authtokensecret=GIT_AUTH_TOKEN
            git.fullurl=https://h/r.git
            git.keepgitdir=true
        v7 <- [v5 v6] [4/7] ADD --keep-git-dir --chown=3 https://h/r.git#v1:sub /g (5-5)
            input 0: copy / of input 1 to /g (owner=3:-)
        v8 <- [] [5/7] ADD git@h:o/r.git?submodules=false /s (6-6)
            git://h/o/r.git
            git.authheadersecret=GIT_AUTH_HEADER
            git.authtokensecret=GIT_AUTH_TOKEN
            git.fullurl=git@h:o/r.git
            git.mountsshsock=default
            git.skipsubmodules=true
        v9 <- [v7 v8] [5/7] ADD git@h:o/r.git?submodules=false /s (6-6)
            input 0: copy / of input 1 to /s
        v10 <- [] [internal] load build context
            local://context
            local.followpaths=["local.tar"]
        v11 <- [v9 v10] [6/7] ADD local.tar /l (7-7)
            input 0: copy /local.tar of input 1 to /l (path unpack)
        v12 <- [v11 v10] [7/7] ADD --unpack=false local.tar /m (8-8)
            input 0: copy /local.tar of input 1 to /m (path)
        linux/amd64 is v12
    "#]]);
}

#[test]
fn used_paths_and_ignore_files() {
    let case = case("FROM scratch\nCOPY a/../b c* /\nADD x http://h/f https://h/r.git /y/\n");
    expect![[r#"{"local://context": "[\"b\",\"c*\",\"x\"]"}"#]]
        .assert_eq(&format!("{:?}", case.attr("local.followpaths")));
    let ignoring = case.file("context", ".dockerignore", "# no\n/a/\n!b\n");
    expect![[r#"{"local://context": "[\"a\",\"!b\"]"}"#]]
        .assert_eq(&format!("{:?}", ignoring.attr("local.excludepatterns")));
    let own = ignoring.file("dockerfile", "Dockerfile.dockerignore", "own");
    expect![[r#"{"local://context": "[\"own\"]"}"#]]
        .assert_eq(&format!("{:?}", own.attr("local.excludepatterns")));
    let all = super::case("FROM scratch\nCOPY a /\nCOPY . /\n");
    expect!["{}"].assert_eq(&format!("{:?}", all.attr("local.followpaths")));
}
