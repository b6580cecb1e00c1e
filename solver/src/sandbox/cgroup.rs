//! The cgroup of a step, where this user may divide one (version 2, delegated).
//!
//! A group for steps is made below the nearest group above us that lets us: it must be ours to
//! write to, and give the controllers that are needed to its children, or most of them: systemd gives
//! users memory and pids, and often no cpuset. It is found by doing so. The group of a step is removed
//! after it; that of a build which was killed is empty, and removed by the next one.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::resources::{Setting, controller, controllers};

/// What names of groups of steps begin with; the maker's process number follows.
const PREFIX: &str = "rbuild-";

/// How often it is tried to remove a group whose last process is still on its way out, and the time
/// between.
const REMOVALS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes that `/proc/vmstat` fits into.
const VMSTAT_BYTES: usize = 16 << 10;

/// Why there is no group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There are no cgroups of version 2.
    #[error("no cgroup file system of version 2 is mounted here")]
    None,
    /// None of those above us gives the controllers to a group that we make.
    #[error("no group above this process is delegated to it with {controllers}")]
    NotDelegated {
        /// Which are needed.
        controllers: String,
    },
    /// A setting was refused.
    #[error("cannot write `{value}` to `{file}`")]
    Setting {
        /// The file.
        file: &'static str,
        /// What was to be written.
        value: String,
        /// Why not.
        source: io::Error,
    },
}

/// The group of one step. It is removed when this goes.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// What a group counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counted {
    /// Most memory that all of it took at a time, bytes.
    pub peak_memory: Option<u64>,
    /// Processes that were killed because memory ran out.
    pub killed: u64,
}

impl Cgroup {
    /// Makes a group with `settings`, as far as there are controllers for them, which are returned.
    ///
    /// # Errors
    ///
    /// If there is no place for one.
    pub fn make(settings: &[Setting]) -> Result<(Self, Vec<&'static str>), CgroupError> {
        let needed = controllers(settings);
        let own = own().ok_or(CgroupError::None)?;
        let mut places: Vec<(&Path, Vec<&'static str>)> =
            own.ancestors.iter().map(|it| (&**it, given(it, &needed))).collect();
        places.retain(|it| !it.1.is_empty());
        // Of those that give as much the nearest comes first still.
        places.sort_by_key(|it| std::cmp::Reverse(it.1.len()));
        let made = |(parent, held): (&Path, Vec<_>)| Some((Self::below(parent, &held)?, held));
        let (group, held) =
            places.into_iter().find_map(made).ok_or_else(|| not_delegated(&needed))?;
        for (file, value) in settings.iter().filter(|it| held.contains(&controller(it))) {
            let result = fs::write(group.path.join(file), value);
            // A machine without swap has no such file, and nothing to limit.
            let absent = *file == "memory.swap.max"
                && result.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::NotFound);
            if let (Err(source), false) = (result, absent) {
                return Err(CgroupError::Setting { file, value: value.clone(), source });
            }
        }
        Ok((group, held))
    }

    /// A group below `parent`, if it gets the controllers and a process can be moved into it.
    fn below(parent: &Path, needed: &[&'static str]) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        remove_dead(parent);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self { path };
        let has_all = || given(&group.path, needed) == needed;
        let control = |sign: &str| {
            let all: Vec<String> = needed.iter().map(|it| format!("{sign}{it}")).collect();
            fs::write(parent.join("cgroup.subtree_control"), all.join(" "))
        };
        let changed = !has_all();
        if changed {
            control("+").ok()?;
        }
        let opens = |file: PathBuf| fs::File::options().write(true).open(file).is_ok();
        let movable = opens(group.path.join("cgroup.procs")) && opens(parent.join("cgroup.procs"));
        // A group that has processes itself gives some controllers to threads alone: no process can
        // be put into groups below it then.
        let kind = fs::read_to_string(group.path.join("cgroup.type"));
        if has_all() && movable && kind.is_ok_and(|it| it.trim() == "domain") {
            return Some(group);
        }
        drop(group);
        if changed {
            // As it was. Where that fails it does no harm.
            drop(control("-"));
        }
        None
    }

    /// The file by which a process enters the group ([`enter`]); what it starts from then on is in
    /// it, too.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn door(&self) -> io::Result<OwnedFd> {
        let file = fs::File::options().write(true).open(self.path.join("cgroup.procs"))?;
        Ok(file.into())
    }

