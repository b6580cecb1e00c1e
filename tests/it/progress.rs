//! What the user sees of a build.

use std::collections::BTreeSet;

use rbuild_tests::needs;
use rbuild_tests::ran::Running;
use rbuild_tests::space::TestSpace;

#[test]
fn lines_look_like_buildkits() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@ AS build\nWORKDIR /w\nRUN echo out; echo err >&2\nFROM @BASE@\nCOPY --from=build /w /w\n");
    let ran = space.build(&[]).success();
    let name = ran
        .stderr
        .lines()
        .find(|line| line.ends_with("[build 3/3] RUN echo out; echo err >&2"))
        .expect("the step's name");
    let number = name.split(' ').next().unwrap();
    let lines: Vec<&str> =
        ran.stderr.lines().filter(|line| line.starts_with(&format!("{number} "))).collect();
    assert!(
        lines.iter().any(|line| line.ends_with(" out"))
            && lines.iter().any(|line| line.ends_with(" err")),
        "{lines:#?}"
    );
    let done = lines.last().unwrap();
    assert!(done.contains("DONE ") && done.ends_with('s'), "{done}");
    space.build(&[]).success().cached("[build 3/3]").says(" CACHED");
}

#[test]
fn output_is_never_clipped() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN i=0; while [ $i -lt 20000 ]; do echo line-$i-$i-$i-$i-$i-$i-$i; i=$((i+1)); done\n");
    let ran = space.build(&[]).success();
    let shown: BTreeSet<&str> =
        ran.stderr.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    for number in 0..20000 {
        let line = format!("line-{number}-{number}-{number}-{number}-{number}-{number}-{number}");
        assert!(shown.contains(line.as_str()), "`{line}` is missing");
    }
}

#[test]
fn quiet_prints_the_digest_alone() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let ran = space.run(&["build", "--quiet", "-t", "app:1", "."]).success();
    assert!(
        ran.text().starts_with("sha256:") && ran.text().lines().count() == 1,
        "{}",
        ran.story()
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn raw_progress_is_one_object_a_line() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let ran = space.run(&["build", "--progress=rawjson", "."]).success();
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(!lines.is_empty());
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn a_terminal_shows_what_runs() {
    needs!(Ids, Program("busybox"), Program("script"));
    let (space, _registry) = TestSpace::with_busybox();
    // Nobody writes into the pipe: the step runs until it is interrupted.
    space.write("Dockerfile", "FROM @BASE@\nRUN echo first; mkfifo /pipe; cat /pipe\n");
    let mut command = space
        .command(&["-c", "exec script -qec 'echo $$ >pid; exec $RBUILD build .' /dev/null >&2"]);
    let rbuild = command.get_program().to_owned();
    let mut shell = std::process::Command::new("sh");
    shell.args(command.get_args()).env_clear().current_dir(space.path("context"));
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("RBUILD", rbuild).env("TERM", "xterm").stdin(std::process::Stdio::null());
    command = shell;
    space.as_runner(&mut command);
    let mut running = Running::start(&mut command);
    running.until(" first");
    running.until(" => [2/2] RUN echo first; mkfifo /pipe; cat /pipe  ");
    // Not by closing the terminal: whoever runs the tests may ignore that.
    let pid = std::fs::read_to_string(space.path("context/pid")).unwrap();
    let status = std::process::Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap();
    assert!(status.success(), "{status}");
    running.wait().says("interrupted");
    // Without one, nothing is drawn.
    space.run(&["build", "--progress=tty", "."]).ended(2).says("--progress=auto");
}

#[test]
fn doctor_explains_this_machine() {
    let space = TestSpace::new();
    let text = space.run(&["doctor"]).success().text();
    for part in ["isolation:", "snapshots:", "userns-single", "embedded network", "user namespace"]
    {
        assert!(text.contains(part), "{text}");
    }
    let json = space.run(&["doctor", "--format=json"]).success().text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["rungs"][0]["rung"], "userns", "{json:#}");
    let questions = json["questions"].as_array().unwrap();
    assert!(questions.iter().any(|it| it["question"] == "fresh-proc"), "{json:#}");
    // What was refused comes with the call and its answer.
    let refused = questions.iter().filter(|it| it["works"] == false);
    assert!(refused.into_iter().all(|it| it["call"] != ""), "{json:#}");
}
