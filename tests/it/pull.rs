//! Base images: where they come from, and that nothing is believed before it was checked.

use rbuild_tests::image::{Image, Layer, OPEN, PLAIN};
use rbuild_tests::needs;
use rbuild_tests::registry::{Access, Fault, Registry, base64};
use rbuild_tests::space::TestSpace;
use serde_json::json;

/// A place whose `@BASE@` is an image of two small layers, and the registry that has it.
fn place() -> (TestSpace, Registry, Image) {
    let layers = [
        Layer::new().file("one", PLAIN, "1").file("gone", PLAIN, "x").finish(),
        Layer::new().file("two", PLAIN, "2").file(".wh.gone", PLAIN, "").finish(),
    ];
    let image = Image::new(&layers, &json!({ "Env": ["A=b"], "Labels": { "from": "base" } }));
    let registry = Registry::start();
    registry.put("team/base", "1", &image);
    let mut space = TestSpace::new();
    space.word("REGISTRY", registry.address());
    space.word("BASE", &format!("{}/team/base:1", registry.address()));
    space.write("Dockerfile", "FROM @BASE@\nCOPY Dockerfile /three\n");
    (space, registry, image)
}

#[test]
fn a_base_image_keeps_its_layers_and_config() {
    let (space, _registry, base) = place();
    let image = space.image(&[]);
    assert_eq!(image.layer_digests()[..2], base.layer_digests());
    assert_eq!(image.tree().paths(), ["one", "three", "two"]);
    let config = image.config();
    assert_eq!(config["config"]["Labels"], json!({ "from": "base" }));
    assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("A=b")), "{config}");
}

#[test]
fn a_base_image_can_be_named_by_digest() {
    let (space, _registry, base) = place();
    space.write(
        "Dockerfile",
        &format!("FROM @REGISTRY@/team/base@{}\nCOPY Dockerfile /three\n", base.digest()),
    );
    assert_eq!(space.image(&[]).layer_digests()[..2], base.layer_digests());
}

#[test]
fn an_oci_layout_can_stand_for_an_image() {
    let (space, registry, base) = place();
    let layout = space.dir("home/layout");
    base.write_layout(&layout, "1");
    space.write("Dockerfile", "FROM somewhere.example/base\nCOPY Dockerfile /three\n");
    let context = "somewhere.example/base=oci-layout://@SPACE@/home/layout:1";
    assert_eq!(space.image(&["--build-context", context]).tree().paths(), ["one", "three", "two"]);
    assert!(registry.requests().is_empty());
}

#[test]
fn an_image_of_an_earlier_build_can_be_the_base() {
    let (space, registry, _) = place();
    space.build(&["-t", "mine:1"]).success();
    registry.forget();
    space.write("Dockerfile", "FROM mine:1\nCOPY Dockerfile /four\n");
    assert_eq!(space.image(&[]).tree().paths(), ["four", "one", "three", "two"]);
}

#[test]
fn a_base_that_is_only_inherited_is_neither_fetched_nor_unpacked() {
    let (space, registry, base) = place();
    space.write("Dockerfile", "FROM @BASE@\nENV A=c\nCMD [\"x\"]\n");
    space.build(&["-t", "@REGISTRY@/team/app:1", "--push"]).success();
    assert_eq!(registry.image("team/app", "1").layer_digests(), base.layer_digests());
    for layer in base.layer_digests() {
        let fetched = format!("GET /v2/team/base/blobs/{layer}");
        assert!(!registry.requests().contains(&fetched), "{:?}", registry.requests());
    }
    assert_eq!(std::fs::read_dir(space.path("store/layers")).unwrap().count(), 0);
}

#[test]
fn credentials_of_docker_login_are_used() {
    let user = || ("ann".to_owned(), "pa:ss".to_owned());
    for access in [Access::Basic(user().0, user().1), Access::Bearer(user().0, user().1)] {
        let (space, registry, _) = place();
        registry.guard(access);
        space.build(&[]).ended(4).says(registry.address());
        let auths = json!({ "auths": { registry.address(): { "auth": base64(b"ann:pa:ss") } } });
        space.write_bytes("home/.docker/config.json", auths.to_string().as_bytes());
        space.build(&[]).success();
    }
}

