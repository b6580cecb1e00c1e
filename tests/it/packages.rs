//! Packages with users, groups, set-id programs and daemons: installed on every rung, they are the same.

use std::collections::BTreeSet;

use rbuild_tests::docker_registry::DockerRegistry;
use rbuild_tests::image::Image;
use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;
use rbuild_tests::tree::Tree;

use crate::main_job::offer_debian;

/// What is installed: its scripts make users, change owners, run programs as others.
const PACKAGES: &str = "openssh-server man-db postgresql-common";

/// One line for each path: type, permissions, owner, group, device numbers, targets, capabilities.
fn lines(tree: &Tree) -> BTreeSet<String> {
    let mut tree = tree.clone();
    // Which name of several a file has first is no property of the file.
    for node in tree.nodes.values_mut().filter(|it| it.kind == 'h') {
        (node.kind, node.target) = ('-', String::new());
    }
    let attributes = tree.nodes.values().map(|node| format!("{:?}", node.xattrs));
    tree.to_string().lines().zip(attributes).map(|(line, more)| format!("{line} {more}")).collect()
}

#[test]
fn packages_are_the_same_on_every_rung() {
    needs!(Ids, Root, Debian, Program("mmdebstrap"), Program("docker-registry"), Program("skopeo"));
    let registry = DockerRegistry::start();
    offer_debian(&registry);
    let places =
        [(TestSpace::new(), &["userns", "userns-single"][..]), (TestSpace::own(), &["chroot"])];
    let (mut expected, name) =
        (None::<BTreeSet<String>>, format!("{}/fetched:1", registry.address()));
    for (mut space, rungs) in places {
        space.word("REGISTRY", registry.address());
        if expected.is_none() {
            // Fetched once.
            let fetch = format!(
                "apt-get update && apt-get install -y --no-install-recommends -d {PACKAGES}"
            );
            space.write("Dockerfile", &format!("FROM @REGISTRY@/debian:bookworm\nRUN {fetch}\n"));
            space.build(&["-t", &name, "--push"]).success();
        }
        let install = format!("apt-get install -y --no-install-recommends {PACKAGES}");
        space.write(
            "Dockerfile",
            &format!("FROM {name}\nRUN DEBIAN_FRONTEND=noninteractive {install}\n"),
        );
        for rung in rungs {
            let rung = format!("--isolation={rung}");
            space.build(&[&rung, "--no-cache", "-o", "type=oci,dest=@OUT@/image.tar"]).success();
            let found = lines(&Image::read(&space.path("out/image.tar")).tree());
            let expected = expected.get_or_insert_with(|| found.clone());
            let missing: Vec<_> = expected.difference(&found).collect();
            let more: Vec<_> = found.difference(expected).collect();
            assert!(missing.is_empty() && more.is_empty(), "{rung}: {missing:#?} became {more:#?}");
        }
    }
}
