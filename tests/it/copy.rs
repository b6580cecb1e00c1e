//! `COPY` and `ADD`: addresses, archives of every kind, hostile ones among them.

use rbuild_tests::image::{Layer, Meta, OPEN, digest, gzip};
use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;
use rbuild_tests::tree::Tree;
use rbuild_tests::web::Web;

use crate::contexts::repository;

/// What a Dockerfile makes.
fn built(space: &TestSpace, dockerfile: &str) -> Tree {
    space.write("Dockerfile", dockerfile);
    space.image(&[]).tree()
}

#[test]
fn a_file_from_the_web_is_private_and_as_old_as_the_server_says() {
    let (space, web) = (TestSpace::new(), Web::start());
    let time = [("last-modified", "Fri, 15 Apr 2022 05:20:00 GMT")];
    web.put("/dir/a%20b", &time, "x");
    web.put("/dir/a b", &time, "x");
    web.put("/", &[], "root");
    web.put("/away", &[("location", "/dir/a%20b")], "");
    let text = format!(
        "FROM scratch\nADD {0}dir/a%20b?q=1 {0} {0}away /d/\nADD --chown=7:8 --chmod=0413 {0} /e\n",
        web.url("/")
    );
    let tree = built(&space, &text);
    let file = tree.at("d/a b");
    assert_eq!((file.mode, file.uid, file.mtime), (0o600, 0, 1_650_000_000));
    // A file without a name, and one that was redirected: it is called as it was asked for.
    assert_eq!(tree.read("d/__unnamed__"), "root");
    assert_eq!(tree.at("d/__unnamed__").mtime, 0);
    assert_eq!(tree.read("d/away"), "x");
    assert_eq!((tree.at("e").mode, tree.at("e").uid, tree.at("e").gid), (0o413, 7, 8));
}

#[test]
fn what_the_server_still_has_is_not_sent_again() {
    let (space, web) = (TestSpace::new(), Web::start());
    web.put("/f", &[("etag", "\"1\"")], "one");
    let text = format!("FROM scratch\nADD {} /\n", web.url("/f"));
    assert_eq!(built(&space, &text).read("f"), "one");
    assert_eq!(built(&space, &text).read("f"), "one");
    web.put("/f", &[("etag", "\"2\"")], "two");
    assert_eq!(built(&space, &text).read("f"), "two");
    assert_eq!(web.requests(), ["GET /f 200", "GET /f 304", "GET /f 200"]);
}

#[test]
fn checksums_are_held_to() {
    let (space, web) = (TestSpace::new(), Web::start());
    web.put("/f", &[], "one");
    let add = |checksum: &str| {
        let text = format!("FROM scratch\nADD --checksum={checksum} {} /\n", web.url("/f"));
        space.write("Dockerfile", &text);
        space.build(&[])
    };
    add(&digest(b"one")).success();
    add(&digest(b"two")).ended(4).says("digest mismatch").says(">>> ADD --checksum");
    add("md5:7e55db001d319a94b0b713529a756623").ended(1).says("unsupported digest algorithm");
    add("7e55").ended(1).says("invalid checksum digest format");
}

#[test]
fn archives_are_unpacked_where_they_are_meant_to_be() {
    let (space, web) = (TestSpace::new(), Web::start());
    let archive = Layer::new().file("in", Meta { uid: 3, ..OPEN }, "x").finish();
    web.put("/a.tgz", &[], gzip(&archive));
    space.write_bytes("context/a.tgz", &gzip(&archive));
    let text = format!(
        "FROM scratch\nADD a.tgz /one/\nADD --unpack=false a.tgz /two/\nADD {0} /three/\n\
         ADD --unpack {0} /four/\nCOPY a.tgz /five/\nADD --chown=9 a.tgz /six/\n",
        web.url("/a.tgz")
    );
    let tree = built(&space, &text);
    for path in ["one/in", "two/a.tgz", "three/a.tgz", "four/in", "five/a.tgz", "six/in"] {
        assert!(tree.nodes.contains_key(path), "{path}:\n{tree}");
    }
    assert_eq!((tree.at("one/in").uid, tree.at("six/in").uid), (3, 9));
}

