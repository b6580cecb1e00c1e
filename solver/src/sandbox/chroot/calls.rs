//! The calls that the keeper of a step is asked about, and the filter that has the kernel ask. Pure.
//!
//! Each question costs two switches of context, so nothing is asked that cannot be about a file of
//! the kernel: not what is open already, nor what is found from an open directory, nor what makes a
//! new file, nor what looks at a link itself.

use crate::sandbox::bpf::{
    ALLOW, Arch, FORBID, NOTIFY, UNKNOWN, X32_BIT, and, arg, by_interface, errno, if_any, if_equal,
    load, one_of, ret,
};
use crate::sandbox::sys::Instruction;

use super::changes::{self, Change};
use super::fence::Reach;

/// What a call is, and where in its arguments things are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// open(2).
    Open { dir: Option<usize>, path: usize, flags: usize },
    /// openat2(2), whose flags the filter cannot see.
    OpenHow,
    /// stat(2).
    Stat { dir: Option<usize>, path: usize, out: usize, flags: Option<usize> },
    /// statx(2).
    Statx,
    /// access(2).
    Access { dir: Option<usize>, path: usize, mode: usize },
    /// readlink(2).
    ReadLink { dir: Option<usize>, path: usize },
    /// chdir(2).
    ChangeDir,
    /// mknod(2) of a device, and of anything where mounts can only be read.
    MakeNode { dir: Option<usize>, path: usize },
    /// uname(2).
    Names,
    /// A call about the process whose number is this argument; 0 is the caller.
    Process { pid: usize },
    /// A call about a process, a group or a user (argument 1), by its kind (argument 0), of which
    /// this number is a process and the next one a group.
    Kind { process: u64 },
    /// A call that changes a file or a name.
    Change(Change),
    /// One that sets a mode, which is this argument.
    Mode(Change, usize),
}

/// `faccessat2` and `sched_setattr`, for which the C library's names are newer than its list.
const FACCESSAT2: i64 = 439;

/// The calls of this machine's own interface. `readonly` is whether there are mounts that can only be
/// read.
pub(super) fn native(reach: Reach, readonly: bool) -> Vec<(i64, Call)> {
    let process = Call::Process { pid: 0 };
    let mut calls = vec![
        (libc::SYS_openat, Call::Open { dir: Some(0), path: 1, flags: 2 }),
        (libc::SYS_openat2, Call::OpenHow),
        (libc::SYS_newfstatat, Call::Stat { dir: Some(0), path: 1, out: 2, flags: Some(3) }),
        (libc::SYS_statx, Call::Statx),
        (libc::SYS_faccessat, Call::Access { dir: Some(0), path: 1, mode: 2 }),
        (FACCESSAT2, Call::Access { dir: Some(0), path: 1, mode: 2 }),
        (libc::SYS_readlinkat, Call::ReadLink { dir: Some(0), path: 1 }),
        (libc::SYS_chdir, Call::ChangeDir),
        (libc::SYS_mknodat, Call::MakeNode { dir: Some(0), path: 1 }),
        (libc::SYS_uname, Call::Names),
        (libc::SYS_prlimit64, process),
        (libc::SYS_sched_setparam, process),
        (libc::SYS_sched_setscheduler, process),
        (libc::SYS_sched_setaffinity, process),
        (libc::SYS_sched_setattr, process),
        (libc::SYS_setpriority, Call::Kind { process: 0 }),
        (libc::SYS_ioprio_set, Call::Kind { process: 1 }),
    ];
    calls.extend(old());
    calls.extend(changes::modes().into_iter().map(|it| (it.0, Call::Mode(it.1, it.2))));
    if readonly {
        calls.extend(changes::native().into_iter().map(|it| (it.0, Call::Change(it.1))));
    }
    if reach == Reach::Everybody {
        let signals = [
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_open,
        ];
        calls.extend(signals.map(|it| (it, process)));
    }
    calls
}

