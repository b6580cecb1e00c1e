//! Results: pushed, written as archives and as files, and accepted by programs that others wrote.

use std::path::Path;
use std::process::Command;

use rbuild_tests::docker_registry::DockerRegistry;
use rbuild_tests::image::Image;
use rbuild_tests::needs;
use rbuild_tests::registry::{Access, Fault, Registry, base64};
use rbuild_tests::space::TestSpace;
use serde_json::{Value, json};

/// Runs another program, which has to succeed, and returns its standard output.
#[track_caller]
fn other(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same for what makes containers: a hybrid cgroup mount confuses podman and crun, so they run without it.
#[track_caller]
pub(crate) fn container(program: &str, args: &[&str]) -> String {
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let before = ["--mount", "--propagation", "private", "sh", "-c", script, "--", program];
    other("unshare", &[&before, args].concat())
}

/// Pulls an image with podman into a storage of its own, runs it, and returns what it printed.
pub(crate) fn run_with_podman(name: &str) -> String {
    let storage = tempfile::tempdir().unwrap();
    let root = storage.path().join("root").to_string_lossy().into_owned();
    let run = storage.path().join("run").to_string_lossy().into_owned();
    let place = [
        "--root",
        &root,
        "--runroot",
        &run,
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
        "--events-backend=none",
    ];
    container("podman", &[&place[..], &["pull", "--quiet", "--tls-verify=false", name]].concat());
    let start = ["run", "--rm", "--network=none", "--cgroups=disabled", "--runtime=crun"];
    let limits = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096"];
    container("podman", &[&place[..], &start, &limits, &[name]].concat())
}

/// A small image without RUN.
fn plain() -> TestSpace {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY a.txt b.txt /files/\nCMD [\"/files/a.txt\"]\n");
    space.write("a.txt", "a\n");
    space.write("b.txt", "b\n");
    space
}

/// The Dockerfile of an image that can be started.
const RUNNABLE: &str =
    "FROM @BASE@\nRUN echo made > /made\nUSER app\nENTRYPOINT [\"cat\", \"/made\"]\n";

#[test]
fn an_image_is_pushed_to_a_registry() {
    let space = plain();
    let registry = Registry::start();
    let name = format!("{}/team/app:1", registry.address());
    space.build(&["-t", &name, "--push"]).success();
    let image = registry.image("team/app", "1");
    assert_eq!(image.tree().read("files/a.txt"), "a\n");
    registry.forget();
    space.build(&["-t", &name, "--push"]).success();
    let asked = registry.requests();
    assert!(
        !asked.iter().any(|line| line.starts_with("PATCH")),
        "sent a blob that was there: {asked:?}"
    );
}

/// Bytes that do not compress, from a linear congruence.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_large_layer_arrives_whole_whatever_becomes_of_its_first_upload() {
    for fault in [None, Some(Fault::HangUp), Some(Fault::Status(411)), Some(Fault::Status(500))] {
        let (space, registry) = (plain(), Registry::start());
        space.write("Dockerfile", "FROM scratch\nCOPY noise /\nCOPY a.txt /\n");
        space.write_bytes("context/noise", &noise(16 << 20));
        if let Some(fault) = fault {
            registry.fault_times("/blobs/uploads/1", fault, 1);
        }
        let [one, two] =
            ["team/app", "other/app"].map(|it| format!("{}/{it}:1", registry.address()));
        space.build(&["-t", &one, "-t", &two, "--push"]).success();
        let image = registry.image("team/app", "1");
        assert_eq!(image.tree().paths(), ["a.txt", "noise"]);
        assert_eq!(registry.image("other/app", "1").digest(), image.digest());
        assert_eq!(image.digest(), space.image(&[]).digest());
    }
}

#[test]
fn a_push_with_wrong_credentials_says_what_to_do() {
    let space = plain();
    let registry = Registry::start();
    registry.guard(Access::Bearer("ann".to_owned(), "right".to_owned()));
    let name = format!("{}/team/app:1", registry.address());
    space.build(&["-t", &name, "--push"]).ended(4).says(registry.address()).says_a_way_out();
    let auths = json!({ "auths": { registry.address(): { "auth": base64(b"ann:right") } } });
    space.write_bytes("home/.docker/config.json", auths.to_string().as_bytes());
    space.build(&["-t", &name, "--push"]).success();
    registry.image("team/app", "1");
}

