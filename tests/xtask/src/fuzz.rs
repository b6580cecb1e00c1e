//! The fuzz targets, with coverage where `cargo-fuzz` and a nightly compiler are installed, blindly otherwise.

use std::process::Command;

use crate::run::{Failure, Outcome, cargo, headline, program, root, run, succeeds};

/// How long one target runs unless told.
const SECONDS: &str = "10";

/// `cargo xtask fuzz [TARGET] [SECONDS]`.
pub(crate) fn fuzz(args: &[String]) -> Outcome {
    let all = targets()?;
    let (names, seconds) = match args {
        [] => (all, SECONDS),
        [seconds] if seconds.parse::<u32>().is_ok() => (all, seconds.as_str()),
        [target] => (vec![known(&all, target)?], SECONDS),
        [target, seconds, ..] => (vec![known(&all, target)?], seconds.as_str()),
    };
    let guided = program("cargo-fuzz").is_some()
        && succeeds(Command::new("cargo").args(["+nightly", "--version"]));
    if !guided {
        println!(
            "note: without cargo-fuzz and a nightly compiler the targets run on their corpus and on blind mutations of it"
        );
    }
    for name in names {
        headline(&format!("fuzzing {name} for {seconds} s"));
        if guided {
            run(Command::new("cargo")
                .args([
                    "+nightly",
                    "fuzz",
                    "run",
                    "--fuzz-dir",
                    "tests/fuzz",
                    "--features",
                    "guided",
                    &name,
                    "--",
                ])
                .arg(format!("-max_total_time={seconds}"))
                .current_dir(root()))?;
        } else {
            run(cargo()
                .args(["test", "--quiet", "--package", "rbuild-fuzz", "--test", "blind"])
                .env("RBUILD_FUZZ_TARGET", &name)
                .env("RBUILD_FUZZ_SECONDS", seconds))?;
        }
    }
    Ok(())
}

fn known(all: &[String], name: &str) -> Outcome<String> {
    if all.iter().any(|target| target == name) {
        Ok(name.to_owned())
    } else {
        Err(Failure::usage(format!(
            "no fuzz target is called `{name}`; there are {}",
            all.join(", ")
        )))
    }
}

/// The names of the files in `tests/fuzz/fuzz_targets`.
fn targets() -> Outcome<Vec<String>> {
    let folder = root().join("tests/fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Failure::new(format!("could not list `{}`: {error}", folder.display())))?;
    let names =
        entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".rs").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}
