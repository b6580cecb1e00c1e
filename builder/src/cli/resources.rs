//! What the command line says about the resources of RUN. Pure.

use rbuild_solver::sandbox::resources::{CpuSet, CpuTime, Resources};

use super::raw::Build;
use super::spec::byte_size;
use crate::report::Failure;

/// Less is no memory to run anything in (Docker's limit).
const MIN_MEMORY: u64 = 6 << 20;

/// Bounds that the kernel has for a period of processor time, microseconds.
const PERIODS: std::ops::RangeInclusive<u64> = 1000..=1_000_000;

/// The least time in a period that the kernel grants, microseconds.
const MIN_QUOTA: u64 = 1000;

/// Limits of steps.
///
/// # Errors
///
/// A value that is none, or that nothing could run with.
pub fn resources(raw: &Build) -> Result<Resources, Failure> {
    let memory = raw.memory.as_deref().map(|it| byte_size("--memory", it)).transpose()?;
    let memory = memory.filter(|it| *it != 0);
    if memory.is_some_and(|it| it < MIN_MEMORY) {
        return Err(Failure::usage("--memory: nothing runs with less than 6m"));
    }
    let memory_and_swap = swap(raw.memory_swap.as_deref(), memory)?;
    let pids = match raw.pids_limit {
        None | Some(0) => None,
        Some(limit) => Some(u64::try_from(limit).unwrap_or(u64::MAX)),
    };
    let cpus = raw.cpuset_cpus.as_deref().map(|text| {
        let wrong =
            || Failure::usage(format!("--cpuset-cpus `{text}`: expected a list like 0-2,7"));
        CpuSet::parse(text).ok_or_else(wrong)
    });
    Ok(Resources {
        memory,
        memory_and_swap,
        cpu: cpu(raw)?,
        cpu_shares: raw.cpu_shares.filter(|it| *it != 0),
        cpus: cpus.transpose()?,
        pids,
    })
}

fn swap(text: Option<&str>, memory: Option<u64>) -> Result<Option<u64>, Failure> {
    let both = match text {
        None => return Ok(None),
        Some("-1") => u64::MAX,
        Some(text) => match byte_size("--memory-swap", text)? {
            0 => return Ok(None),
            both => both,
        },
    };
    match memory {
        None => Err(Failure::usage("--memory-swap: needs --memory")),
        Some(memory) if both < memory => {
            Err(Failure::usage("--memory-swap: counts memory too, so it cannot be below --memory"))
        }
        Some(_) => Ok(Some(both)),
    }
}

fn cpu(raw: &Build) -> Result<Option<CpuTime>, Failure> {
    if let Some(text) = &raw.cpus {
        let wrong = || Failure::usage(format!("--cpus `{text}`: expected a number like 1.5"));
        let quota = decimal(text, CpuTime::PERIOD).ok_or_else(wrong)?;
        if quota == 0 {
            return Ok(None);
        }
        return checked(CpuTime { quota, period: CpuTime::PERIOD }, "--cpus");
    }
    let period = raw.cpu_period.filter(|it| *it != 0).unwrap_or(CpuTime::PERIOD);
    if !PERIODS.contains(&period) {
        return Err(Failure::usage("--cpu-period: the kernel takes 1000 to 1000000 microseconds"));
    }
    match raw.cpu_quota.map(u64::try_from) {
        // Below zero is no limit.
        None | Some(Err(_) | Ok(0)) => Ok(None),
        Some(Ok(quota)) => checked(CpuTime { quota, period }, "--cpu-quota"),
    }
}

fn checked(time: CpuTime, flag: &str) -> Result<Option<CpuTime>, Failure> {
    if time.quota < MIN_QUOTA {
        let text = format!("{flag}: the kernel grants no less than 1000 microseconds in a period");
        return Err(Failure::usage(text));
    }
    Ok(Some(time))
}

/// A decimal number in units of one `unit`th, rounded down. None if it is no number, or too large.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || text == "." || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut rest = 0;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        rest += place * u64::from(digit - b'0');
    }
    whole.checked_mul(unit)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::raw::{Cli, Command};
    use super::*;

    fn parse(flags: &[&str]) -> Result<Resources, String> {
        let line = [&["rbuild", "build"], flags, &["."]].concat();
        let Command::Build(raw) = Cli::parse_from(line).command else { panic!("a build") };
        resources(&raw).map_err(|it| it.text)
    }

    #[test]
    fn nothing_is_limited_by_default_or_by_zero() {
        assert_eq!(parse(&[]), Ok(Resources::default()));
        let zero = ["-m", "0", "--cpus=0", "--pids-limit=0", "--cpu-shares=0", "--memory-swap=0"];
        assert_eq!(parse(&zero), Ok(Resources::default()));
        assert_eq!(parse(&["--cpu-quota=-1"]), Ok(Resources::default()));
    }

    #[test]
    fn all_of_it() {
        let flags = [
            "--memory=1g",
            "--memory-swap=-1",
            "--cpus=1.25",
            "-c",
            "512",
            "--cpuset-cpus=0,1",
            "--pids-limit=-1",
        ];
        let expected = Resources {
            memory: Some(1 << 30),
            memory_and_swap: Some(u64::MAX),
            cpu: Some(CpuTime { quota: 125_000, period: 100_000 }),
            cpu_shares: Some(512),
            cpus: CpuSet::parse("0-1"),
            pids: Some(u64::MAX),
        };
        assert_eq!(parse(&flags), Ok(expected));
        let cpu = Some(CpuTime { quota: 50_000, period: 200_000 });
        let flags = ["--cpu-quota=50000", "--cpu-period=200000"];
        assert_eq!(parse(&flags), Ok(Resources { cpu, ..Resources::default() }));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong: [&[&str]; 9] = [
            &["--memory=1m"],
            &["--memory=x"],
            &["--memory-swap=1g"],
            &["-m", "1g", "--memory-swap=512m"],
            &["--cpus=x"],
            &["--cpus=0.001"],
            &["--cpu-quota=5"],
            &["--cpu-period=5"],
            &["--cpuset-cpus=a"],
        ];
        for flags in wrong {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn decimals() {
        let all = ["1", "1.5", ".5", "2.", "0.00001", "x", "", ".", "1.x", "-1", "1e3"];
        let found = all.map(|it| decimal(it, 100_000));
        let none = None;
        assert_eq!(found[..5], [100_000, 150_000, 50_000, 200_000, 1].map(Some));
        assert_eq!(found[5..], [none; 6]);
    }
}