#[test]
fn wrong_credentials_are_told_with_a_way_out() {
    let (space, registry, _) = place();
    registry.guard(Access::Bearer("ann".to_owned(), "right".to_owned()));
    let auths = json!({ "auths": { registry.address(): { "auth": base64(b"ann:wrong") } } });
    space.write_bytes("home/.docker/config.json", auths.to_string().as_bytes());
    let ran =
        space.build(&[]).ended(4).says("Dockerfile:1").says_a_way_out().says(registry.address());
    ran.keeps_quiet_about("wrong\"");
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_if_it_fails() {
    let (space, registry, base) = place();
    let mirror = Registry::start();
    mirror.put("team/base", "1", &base);
    space.write(
        "../home/registries.conf",
        &format!("[[registry]]\nlocation = \"@REGISTRY@\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n", mirror.address()),
    );
    let variables = [("CONTAINERS_REGISTRIES_CONF", "@SPACE@/home/registries.conf")];
    space.run_with(&variables, &["build", "--progress=plain", "."]).success();
    assert!(!mirror.requests().is_empty() && registry.requests().is_empty());
    mirror.fault("", Fault::Status(500));
    space.run_with(&variables, &["--root", "@SPACE@/store/other", "build", "."]).success();
    assert!(!registry.requests().is_empty());
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused_and_leaves_nothing() {
    for fault in [Fault::Corrupt, Fault::Truncate] {
        let (space, registry, base) = place();
        let layer = base.layer_digests()[1].clone();
        registry.fault(&layer, fault);
        space
            .build(&["-o", "type=oci,dest=@OUT@/image.tar"])
            .ended(4)
            .says(&layer[..19])
            .says(registry.address());
        assert!(!space.path("out/image.tar").exists());
        let diff_id = base.config()["rootfs"]["diff_ids"][1].as_str().unwrap().to_owned();
        for name in [layer, diff_id] {
            let found = std::process::Command::new("find")
                .arg(space.path("store"))
                .args(["-name", name.trim_start_matches("sha256:")])
                .output()
                .unwrap();
            assert!(found.stdout.is_empty(), "visible: {}", String::from_utf8_lossy(&found.stdout));
        }
        registry.repent();
        assert_eq!(space.image(&[]).tree().paths(), ["one", "three", "two"]);
    }
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let (space, registry, base) = place();
    space.write(
        "Dockerfile",
        &format!("FROM @REGISTRY@/team/base@{}\nCOPY Dockerfile /three\n", base.digest()),
    );
    registry.fault("/manifests/", Fault::Corrupt);
    space.build(&[]).ended(4).says("Dockerfile:1");
}

#[test]
fn a_short_trouble_of_the_registry_is_sat_out() {
    let (space, registry, base) = place();
    registry.fault_times("/manifests/", Fault::Status(503), 1);
    registry.fault_times(&base.layer_digests()[0], Fault::HangUp, 1);
    registry.fault_times(&base.layer_digests()[1], Fault::Truncate, 1);
    assert_eq!(space.image(&[]).tree().paths(), ["one", "three", "two"]);
}

#[test]
fn a_circle_of_redirects_ends() {
    let (space, registry, base) = place();
    registry.fault(&base.layer_digests()[0], Fault::Circle);
    space.build(&["-o", "type=local,dest=@OUT@/tree"]).ended(4);
}

#[test]
fn an_unknown_image_and_a_dead_registry_are_told_apart() {
    let (space, registry, _) = place();
    space.write("Dockerfile", "FROM @REGISTRY@/team/nothing:9\n");
    space.build(&[]).ended(4).says("Dockerfile:1").says("team/nothing:9").says("not found");
    let address = registry.address().to_owned();
    drop(registry);
    let ran = space.build(&[]).ended(4).says("Dockerfile:1").says(&address).says_a_way_out();
    ran.keeps_quiet_about("not found");
}

#[test]
fn credentials_come_from_a_helper_too() {
    needs!(Program("sh"));
    let (space, registry, _) = place();
    registry.guard(Access::Basic("ann".to_owned(), "right".to_owned()));
    space.write_bytes(
        "home/bin/docker-credential-tests",
        b"#!/bin/sh\ncat >/dev/null\nprintf '{\"Username\":\"ann\",\"Secret\":\"right\"}'\n",
    );
    let helper = space.path("home/bin/docker-credential-tests");
    std::fs::set_permissions(helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({ "credHelpers": { registry.address(): "tests" } });
    space.write_bytes("home/.docker/config.json", config.to_string().as_bytes());
    let path = "@SPACE@/home/bin:/usr/bin:/bin";
    space.run_with(&[("PATH", path)], &["build", "."]).success();
}

#[test]
fn a_layer_may_link_to_a_file_of_a_layer_below_it() {
    needs!(Ids, Program("busybox"));
    let (mut space, registry) = TestSpace::with_busybox();
    let mut layers = rbuild_tests::base::busybox().layers();
    layers.push(Layer::new().file("data/file", OPEN, "below").finish());
    layers.push(Layer::new().hard_link("data/link", OPEN, "data/file").finish());
    let config = &rbuild_tests::base::busybox().config()["config"];
    registry.put("linked", "1", &Image::new(&layers, config));
    space.word("LINKED", &format!("{}/linked:1", registry.address()));
    space.write("Dockerfile", "FROM @LINKED@\nRUN cp /data/link /copy\n");
    for driver in ["--snapshotter=auto", "--snapshotter=plain"] {
        let tree = space.image(&[driver, "--no-cache"]).tree();
        assert_eq!(tree.read("copy"), "below", "{driver}");
    }
}
