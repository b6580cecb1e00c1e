//! Which form of progress fits where it goes.

use super::raw::{Build, Progress};
use crate::env::Env;
use crate::report::Failure;

/// How the progress of a build is shown.
///
/// # Errors
///
/// A terminal is asked for where there is none.
pub fn mode(raw: &Build, env: &Env) -> Result<Progress, Failure> {
    use clap::ValueEnum as _;
    if raw.quiet {
        return Ok(Progress::Quiet);
    }
    let asked = match raw.progress {
        Progress::Auto => env
            .var("BUILDKIT_PROGRESS")
            .and_then(|it| Progress::from_str(it, true).ok())
            .unwrap_or(Progress::Auto),
        given @ (Progress::Plain | Progress::Tty | Progress::Quiet | Progress::Rawjson) => given,
    };
    match asked {
        Progress::Auto if env.stderr_can_be_drawn_on() => Ok(Progress::Tty),
        Progress::Auto => Ok(Progress::Plain),
        Progress::Tty if !env.stderr_can_be_drawn_on() => Err(Failure::usage(
            "--progress=tty: standard error is no terminal that can be drawn on",
        )
        .hint("--progress=auto draws where it can, and writes lines elsewhere")),
        given @ (Progress::Plain | Progress::Tty | Progress::Quiet | Progress::Rawjson) => {
            Ok(given)
        }
    }
}
