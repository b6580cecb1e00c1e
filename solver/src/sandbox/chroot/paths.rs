//! Which paths of a step are files of the kernel. Pure.

/// A process, as a path names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Who {
    /// The caller's own process.
    Caller,
    /// The calling thread.
    Thread,
    /// By its number.
    Number(i32),
}

/// What a path leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// `/proc` itself.
    Processes,
    /// What is in the directory of a process; empty for that itself.
    Process(Who, Vec<u8>),
    /// What a descriptor of a process is open on, and a path from there.
    Descriptor(Who, i32, Vec<u8>),
    /// What `cwd`, `root` or `exe` of a process lead to, and a path from there.
    Link(Who, &'static str, Vec<u8>),
    /// What else is in `/proc`.
    Kernel(Vec<u8>),
    /// What is in `/sys`; empty for that itself.
    System(Vec<u8>),
    /// A device by name.
    Device(&'static str),
    /// A new terminal.
    NewTerminal,
    /// A terminal by number.
    Terminal(u32),
}

/// The absolute form of `path` seen from the directory `from`, without `.`, `..` and double slashes.
/// Links are not looked at: what is found this way is only ever compared with names of directories.
pub(super) fn absolute(from: &[u8], path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let start: &[u8] = if path.starts_with(b"/") { b"" } else { from };
    for part in start.split(|&it| it == b'/').chain(path.split(|&it| it == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut absolute = Vec::with_capacity(path.len() + 1);
    for part in parts {
        absolute.push(b'/');
        absolute.extend_from_slice(part);
    }
    if absolute.is_empty() { b"/".to_vec() } else { absolute }
}

/// Whether a path could lead to a file of the kernel: a cheap look at how it begins. Those that
/// cannot are most.
pub(super) fn is_worth_a_look(start: &[u8]) -> bool {
    match start {
        [b'/', rest @ ..] => {
            matches!(rest, [b'p', b'r', b'o', ..] | [b'd', b'e', b'v', ..] | [b's', b'y', b's', ..])
                || matches!(rest, [b'/' | b'.', ..])
        }
        [b'.', b'.', ..] => true,
        _ => {
            let first = start.split(|&it| it == b'/').next().unwrap_or_default();
            let names: [&[u8]; 7] =
                [b"proc", b"dev", b"sys", b"self", b"thread-self", b"fd", b"mounts"];
            names.contains(&first) || !first.is_empty() && first.iter().all(u8::is_ascii_digit)
        }
    }
}

/// What `path`, absolute and without `..`, leads to; none for what lies in the tree.
pub(super) fn place(path: &[u8]) -> Option<Place> {
    let (top, rest) = first(path.strip_prefix(b"/")?);
    match top {
        b"proc" => Some(proc(rest)),
        b"sys" => Some(Place::System(rest.to_vec())),
        b"dev" => dev(rest),
        _ => None,
    }
}

/// Whether `path` is a link that lies in the tree as it is, though what it leads to is served.
pub(super) fn is_a_real_link(path: &[u8]) -> bool {
    match path {
        b"/proc/mounts" | b"/proc/net" => true,
        path => path.strip_prefix(b"/dev/").is_some_and(|name| !name.contains(&b'/')),
    }
}

fn first(path: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'/', path);
    end.map_or((path, &[][..]), |end| (&path[..end], &path[end + 1..]))
}

fn number(text: &[u8]) -> Option<i32> {
    let number: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    i32::try_from(number).ok().filter(|_| text.iter().all(u8::is_ascii_digit))
}

fn proc(path: &[u8]) -> Place {
    let (name, rest) = first(path);
    let who = match name {
        b"" => return Place::Processes,
        b"self" => Who::Caller,
        b"thread-self" => Who::Thread,
        b"mounts" | b"net" => return Place::Process(Who::Caller, path.to_vec()),
        name => match number(name).filter(|&it| it > 0) {
            Some(number) => Who::Number(number),
            None => return Place::Kernel(path.to_vec()),
        },
    };
    process(who, rest)
}

fn process(who: Who, path: &[u8]) -> Place {
    let (name, rest) = first(path);
    match name {
        b"fd" => {
            let (name, rest) = first(rest);
            match number(name) {
                Some(number) => Place::Descriptor(who, number, rest.to_vec()),
                None => Place::Process(who, path.to_vec()),
            }
        }
        b"cwd" => Place::Link(who, "cwd", rest.to_vec()),
        b"root" => Place::Link(who, "root", rest.to_vec()),
        b"exe" => Place::Link(who, "exe", rest.to_vec()),
        b"task" => {
            let (name, rest) = first(rest);
            match number(name) {
                Some(number) if !rest.is_empty() => process(Who::Number(number), rest),
                Some(_) | None => Place::Process(who, path.to_vec()),
            }
        }
        _ => Place::Process(who, path.to_vec()),
    }
}

fn dev(path: &[u8]) -> Option<Place> {
    let (name, rest) = first(path);
    let descriptor = |number| Some(Place::Descriptor(Who::Caller, number, rest.to_vec()));
    match name {
        b"stdin" => descriptor(0),
        b"stdout" => descriptor(1),
        b"stderr" => descriptor(2),
        b"fd" => Some(process(Who::Caller, path)),
        b"ptmx" => Some(Place::NewTerminal),
        b"pts" => match rest {
            b"ptmx" => Some(Place::NewTerminal),
            rest => Some(Place::Terminal(u32::try_from(number(rest)?).ok()?)),
        },
        name => {
            let known = super::system::NODES.iter().find(|it| it.0.as_bytes() == name);
            known.filter(|_| rest.is_empty()).map(|it| Place::Device(it.0))
        }
    }
}

/// Files in the directory of a process that a step may open.
const OF_A_PROCESS: [&str; 41] = [
    "arch_status",
    "auxv",
    "cgroup",
    "clear_refs",
    "cmdline",
    "comm",
    "coredump_filter",
    "cpuset",
    "environ",
    "gid_map",
    "io",
    "limits",
    "loginuid",
    "maps",
    "mem",
    "mountinfo",
    "mounts",
    "mountstats",
    "numa_maps",
    "oom_adj",
    "oom_score",
    "oom_score_adj",
    "pagemap",
    "personality",
    "projid_map",
    "sched",
    "schedstat",
    "sessionid",
    "setgroups",
    "smaps",
    "smaps_rollup",
    "stack",
    "stat",
    "statm",
    "status",
    "syscall",
    "timers",
    "timerslack_ns",
    "uid_map",
    "wchan",
    "children",
];

/// Directories of a process whose files a step may open.
const DIRECTORIES_OF_A_PROCESS: [&str; 4] = ["attr", "fdinfo", "net", "ns"];

/// What there is for a step in the directory of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A file.
    File,
    /// A directory, of which it sees the names.
    Directory,
    /// Nothing.
    Nothing,
}

/// Whether a step may see `path` in the directory of a process.
pub(super) fn in_a_process(path: &[u8]) -> Kind {
    let (name, rest) = first(path);
    let is = |list: &[&str]| list.iter().any(|it| it.as_bytes() == name);
    if name.is_empty() || rest.is_empty() && is(&DIRECTORIES_OF_A_PROCESS) {
        return Kind::Directory;
    }
    match name {
        b"fd" if rest.is_empty() => Kind::Directory,
        b"task" if number(rest).is_some() || rest.is_empty() => Kind::Directory,
        b"ns" | b"fd" | b"task" => Kind::Nothing,
        _ if rest.is_empty() && is(&OF_A_PROCESS) => Kind::File,
        _ if !rest.is_empty() && is(&DIRECTORIES_OF_A_PROCESS) => Kind::File,
        _ => Kind::Nothing,
    }
}

/// Files of a process that it may change itself.
pub(super) fn may_be_written(path: &[u8]) -> bool {
    let own: [&[u8]; 8] = [
        b"oom_score_adj",
        b"oom_adj",
        b"comm",
        b"timerslack_ns",
        b"coredump_filter",
        b"clear_refs",
        b"mem",
        b"loginuid",
    ];
    own.contains(&path) || path.starts_with(b"attr/")
}

/// What else in `/proc` a step sees nothing of: runc's list, and what shows the whole machine's memory
/// or lets it be commanded.
const HIDDEN: [&str; 17] = [
    "acpi",
    "asound",
    "bus",
    "fs",
    "interrupts",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "keys",
    "kmsg",
    "kpagecount",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "timer_list",
];

/// What in `/sys` a step sees nothing of.
const HIDDEN_SYSTEM: [&[u8]; 4] =
    [b"firmware", b"devices/virtual/powercap", b"fs/cgroup", b"kernel/debug"];

/// Whether a step may see `path` of `/proc`, outside of the processes.
pub(super) fn in_the_kernel(path: &[u8]) -> bool {
    let (name, _) = first(path);
    !HIDDEN.iter().any(|it| it.as_bytes() == name)
}

/// Whether a step may see `path` of `/sys`. Without a `network` it sees of that only what is the
/// machine's own.
pub(super) fn in_the_system(path: &[u8], network: bool) -> bool {
    let hidden = HIDDEN_SYSTEM.iter().any(|it| {
        path.strip_prefix(*it).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    });
    let card = path.strip_prefix(b"class/net/").map(|rest| first(rest).0);
    !hidden && (network || card.is_none_or(|it| matches!(it, b"lo" | b"")))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(path: &str, expect: &Expect) {
        let path = absolute(b"/proc/12/fd", path.as_bytes());
        let found = place(&path).map_or("in the tree".to_owned(), |it| match it {
            Place::Process(who, rest) => format!("{who:?} {}", rest.escape_ascii()),
            Place::Descriptor(who, number, rest) => {
                format!("{who:?} descriptor {number} {}", rest.escape_ascii())
            }
            Place::Link(who, name, rest) => format!("{who:?} {name} {}", rest.escape_ascii()),
            Place::Kernel(rest) => format!("kernel {}", rest.escape_ascii()),
            Place::System(rest) => format!("system {}", rest.escape_ascii()),
            it
            @ (Place::Processes | Place::Device(_) | Place::NewTerminal | Place::Terminal(_)) => {
                format!("{it:?}")
            }
        });
        expect.assert_eq(&found);
    }

    #[test]
    fn paths_and_what_they_mean() {
        check("/etc/passwd", &expect!["in the tree"]);
        check("/process", &expect!["in the tree"]);
        check("/dev/../etc/x", &expect!["in the tree"]);
        check("/dev/shm/x", &expect!["in the tree"]);
        check("/dev/null", &expect![[r#"Device("null")"#]]);
        check("/dev/fd/63", &expect!["Caller descriptor 63 "]);
        check("/dev/stderr", &expect!["Caller descriptor 2 "]);
        check("/dev/pts/3", &expect!["Terminal(3)"]);
        check("/dev//ptmx", &expect!["NewTerminal"]);
        check("/proc", &expect!["Processes"]);
        check("/proc/self/status", &expect!["Caller status"]);
        check("/proc/self/fd", &expect!["Caller fd"]);
        check("/proc/self/fd/3/a/b", &expect!["Caller descriptor 3 a/b"]);
        check("/proc/thread-self/comm", &expect!["Thread comm"]);
        check("/proc/7/cwd/x", &expect!["Number(7) cwd x"]);
        check("/proc/7/task/8/stat", &expect!["Number(8) stat"]);
        check("/proc/self/../1/environ", &expect!["Number(1) environ"]);
        check("/proc/mounts", &expect!["Caller mounts"]);
        check("/proc/sys/kernel/osrelease", &expect!["kernel sys/kernel/osrelease"]);
        check("/sys", &expect!["system "]);
        check("/sys/class/net", &expect!["system class/net"]);
        check("../status", &expect!["Number(12) status"]);
        check("4", &expect!["Number(12) descriptor 4 "]);
        check("../../../../../etc", &expect!["in the tree"]);
    }

    #[test]
    fn links_of_the_tree_are_what_they_are() {
        assert!(is_a_real_link(b"/dev/stdin") && is_a_real_link(b"/dev/fd"));
        assert!(!is_a_real_link(b"/dev/fd/3") && !is_a_real_link(b"/proc/self/fd/3"));
    }

    #[test]
    fn what_a_step_may_see() {
        assert_eq!(in_a_process(b"status"), Kind::File);
        assert_eq!(in_a_process(b"attr/current"), Kind::File);
        assert_eq!(in_a_process(b"fd"), Kind::Directory);
        assert_eq!(in_a_process(b"task/7"), Kind::Directory);
        assert_eq!(in_a_process(b"ns/net"), Kind::Nothing);
        assert_eq!(in_a_process(b"map_files/1"), Kind::Nothing);
        assert!(in_the_kernel(b"cpuinfo") && in_the_kernel(b"sys/vm/overcommit_memory"));
        assert!(!in_the_kernel(b"kcore") && !in_the_kernel(b"bus/pci"));
        assert!(in_the_system(b"fs/selinux", true) && !in_the_system(b"fs/cgroup/memory", true));
        assert!(in_the_system(b"class/net/eth0/mtu", true) && in_the_system(b"class/net", false));
        assert!(in_the_system(b"class/net/lo", false) && !in_the_system(b"class/net/eth0", false));
        assert!(may_be_written(b"oom_score_adj") && !may_be_written(b"status"));
    }

    #[test]
    fn most_paths_are_passed_by() {
        for path in ["/usr/lib/x.so", "/etc/passwd", "main.c", "./configure", "include/a.h"] {
            assert!(!is_worth_a_look(path.as_bytes()), "{path}");
        }
        for path in ["/proc/self", "/dev/null", "//proc", "../proc/x", "self/exe", "12/stat"] {
            assert!(is_worth_a_look(path.as_bytes()), "{path}");
        }
    }
}