    /// What it counted so far.
    pub fn counted(&self) -> Counted {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        Counted {
            peak_memory: read("memory.peak").trim().parse().ok(),
            killed: field(&read("memory.events"), "oom_kill"),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whatever is left in it has no business there any more.
        drop(fs::write(self.path.join("cgroup.kill"), "1"));
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(PAUSE);
                }
                // What cannot be removed now is removed by the next build.
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// Moves the calling process into the group whose door this is.
///
/// # Errors
///
/// If the kernel refuses.
pub fn enter(door: BorrowedFd<'_>) -> io::Result<()> {
    // The process that writes.
    rustix::io::write(door, b"0")?;
    Ok(())
}

/// Whether processes can be put into groups here that count and limit memory.
///
/// # Errors
///
/// Why not.
pub fn works() -> Result<(), CgroupError> {
    let settings = [("memory.max", "max".to_owned()), ("pids.max", "max".to_owned())];
    let (_, held) = Cgroup::make(&settings)?;
    let lacking: Vec<_> =
        controllers(&settings).into_iter().filter(|it| !held.contains(it)).collect();
    if lacking.is_empty() { Ok(()) } else { Err(not_delegated(&lacking)) }
}

/// None of the groups above gives these.
pub fn not_delegated(controllers: &[&str]) -> CgroupError {
    CgroupError::NotDelegated { controllers: controllers.join(", ") }
}

/// How often the kernel has killed a process because memory ran out, on the whole machine.
pub fn killed_on_this_machine() -> u64 {
    // At once: with every read the kernel counts anew, all of it.
    let mut text = String::with_capacity(VMSTAT_BYTES);
    let read = fs::File::open("/proc/vmstat").and_then(|mut it| it.read_to_string(&mut text));
    read.map_or(0, |_| field(&text, "oom_kill"))
}

/// The number behind `name` in lines of names and numbers; 0 if it is not there.
fn field(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.filter(|it| it.0 == name).find_map(|it| it.1.trim().parse().ok());
    found.unwrap_or(0)
}

/// Which of the controllers a group has.
fn given(group: &Path, needed: &[&'static str]) -> Vec<&'static str> {
    let text = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let has = |it: &&&str| text.split_whitespace().any(|has| has == **it);
    needed.iter().filter(has).copied().collect()
}

/// Removes the empty groups of builds that are no more. Those of others are not empty.
fn remove_dead(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|it| it.strip_prefix(PREFIX)?.split_once('-'));
        if pid.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            // Fails if somebody is in it.
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// The groups that this process is in.
#[derive(Debug, Eq, PartialEq)]
struct Own {
    /// Nearest first: its own, and those above it.
    ancestors: Vec<PathBuf>,
}

fn own() -> Option<Own> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    of(&groups, &mounts)
}

/// See [`Own`]; of the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn of(groups: &str, mounts: &str) -> Option<Own> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2").then_some((root, place))
    });
    let (root, place) = mount?;
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let place = Path::new(place);
    // Joining nothing would add a slash.
    let own: PathBuf = place.components().chain(below.components()).collect();
    let ancestors = own.ancestors().take_while(|it| it.starts_with(place));
    Some(Own { ancestors: ancestors.map(Path::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_above_us() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let groups = "1:name=systemd:/x\n0::/user.slice/a.scope\n";
        let paths = |groups, mounts| {
            let own = of(groups, mounts).map(|it| it.ancestors).unwrap_or_default();
            own.iter().map(|it| it.display().to_string()).collect::<Vec<_>>()
        };
        let all =
            ["/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"];
        assert_eq!(paths(groups, mounts), all);
        // In a container without a namespace of its own, a part of the tree is mounted.
        let part = "30 23 0:26 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(paths(groups, part), ["/sys/fs/cgroup/a.scope", "/sys/fs/cgroup"]);
        assert_eq!(paths("0::/\n", mounts), ["/sys/fs/cgroup"]);
        assert_eq!(paths("1:memory:/x\n", mounts), [""; 0]);
        assert_eq!(paths(groups, "30 23 0:26 / /sys rw - cgroup cgroup rw,memory\n"), [""; 0]);
    }

    #[test]
    fn counters() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!((field(text, "oom_kill"), field(text, "max")), (2, 0));
    }
}
