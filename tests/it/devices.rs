//! Device nodes: made by steps, found in base images, copied and exported.

use expect_test::expect;
use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;
use rbuild_tests::tree::Tree;

/// What is below `n`.
fn below_n(tree: &Tree) -> String {
    let nodes = tree.nodes.iter().filter(|(path, _)| path.starts_with("n/"));
    Tree { nodes: nodes.map(|(path, node)| (path.clone(), node.clone())).collect() }.to_string()
}

#[test]
fn devices_that_a_step_makes_are_in_the_image() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS made\n\
         RUN mkdir /n && mknod -m 640 /n/c c 1 3 && mknod /n/b b 7 200 && chown 3:4 /n/c && ln /n/b /n/l\n\
         RUN cp -a /n/c /n/copy && echo more > /n/file\n\
         FROM made\n\
         COPY --from=made /n/c /n/d\n",
    );
    for isolation in ["userns", "userns-single"] {
        for driver in ["overlay", "plain"] {
            let arguments = [
                &format!("--isolation={isolation}"),
                &format!("--snapshotter={driver}"),
                "--no-cache",
            ];
            let tree = space.image(&arguments.map(|it| it as &str)).tree();
            expect![[r#"
                b0644 0:0 n/b -> 7:200
                c0640 3:4 n/c -> 1:3
                c0640 3:4 n/copy -> 1:3
                c0640 3:4 n/d -> 1:3
                -0644 0:0 n/file
                h0644 0:0 n/l -> n/b
            "#]]
            .assert_eq(&below_n(&tree));
        }
    }
}

#[test]
fn steps_see_devices_as_devices() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    // The first step makes them, without a word of it in its own text for the second one.
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         RUN mkdir /n && mknod /n/c c 1 3 && mknod /n/b b 7 200 && test -c /n/c && test -b /n/b\n\
         RUN test -c /n/c && test -b /n/b && stat -c '%F %t:%T' /n/c /n/b > /seen && tar -cf - /n | tar -tv | cut -c1 | tr -d '\\n' >> /seen\n",
    );
    let tree = space.image(&[]).tree();
    assert_eq!(tree.read("seen"), "character special file 1:3\nblock special file 7:c8\ndbc");
}

#[test]
fn only_root_makes_devices_and_only_where_it_may() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         RUN mkdir /n && cd /n && touch there && ! mknod there c 1 3 && ! mknod no/such c 1 3 && ln -s there link && ! mknod link b 1 1\n\
         USER app\n\
         RUN ! mknod /tmp/c c 1 3 && ! mknod /n/c c 1 3\n",
    );
    for isolation in ["userns", "userns-single"] {
        let tree = space.image(&[&format!("--isolation={isolation}")]).tree();
        expect![[r#"
            l0777 0:0 n/link -> there
            -0644 0:0 n/there
        "#]]
        .assert_eq(&below_n(&tree));
    }
}