/// Calls that newer machines no longer have.
#[cfg(target_arch = "x86_64")]
fn old() -> Vec<(i64, Call)> {
    vec![
        (libc::SYS_open, Call::Open { dir: None, path: 0, flags: 1 }),
        (libc::SYS_stat, Call::Stat { dir: None, path: 0, out: 1, flags: None }),
        (libc::SYS_access, Call::Access { dir: None, path: 0, mode: 1 }),
        (libc::SYS_readlink, Call::ReadLink { dir: None, path: 0 }),
        (libc::SYS_mknod, Call::MakeNode { dir: None, path: 0 }),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
const fn old() -> Vec<(i64, Call)> {
    Vec::new()
}

const NO_FAMILY: u32 = errno(libc::EAFNOSUPPORT as u32);

/// `O_CREAT | O_EXCL`: makes a file or fails.
const NEW: u32 = 0o300;

/// `O_WRONLY | O_RDWR | O_CREAT | O_TRUNC`: changes a file or a name.
const WRITES: u32 = 0o1103;

/// `F_SETOWN`, `F_SETOWN_EX`: whom the kernel signals for a descriptor.
const SET_OWNER: [u32; 2] = [8, 15];
/// The same as `FIOSETOWN` and `SIOCSPGRP` of ioctl(2).
const SET_OWNER_BY_IOCTL: [u32; 2] = [0x8901, 0x8902];

/// `AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH`.
const ITSELF: u32 = 0x1100;

/// `S_IFMT`, `S_IFCHR`, `S_IFBLK`.
const KIND: u32 = 0o17_0000;
const CHARACTER_DEVICE: u32 = 0o2_0000;
const BLOCK_DEVICE: u32 = 0o6_0000;

/// Address families that lead to other machines: IPv4, IPv6, the kernel's own (16), packets.
const FAMILIES: [u32; 4] = [2, 10, 16, 17];

/// Calls of the 32-bit interfaces about other processes: `prlimit64`, `sched_set*`, `setpriority`,
/// `ioprio_set`. Nobody is asked: they are for the caller itself, or fail.
const fn narrow(arch: Arch) -> [(u32, usize); 7] {
    match arch {
        Arch::X86_64 => [(340, 0), (154, 0), (156, 0), (241, 0), (351, 0), (97, 1), (289, 1)],
        Arch::Aarch64 => [(369, 0), (154, 0), (156, 0), (241, 0), (380, 0), (97, 1), (314, 1)],
    }
}

/// kill(2) and its relatives of the 32-bit interfaces, of which argument 0 is the process: `kill`,
/// `tkill`, `tgkill`, `rt_sigqueueinfo`, `rt_tgsigqueueinfo`, `pidfd_open`.
pub(super) const fn narrow_signals(arch: Arch) -> [u32; 6] {
    match arch {
        Arch::X86_64 => [37, 238, 270, 178, 335, 434],
        Arch::Aarch64 => [37, 238, 268, 178, 363, 434],
    }
}

/// fcntl(2) and fcntl64(2) of the 32-bit interfaces.
const fn narrow_fcntl(_: Arch) -> [u32; 2] {
    [55, 221]
}

/// socket(2) and socketcall(2) of the 32-bit interfaces.
const fn narrow_sockets(arch: Arch) -> [u32; 2] {
    match arch {
        Arch::X86_64 => [359, 102],
        Arch::Aarch64 => [281, 102],
    }
}

/// What a filter depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// How far a keeper's signals reach.
    pub(super) reach: Reach,
    /// Whether there is somebody to ask.
    pub(super) listens: bool,
    /// Whether the step may talk to other machines.
    pub(super) network: bool,
    /// Whether it has mounts that can only be read.
    pub(super) readonly: bool,
}

/// The filter of a step.
pub(super) fn filter(wanted: Wanted) -> Vec<Instruction> {
    let Wanted { reach, network, .. } = wanted;
    let mut own = Vec::new();
    if Arch::HERE == Arch::X86_64 {
        // x32: a step has no use for it, and the numbers would be others.
        own.extend([if_any(X32_BIT, 0, 1), ret(UNKNOWN)]);
    }
    let mut add = |number: i64, answer: Vec<Instruction>| {
        if let (Ok(number), Ok(skip)) = (u32::try_from(number), u8::try_from(answer.len())) {
            own.push(if_equal(number, 0, skip));
            own.extend(answer);
        }
    };
    for (number, call) in native(reach, wanted.readonly) {
        add(number, verdict(call, wanted));
    }
    if reach == Reach::Everybody {
        add(libc::SYS_fcntl, signalling(SET_OWNER));
        add(libc::SYS_ioctl, signalling(SET_OWNER_BY_IOCTL));
    }
    if !network {
        add(libc::SYS_socket, one_of(&FAMILIES, NO_FAMILY, ALLOW));
    }
    own.push(ret(ALLOW));

    let mut other = Vec::new();
    for (number, pid) in narrow(Arch::HERE) {
        other.extend([if_equal(number, 0, 4), load(arg(pid)), if_equal(0, 0, 1)]);
        other.extend([ret(ALLOW), ret(FORBID)]);
    }
    if reach == Reach::Everybody {
        let ask = if wanted.listens { NOTIFY } else { FORBID };
        for number in narrow_signals(Arch::HERE) {
            other.extend([if_equal(number, 0, 4), load(arg(0)), if_equal(0, 0, 1)]);
            other.extend([ret(ALLOW), ret(ask)]);
        }
        for (numbers, values) in
            [(narrow_fcntl(Arch::HERE), SET_OWNER), ([54, 54], SET_OWNER_BY_IOCTL)]
        {
            for number in numbers {
                let answer = signalling(values);
                let skip = u8::try_from(answer.len()).unwrap_or(u8::MAX);
                other.push(if_equal(number, 0, skip));
                other.extend(answer);
            }
        }
    }
    if !network {
        for number in narrow_sockets(Arch::HERE) {
            other.extend([if_equal(number, 0, 1), ret(NO_FAMILY)]);
        }
    }
    for (number, _, mode) in changes::narrow_modes(Arch::HERE) {
        let answer = sets_group(mode, wanted.listens);
        other.push(if_equal(number, 0, u8::try_from(answer.len()).unwrap_or(u8::MAX)));
        other.extend(answer);
    }
    other.push(ret(ALLOW));
    let [own_audit, other_audit] = Arch::HERE.audit();
    by_interface([(own_audit, own), (other_audit, other)], ALLOW)
}

/// A call that could have the kernel signal somebody is refused by the values of its second argument.
fn signalling(values: [u32; 2]) -> Vec<Instruction> {
    let [one, two] = values;
    vec![load(arg(1)), if_equal(one, 1, 0), if_equal(two, 0, 1), ret(FORBID), ret(ALLOW)]
}

/// What becomes of a call; the program ends with it.
fn verdict(call: Call, wanted: Wanted) -> Vec<Instruction> {
    let Wanted { listens, readonly, .. } = wanted;
    let ask = if listens { NOTIFY } else { ALLOW };
    let here = |dir: Option<usize>| -> Vec<Instruction> {
        let cwd = libc::AT_FDCWD.cast_unsigned();
        dir.map_or_else(Vec::new, |dir| vec![load(arg(dir)), if_equal(cwd, 1, 0), ret(ALLOW)])
    };
    let followed = |mut program: Vec<Instruction>, flags: usize| {
        program.extend([load(arg(flags)), if_any(ITSELF, 0, 1), ret(ALLOW), ret(ask)]);
        program
    };
    match call {
        Call::Open { dir, flags, .. } if readonly => {
            let mut program = vec![load(arg(flags)), if_any(WRITES, 0, 1), ret(ask)];
            program.extend(here(dir));
            program.push(ret(ask));
            program
        }
        Call::Open { dir, flags, .. } => {
            let mut program = here(dir);
            program.extend([load(arg(flags)), and(NEW), if_equal(NEW, 0, 1)]);
            program.extend([ret(ALLOW), ret(ask)]);
            program
        }
        Call::Stat { dir, flags: Some(flags), .. } => followed(here(dir), flags),
        Call::Statx => followed(here(Some(0)), 2),
        Call::Stat { dir, flags: None, .. }
        | Call::Access { dir, .. }
        | Call::ReadLink { dir, .. } => {
            let mut program = here(dir);
            program.push(ret(ask));
            program
        }
        Call::MakeNode { .. } if readonly => vec![ret(ask)],
        Call::MakeNode { path, .. } => vec![
            load(arg(path + 1)),
            and(KIND),
            if_equal(CHARACTER_DEVICE, 2, 0),
            if_equal(BLOCK_DEVICE, 1, 0),
            ret(ALLOW),
            ret(ask),
        ],
        Call::Mode(_, mode) if !readonly => sets_group(mode, listens),
        Call::OpenHow | Call::ChangeDir | Call::Names | Call::Change(_) | Call::Mode(..) => {
            vec![ret(ask)]
        }
        Call::Process { pid } => about(pid, listens),
        Call::Kind { .. } => about(1, listens),
    }
}

/// `S_ISGID`.
const SET_GROUP: u32 = 0o2000;

/// A mode with the bit that the step cannot give to files of any group.
fn sets_group(mode: usize, listens: bool) -> Vec<Instruction> {
    let ask = if listens { NOTIFY } else { ALLOW };
    vec![load(arg(mode)), if_any(SET_GROUP, 0, 1), ret(ask), ret(ALLOW)]
}

/// What is about another process is asked about, or refused where nobody can be asked.
fn about(pid: usize, listens: bool) -> Vec<Instruction> {
    let other = if listens { NOTIFY } else { FORBID };
    vec![load(arg(pid)), if_equal(0, 0, 1), ret(ALLOW), ret(other)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::bpf;

    fn run(program: &[Instruction], audit: u32, number: i64, args: [u32; 4]) -> u32 {
        bpf::run(program, audit, u32::try_from(number).unwrap(), args)
    }

    const HERE: u32 = libc::AT_FDCWD.cast_unsigned();

    const USUAL: Wanted =
        Wanted { reach: Reach::Step, listens: true, network: true, readonly: false };

    #[test]
    fn asks_about_what_can_be_a_file_of_the_kernel() {
        let [arch, _] = Arch::HERE.audit();
        let program = filter(USUAL);
        let run = |number, args| run(&program, arch, number, args);
        assert_eq!(run(libc::SYS_openat, [HERE, 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_openat, [HERE, 0, 0o101, 0]), NOTIFY, "/dev/stdout");
        assert_eq!(run(libc::SYS_openat, [HERE, 0, 0o301, 0]), ALLOW, "a new file");
        assert_eq!(run(libc::SYS_openat, [7, 0, 0, 0]), ALLOW, "in an open directory");
        assert_eq!(run(libc::SYS_newfstatat, [HERE, 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_newfstatat, [HERE, 0, 0, 0x100]), ALLOW, "lstat");
        assert_eq!(run(libc::SYS_newfstatat, [3, 0, 0, 0x1000]), ALLOW, "fstat");
        assert_eq!(run(libc::SYS_statx, [HERE, 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_statx, [HERE, 0, 0x100, 0]), ALLOW);
        assert_eq!(run(libc::SYS_readlinkat, [HERE, 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_mknodat, [HERE, 0, 0o2_0644, 259]), NOTIFY);
        assert_eq!(run(libc::SYS_mknodat, [HERE, 0, 0o6_0644, 259]), NOTIFY);
        assert_eq!(run(libc::SYS_mknodat, [HERE, 0, 0o1_0644, 0]), ALLOW, "a pipe");
        assert_eq!(run(libc::SYS_write, [0; 4]), ALLOW);
        assert_eq!(run(libc::SYS_socket, [2, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn other_processes_are_asked_about() {
        let [arch, narrow] = Arch::HERE.audit();
        let program = filter(USUAL);
        assert_eq!(run(&program, arch, libc::SYS_prlimit64, [0; 4]), ALLOW);
        assert_eq!(run(&program, arch, libc::SYS_prlimit64, [5, 0, 0, 0]), NOTIFY);
        assert_eq!(run(&program, arch, libc::SYS_setpriority, [0, 5, 0, 0]), NOTIFY);
        assert_eq!(run(&program, arch, libc::SYS_kill, [5, 0, 0, 0]), ALLOW, "Landlock's business");
        assert_eq!(run(&program, narrow, 97, [0, 5, 0, 0]), FORBID);
        assert_eq!(run(&program, narrow, 97, [0, 0, 0, 0]), ALLOW);
        let far = Wanted { reach: Reach::Everybody, ..USUAL };
        let program = filter(far);
        assert_eq!(run(&program, arch, libc::SYS_kill, [5, 0, 0, 0]), NOTIFY);
        let alone = filter(Wanted { listens: false, ..far });
        assert_eq!(run(&alone, arch, libc::SYS_kill, [5, 0, 0, 0]), FORBID);
        assert_eq!(run(&alone, arch, libc::SYS_openat, [HERE, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn who_reaches_everybody_signals_nobody_by_a_descriptor() {
        let [arch, narrow] = Arch::HERE.audit();
        let program = filter(Wanted { reach: Reach::Everybody, ..USUAL });
        for (audit, number) in [(arch, libc::SYS_fcntl), (narrow, 55), (narrow, 221)] {
            assert_eq!(run(&program, audit, number, [3, 8, 5, 0]), FORBID);
            assert_eq!(run(&program, audit, number, [3, 15, 5, 0]), FORBID);
            assert_eq!(run(&program, audit, number, [3, 4, 5, 0]), ALLOW);
        }
        for (audit, number) in [(arch, libc::SYS_ioctl), (narrow, 54)] {
            assert_eq!(run(&program, audit, number, [3, 0x8902, 5, 0]), FORBID);
            assert_eq!(run(&program, audit, number, [3, 0x5401, 5, 0]), ALLOW);
        }
        assert_eq!(run(&program, narrow, 37, [5, 9, 0, 0]), NOTIFY);
        let near = filter(USUAL);
        assert_eq!(run(&near, arch, libc::SYS_fcntl, [3, 8, 5, 0]), ALLOW);
        assert_eq!(run(&near, narrow, 37, [5, 9, 0, 0]), ALLOW);
    }

    #[test]
    fn who_has_mounts_to_read_asks_before_it_changes_anything() {
        let [arch, _] = Arch::HERE.audit();
        let program = filter(Wanted { readonly: true, ..USUAL });
        let run = |number, args| run(&program, arch, number, args);
        assert_eq!(run(libc::SYS_openat, [HERE, 0, 0o301, 0]), NOTIFY, "a new file");
        assert_eq!(run(libc::SYS_openat, [7, 0, 1, 0]), NOTIFY, "in an open directory");
        assert_eq!(run(libc::SYS_openat, [7, 0, 0, 0]), ALLOW);
        assert_eq!(run(libc::SYS_mkdirat, [7, 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_mknodat, [HERE, 0, 0o1_0644, 0]), NOTIFY, "a pipe");
        assert_eq!(run(libc::SYS_fchmod, [3, 0, 0, 0]), NOTIFY);
        assert_eq!(run(libc::SYS_read, [3, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn without_a_network_sockets_have_paths() {
        let [arch, narrow] = Arch::HERE.audit();
        let program = filter(Wanted { network: false, ..USUAL });
        assert_eq!(run(&program, arch, libc::SYS_socket, [1, 0, 0, 0]), ALLOW);
        for family in FAMILIES {
            assert_eq!(run(&program, arch, libc::SYS_socket, [family, 0, 0, 0]), NO_FAMILY);
        }
        assert_eq!(run(&program, narrow, 102, [1, 0, 0, 0]), NO_FAMILY);
    }
}
