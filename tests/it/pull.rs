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

/// How often each layer of an image was asked for.
fn fetched(registry: &Registry, image: &Image) -> Vec<usize> {
    let asked = registry.requests();
    let times = |layer: &String| {
        let is_it = |line: &&String| line.starts_with("GET ") && line.contains(layer);
        asked.iter().filter(is_it).count()
    };
    image.layer_digests().iter().map(times).collect()
}

/// Whether a request sends a layer of an image.
fn sent(registry: &Registry, image: &Image) -> bool {
    let is_sent = |line: &String| {
        line.starts_with("PUT ") && image.layer_digests().iter().any(|it| line.contains(it))
    };
    registry.requests().iter().any(is_sent)
}

/// Layers of the store whose files are on disk.
fn unpacked(space: &TestSpace) -> usize {
    let Ok(layers) = std::fs::read_dir(space.path("store/layers")) else { return 0 };
    let has_files = |layer: &std::path::Path| {
        let mut names = std::fs::read_dir(layer).unwrap().map(|it| it.unwrap().file_name());
        names.any(|it| it.to_string_lossy().starts_with("fs-"))
    };
    layers.filter(|it| has_files(&it.as_ref().unwrap().path())).count()
}

#[test]
fn a_base_that_is_only_inherited_is_neither_fetched_nor_unpacked() {
    for rest in ["ENV A=c\nCMD [\"x\"]\nLABEL l=m\n", "COPY --link Dockerfile /three\n"] {
        let (space, registry, base) = place();
        space.write("Dockerfile", &format!("FROM @BASE@\n{rest}"));
        space.build(&[]).success();
        for name in ["team/base:2", "team/app:1", "team/app:1"] {
            space.build(&["-t", &format!("@REGISTRY@/{name}"), "--push"]).success();
            let (repository, tag) = name.split_once(':').unwrap();
            let pushed = registry.image(repository, tag);
            assert_eq!(pushed.layer_digests()[..2], base.layer_digests());
        }
        assert_eq!(fetched(&registry, &base), [0, 0], "{:?}", registry.requests());
        assert!(!sent(&registry, &base), "{:?}", registry.requests());
        for layer in base.config()["rootfs"]["diff_ids"].as_array().unwrap() {
            let layer = layer.as_str().unwrap().trim_start_matches("sha256:");
            assert!(!space.path("store/layers").join(layer).exists(), "nobody asks what is in it");
        }
        // An archive has all blobs, and needs no files for that.
        let image = space.image(&[]);
        assert_eq!(image.layer_digests()[..2], base.layer_digests());
        assert_eq!(fetched(&registry, &base), [1, 1]);
        assert_eq!(unpacked(&space), 0);
    }
}

#[test]
fn a_base_that_files_are_copied_upon_is_read_and_not_unpacked() {
    for step in ["COPY Dockerfile /three", "ADD Dockerfile /three", "WORKDIR /three"] {
        let (space, registry, base) = place();
        space.write("Dockerfile", &format!("FROM @BASE@\n{step}\n"));
        space.build(&[]).success();
        assert_eq!((fetched(&registry, &base), unpacked(&space)), (vec![1, 1], 0), "{step}");
        let other = Registry::start();
        let elsewhere = format!("{}/app:1", other.address());
        for name in ["@REGISTRY@/team/base:2", "@REGISTRY@/team/app:1", &elsewhere] {
            space.build(&["-t", name, "--push"]).success();
        }
        assert!(!sent(&registry, &base), "{:?}", registry.requests());
        assert_eq!(other.image("app", "1").digest(), registry.image("team/app", "1").digest());
        let image = space.image(&[]);
        assert_eq!(image.tree().paths(), ["one", "three", "two"]);
        // Another step on it knows what is in the base.
        space.write("Dockerfile", &format!("FROM @BASE@\n{step}\nCOPY Dockerfile /four\n"));
        assert_eq!(space.image(&[]).tree().paths(), ["four", "one", "three", "two"]);
        assert_eq!(unpacked(&space), 0);
        // Whoever reads files has them from the blobs that came.
        space.build(&["-o", "type=local,dest=@OUT@/tree"]).success();
        assert_eq!(space.read("out/tree/two"), "2");
        assert_eq!(fetched(&registry, &base), [1, 1], "{:?}", registry.requests());
        assert!(unpacked(&space) >= 2);
        // What a base is like does not depend on how far it was taken apart.
        let whole = space.image(&["--no-cache"]);
        let (space, _registry, _) = {
            let fresh = place();
            fresh.0.write("Dockerfile", &format!("FROM @BASE@\n{step}\nCOPY Dockerfile /four\n"));
            fresh
        };
        assert_eq!(space.image(&[]).tree().paths(), whole.tree().paths());
    }
}

#[test]
fn of_a_stage_that_files_are_copied_from_only_those_are_written() {
    let (mut space, registry, _) = place();
    let layers = [
        Layer::new().file("etc/one", PLAIN, "1").file("big", PLAIN, vec![7; 1 << 16]).finish(),
        Layer::new()
            .file("etc/passwd", PLAIN, "root:x:0:0::/:\nann:x:77:78::/:\n")
            .file("huge", PLAIN, vec![8; 1 << 17])
            .symlink("opt", "etc")
            .hard_link("etc/again", PLAIN, "etc/passwd")
            .finish(),
    ];
    let base = Image::new(&layers, &json!({}));
    registry.put("team/tools", "1", &base);
    space.word("TOOLS", &format!("{}/team/tools:1", registry.address()));
    let copies = "COPY --from=a /opt/one /opt/again /\n";
    space.write("Dockerfile", &format!("FROM @TOOLS@ AS a\nFROM scratch\n{copies}"));
    let tree = space.image(&[]).tree();
    assert_eq!((tree.read("one"), tree.read("again").len()), ("1".to_owned(), 31));
    assert_eq!((fetched(&registry, &base), unpacked(&space)), (vec![1, 1], 0));
    // Names of users are looked up in one file, too.
    space.write("Dockerfile", "FROM @TOOLS@\nCOPY --chown=ann Dockerfile /mine\n");
    let image = space.image(&[]);
    assert_eq!(image.tree().at("mine").uid, 77);
    assert_eq!(unpacked(&space), 0);
    // Most of it is worth unpacking.
    space.write("Dockerfile", "FROM @TOOLS@ AS a\nFROM scratch\nCOPY --from=a /huge /etc /\n");
    let tree = space.image(&[]).tree();
    assert_eq!(tree.read("huge").len(), 1 << 17);
    assert_eq!(tree.paths(), ["again", "huge", "one", "passwd"]);
    assert_eq!(unpacked(&space), 1);
    assert_eq!(fetched(&registry, &base), [1, 1]);
    assert_eq!(image.digest(), {
        space.write("Dockerfile", "FROM @TOOLS@\nCOPY --chown=ann Dockerfile /mine\n");
        space.image(&["--no-cache"]).digest()
    });
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