#[test]
fn an_archive_stays_below_its_destination() {
    let space = TestSpace::new();
    let hostile = Layer::new()
        .symlink("up", "../..")
        .file("up/one", OPEN, "1")
        .symlink("root", "/")
        .file("root/two", OPEN, "2")
        .finish();
    space.write_bytes("context/a.tar", &hostile);
    let tree = built(&space, "FROM scratch\nADD a.tar /deep/down/\n");
    assert_eq!((tree.read("deep/down/one"), tree.read("deep/down/two")), ("1".into(), "2".into()));
    assert_eq!(tree.at("deep/down/up").target, "../..");
    let link = Layer::new().hard_link("x", OPEN, "../../../etc/passwd").finish();
    space.write_bytes("context/b.tar", &link);
    space.write("Dockerfile", "FROM scratch\nADD b.tar /\n");
    space.build(&[]).ended(1).says("etc/passwd");
}

#[test]
fn archives_may_leave_out_directories_and_lead_through_links() {
    let space = TestSpace::new();
    let rootfs = Layer::new().dir("run", OPEN).dir("var", OPEN).symlink("var/run", "/run").finish();
    let payload = Layer::new()
        .file("var/run/act/HEAD", OPEN, "ref")
        .hard_link("var/run/act/link", OPEN, "var/run/act/HEAD")
        .finish();
    space.write_bytes("context/rootfs.tar", &rootfs);
    space.write_bytes("context/payload.tar", &payload);
    let tree = built(&space, "FROM scratch\nADD rootfs.tar /\nADD payload.tar /\n");
    assert_eq!(
        (tree.read("run/act/HEAD"), tree.read("run/act/link")),
        ("ref".into(), "ref".into())
    );
    assert_eq!(tree.at("var/run").target, "/run");
}

#[test]
fn repositories_are_added() {
    needs!(Program("git"));
    let (space, repository) = (TestSpace::new(), repository("sha1"));
    let (url, first) = (&repository.url, &repository.first);
    let tree = built(
        &space,
        &format!(
            "FROM scratch\nADD --chown=4:5 --checksum={first} {url}#v1 /r\nADD {url}#:sub /s\n"
        ),
    );
    assert_eq!(tree.read("r/file"), "first");
    assert_eq!(
        (tree.at("r/file").uid, tree.at("r/file").gid, tree.at("r/file").mode),
        (4, 5, 0o644)
    );
    assert!(!tree.nodes.contains_key("r/.git"));
    assert_eq!(tree.read("s/Dockerfile"), "FROM scratch\nCOPY . /\n");
    space.write("Dockerfile", &format!("FROM scratch\nADD --checksum={first} {url} /\n"));
    space.build(&[]).ended(1).says("expected checksum to match").says(">>> ADD --checksum");
}

#[test]
fn what_cannot_be_copied_is_told() {
    let (space, web) = (TestSpace::new(), Web::start());
    space.write("file", "x");
    let refused = |instruction: &str, code: i32, text: &str| {
        space.write("Dockerfile", &format!("FROM scratch\n{instruction}\n"));
        space.build(&[]).ended(code).says(text);
    };
    refused(&format!("COPY {} /", web.url("/x")), 1, "source can't be a URL for COPY");
    refused("COPY https://h/r.git /", 1, "source can't be a git ref for COPY");
    refused(&format!("ADD {} /", web.url("/x")), 4, "404");
    refused("ADD --checksum=sha256:00 file /", 1, "checksum requires HTTP(S) or Git sources");
    refused("COPY --chmod=64a file /", 1, "invalid chmod parameter: '64a'");
    refused("COPY fiel /", 1, "\"/fiel\": not found");
    refused("COPY --parents missing/file /", 1, "\"/missing/file\": not found");
    space.write("src/main", "x");
    refused("COPY src/mian /", 1, "did you mean `/src/main`?");
    refused("COPY scr/main /", 1, "did you mean `/src/main`?");
    refused("COPY library/main /", 1, "there is no directory `/library`");
}
