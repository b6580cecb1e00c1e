//! Builds that are killed while a step runs.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitCode, Stdio};

use rbuild_solver::sandbox::rung::Rung;
use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;
use crate::space::Space;

/// The build that is killed: a step with processes that keep away from all signals they can.
pub(crate) fn run_forever(store: &Path, base: &str, rung: Rung) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let space = Space::again(store, base, rung);
        let out = || {
            let own = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned();
            own.expect("a descriptor")
        };
        let script =
            "trap '' TERM HUP INT; (sleep 1000 & setsid sleep 1000 &); echo ready; sleep 1000";
        let mut execution =
            space.worker.exec(space.request(script), vec![out(), out()]).await.expect("it starts");
        execution.wait().await.map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS)
    })
}

/// A build whose step runs.
fn start(space: &Space) -> Result<(Child, ChildStdout), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut build = std::process::Command::new("/proc/self/exe")
        .arg("hang")
        .arg(space.path())
        .arg(&*space.base.0)
        .arg(space.rung.name())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut out = build.stdout.take().ok_or("no output")?;
    out.read_exact(&mut [0; 6]).map_err(text)?;
    Ok((build, out))
}

/// Everything that the build started holds this pipe open: it ends with the last of them.
fn until_all_are_gone((mut build, mut out): (Child, ChildStdout)) -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    // A call that found nobody to answer it any more may have said so.
    out.read_to_string(&mut String::new()).map_err(text)?;
    build.wait().map_err(text)?;
    Ok(())
}

pub(crate) async fn nothing_outlives_a_killed_build(space: &Space) -> Outcome {
    let mut running = start(space)?;
    running.0.kill().map_err(|error| error.to_string())?;
    until_all_are_gone(running)
}

/// What follows the step, and what holds it, is killed with the build at once.
pub(crate) async fn nothing_outlives_a_killed_keeper(space: &Space) -> Outcome {
    let running = start(space)?;
    let build = i32::try_from(running.0.id()).map_err(|error| error.to_string())?;
    // The guard of the rung `chroot` stays, as whoever looks for the build does not find it: it is a
    // session of its own.
    let mut held: Vec<i32> = descendants(build)
        .into_iter()
        .filter(|&pid| {
            is(pid, "worker") || is(pid, "init") || is(pid, "cell") && is(parent(pid), "cell")
        })
        .collect();
    // Before it hears of the others.
    held.sort_by_key(|&pid| !is(pid, "cell"));
    for pid in held.into_iter().chain([build]) {
        let pid = Pid::from_raw(pid).ok_or("no process")?;
        kill_process(pid, Signal::KILL).map_err(|errno| errno.to_string())?;
    }
    until_all_are_gone(running)
}

fn is(pid: i32, command: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1) == Some(command.as_bytes())
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(") ").and_then(|it| it.1.split(' ').nth(1)?.parse().ok());
    parent.unwrap_or(0)
}

fn descendants(of: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<i32> =
        entries.filter_map(|it| it.file_name().to_str().and_then(|it| it.parse().ok())).collect();
    let descends = |pid: &i32| {
        let mut at = *pid;
        while at > 1 && at != of {
            at = parent(at);
        }
        at == of && *pid != of
    };
    all.into_iter().filter(descends).collect()
}
