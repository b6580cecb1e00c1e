//! The workloads. Each answers for one builder and one round with a value for each of its measures.

use std::path::{Path, PathBuf};

use super::builders::{Builder, Output};
use super::measure::seconds;
use super::{Bench, fixtures};
use crate::registry::Registry;
use crate::run::Outcome;
use fixtures::Fixtures;

/// The values of one run, by measure.
type Values = Vec<(&'static str, f64)>;

/// One workload.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) measures: &'static [&'static str],
    /// Whether it needs the Debian base images.
    pub(super) debian: bool,
    /// Whether it runs only if it is named: it takes long.
    pub(super) named: bool,
    pub(super) run: fn(&Bench, &mut Builder, u32) -> Outcome<Values>,
}

const fn workload(
    name: &'static str,
    title: &'static str,
    measures: &'static [&'static str],
    debian: bool,
    run: fn(&Bench, &mut Builder, u32) -> Outcome<Values>,
) -> Workload {
    Workload { name, title, measures, debian, named: false, run }
}

/// What tells whether costs grow linearly.
const fn growth(
    name: &'static str,
    title: &'static str,
    measures: &'static [&'static str],
    run: fn(&Bench, &mut Builder, u32) -> Outcome<Values>,
) -> Workload {
    Workload { name, title, measures, debian: false, named: true, run }
}

/// All of them, in the order of the table.
pub(super) const WORKLOADS: &[Workload] = &[
    workload(
        "W1",
        "10 instructions, all cached",
        &["no export, s", "OCI tar, s", "peak MB"],
        false,
        cached,
    ),
    workload("W2", "50 RUN on busybox, cold", &["per step, s", "peak MB"], false, steps),
    workload("W3", "8 stages of sleep 1", &["cold, s", "peak MB"], false, stages),
    workload(
        "W4",
        "COPY of 50,000 files, 400 MB",
        &["cold, s", "unchanged, s", "one changed, s", "peak MB"],
        false,
        copy,
    ),
    workload(
        "W5",
        "apt-get install on Debian",
        &["cold, s", "then OCI tar, s", "peak MB"],
        true,
        install,
    ),
    workload("W6", "1 GB layer to OCI tar", &["gzip, MB/s", "zstd, MB/s", "peak MB"], false, large),
    workload("W7", "pull Debian, RUN true", &["empty store, s", "peak MB"], true, pull),
    workload(
        "W8",
        "push of 320 MB",
        &["not compressed yet, s", "sealed, s", "peak MB"],
        false,
        push,
    ),
    workload(
        "W9",
        "one shot, daemons counted",
        &["cold, s", "warm, s", "peak MB"],
        false,
        one_shot,
    ),
    workload(
        "W10",
        "C project in two stages",
        &["cold, s", "warm, s", "one line changed, s", "peak MB"],
        true,
        compile,
    ),
    growth(
        "S1",
        "more RUN: a step",
        &[
            "10: cold, ms",
            "10: again, ms",
            "100: cold, ms",
            "100: again, ms",
            "1000: cold, ms",
            "1000: again, ms",
        ],
        |bench, builder, _| growing(bench, builder, &S1, Fixtures::chain),
    ),
    growth(
        "S2",
        "COPY of more files: 1000 files",
        &[
            "5: cold, ms",
            "5: again, ms",
            "50: cold, ms",
            "50: again, ms",
            "500: cold, ms",
            "500: again, ms",
        ],
        |bench, builder, _| growing(bench, builder, &S2, Fixtures::thousands),
    ),
    growth(
        "S3",
        "more stages: a stage",
        &["50: cold, ms", "50: again, ms", "500: cold, ms", "500: again, ms"],
        |bench, builder, _| growing(bench, builder, &S3, Fixtures::fan),
    ),
    growth(
        "S4",
        "one COPY of more sources: a source",
        &["200: cold, ms", "200: again, ms", "2000: cold, ms", "2000: again, ms"],
        |bench, builder, _| growing(bench, builder, &S4, Fixtures::sources),
    ),
];

