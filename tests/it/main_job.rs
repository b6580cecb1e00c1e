//! The main job: a C program, compiled in one stage with packages from the network, shipped in another.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rbuild_tests::docker_registry::DockerRegistry;
use rbuild_tests::image::Image;
use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;
use serde_json::json;

use crate::output::run_with_podman;

/// Debian's smallest root file system, made once and kept beside what cargo builds.
pub(crate) fn debian_tar() -> PathBuf {
    // Tests are threads of one process: one of them makes it, the others wait.
    static MAKING: Mutex<()> = Mutex::new(());
    let own = std::env::current_exe().expect("the path of a running program");
    let folder = own.ancestors().nth(3).expect("in the target folder").join("rbuild-fixtures");
    let tar = folder.join("debian.tar");
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if tar.exists() {
        return tar;
    }
    std::fs::create_dir_all(&folder).unwrap();
    let unfinished = folder.join(format!("unfinished-{}.tar", std::process::id()));
    let made = Command::new("mmdebstrap")
        .args(["--variant=apt", "--quiet", "bookworm"])
        .arg(&unfinished)
        .args(mirror())
        .status();
    assert!(made.unwrap().success(), "mmdebstrap failed");
    std::fs::rename(&unfinished, &tar).unwrap();
    tar
}

/// The mirror that this machine uses: the first address in its own list.
fn mirror() -> Option<String> {
    let lists = ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"];
    let text: String = lists.iter().filter_map(|list| std::fs::read_to_string(list).ok()).collect();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && !word.contains("security"))
        .map(str::to_owned)
}

const DOCKERFILE: &str = "\
# syntax=docker/dockerfile:1
FROM @REGISTRY@/debian:bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY main.c .
RUN gcc -O2 -static -o /app main.c

FROM @REGISTRY@/debian:bookworm
ENV GREETING=hello
WORKDIR /srv
COPY --from=build /app /usr/local/bin/app
USER nobody
EXPOSE 8080
LABEL org.example.title=app
ENTRYPOINT [\"/usr/local/bin/app\"]
";

const PROGRAM: &str = "\
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) { char dir[64]; printf(\"%s as %d in %s\\n\", getenv(\"GREETING\"), (int)getuid(), getcwd(dir, sizeof dir)); return 0; }
";

#[test]
fn a_program_is_compiled_on_debian_pushed_and_run() {
    needs!(
        Ids,
        Root,
        Debian,
        Program("mmdebstrap"),
        Program("docker-registry"),
        Program("podman"),
        Program("skopeo")
    );
    let registry = DockerRegistry::start();
    offer_debian(&registry);
    let mut space = TestSpace::new();
    space.word("REGISTRY", registry.address());
    space.write("Dockerfile", DOCKERFILE);
    space.write("main.c", PROGRAM);
    let name = format!("{}/app:1", registry.address());
    space.build(&["-t", &name, "--push"]).success().ran("RUN apt-get update").ran("RUN gcc");
    space
        .build(&["-o", "type=oci,dest=@OUT@/app.tar"])
        .success()
        .cached("RUN apt-get update")
        .cached("RUN gcc");

    let image = Image::read(&space.path("out/app.tar"));
    assert_eq!(registry.digest("app", "1"), Some(image.digest()));
    let config = &image.config()["config"];
    assert_eq!(config["WorkingDir"], "/srv");
    assert_eq!(config["User"], "nobody");
    assert_eq!(config["ExposedPorts"], json!({ "8080/tcp": {} }));
    assert_eq!(image.layers().len(), 3);
    assert_eq!(run_with_podman(&name), "hello as 65534 in /srv\n");
}

/// Puts Debian into the registry, as an image of one layer.
pub(crate) fn offer_debian(registry: &DockerRegistry) {
    let tar = std::fs::read(debian_tar()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    Image::new(&[tar], &json!({ "Env": [rbuild_tests::base::PATH], "Cmd": ["bash"] }))
        .write_layout(folder.path(), "1");
    let name = format!("docker://{}/debian:bookworm", registry.address());
    let from = format!("oci:{}:1", folder.path().display());
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false", &from, &name])
        .status();
    assert!(copied.unwrap().success());
}
