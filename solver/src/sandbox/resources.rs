//! What a step may take of the machine, and who holds it to that. Pure.
//!
//! A cgroup that this user may divide holds a step as a whole to all of it ([`settings`]). Without
//! one, some of it can be asked of each process ([`by_process`]), and [`unenforced`] says in words
//! what that leaves open.

use serde::{Deserialize, Serialize};

use super::limits::Limit;

/// Limits of each step; nothing is limited where there is none.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Resources {
    /// `--memory`: bytes.
    pub memory: Option<u64>,
    /// `--memory-swap`: bytes of memory and swap together; all ones means no limit.
    pub memory_and_swap: Option<u64>,
    /// `--cpus`, or `--cpu-quota` and `--cpu-period`.
    pub cpu: Option<CpuTime>,
    /// `--cpu-shares`: 1024 is what everybody has.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpus: Option<CpuSet>,
    /// `--pids-limit`: processes and threads.
    pub pids: Option<u64>,
}

/// So many microseconds of processor time in each period of so many.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CpuTime {
    /// What may be used.
    pub quota: u64,
    /// Of how many.
    pub period: u64,
}

impl CpuTime {
    /// The kernel's default period, which is Docker's too.
    pub const PERIOD: u64 = 100_000;

    /// The fewest processors with which so much can be used.
    fn processors(self) -> u64 {
        self.quota.div_ceil(self.period.max(1)).max(1)
    }
}

/// Processors by number.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CpuSet(Vec<u32>);

/// The highest number of a processor that a set can have (the kernel's `CPU_SETSIZE`).
const MAX_CPU: u32 = 1023;

impl CpuSet {
    /// A list as `taskset` and Docker have it: `0-2,7`. None if it is no such list.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last > MAX_CPU {
                return None;
            }
            all.extend(first..=last);
        }
        all.sort_unstable();
        all.dedup();
        Some(Self(all))
    }

    /// As `cpuset.cpus` has it.
    fn text(&self) -> String {
        let all: Vec<String> = self.0.iter().map(u32::to_string).collect();
        all.join(",")
    }
}

/// A file of a cgroup, and what is written to it.
pub type Setting = (&'static str, String);

/// How a cgroup of version 2 is told.
pub fn settings(resources: &Resources) -> Vec<Setting> {
    let Resources { memory, memory_and_swap, cpu, cpu_shares, cpus, pids } = resources;
    let mut all = Vec::new();
    let limit = |value: u64| if value == u64::MAX { "max".to_owned() } else { value.to_string() };
    if let Some(memory) = memory {
        all.push(("memory.max", memory.to_string()));
        // Docker's default: as much swap again.
        let swap = memory_and_swap.map_or(*memory, |both| match both {
            u64::MAX => u64::MAX,
            both => both.saturating_sub(*memory),
        });
        all.push(("memory.swap.max", limit(swap)));
    }
    if let Some(CpuTime { quota, period }) = cpu {
        all.push(("cpu.max", format!("{quota} {period}")));
    }
    if let Some(shares) = cpu_shares {
        all.push(("cpu.weight", weight(*shares).to_string()));
    }
    if let Some(cpus) = cpus {
        all.push(("cpuset.cpus", cpus.text()));
    }
    if let Some(pids) = pids {
        all.push(("pids.max", limit(*pids)));
    }
    all
}

/// The weight of version 2 (1 to 10000) for shares of version 1 (2 to 262144), as the OCI runtimes
/// convert them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The controller that a setting needs.
pub fn controller(setting: &Setting) -> &'static str {
    setting.0.split_once('.').map_or(setting.0, |it| it.0)
}

/// The controllers that settings need.
pub fn controllers(settings: &[Setting]) -> Vec<&'static str> {
    let mut all: Vec<_> = settings.iter().map(controller).collect();
    all.dedup();
    all
}

/// What of `resources` a group with these controllers does not hold a step to.
pub fn besides(resources: &Resources, held: &[&str]) -> Resources {
    let mut rest = resources.clone();
    for controller in held {
        match *controller {
            "memory" => (rest.memory, rest.memory_and_swap) = (None, None),
            "cpu" => (rest.cpu, rest.cpu_shares) = (None, None),
            "cpuset" => rest.cpus = None,
            "pids" => rest.pids = None,
            _ => {}
        }
    }
    rest
}

/// What each process can be held to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ByProcess {
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Processors that it may run on; empty means those of the caller.
    pub cpus: Vec<u32>,
}

/// `RLIMIT_DATA`: memory that a process can write to and shares with nobody.
const DATA: u32 = 2;
/// `RLIMIT_NPROC`: processes and threads of a user.
const NPROC: u32 = 6;

