//! The store: several processes, death at any moment, versions, and tidying up.

use std::collections::BTreeSet;
use std::ffi::OsString;

use rbuild_tests::needs;
use rbuild_tests::ran::Ran;
use rbuild_tests::space::TestSpace;

/// A place with a Dockerfile that makes three layers.
fn three_layers() -> (TestSpace, rbuild_tests::registry::Registry) {
    let (space, registry) = TestSpace::with_busybox();
    space.write("file", "x");
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN echo one > /one\nCOPY file /two\nRUN echo three > /three && chown 5:5 /three\n",
    );
    (space, registry)
}

#[test]
fn processes_share_it_at_the_same_time() {
    needs!(Ids, Program("busybox"));
    let (space, registry) = three_layers();
    let runs: Vec<_> = (0..4)
        .map(|turn| {
            space.start_build(&[
                "-t",
                &format!("app:{turn}"),
                "-o",
                &format!("type=oci,dest=@OUT@/{turn}.tar"),
            ])
        })
        .collect();
    let ends: Vec<Ran> = runs.into_iter().map(|run| run.wait().success()).collect();
    assert_eq!(ends.len(), 4);
    let trees: Vec<_> = (0..4)
        .map(|turn| {
            rbuild_tests::image::Image::read(&space.path(&format!("out/{turn}.tar")))
                .tree()
                .to_string()
        })
        .collect();
    assert!(trees.iter().all(|tree| *tree == trees[0]), "{trees:#?}");
    for layer in rbuild_tests::base::busybox().layer_digests() {
        let requests = registry.requests();
        let asked = requests.iter().filter(|it| it.starts_with("GET") && it.contains(&layer));
        assert_eq!(asked.count(), 1, "one process fetches it for all: {requests:#?}");
    }
}

#[test]
fn death_at_any_moment_leaves_it_whole() {
    needs!(Ids, Program("busybox"));
    let moments = [
        "load build definition",
        "load metadata",
        "RUN echo one",
        "COPY file",
        "RUN echo three",
        "exporting",
    ];
    let (space, _registry) = three_layers();
    for moment in moments {
        let root = format!("@SPACE@/store/{}", moment.replace(' ', "-"));
        let build = |to: &str| {
            let output = format!("type=oci,dest=@OUT@/{to}.tar,rewrite-timestamp=true");
            let args = ["--root", &root, "build", "--progress=plain", "-o", &output, "."];
            let mut command = space.command(&args);
            command.env("SOURCE_DATE_EPOCH", "1500000000");
            command
        };
        let mut killed = rbuild_tests::ran::Running::start(&mut build("killed"));
        killed.until(moment).signal("KILL");
        killed.wait();
        rbuild_tests::ran::Running::start(&mut build("after")).wait().success();
        let tree = rbuild_tests::image::Image::read(&space.path("out/after.tar")).tree();
        assert_eq!(
            (tree.read("one"), tree.read("two"), tree.read("three")),
            ("one\n".into(), "x".into(), "three\n".into())
        );
    }
}

#[test]
fn unfinished_work_is_swept_by_the_next_run() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN echo started && sleep 600\n");
    let mut killed = space.start_build(&[]);
    killed.until(" started").signal("KILL");
    killed.wait();
    let unfinished = |space: &TestSpace| -> BTreeSet<OsString> {
        let entries = std::fs::read_dir(space.path("store/tmp")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let left = unfinished(&space);
    assert!(!left.is_empty(), "the step had nothing in work");
    space.write("Dockerfile", "FROM @BASE@\nRUN echo short\n");
    space.build(&[]).success();
    let still: Vec<OsString> = unfinished(&space).intersection(&left).cloned().collect();
    assert!(still.is_empty(), "{still:?}");
}

#[test]
fn an_interrupt_stops_everything_and_leaves_nothing_behind() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN trap '' INT TERM; echo started; sleep 456789; sleep 456789\n",
    );
    let mut running = space.start_build(&["-o", "type=oci,dest=@OUT@/image.tar"]);
    running.until(" started").signal("INT");
    let ended = running.wait();
    assert_eq!(ended.code, Some(130), "{}", ended.story());
    assert!(!space.path("out/image.tar").exists());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines =
        processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    assert!(!lines.any(|line| line.contains("456789")), "the step goes on");
}

#[test]
fn steps_die_with_rbuild() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN echo started; setsid sleep 345678; sleep 345678\n");
    let mut running = space.start_build(&[]);
    running.until(" started").signal("KILL");
    // Its standard error closes when the last process that holds it is gone.
    running.wait();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let alive =
        processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    let alive: Vec<String> = alive.filter(|line| line.contains("345678")).collect();
    assert!(alive.is_empty(), "{alive:?}");
}

#[test]
fn a_newer_format_is_refused() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    space.build(&[]).success();
    let version = space.read("store/version");
    let number: u32 = version.trim().rsplit(' ').next().unwrap().parse().unwrap();
    space.write_bytes("store/version", version.replace(&number.to_string(), "999").as_bytes());
    space.build(&[]).ended(3).says("999").says_a_way_out();
    space.write_bytes("store/version", version.as_bytes());
    space.build(&[]).success();
}

#[test]
fn images_are_listed_measured_and_removed() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = three_layers();
    space.build(&["-t", "team/app:1"]).success();
    let listed = space.run(&["images"]).success().text();
    assert!(listed.contains("team/app") && listed.contains('1'), "{listed}");
    let used = space.run(&["du"]).success().text();
    assert!(used.to_lowercase().contains("total"), "{used}");
    space.run(&["rmi", "team/app:1"]).success();
    assert!(!space.run(&["images"]).success().text().contains("team/app"));
    let shown = space.run(&["prune", "--all", "--force"]).success();
    assert!(!shown.text().is_empty() || !shown.stderr.is_empty());
    let blobs = std::fs::read_dir(space.path("store/blobs/sha256")).unwrap().count();
    let layers = std::fs::read_dir(space.path("store/layers")).unwrap().count();
    assert_eq!((blobs, layers), (0, 0), "prune left something");
    space.build(&["-t", "team/app:1"]).success();
}

#[test]
fn what_an_image_needs_is_not_pruned() {
    needs!(Ids, Program("busybox"));
    let (space, registry) = three_layers();
    space.build(&["-t", "app:1"]).success();
    space.run(&["prune", "--force"]).success();
    drop(registry);
    space.write("Dockerfile", "FROM app:1\nCOPY file /more\n");
    assert_eq!(space.image(&[]).tree().read("three"), "three\n");
}
