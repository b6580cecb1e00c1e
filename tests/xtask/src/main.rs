//! `cargo xtask TASK`: every chore of the project, in one small program that depends on the standard library alone, so
//! that it is compiled in seconds on a machine that has only cargo.
//!
//! A task installs what it needs where it may, says what is missing where it may not, and goes on with what works.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task runner talks to the person who started it"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "tasks read the environment of the person who started them"
)]

mod base;
mod bench;
mod binary;
mod check;
mod conform;
mod demo;
mod fuzz;
mod host;
mod packages;
mod registry;
mod run;
mod test;
mod users;

use std::process::ExitCode;

use run::Failure;

const USAGE: &str = "\
usage: cargo xtask TASK

  demo                   install what is missing, build rbuild, build and run examples/hello
  test [FILTER]          install what the tests need, then all tests; as root the end-to-end tests run as a test user too
  e2e [FILTER]           the end-to-end tests alone; a missing capability of the host is a failure, not a skip
  check                  format, clippy, documentation, tests and cargo-deny, warnings as errors
  lint                   the part of check that runs no tests
  setup                  install what any task needs, as far as this user may
  bless                  accept what the tests print as what they expect, and show the changed files
  fuzz [TARGET] [SECS]   one or all fuzz targets; ten seconds each unless told
  bench [--runs N] [--alone] [W]
                       the workloads, for rbuild and the peers found on this machine
  conform [ARG...]       the conformance kit beside the project, if it is there
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", &args[..]),
    };
    let result = match task {
        "demo" => demo::demo(),
        "test" => test::test(rest),
        "e2e" => test::end_to_end(rest),
        "check" => check::check(),
        "lint" => check::lint(),
        "setup" => packages::setup(),
        "bless" => check::bless(),
        "fuzz" => fuzz::fuzz(rest),
        "bench" => bench::bench(rest),
        "conform" => conform::conform(rest),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(Failure::usage(format!("no task is called `{other}`\n\n{USAGE}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask {task}: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
