//! The same files give the same image: from any place, by any user, at any time.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rbuild_tests::image::{Image, Layer, OPEN};
use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use rbuild_tests::web::Web;
use serde_json::Value;

use crate::contexts::repository;

const EPOCH: &str = "1234567890";

/// Steps that write the time, and files of several ages.
const DOCKERFILE: &str = "FROM @BASE@\nARG SOURCE_DATE_EPOCH\nWORKDIR /made/here\n\
    COPY --chmod=0640 a b /files/\nCOPY --link a /linked/\n\
    RUN echo $SOURCE_DATE_EPOCH > /epoch && mkdir /new && touch -d @1000 /old && touch -d @4000000000 /future && rm /bin/yes && ln /epoch /link\n\
    LABEL a=b\n";

fn write_context(space: &TestSpace, age: u64) {
    space.write("Dockerfile", DOCKERFILE);
    for (name, offset) in [("a", 0), ("b", 100)] {
        space.write(name, name);
        let path = space.path("context").join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(age + offset)).unwrap();
    }
}

fn build(space: &TestSpace, flags: &[&str]) -> Image {
    let output = ["-o", "type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true", "."];
    let args = [&["build", "--progress=plain"], flags, &output].concat();
    space.run_with(&[("SOURCE_DATE_EPOCH", EPOCH)], &args).success();
    Image::read(&space.path("out/image.tar"))
}

fn place(registry: &Registry, mut space: TestSpace, age: u64) -> TestSpace {
    space.word("BASE", &format!("{}/busybox:1", registry.address()));
    write_context(&space, age);
    space
}

#[test]
fn place_user_time_and_driver_do_not_matter() {
    needs!(Ids, Program("busybox"));
    let registry = Registry::start();
    registry.put("busybox", "1", rbuild_tests::base::busybox());
    let first = build(&place(&registry, TestSpace::new(), 1_600_000_000), &[]);
    let later = place(&registry, TestSpace::new(), 1_700_000_000);
    assert_eq!(build(&later, &[]).digest(), first.digest(), "another place and time");
    assert_eq!(build(&later, &["--no-cache"]).digest(), first.digest(), "again");
    let plain = place(&registry, TestSpace::new(), 1_600_000_000);
    assert_eq!(build(&plain, &["--snapshotter=plain"]).digest(), first.digest(), "another driver");
    // Where root runs the tests, rbuild was an ordinary user's until now.
    let own = place(&registry, TestSpace::own(), 1_650_000_000);
    assert_eq!(build(&own, &[]).digest(), first.digest(), "another user");
}

#[test]
fn nothing_is_later_than_the_epoch() {
    needs!(Ids, Program("busybox"));
    let registry = Registry::start();
    registry.put("busybox", "1", rbuild_tests::base::busybox());
    let image = build(&place(&registry, TestSpace::new(), 1_600_000_000), &[]);
    let n_base = rbuild_tests::base::busybox().layers().len();
    let epoch: u64 = EPOCH.parse().unwrap();
    for (index, _) in image.layers().iter().enumerate().skip(n_base) {
        let layer = image.layer(index);
        assert!(layer.nodes.values().all(|node| node.mtime <= epoch), "{layer}");
    }
    let tree = image.tree();
    assert_eq!(tree.read("epoch").trim(), EPOCH);
    assert_eq!((tree.at("old").mtime, tree.at("future").mtime), (1000, epoch));
    let config = image.config();
    let created = "2009-02-13T23:31:30Z";
    assert_eq!(config["created"], created);
    let history = config["history"].as_array().unwrap();
    let own: Vec<&Value> =
        history.iter().filter(|it| it["comment"] == "buildkit.dockerfile.v0").collect();
    assert!(!own.is_empty() && own.iter().all(|it| it["created"] == created), "{history:?}");
    let annotation = "buildkit/rewritten-timestamp";
    let layers = image.parsed()["layers"].clone();
    let marks: Vec<&Value> =
        layers.as_array().unwrap().iter().map(|layer| &layer["annotations"][annotation]).collect();
    assert!(marks[..n_base].iter().all(|mark| mark.is_null()), "{marks:?}");
    assert!(marks[n_base..].iter().all(|mark| *mark == EPOCH), "{marks:?}");
}

#[test]
fn an_epoch_comes_from_the_command_line_the_environment_or_the_dockerfile() {
    let space = TestSpace::new();
    let created = |args: &[&str], environment: &str| {
        let archive = space.path("out/image.tar");
        let args = [&["build"], args, &["-o", "type=oci,dest=@OUT@/image.tar", "."]].concat();
        space.run_with(&[("SOURCE_DATE_EPOCH", environment)], &args).success();
        Image::read(Path::new(&archive)).config()["created"].as_str().unwrap().to_owned()
    };
    space.write("Dockerfile", "ARG SOURCE_DATE_EPOCH=3\nFROM scratch\nCOPY Dockerfile /\n");
    assert_eq!(created(&[], ""), "1970-01-01T00:00:03Z");
    assert_eq!(created(&[], "2"), "1970-01-01T00:00:02Z");
    assert_eq!(created(&["--build-arg", "SOURCE_DATE_EPOCH=1"], "2"), "1970-01-01T00:00:01Z");
    let wrong = space.build(&["--build-arg", "SOURCE_DATE_EPOCH=soon"]).ended(1);
    wrong.says("invalid SOURCE_DATE_EPOCH: soon").says_a_way_out();
}

#[test]
fn an_epoch_can_be_the_time_of_a_commit_a_file_or_a_stage() {
    needs!(Program("git"));
    let (space, repository) = (TestSpace::new(), repository("sha1"));
    let created = |context: &str, args: &[&str], input: &[u8]| {
        space.image_of(context, args, input).config()["created"].as_str().unwrap().to_owned()
    };
    let named = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    assert_eq!(created(&repository.url, &named, b""), "2023-11-14T22:13:20Z");
    let web = Web::start();
    let archive =
        Layer::new().file("Dockerfile", OPEN, "FROM scratch\nCOPY Dockerfile /\n").finish();
    web.put("/old.tar", &[], archive.clone());
    web.put("/new.tar", &[("last-modified", "Fri, 15 Apr 2022 05:20:00 GMT")], archive.clone());
    assert_eq!(created(&web.url("/old.tar"), &named, b""), "1970-01-01T00:00:01Z");
    assert_eq!(created(&web.url("/new.tar"), &named, b""), "2022-04-15T05:20:00Z");
    assert_eq!(created("-", &named, &archive), "1970-01-01T00:00:01Z");
    let text = format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {} /\nFROM scratch\nCOPY Dockerfile /\n",
        web.url("/new.tar")
    );
    space.write("Dockerfile", &text);
    assert_eq!(created(".", &[], b""), "2022-04-15T05:20:00Z");
    let context = format!("src={}", web.url("/old.tar"));
    assert_eq!(created(".", &["--build-context", &context], b""), "1970-01-01T00:00:01Z");
}
