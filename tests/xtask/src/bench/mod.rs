//! `cargo xtask bench`: the workloads of docs/benchmarks.md, for rbuild and for each peer found on the machine.
//!
//! All builders run every workload in turn, round after round, so that a slow minute of the machine hits all of them.
//! What counts is the ratio within one run; figures of different runs or machines are not comparable.

mod builders;
mod fixtures;
mod measure;
mod report;
mod volume;
mod workloads;

use std::path::PathBuf;

use crate::host::Host;
use crate::registry::Registry;
use crate::run::{Failure, Outcome, headline, remove_dir};
use crate::{binary, packages, users};
use builders::Builder;
use fixtures::Fixtures;
use report::Sample;
use volume::Volume;
use workloads::{WORKLOADS, Workload};

/// How many rounds there are unless told.
const ROUNDS: u32 = 5;

/// What all workloads share.
struct Bench {
    /// Who runs the builders; none: ourselves.
    user: Option<users::Ids>,
    fixtures: Fixtures,
    /// Where results go that nobody keeps.
    out: PathBuf,
    /// Where registries are that images are pushed to.
    pushed: PathBuf,
}

/// `cargo xtask bench [ROUNDS | --runs ROUNDS] [--alone] [WORKLOAD...]`.
pub(crate) fn bench(args: &[String]) -> Outcome {
    let Asked { rounds, alone, wanted } = parse(args)?;
    let host = Host::look()?;
    packages::ensure(&host, packages::ROOTLESS);
    packages::ensure(&host, packages::BENCH);
    let rbuild = binary::release(&host)?;
    let user = if host.root {
        users::ensure_test_user(&host)?;
        Some(users::ids(users::TEST_USER)?)
    } else {
        None
    };
    let folder = binary::target_folder()?.join("bench");
    let home = std::env::temp_dir().join("rbuild-bench");
    remove_dir(&home)?;
    headline("fixtures");
    // A file system of its own for all that is not a builder's, too: what they read and write there is as fast as theirs.
    let ground = Volume::make(&home.join("ground"), user.as_ref())?;
    let registry = Registry::start(&ground.path.join("registry"))?;
    let registry = registry.ok_or_else(|| Failure::new("the benchmarks need docker-registry"))?;
    let fixtures = Fixtures::make(
        &folder,
        &ground.path,
        &registry.address,
        user.as_ref(),
        wanted.iter().any(|one| one.debian),
    )?;
    let out = users::own_folder(&ground.path.join("out"), user.as_ref())?;
    let bench = Bench { user, fixtures, out, pushed: ground.path.join("pushed") };
    let mut builders = Builder::all(&home, &rbuild, bench.user.as_ref(), alone)?;
    let samples = rounds_of(&bench, &mut builders, &wanted, rounds);
    for builder in &mut builders {
        builder.close();
    }
    report::print(&builders, &wanted, &samples);
    report::write_json(&folder.join("results.json"), &samples)
}

fn rounds_of(
    bench: &Bench,
    builders: &mut [Builder],
    wanted: &[&'static Workload],
    rounds: u32,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        for workload in wanted {
            for builder in builders.iter_mut() {
                headline(&format!(
                    "round {} of {rounds}: {} with {}",
                    round + 1,
                    workload.name,
                    builder.name()
                ));
                match (workload.run)(bench, builder, round) {
                    Ok(values) => samples.extend(values.into_iter().map(|(measure, value)| {
                        Sample::new(workload.name, measure, builder.name(), value)
                    })),
                    Err(failure) => println!("no figure: {failure}"),
                }
            }
        }
    }
    samples
}

/// What was asked for.
struct Asked {
    rounds: u32,
    /// Whether rbuild runs without its peers.
    alone: bool,
    wanted: Vec<&'static Workload>,
}

fn parse(args: &[String]) -> Outcome<Asked> {
    let mut asked = Asked { rounds: ROUNDS, alone: false, wanted: Vec::new() };
    // `--runs 3` is as good as `3`.
    for arg in args.iter().filter(|arg| *arg != "--runs") {
        if let Ok(number) = arg.parse() {
            asked.rounds = number;
        } else if arg == "--alone" {
            asked.alone = true;
        } else {
            let found = WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(arg));
            asked.wanted.push(
                found.ok_or_else(|| Failure::usage(format!("no workload is called `{arg}`")))?,
            );
        }
    }
    if asked.wanted.is_empty() {
        asked.wanted = WORKLOADS.iter().filter(|workload| !workload.named).collect();
    }
    Ok(asked)
}
