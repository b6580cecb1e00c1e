//! Rows of `docs/dockerfile.md` that take more than a Dockerfile.

use rbuild_tests::image::{Layer, OPEN};
use rbuild_tests::needs;
use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use rbuild_tests::web::Web;
use serde_json::json;

use crate::table::place;

#[test]
fn rows_with_steps() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("file", "context");
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS other\nRUN mkdir /d && echo other > /d/f\nFROM @BASE@\n\
         RUN echo shell > /r\nRUN [\"sh\", \"-c\", \"echo exec >> /r\"]\nRUN <<E\necho document >> /r\nE\n\
         SHELL [\"sh\", \"-xc\"]\nRUN echo $- | grep x && echo SHELL >> /r\nSHELL [\"sh\", \"-c\"]\n\
         RUN --mount=type=bind,from=other,source=d,target=/m,rw echo x > /m/g && cat /m/f >> /r\n\
         RUN --mount=target=/c cat /c/file >> /r && ! touch /c/new\n\
         RUN --network=default --security=sandbox true\nRUN --network=none ! grep -v lo: /proc/net/dev | grep :\n\
         RUN --mount=type=cache,target=/k hostname >> /r && ls /k >> /r && touch /k/kept\n",
    );
    let host = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=given"];
    let read = |space: &TestSpace, flags: &[&str]| space.image(flags).tree().read("r");
    let start = "shell\nexec\ndocument\nSHELL\nother\ncontext";
    assert_eq!(read(&space, &host), format!("{start}given\n"));
    // Another name space of cache mounts begins empty, the same one has what was kept.
    let first = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=n", "--no-cache"];
    assert_eq!(read(&space, &first), format!("{start}buildkitsandbox\n"));
    assert_eq!(read(&space, &first), format!("{start}buildkitsandbox\nkept\n"));
}

#[test]
fn archives_of_each_kind() {
    needs!(Program("bzip2"), Program("xz"), Program("zstd"), Program("gzip"));
    let space = place();
    let mut lines = vec!["FROM scratch".to_owned()];
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let archive = space.path("context/t.tar");
        let packed = std::process::Command::new(program).arg("-c").arg(archive).output().unwrap();
        space.write_bytes(&format!("context/{program}.data"), &packed.stdout);
        lines.push(format!("ADD {program}.data /{program}/"));
    }
    space.write("Dockerfile", &lines.join("\n"));
    let tree = space.image(&[]).tree();
    assert_eq!(tree.paths().iter().filter(|it| it.ends_with("/in")).count(), 4, "{tree}");
}

#[test]
fn named_contexts() {
    needs!(Program("git"));
    let (space, web, registry) = (place(), Web::start(), Registry::start());
    let image = rbuild_tests::image::Image::new(
        &[Layer::new().file("i", OPEN, "image").finish()],
        &json!({ "Env": ["FROM=image"] }),
    );
    registry.put("named", "1", &image);
    let layout = space.dir("layout");
    image.write_layout(&layout, "1");
    web.put("/t.tar", &[], Layer::new().file("w", OPEN, "web").finish());
    let repository = crate::contexts::repository("sha1");
    space.write(
        "Dockerfile",
        "FROM stage AS later\nFROM busybox:9 AS wanted\nCOPY --from=dir a /\nCOPY --from=lay i /l\nCOPY --from=git file /g\n\
         COPY --from=web /context /w\nFROM scratch AS stage\nCOPY missing /\n",
    );
    let named = [
        "stage=d".to_owned(),
        "dir=d".to_owned(),
        format!("busybox:9=docker-image://{}/named:1", registry.address()),
        format!("lay=oci-layout://{}:1", layout.display()),
        format!("git={}#v1", repository.url),
        format!("web={}", web.url("/t.tar")),
    ];
    let flags: Vec<&str> =
        named.iter().flat_map(|it| ["--build-context", it]).chain(["--target", "wanted"]).collect();
    let image = space.image(&flags);
    let tree = image.tree();
    assert_eq!(["i", "a", "l", "g"].map(|it| tree.read(it)), ["image", "a", "image", "first"]);
    assert_eq!(image.config()["config"]["Env"][0], "FROM=image");
}
