//! The Dockerfiles below `examples/`, each in the style of a kind of well-known project, from the
//! first line to the image.

use std::path::{Path, PathBuf};

use expect_test::expect;
use rbuild_tests::image::Image;
use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use serde_json::json;

/// Puts an example into the context.
fn copy(space: &TestSpace, example: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in std::fs::read_dir(root.join(&below)).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                open.push(path);
            } else {
                let content = std::fs::read(entry.path()).unwrap();
                space.write_bytes(&format!("context/{}", path.display()), &content);
            }
        }
    }
}

fn on_busybox(example: &str) -> (TestSpace, Registry) {
    let (space, registry) = TestSpace::with_busybox();
    copy(&space, example);
    (space, registry)
}

#[test]
fn heredocs() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = on_busybox("heredocs");
    let image = space.image(&["--build-arg=BASE=@BASE@", "--build-arg=TITLE=A title"]);
    let tree = image.tree();
    expect![[r"
        <!doctype html>
        <title>A title</title>
        <p>Port 8080, and a $dollar that stays.
    "]]
    .assert_eq(&tree.read("srv/index.html"));
    assert_eq!(tree.read("srv/awk.txt"), "made by awk\n");
    assert_eq!(tree.read("etc/app/app.conf"), "listen = 0.0.0.0:8080\n");
    assert!(tree.to_string().contains("-0640 1000:1000 etc/app/app.conf\n"));
    assert!(tree.read("usr/bin/serve").contains("-p \"${PORT}\""));
}

#[test]
fn triggers_of_a_framework() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = on_busybox("onbuild");
    let image = space.image(&["--build-arg=BASE=@BASE@", "--build-arg=MODE=test"]);
    assert_eq!(image.tree().read("app/checked.txt"), "checked for test: 2 lines\n");
    let entrypoint = &image.config()["config"]["Entrypoint"];
    assert_eq!(*entrypoint, json!(["/bin/sh", "-c", "cat /app/checked.txt"]));
}

#[test]
fn a_repository_of_packages() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = on_busybox("monorepo");
    let tree = space.image(&["--build-arg=BASE=@BASE@"]).tree();
    assert_eq!(tree.read("pack.txt"), "source of one\nsource of two\n");
    expect![[r#"
        d0755 1:1 docs
        d0755 1:1 docs/guide
        -0644 1:1 docs/guide/index
        -0644 0:0 manifests.txt
        -0644 0:0 pack.txt
    "#]]
    .assert_eq(&tree.to_string());
}

#[test]
fn several_platforms() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = on_busybox("multi-platform");
    let tuning = |platform: &str| {
        let platform = format!("--platform={platform}");
        let tree = space.image(&["--build-arg=BASE=@BASE@", &platform]).tree();
        (tree.read("etc/tuning.conf"), tree.read("usr/share/example/name"))
    };
    assert_eq!(tuning("linux/amd64"), ("threads=16\n".to_owned(), "linux-amd64\n".to_owned()));
    assert_eq!(tuning("linux/arm64"), ("threads=8\n".to_owned(), "linux-arm64\n".to_owned()));
    let both = "--platform=linux/amd64,linux/arm64";
    let output = "type=oci,dest=@OUT@/both.tar";
    space.build(&["--build-arg=BASE=@BASE@", both, "-o", output]).success();
}

/// Builds an example on a real Debian.
fn on_debian(example: &str) -> Option<Image> {
    if rbuild_tests::host::lacks(&[
        rbuild_tests::host::Need::Ids,
        rbuild_tests::host::Need::Root,
        rbuild_tests::host::Need::Debian,
        rbuild_tests::host::Need::Program("mmdebstrap"),
    ]) {
        return None;
    }
    let registry = Registry::start();
    let tar = std::fs::read(crate::main_job::debian_tar()).unwrap();
    let debian = Image::new(&[tar], &json!({ "Env": [rbuild_tests::base::PATH] }));
    registry.put("debian", "bookworm", &debian);
    let space = TestSpace::new();
    copy(&space, example);
    let base = format!("--build-arg=BASE={}/debian:bookworm", registry.address());
    Some(space.image(&[&base]))
}

#[test]
fn go() {
    let Some(image) = on_debian("go-service") else { return };
    assert_eq!(image.layers().len(), 1);
    assert_eq!(image.config()["config"]["User"], "65532:65532");
    assert!(image.tree().to_string().ends_with(" service\n"));
}

#[test]
fn node() {
    let Some(image) = on_debian("node-app") else { return };
    assert_eq!(image.config()["config"]["Healthcheck"]["Timeout"], 3_000_000_000_u64);
    let tree = image.tree().to_string();
    assert!(tree.contains("1000:1000 usr/src/app/src/main.js\n"));
    assert!(!tree.contains("NOTES.md"));
}

#[test]
fn python() {
    let Some(image) = on_debian("python-tool") else { return };
    assert_eq!(image.tree().read("words.txt"), "3\n");
}

#[test]
fn java() {
    let Some(image) = on_debian("java-app") else { return };
    assert_eq!(image.config()["config"]["Volumes"], json!({ "/data": {} }));
}

#[test]
fn c() {
    let Some(image) = on_debian("c-server") else { return };
    let tree = image.tree().to_string();
    assert!(tree.contains(" usr/local/bin/echo-server\n"));
    assert!(!tree.contains(" usr/bin/gcc"), "the compiler should be gone");
}

#[test]
fn rust() {
    let Some(image) = on_debian("rust-cli") else { return };
    assert_eq!(image.config()["config"]["User"], "appuser");
    assert!(!image.tree().to_string().contains(" app/"), "mount points should be gone");
}
