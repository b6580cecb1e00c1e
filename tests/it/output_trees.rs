//! Trees as results: for several platforms, with device nodes, at one time.

use std::os::unix::fs::MetadataExt as _;

use rbuild_tests::image::{Image, Layer, OPEN};
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use rbuild_tests::tree::Tree;
use serde_json::json;

/// One file for each platform.
fn platforms() -> TestSpace {
    let space = TestSpace::new();
    space.write(
        "Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nCOPY $TARGETARCH /only-$TARGETARCH\n",
    );
    space.write("amd64", "a");
    space.write("arm", "b");
    space
}

const BOTH: &str = "--platform=linux/amd64,linux/arm/v7";

fn tar(space: &TestSpace, name: &str) -> Tree {
    Tree::of_layer(&std::fs::read(space.path(name)).unwrap())
}

#[test]
fn each_platform_has_its_directory() {
    let space = platforms();
    space.build(&[BOTH, "-o", "@OUT@/dir"]).success().says("copying files linux/arm/v7");
    assert_eq!(space.read("out/dir/linux_amd64/arch"), "a");
    assert_eq!(space.read("out/dir/linux_arm_v7/arch"), "b");
    space.build(&[BOTH, "-o", "type=tar,dest=@OUT@/all.tar"]).success();
    let all = tar(&space, "out/all.tar");
    assert_eq!(
        all.paths(),
        [
            "linux_amd64",
            "linux_amd64/arch",
            "linux_amd64/only-amd64",
            "linux_arm_v7",
            "linux_arm_v7/arch",
            "linux_arm_v7/only-arm"
        ]
    );
    assert_eq!(all.read("linux_arm_v7/arch"), "b");
}

#[test]
fn platforms_share_a_directory_if_asked_to_and_nothing_is_lost() {
    let space = platforms();
    let together = "type=local,dest=@OUT@/dir,platform-split=false";
    let clash = space.build(&[BOTH, "-o", together]).ended(1);
    clash
        .says("cannot overwrite arch from linux/amd64 with linux/arm/v7 when split option is disabled")
        .says_a_way_out();
    space.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /only-$TARGETARCH\n");
    space.build(&[BOTH, "-o", together]).success();
    assert_eq!(space.read("out/dir/only-amd64") + &space.read("out/dir/only-arm"), "ab");
    let alone = "type=local,dest=@OUT@/one,platform-split=true";
    space.build(&["--platform=linux/arm/v7", "-o", alone]).success();
    assert_eq!(space.read("out/one/linux_arm_v7/only-arm"), "b");
}

#[test]
fn all_files_are_from_the_epoch() {
    let space = platforms();
    let args = ["--build-arg", "SOURCE_DATE_EPOCH=1000000000", "--platform=linux/amd64"];
    space.build(&[&args[..], &["-o", "@OUT@/dir"]].concat()).success();
    for name in ["arch", "only-amd64"] {
        let metadata = std::fs::metadata(space.path("out/dir").join(name)).unwrap();
        assert_eq!(metadata.mtime(), 1_000_000_000);
    }
    space.build(&[&args[..], &["-o", "type=tar,dest=@OUT@/a.tar"]].concat()).success();
    let tree = tar(&space, "out/a.tar");
    assert!(tree.nodes.values().all(|node| node.mtime == 1_000_000_000), "{tree}");
}

/// A base image with two names of a device.
fn with_devices() -> (TestSpace, Registry) {
    let layer = Layer::new()
        .dir("dev", OPEN)
        .device("dev/null")
        .hard_link("dev/zilch", OPEN, "dev/null")
        .file("file", OPEN, "x")
        .finish();
    let registry = Registry::start();
    registry.put("devices", "1", &Image::new(&[layer], &json!({})));
    let mut space = TestSpace::new();
    space.word("BASE", &format!("{}/devices:1", registry.address()));
    space.write("Dockerfile", "FROM @BASE@\nCOPY Dockerfile /\n");
    (space, registry)
}

#[test]
fn device_nodes_that_the_host_refuses_are_left_out_and_named() {
    let (space, _registry) = with_devices();
    let built = space.build(&["-o", "@OUT@/dir"]).success();
    assert_eq!(space.read("out/dir/file"), "x");
    if space.path("out/dir/dev/null").exists() {
        // Who may make them gets them.
        assert!(space.path("out/dir/dev/zilch").exists());
        built.keeps_quiet_about("left out of");
        return;
    }
    assert!(space.path("out/dir/dev").is_dir() && !space.path("out/dir/dev/zilch").exists());
    built.says("WARN: left out of").says("dev/null (character device 1:3)");
}

#[test]
fn a_tar_has_device_nodes() {
    let (space, _registry) = with_devices();
    space.build(&["-o", "type=tar,dest=@OUT@/a.tar"]).success().keeps_quiet_about("left out of");
    let tree = tar(&space, "out/a.tar");
    assert_eq!(tree.at("dev/null").kind, 'c');
    assert_eq!((tree.at("dev/zilch").kind, &tree.at("dev/zilch").target[..]), ('h', "dev/null"));
}