#[test]
fn a_real_registry_takes_it_with_and_without_passwords() {
    needs!(Program("docker-registry"), Program("htpasswd"), Program("skopeo"));
    let space = plain();
    let open = DockerRegistry::start();
    space.build(&["-t", &format!("{}/app:1", open.address()), "--push"]).success();
    assert!(open.digest("app", "1").is_some());
    other(
        "skopeo",
        &["inspect", "--tls-verify=false", &format!("docker://{}/app:1", open.address())],
    );
    let guarded = DockerRegistry::guarded("ann", "right");
    let auths = json!({ "auths": { guarded.address(): { "auth": base64(b"ann:right") } } });
    space.write_bytes("home/.docker/config.json", auths.to_string().as_bytes());
    space.build(&["-t", &format!("{}/app:1", guarded.address()), "--push"]).success();
}

#[test]
fn podman_pulls_and_runs_what_was_pushed() {
    needs!(Ids, Root, Program("busybox"), Program("podman"), Program("docker-registry"));
    let (space, _registry) = TestSpace::with_busybox();
    let registry = DockerRegistry::start();
    space.write("Dockerfile", RUNNABLE);
    let name = format!("{}/app:1", registry.address());
    space.build(&["-t", &name, "--push"]).success();
    assert_eq!(run_with_podman(&name), "made\n");
}

#[test]
fn skopeo_umoci_and_crun_accept_the_archive() {
    needs!(Ids, Root, Program("busybox"), Program("skopeo"), Program("umoci"), Program("crun"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", RUNNABLE);
    let image = space.image(&[]);
    let archive = format!("oci-archive:{}", space.path("out/image.tar").display());
    let inspected: Value = serde_json::from_str(&other("skopeo", &["inspect", &archive])).unwrap();
    assert_eq!(inspected["Digest"], image.digest());
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout").to_string_lossy().into_owned();
    let bundle = folder.path().join("bundle");
    other("skopeo", &["copy", &archive, &format!("oci:{layout}:1")]);
    other("umoci", &["unpack", "--image", &format!("{layout}:1"), &bundle.to_string_lossy()]);
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/made")).unwrap(), "made\n");
    assert_eq!(run_bundle(&bundle), "made\n");
}

/// Runs a bundle with crun, without a terminal and without cgroups, which a test machine may not have.
fn run_bundle(bundle: &Path) -> String {
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["linux"].as_object_mut().unwrap().remove("resources");
    config["process"].as_object_mut().unwrap().remove("rlimits");
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "cgroup");
    std::fs::write(&file, config.to_string()).unwrap();
    let bundle = bundle.to_string_lossy();
    let id = format!("rbuild-test-{}", std::process::id());
    container("crun", &["--cgroup-manager=disabled", "run", "--bundle", &bundle, &id])
}

#[test]
fn a_docker_archive_names_its_image() {
    let space = plain();
    space.build(&["-t", "team/app:1", "-o", "type=docker,dest=@OUT@/docker.tar"]).success();
    let file = std::fs::File::open(space.path("out/docker.tar")).unwrap();
    let mut archive = tar::Archive::new(file);
    let mut manifests = archive.entries().unwrap().map(Result::unwrap);
    let entry = manifests
        .find(|entry| entry.path().unwrap() == Path::new("manifest.json"))
        .expect("a manifest.json");
    let manifest: Value = serde_json::from_reader(entry).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["team/app:1"]));
    assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), 1);
}

#[test]
fn files_come_out_as_a_folder_and_as_a_tar() {
    let space = plain();
    space.build(&["-o", "type=local,dest=@OUT@/tree"]).success();
    assert_eq!(space.read("out/tree/files/b.txt"), "b\n");
    space.build(&["-o", "@OUT@/short"]).success();
    assert_eq!(space.read("out/short/files/b.txt"), "b\n");
    space.build(&["-o", "type=tar,dest=@OUT@/tree.tar"]).success();
    let mut tree = rbuild_tests::tree::Tree::default();
    tree.apply(&std::fs::read(space.path("out/tree.tar")).unwrap());
    assert_eq!(tree.read("files/a.txt"), "a\n");
    let stdout = space.build(&["-o", "-"]).success().stdout;
    let mut same = rbuild_tests::tree::Tree::default();
    same.apply(&stdout);
    assert_eq!(same, tree);
}

