//! Steps that run at the same time.

use std::io::Read as _;

use rbuild_solver::sandbox::rung::Rung;

use crate::space::{Space, cache, mount};
use crate::{Outcome, same};

pub(crate) async fn several_run_at_once(space: &Space) -> Outcome {
    if space.rung == Rung::Chroot {
        // A directory is in one tree only: what one step makes the other one sees when it has ended.
        return Ok(());
    }
    // Each waits for a file that only the other one makes.
    let request = |own: &str, other: &str| {
        let script = format!(
            "echo x > /c/{own}.new; mv /c/{own}.new /c/{own}; while ! cat /c/{other} 2>/dev/null; do :; done"
        );
        let mut request = space.request(&script);
        request.mounts.push(mount("/c", cache("shared")));
        request
    };
    let (one, two) = tokio::join!(space.ask(request("a", "b")), space.ask(request("b", "a")));
    same(&one?.out, "x\n")?;
    same(&two?.out, "x\n")
}

pub(crate) async fn steps_that_share_a_cache_do_not_wait(space: &Space) -> Outcome {
    let with = |script: &str| {
        let mut request = space.request(script);
        request.mounts.push(mount("/c", cache("busy")));
        request.mounts.push(mount("/again", cache("busy")));
        request
    };
    space.ask(with("echo old > /c/old; echo old > /c/gone")).await?;
    // The first one has the cache until the second one has ended.
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let fds = vec![writer.try_clone().map_err(|error| error.to_string())?.into(), writer.into()];
    let first =
        "echo first > /c/first; echo ready; while [ ! -e /c/second ]; do :; done; rm /c/first";
    let mut execution = space.worker.exec(with(first), fds).await.map_err(|it| it.text)?;
    let mut word = [0; 5];
    reader.read_exact(&mut word).map_err(|error| error.to_string())?;
    let second = "cat /c/old /c/first; rm /c/gone; echo new > /c/old; echo second > /c/second; echo again > /again/again";
    same(&space.ask(with(second)).await?.out, "old\nfirst\n")?;
    execution.wait().await.map_err(|it| it.text)?;
    same(&space.ask(with("ls /c; cat /c/old")).await?.out, "again\nold\nsecond\nnew\n")
}

pub(crate) async fn steps_of_different_stages_run_side_by_side(space: &Space) -> Outcome {
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let fds = vec![writer.try_clone().map_err(|error| error.to_string())?.into(), writer.into()];
    let request = space.request("echo ready; while :; do :; done");
    let mut first = space.worker.exec(request, fds).await.map_err(|it| it.text)?;
    let mut word = [0; 5];
    reader.read_exact(&mut word).map_err(|error| error.to_string())?;
    // It ends while the first one, which never ends, runs.
    same(&space.run("echo second").await?.out, "second\n")?;
    first.cancel();
    same(&format!("{:?}", first.wait().await.map_err(|it| it.text)?.status), "Cancelled")
}