/// Empties the store and fills it with a base image alone, so that no pull is counted.
fn with_base(bench: &Bench, builder: &mut Builder, base: &Path) -> Outcome {
    builder.reset()?;
    builder.open()?;
    seconds(&mut builder.build(base, Output::Nothing)).map(drop)?;
    bench.clear_out()
}

impl Bench {
    /// Removes results of builds before.
    fn clear_out(&self) -> Outcome {
        crate::run::remove_dir(&self.out)?;
        crate::users::own_folder(&self.out, self.user.as_ref()).map(drop)
    }
}

fn cached(bench: &Bench, builder: &mut Builder, round: u32) -> Outcome<Values> {
    let (context, tar) = (bench.fixtures.context("cached"), bench.out.join("image.tar"));
    if round == 0 {
        with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    }
    builder.open()?;
    seconds(&mut builder.build(&context, Output::Nothing))?;
    seconds(&mut builder.build(&context, Output::Gzip(&tar)))?;
    Ok(vec![
        ("no export, s", seconds(&mut builder.build(&context, Output::Nothing))?),
        ("OCI tar, s", seconds(&mut builder.build(&context, Output::Gzip(&tar)))?),
        ("peak MB", builder.peak(&context, Output::Nothing)?),
    ])
}

fn steps(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    let context = bench.fixtures.context("steps");
    let taken = seconds(&mut builder.build(&context, Output::Nothing))?;
    with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    let peak = builder.peak(&context, Output::Nothing)?;
    Ok(vec![("per step, s", taken / 50.0), ("peak MB", peak)])
}

fn stages(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    let context = bench.fixtures.context("stages");
    let taken = seconds(&mut builder.build(&context, Output::Nothing))?;
    with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    let peak = builder.peak(&context, Output::Nothing)?;
    Ok(vec![("cold, s", taken), ("peak MB", peak)])
}

fn copy(bench: &Bench, builder: &mut Builder, round: u32) -> Outcome<Values> {
    let context = bench.fixtures.tree()?;
    with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    let cold = seconds(&mut builder.build(&context, Output::Nothing))?;
    let unchanged = seconds(&mut builder.build(&context, Output::Nothing))?;
    fixtures::change(&context.join("src/d7/f7.txt"), round)?;
    let changed = seconds(&mut builder.build(&context, Output::Nothing))?;
    with_base(bench, builder, &bench.fixtures.context("busybox"))?;
    let peak = builder.peak(&context, Output::Nothing)?;
    Ok(vec![
        ("cold, s", cold),
        ("unchanged, s", unchanged),
        ("one changed, s", changed),
        ("peak MB", peak),
    ])
}

fn install(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    with_base(bench, builder, &bench.fixtures.context("debian"))?;
    let (context, tar) = (bench.fixtures.context("install"), bench.out.join("image.tar"));
    let cold = seconds(&mut builder.build(&context, Output::Nothing))?;
    let export = seconds(&mut builder.build(&context, Output::Gzip(&tar)))?;
    with_base(bench, builder, &bench.fixtures.context("debian"))?;
    let peak = builder.peak(&context, Output::Gzip(&tar))?;
    Ok(vec![("cold, s", cold), ("then OCI tar, s", export), ("peak MB", peak)])
}

fn large(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    let context = bench.fixtures.large()?;
    let megabytes = f64::from(fixtures::LARGE_MEGABYTES);
    let mut values = Vec::new();
    for measure in ["gzip, MB/s", "zstd, MB/s", "peak MB"] {
        with_base(bench, builder, &context)?;
        let tar = bench.out.join("image.tar");
        let result = if measure == "zstd, MB/s" { Output::Zstd(&tar) } else { Output::Gzip(&tar) };
        let value = if measure == "peak MB" {
            builder.peak(&context, result)?
        } else {
            megabytes / seconds(&mut builder.build(&context, result))?
        };
        values.push((measure, value));
    }
    bench.clear_out()?;
    Ok(values)
}

fn pull(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    builder.reset()?;
    builder.open()?;
    let context = bench.fixtures.context("debian");
    let taken = seconds(&mut builder.build(&context, Output::Nothing))?;
    builder.reset()?;
    builder.open()?;
    let peak = builder.peak(&context, Output::Nothing)?;
    Ok(vec![("empty store, s", taken), ("peak MB", peak)])
}

