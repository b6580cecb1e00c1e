//! Measuring one command.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::run::{Failure, Outcome};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Wall seconds that a command takes. Its output is kept, and shown if it fails.
pub(super) fn seconds(command: &mut Command) -> Outcome<f64> {
    let started = Instant::now();
    let result = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let taken = started.elapsed().as_secs_f64();
    let result =
        result.map_err(|error| Failure::new(format!("could not start {command:?}: {error}")))?;
    if result.status.success() {
        return Ok(taken);
    }
    let said = String::from_utf8_lossy(&result.stderr);
    let tail: Vec<&str> = said.lines().rev().take(8).collect();
    Err(Failure::new(format!(
        "{command:?} ended with {}:\n{}",
        result.status,
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    )))
}

/// The most anonymous memory, in megabytes, that a command, the daemon that works for it and the
/// descendants of both have at one time.
///
/// Looking costs processor time, so this is never done in a run that is timed.
pub(super) fn peak_megabytes(command: &mut Command, daemon: Option<u32>) -> Outcome<f64> {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child =
        child.map_err(|error| Failure::new(format!("could not start {command:?}: {error}")))?;
    let roots: Vec<u32> = daemon.into_iter().chain([child.id()]).collect();
    let ended = AtomicBool::new(false);
    let (status, kilobytes) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                most = most.max(anonymous(&roots));
                std::thread::sleep(INTERVAL);
            }
            most
        });
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        (status, watcher.join().unwrap_or(0))
    });
    match status {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Ok(status) if status.success() => Ok(kilobytes as f64 / 1024.0),
        _ => Err(Failure::new(format!("{command:?} failed"))),
    }
}

/// Anonymous kilobytes of processes and their descendants.
fn anonymous(roots: &[u32]) -> u64 {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(text) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let parent = field("PPid:").and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let memory = (field("RssAnon:").unwrap_or(0), field("VmSize:").unwrap_or(0));
        all.insert(id, (parent, memory));
    }
    let descends = |mut id: u32| {
        for _ in 0..64 {
            if roots.contains(&id) {
                return true;
            }
            match all.get(&id) {
                Some((parent, _)) if *parent != 0 => id = *parent,
                _ => return false,
            }
        }
        false
    };
    // Between `vfork` and `exec` a child has the memory of its parent, which is there once.
    let borrows = |parent: &u32, memory| all.get(parent).is_some_and(|(_, its)| its == memory);
    let own =
        all.iter().filter(|(id, (parent, memory))| descends(**id) && !borrows(parent, memory));
    own.map(|(_, (_, (anonymous, _)))| anonymous).sum()
}