#[test]
fn digest_and_metadata_are_written_to_files() {
    let space = plain();
    let image = space.image(&[
        "--iidfile",
        "@OUT@/iid",
        "--metadata-file",
        "@OUT@/metadata.json",
        "-t",
        "team/app:1",
    ]);
    let metadata: Value = serde_json::from_str(&space.read("out/metadata.json")).unwrap();
    assert_eq!(metadata["containerimage.digest"], image.digest());
    let config = image.parsed()["config"]["digest"].clone();
    assert_eq!(metadata["containerimage.config.digest"], config);
    let iid = space.read("out/iid");
    assert!(iid.trim() == image.digest() || iid.trim() == config, "{iid}");
}

#[test]
fn the_same_context_gives_the_same_bytes_anywhere() {
    let digests: Vec<String> = (0..2u32)
        .map(|turn| {
            let space = plain();
            for (index, name) in ["a.txt", "b.txt"].iter().enumerate() {
                let file = std::fs::File::options()
                    .write(true)
                    .open(space.path(&format!("context/{name}")))
                    .unwrap();
                let seconds = 1_600_000_000 + u64::from(turn) * 1000 + index as u64;
                file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                    .unwrap();
            }
            let args = ["build", "-o", "type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true", "."];
            space.run_with(&[("SOURCE_DATE_EPOCH", "1500000000")], &args).success();
            Image::read(&space.path("out/image.tar")).digest()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn compression_is_as_asked() {
    let space = plain();
    for (compression, start) in
        [("gzip", &[0x1f, 0x8b][..]), ("zstd", &[0x28, 0xb5]), ("uncompressed", b"files")]
    {
        space
            .build(&[
                "-o",
                &format!("type=oci,dest=@OUT@/{compression}.tar,compression={compression}"),
            ])
            .success();
        let image = Image::read(&space.path(&format!("out/{compression}.tar")));
        let layer = &image.blobs[&image.layer_digests()[0]];
        assert!(layer.starts_with(start), "{compression}: {:x?}", &layer[..4]);
    }
}

#[test]
fn an_image_can_have_its_digest_in_its_name() {
    let space = plain();
    let registry = Registry::start();
    let name = format!("{}/team/app:1", registry.address());
    // What each machine of several does before one makes an index of their images.
    let output =
        format!("type=image,name={name},push-by-digest=true,name-canonical=true,push=true");
    space.build(&["-o", &output, "--metadata-file", "@OUT@/m.json"]).success();
    let told: Value = serde_json::from_str(&space.read("out/m.json")).unwrap();
    let digest = told["containerimage.digest"].as_str().unwrap();
    assert_eq!(registry.image("team/app", digest).digest(), digest);
    let listed = || space.run(&["images"]).success().text();
    assert!(listed().contains(&format!("{name}@{digest}")), "{}", listed());
    space.run(&["rmi", &format!("{name}@{digest}")]).success();
    space.build(&["-o", "type=image,dangling-name-prefix=lost"]).success();
    assert!(listed().contains(&format!("\nlost@{digest}")), "{}", listed());
    let named = "type=image,name=kept:1,dangling-name-prefix=none,danging-name-empty-only=true";
    space.build(&["-o", named]).success();
    space.build(&["-o", "type=image,name=other:1,store=false"]).success();
    let listed = listed();
    assert!(listed.contains("/kept:1 ") && !listed.contains("none@"), "{listed}");
    assert!(!listed.contains("other") && !listed.contains("team/app"), "{listed}");
}

#[test]
fn an_output_can_have_a_time_of_its_own() {
    let space = plain();
    let oci = "type=oci,dest=@OUT@/i.tar,source-date-epoch=5,rewrite-timestamp=true";
    let tar = "type=tar,dest=@OUT@/t.tar,source-date-epoch=7";
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=9"];
    space.build(&[&epoch[..], &["-o", oci, "-o", tar, "-o", "type=cacheonly"]].concat()).success();
    let image = Image::read(&space.path("out/i.tar"));
    assert_eq!(image.config()["created"], "1970-01-01T00:00:05Z");
    assert_eq!(image.config()["history"][0]["created"], "1970-01-01T00:00:05Z");
    assert_eq!(image.tree().at("files/a.txt").mtime, 5);
    let tree = rbuild_tests::tree::Tree::of_layer(&std::fs::read(space.path("out/t.tar")).unwrap());
    assert_eq!(tree.at("files/a.txt").mtime, 7);
    space.build(&["-o", "type=cacheonly"]).success().keeps_quiet_about("No output was asked for");
}