/// What can be had of `resources` without a cgroup, by a caller who may run on the processors
/// `available`.
pub fn by_process(resources: &Resources, available: &[u32]) -> ByProcess {
    let limit = |resource| move |value: u64| Limit { resource, soft: value, hard: value };
    let memory = resources.memory.map(limit(DATA));
    let pids = resources.pids.filter(|it| *it != u64::MAX).map(limit(NPROC));
    let allowed: Vec<u32> = match &resources.cpus {
        Some(CpuSet(set)) => available.iter().copied().filter(|it| set.contains(it)).collect(),
        None => available.to_vec(),
    };
    let most = resources.cpu.map_or(u64::MAX, CpuTime::processors);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let limited = resources.cpus.is_some() || most < allowed.len();
    let cpus = if limited { allowed.into_iter().take(most).collect() } else { Vec::new() };
    ByProcess { limits: memory.into_iter().chain(pids).collect(), cpus }
}

/// What becomes of `resources` where no cgroup can be had, which is because of `why`.
pub fn unenforced(resources: &Resources, why: &str) -> String {
    let Resources { memory, memory_and_swap, cpu, cpu_shares, cpus: _, pids } = resources;
    let mut parts = Vec::new();
    if memory.is_some() {
        parts.push("--memory holds each process alone, not the step as a whole");
    }
    if memory_and_swap.is_some() {
        parts.push("--memory-swap is not enforced");
    }
    if cpu.is_some_and(|it| it.quota % it.period.max(1) != 0) {
        parts.push("--cpus is rounded up to whole processors");
    }
    if cpu_shares.is_some() {
        parts.push("--cpu-shares is not enforced");
    }
    if pids.is_some() {
        parts.push("--pids-limit counts all processes of the step's user, and does not hold root");
    }
    if parts.is_empty() {
        return String::new();
    }
    format!("limits of RUN: {} (no cgroup: {why})", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Resources {
        Resources {
            memory: Some(1 << 20),
            memory_and_swap: Some(3 << 20),
            cpu: Some(CpuTime { quota: 150_000, period: 100_000 }),
            cpu_shares: Some(1024),
            cpus: CpuSet::parse("0-2,5"),
            pids: Some(7),
        }
    }

    #[test]
    fn a_cgroup_is_told_all_of_it() {
        let text = |resources: &Resources| -> String {
            let line = |(file, value): &Setting| [*file, "=", value, "\n"].concat();
            settings(resources).iter().map(line).collect()
        };
        assert_eq!(
            text(&all()),
            "memory.max=1048576\nmemory.swap.max=2097152\ncpu.max=150000 100000\n\
             cpu.weight=39\ncpuset.cpus=0,1,2,5\npids.max=7\n"
        );
        assert_eq!(controllers(&settings(&all())), ["memory", "cpu", "cpuset", "pids"]);
        let unlimited = Some(u64::MAX);
        let memory = Resources { memory: Some(5), ..Resources::default() };
        assert_eq!(text(&memory), "memory.max=5\nmemory.swap.max=5\n");
        let memory = Resources { memory_and_swap: unlimited, pids: unlimited, ..memory };
        assert_eq!(text(&memory), "memory.max=5\nmemory.swap.max=max\npids.max=max\n");
        assert_eq!(text(&Resources::default()), "");
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }

    #[test]
    fn without_one_processes_are_held() {
        let held = by_process(&all(), &[1, 2, 3, 5]);
        assert_eq!(held.cpus, [1, 2]);
        let limits: Vec<_> = held.limits.iter().map(|it| (it.resource, it.soft)).collect();
        assert_eq!(limits, [(DATA, 1 << 20), (NPROC, 7)]);
        assert_eq!(by_process(&Resources::default(), &[0, 1]), ByProcess::default());
        let half = CpuTime { quota: 50_000, period: 100_000 };
        let half = Resources { cpu: Some(half), ..Resources::default() };
        assert_eq!(by_process(&half, &[0, 1]).cpus, [0]);
    }

    #[test]
    fn a_group_holds_a_step_to_what_it_has_controllers_for() {
        assert_eq!(besides(&all(), &[]), all());
        let rest = besides(&all(), &["memory", "cpu", "pids"]);
        assert_eq!(rest, Resources { cpus: all().cpus, ..Resources::default() });
        assert_eq!(unenforced(&rest, "x"), "");
        assert_eq!(by_process(&rest, &[1, 2, 3, 5]).limits, []);
        assert_eq!(besides(&rest, &["cpuset"]), Resources::default());
    }

    #[test]
    fn what_is_left_open_is_told() {
        assert_eq!(unenforced(&Resources::default(), "x"), "");
        let whole = CpuTime { quota: 200_000, period: 100_000 };
        let whole =
            Resources { cpu: Some(whole), cpus: CpuSet::parse("0"), ..Resources::default() };
        assert_eq!(unenforced(&whole, "x"), "");
        expect_test::expect![[r#"limits of RUN: --memory holds each process alone, not the step as a whole; --memory-swap is not enforced; --cpus is rounded up to whole processors; --cpu-shares is not enforced; --pids-limit counts all processes of the step's user, and does not hold root (no cgroup: version 1)"#]]
        .assert_eq(&unenforced(&all(), "version 1"));
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(CpuSet::parse("3,0-1,1").unwrap().text(), "0,1,3");
        for wrong in ["", "a", "2-1", "0-4096", "-1", "1,"] {
            assert_eq!(CpuSet::parse(wrong), None, "{wrong}");
        }
    }
}
