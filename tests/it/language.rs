//! The test language itself, held against programs that others wrote.

use std::process::Command;

use rbuild_tests::docker_registry::DockerRegistry;
use rbuild_tests::image::{Image, Layer, OPEN, PLAIN};
use rbuild_tests::needs;
use rbuild_tests::registry::{Access, Fault, Registry, base64};
use serde_json::json;

fn small() -> Image {
    let layers = [
        Layer::new()
            .dir("etc", OPEN)
            .file("etc/one", PLAIN, "1")
            .file("etc/two", PLAIN, "2")
            .finish(),
        Layer::new()
            .dir("etc", OPEN)
            .file("etc/.wh.one", PLAIN, "")
            .symlink("etc/three", "two")
            .finish(),
    ];
    Image::new(&layers, &json!({ "Cmd": ["/nothing"] }))
}

fn skopeo(args: &[&str]) -> bool {
    let output = Command::new("skopeo").args(args).output().unwrap();
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

#[test]
fn layers_are_applied_one_over_the_other() {
    let tree = small().tree();
    assert_eq!(tree.to_string(), "d0755 0:0 etc\nl0777 0:0 etc/three -> two\n-0644 0:0 etc/two\n");
    assert_eq!(small().layer(1).paths(), ["etc", "etc/.wh.one", "etc/three"]);
}

#[test]
fn a_stranger_can_pull_from_the_registry_and_push_to_it() {
    needs!(Program("skopeo"));
    let registry = Registry::start();
    registry.guard(Access::Bearer("ann".to_owned(), "right".to_owned()));
    registry.put("team/app", "1", &small());
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:1", folder.path().join("layout").display());
    let name = |tag: &str| format!("docker://{}/team/app:{tag}", registry.address());
    let archive = folder.path().join("app.tar");
    let there = ["copy", "--src-tls-verify=false", "--src-creds", "ann:right", &name("1"), &layout];
    assert!(skopeo(&there));
    assert_eq!(Image::read_dir(&folder.path().join("layout")).digest(), small().digest());
    assert!(skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        "ann:right",
        &layout,
        &name("2")
    ]));
    assert_eq!(registry.image("team/app", "2").digest(), small().digest());
    assert!(skopeo(&["copy", &layout, &format!("oci-archive:{}:1", archive.display())]));
    assert_eq!(Image::read(&archive).digest(), small().digest());
    assert!(!skopeo(&["inspect", "--tls-verify=false", "--creds", "ann:wrong", &name("1")]));
}

#[test]
fn the_registry_lies_when_told_to() {
    needs!(Program("skopeo"));
    for fault in [Fault::Corrupt, Fault::Status(500), Fault::HangUp] {
        let registry = Registry::start();
        let image = small();
        registry.put("app", "1", &image);
        registry.fault(&image.layer_digests()[0], fault);
        let folder = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}:1", folder.path().display());
        let name = format!("docker://{}/app:1", registry.address());
        assert!(
            !skopeo(&["copy", "--src-tls-verify=false", &name, &layout]),
            "{fault:?} was believed"
        );
        registry.repent();
        assert!(skopeo(&["copy", "--src-tls-verify=false", &name, &layout]));
    }
}

#[test]
fn the_real_registry_starts_with_and_without_passwords() {
    needs!(Program("skopeo"), Program("docker-registry"), Program("htpasswd"));
    let folder = tempfile::tempdir().unwrap();
    small().write_layout(folder.path(), "1");
    let layout = format!("oci:{}:1", folder.path().display());
    let open = DockerRegistry::start();
    let name = format!("docker://{}/app:1", open.address());
    assert!(skopeo(&["copy", "--dest-tls-verify=false", &layout, &name]));
    assert_eq!(open.digest("app", "1"), Some(small().digest()));
    let guarded = DockerRegistry::guarded("ann", "right");
    let name = format!("docker://{}/app:1", guarded.address());
    assert!(!skopeo(&["copy", "--dest-tls-verify=false", &layout, &name]));
    assert!(skopeo(&[
        "copy",
        "--dest-tls-verify=false",
        "--dest-creds",
        "ann:right",
        &layout,
        &name
    ]));
}

#[test]
fn podman_runs_the_base_image() {
    needs!(
        Root,
        Program("podman"),
        Program("skopeo"),
        Program("docker-registry"),
        Program("busybox")
    );
    let registry = DockerRegistry::start();
    let folder = tempfile::tempdir().unwrap();
    let base = rbuild_tests::base::busybox();
    Image::new(
        &base.layers(),
        &json!({ "Cmd": ["echo", "started"], "Env": [rbuild_tests::base::PATH] }),
    )
    .write_layout(folder.path(), "1");
    let name = format!("{}/busybox:1", registry.address());
    let layout = format!("oci:{}:1", folder.path().display());
    assert!(skopeo(&["copy", "--dest-tls-verify=false", &layout, &format!("docker://{name}")]));
    assert_eq!(crate::output::run_with_podman(&name), "started\n");
}

#[test]
fn base64_has_its_padding() {
    let texts = ["", "a", "ab", "abc", "ann:right"].map(|text| base64(text.as_bytes()));
    assert_eq!(texts, ["", "YQ==", "YWI=", "YWJj", "YW5uOnJpZ2h0"]);
}