fn push(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    let context = bench.fixtures.medium()?;
    let mut values = Vec::new();
    for measure in ["not compressed yet, s", "sealed, s", "peak MB"] {
        if measure != "sealed, s" {
            with_base(bench, builder, &context)?;
        }
        crate::run::remove_dir(&bench.pushed)?;
        // Each time an empty one: blobs that are there are not sent.
        let Some(registry) = Registry::start(&bench.pushed)? else { break };
        let name = format!("{}/pushed:1", registry.address);
        let result = Output::Push(&name);
        let value = match measure {
            "peak MB" => builder.peak(&context, result)?,
            _ => seconds(&mut builder.build(&context, result))?,
        };
        values.push((measure, value));
        drop(registry);
        crate::run::remove_dir(&bench.pushed)?;
    }
    Ok(values)
}

fn one_shot(bench: &Bench, builder: &mut Builder, _: u32) -> Outcome<Values> {
    builder.reset()?;
    let context = bench.fixtures.context("short");
    let mut values = Vec::new();
    for measure in ["cold, s", "warm, s"] {
        let started = std::time::Instant::now();
        builder.open()?;
        seconds(&mut builder.build(&context, Output::Nothing))?;
        builder.close();
        values.push((measure, started.elapsed().as_secs_f64()));
    }
    builder.reset()?;
    builder.open()?;
    values.push(("peak MB", builder.peak(&context, Output::Nothing)?));
    Ok(values)
}

/// Sizes of a workload that grows, each with what is measured: cold, and again with all in the cache.
type Sizes = [(u32, &'static str, &'static str)];

const S1: [(u32, &str, &str); 3] = [
    (10, "10: cold, ms", "10: again, ms"),
    (100, "100: cold, ms", "100: again, ms"),
    (1000, "1000: cold, ms", "1000: again, ms"),
];
const S2: [(u32, &str, &str); 3] = [
    (5, "5: cold, ms", "5: again, ms"),
    (50, "50: cold, ms", "50: again, ms"),
    (500, "500: cold, ms", "500: again, ms"),
];
const S3: [(u32, &str, &str); 2] =
    [(50, "50: cold, ms", "50: again, ms"), (500, "500: cold, ms", "500: again, ms")];
const S4: [(u32, &str, &str); 2] =
    [(200, "200: cold, ms", "200: again, ms"), (2000, "2000: cold, ms", "2000: again, ms")];

/// Milliseconds for one of what there is more of.
fn growing(
    bench: &Bench,
    builder: &mut Builder,
    sizes: &Sizes,
    context: fn(&Fixtures, u32) -> Outcome<PathBuf>,
) -> Outcome<Values> {
    let mut values = Vec::new();
    for &(size, cold, again) in sizes {
        let context = context(&bench.fixtures, size)?;
        with_base(bench, builder, &bench.fixtures.context("busybox"))?;
        for measure in [cold, again] {
            let taken = seconds(&mut builder.build(&context, Output::Nothing))?;
            values.push((measure, taken * 1000.0 / f64::from(size)));
        }
    }
    Ok(values)
}

fn compile(bench: &Bench, builder: &mut Builder, round: u32) -> Outcome<Values> {
    with_base(bench, builder, &bench.fixtures.context("compiler"))?;
    let context = bench.fixtures.context("project");
    let cold = seconds(&mut builder.build(&context, Output::Nothing))?;
    let warm = seconds(&mut builder.build(&context, Output::Nothing))?;
    fixtures::change(&context.join("src/f3.c"), round)?;
    let changed = seconds(&mut builder.build(&context, Output::Nothing))?;
    with_base(bench, builder, &bench.fixtures.context("compiler"))?;
    let peak = builder.peak(&context, Output::Nothing)?;
    Ok(vec![
        ("cold, s", cold),
        ("warm, s", warm),
        ("one line changed, s", changed),
        ("peak MB", peak),
    ])
}
