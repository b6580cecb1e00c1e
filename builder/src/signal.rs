//! Interruption: the first signal stops the build, the second one the process.

use rbuild_solver::solve::CancelToken;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after a second signal.
const KILLED: i32 = 130;

/// Cancels `token` at the first SIGINT, SIGTERM or SIGHUP, and ends the process at the second.
pub fn watch(token: &CancelToken) {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    for kind in kinds {
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
