//! The tests: everything they need, then `cargo test`, then what was skipped and the sum of all test binaries.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::{Host, in_ci};
use crate::run::{Failure, Outcome, cargo, headline, run_seeing};
use crate::{binary, packages, users};

/// `cargo xtask test [FILTER]`.
pub(crate) fn test(filter: &[String]) -> Outcome {
    let host = Host::look()?;
    let stage = Stage::set(&host)?;
    let mut sum = Sum::default();
    headline("unit tests");
    let units = ["test", "--workspace", "--exclude", "rbuild-tests", "--no-fail-fast"];
    let mut command = cargo();
    command.args(units).args(filter).env("RBUILD_SKIPS", &stage.skips);
    let good = sum.run(&mut command)?;
    headline("end-to-end tests");
    let good = sum.run(stage.end_to_end(&host).args(filter))? && good;
    sum.close(&stage, good)
}

/// `cargo xtask e2e [FILTER]`.
pub(crate) fn end_to_end(filter: &[String]) -> Outcome {
    let host = Host::look()?;
    let stage = Stage::set(&host)?;
    let mut sum = Sum::default();
    headline("end-to-end tests");
    let good = sum.run(stage.end_to_end(&host).env("RBUILD_DEMAND", "all").args(filter))?;
    sum.close(&stage, good)
}

/// What the end-to-end tests find prepared.
struct Stage {
    binary: PathBuf,
    /// One line for each skipped test, written by the tests.
    skips: PathBuf,
}

impl Stage {
    fn set(host: &Host) -> Outcome<Self> {
        packages::ensure(host, packages::ROOTLESS);
        packages::ensure(host, packages::TESTS);
        let binary = binary::release(host)?;
        if host.root {
            users::ensure_test_user(host)?;
        } else if !users::ensure_ranges(host, &host.user)? {
            println!("without subordinate ids the tests with RUN steps are skipped");
        }
        let skips = binary::target_folder()?.join("skipped-tests");
        crate::run::write(&skips, "")?;
        Ok(Self { binary, skips })
    }

    fn end_to_end(&self, host: &Host) -> Command {
        let mut command = cargo();
        command.args(["test", "--package", "rbuild-tests", "--no-fail-fast"]);
        command.env("RBUILD_BIN", &self.binary).env("RBUILD_SKIPS", &self.skips);
        if host.root {
            command.env("RBUILD_TEST_USER", users::TEST_USER);
        }
        if in_ci() {
            command.env("RBUILD_DEMAND", "all");
        }
        command
    }
}

/// The counts of all test binaries together.
#[derive(Debug, Default)]
struct Sum {
    passed: u64,
    failed: u64,
}

impl Sum {
    /// Runs tests and adds their counts; answers whether all passed.
    fn run(&mut self, command: &mut Command) -> Outcome<bool> {
        run_seeing(command, |line| self.see(line))
    }

    /// Adds what one line of a test runner says: `test result: ok. 3 passed; 0 failed; …`.
    fn see(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => self.passed += count.parse().unwrap_or(0),
                Some((count, "failed")) => self.failed += count.parse().unwrap_or(0),
                _ => {}
            }
        }
    }

    /// Says what was skipped, and why, and ends with the sum.
    fn close(&self, stage: &Stage, good: bool) -> Outcome {
        let skips = skipped(&stage.skips);
        if !skips.is_empty() {
            println!("\nskipped, because something is missing on this machine:");
            for skip in &skips {
                println!("  {skip}");
            }
        }
        println!(
            "\n{} passed, {} failed, {} skipped",
            self.passed.saturating_sub(skips.len() as u64),
            self.failed,
            skips.len()
        );
        if good { Ok(()) } else { Err(Failure::new("tests failed")) }
    }
}

fn skipped(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut sum = Sum::default();
        sum.see("running 3 tests");
        sum.see("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        sum.see("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!((sum.passed, sum.failed), (5, 1));
    }
}
