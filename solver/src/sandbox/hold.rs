//! Holds a step to what it may take, and tells what it took.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::thread::CpuSet;

use super::cgroup::{self, Cgroup, CgroupError, Counted};
use super::parent::{End, Outcome};
use super::plan::Process;
use super::resources::{self, ByProcess, Resources};
use crate::worker::proto::{ExitStatus, Usage};

/// The number of `SIGKILL`, and what a shell makes of it.
const KILLED: i32 = 9;
const KILLED_CODE: i32 = 128 + KILLED;

/// What a worker has said already: once for a build is enough.
#[derive(Debug, Default)]
pub(super) struct Holder {
    told: Mutex<bool>,
    /// How often memory had run out on this machine before the first step: the file that tells is slow to read.
    killed_before: OnceLock<u64>,
}

/// One step, held.
#[derive(Debug)]
pub(super) struct Hold {
    group: Option<(Cgroup, OwnedFd)>,
    by_process: ByProcess,
    note: Option<String>,
    killed_before: u64,
}

impl Holder {
    /// Makes ready what holds a step to `resources`.
    ///
    /// # Errors
    ///
    /// If a group can be made, but a setting is refused.
    pub(super) fn hold(&self, resources: &Resources) -> Result<Hold, CgroupError> {
        let killed_before = *self.killed_before.get_or_init(cgroup::killed_on_this_machine);
        let mut hold =
            Hold { group: None, by_process: ByProcess::default(), note: None, killed_before };
        let settings = resources::settings(resources);
        if settings.is_empty() {
            return Ok(hold);
        }
        let needed = resources::controllers(&settings);
        let made = Cgroup::make(&settings).and_then(|(group, held)| match group.door() {
            Ok(door) => Ok(((group, door), held)),
            Err(_) => Err(cgroup::not_delegated(&needed)),
        });
        let (rest, why) = match made {
            Ok((group, held)) => {
                hold.group = Some(group);
                let lacking: Vec<_> = needed.into_iter().filter(|it| !held.contains(it)).collect();
                (resources::besides(resources, &held), cgroup::not_delegated(&lacking))
            }
            Err(error @ CgroupError::Setting { .. }) => return Err(error),
            Err(why @ (CgroupError::None | CgroupError::NotDelegated { .. })) => {
                (resources.clone(), why)
            }
        };
        hold.by_process = resources::by_process(&rest, &available());
        hold.note = self.tell(resources::unenforced(&rest, &why.to_string()));
        Ok(hold)
    }

    fn tell(&self, note: String) -> Option<String> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !note.is_empty() && !*told;
        *told |= new;
        new.then_some(note)
    }
}

impl Hold {
    /// The file by which a process enters the step's group, if it has one.
    pub(super) fn door(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().map(|it| it.1.as_fd())
    }

    /// Adds what the process itself is held to; what the Dockerfile's user asked for by name stays.
    pub(super) fn apply(&self, process: &mut Process) {
        for limit in &self.by_process.limits {
            if !process.limits.iter().any(|it| it.resource == limit.resource) {
                process.limits.push(*limit);
            }
        }
        process.cpus.clone_from(&self.by_process.cpus);
    }

    /// How a step ended, what it took, and what a person should know about that.
    pub(super) fn end(self, outcome: &Outcome) -> (ExitStatus, Usage, Vec<String>) {
        let counted = self.group.as_ref().map(|it| it.0.counted()).unwrap_or_default();
        let on_machine = || cgroup::killed_on_this_machine().saturating_sub(self.killed_before);
        let (status, note) = status(&outcome.end, counted, on_machine);
        #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
        let cpu_seconds = outcome.cpu_micros as f64 / 1e6;
        let peak_memory = counted.peak_memory.unwrap_or(outcome.max_rss);
        (status, Usage { cpu_seconds, peak_memory }, self.note.into_iter().chain(note).collect())
    }
}

/// What the end of a process means where its group counted so much, and so many processes of the
/// machine were killed for lack of memory meanwhile.
fn status(
    end: &End,
    counted: Counted,
    on_machine: impl FnOnce() -> u64,
) -> (ExitStatus, Option<String>) {
    let status = match end {
        End::Code(code) | End::NotStarted(code, _) => ExitStatus::Code(*code),
        End::Signal(signal) => ExitStatus::Signal(*signal),
        End::Cancelled => ExitStatus::Cancelled,
    };
    let killed = matches!(end, End::Signal(KILLED) | End::Code(KILLED_CODE));
    if counted.killed > 0 {
        let note = "a process of this step was killed because its memory ran out (--memory)";
        let status = if killed { ExitStatus::OutOfMemory } else { status };
        return (status, Some(note.to_owned()));
    }
    let note = (killed && on_machine() > 0).then(|| {
        "the kernel killed processes because memory ran out while this build ran: most likely this one"
            .to_owned()
    });
    (status, note)
}

/// The processors that the caller may run on.
fn available() -> Vec<u32> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU)
        .filter(|it| set.is_set(*it))
        .filter_map(|it| u32::try_from(it).ok())
        .collect()
}

/// Lets the calling process run on `cpus` only; on any if there are none.
///
/// # Errors
///
/// If none of them is there.
pub(super) fn run_on(cpus: &[u32]) -> std::io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        if let Ok(cpu) = usize::try_from(*cpu) {
            set.set(cpu);
        }
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_killed_for_memory_says_so() {
        let counted = |killed| Counted { peak_memory: None, killed };
        let check = |end, killed, on_machine| {
            let (status, note) = status(&end, counted(killed), || on_machine);
            (status, note.is_some())
        };
        assert_eq!(check(End::Signal(9), 1, 1), (ExitStatus::OutOfMemory, true));
        assert_eq!(check(End::Code(137), 1, 1), (ExitStatus::OutOfMemory, true));
        assert_eq!(check(End::Code(1), 1, 1), (ExitStatus::Code(1), true));
        assert_eq!(check(End::Signal(9), 0, 1), (ExitStatus::Signal(9), true));
        assert_eq!(check(End::Signal(9), 0, 0), (ExitStatus::Signal(9), false));
        assert_eq!(check(End::Code(0), 0, 5), (ExitStatus::Code(0), false));
    }

    #[test]
    fn what_is_not_enforced_is_told_once() {
        let holder = Holder::default();
        assert_eq!(holder.tell(String::new()), None);
        assert_eq!(holder.tell("x".to_owned()), Some("x".to_owned()));
        assert_eq!(holder.tell("x".to_owned()), None);
    }
}
