//! Interruption: the first signal stops the build, the second one the process.

use rbuild_solver::solve::CancelToken;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after a second signal.
const KILLED: i32 = 130;

/// Cancels `token` at the first SIGINT, SIGTERM or SIGHUP, and ends the process at the second. A
/// signal that the caller had ignored stays ignored, as `nohup` and the shell's `&` expect.
pub fn watch(token: &CancelToken) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    for kind in kinds.into_iter().filter(|kind| !is_ignored(&status, kind.as_raw_value())) {
        // Without a handler the signal ends the process, and the kernel ends its children.
        let Ok(mut stream) = signal(kind) else { continue };
        let token = token.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if token.is_cancelled() {
                    #[expect(
                        clippy::exit,
                        clippy::disallowed_methods,
                        reason = "the user asked twice; the worker dies with this process"
                    )]
                    std::process::exit(KILLED);
                }
                token.cancel();
            }
        });
    }
}

/// Whether a process with this `/proc/PID/status` ignores `signal`.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & 1 << (signal - 1) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        let nohup = "Name:\trbuild\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n";
        assert_eq!([1, 2, 13, 15].map(|it| is_ignored(nohup, it)), [true, false, true, false]);
        assert!(!is_ignored("", 1));
    }
}
