//! The calls that a supervisor answers, and the filter that has the kernel ask. Pure.

use super::super::plan::Pretend;
use super::super::seccomp::Arch;
use super::super::sys::Instruction;

/// What a call is about, and where in its arguments things are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// chown(2) and its relatives.
    Owner { at: At, ids: usize },
    /// chmod(2) and its relatives.
    Mode { at: At, mode: usize },
    /// stat(2) and its relatives.
    Stat { at: At, out: usize },
    /// statx(2).
    Statx,
    /// open(2) with `O_CREAT` or `O_TMPFILE`.
    Open { dir: Option<usize>, path: usize, flags: Option<usize>, mode: usize },
    /// openat2(2), whose flags the filter cannot see.
    OpenHow,
    /// mkdir(2).
    MakeDir { dir: Option<usize>, path: usize },
    /// mknod(2).
    MakeNode { dir: Option<usize>, path: usize },
    /// symlink(2).
    MakeLink { dir: Option<usize>, path: usize },
    /// A change of ids.
    Set(Set),
    /// A question for ids.
    Get(Get),
    /// execve(2).
    Execute { dir: Option<usize>, path: usize, flags: Option<usize> },
    /// chroot(2).
    Chroot,
    /// getsockopt(2) with `SO_PEERCRED`.
    PeerIds,
}

/// Where the arguments of a call have its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum At {
    /// An open descriptor.
    Fd,
    /// A path, whose last component is followed or not.
    Path { follow: bool },
    /// A directory, a path in it, and flags at this index.
    Dir { flags: Option<usize> },
}

/// Calls that change ids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Set {
    User,
    Group,
    TwoUsers,
    TwoGroups,
    ThreeUsers,
    ThreeGroups,
    FileUser,
    FileGroup,
    Groups,
}

/// Calls that ask for ids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Get {
    User,
    EffectiveUser,
    Group,
    EffectiveGroup,
    ThreeUsers,
    ThreeGroups,
    Groups,
}

/// `fchmodat2`, newer than the C library's list.
const FCHMODAT2: i64 = 452;

/// The calls of this machine's own interface.
pub(super) fn native() -> Vec<(i64, Call)> {
    let mut calls = vec![
        (libc::SYS_fchown, Call::Owner { at: At::Fd, ids: 1 }),
        (libc::SYS_fchownat, Call::Owner { at: At::Dir { flags: Some(4) }, ids: 2 }),
        (libc::SYS_fchmod, Call::Mode { at: At::Fd, mode: 1 }),
        (libc::SYS_fchmodat, Call::Mode { at: At::Dir { flags: None }, mode: 2 }),
        (FCHMODAT2, Call::Mode { at: At::Dir { flags: Some(3) }, mode: 2 }),
        (libc::SYS_fstat, Call::Stat { at: At::Fd, out: 1 }),
        (libc::SYS_newfstatat, Call::Stat { at: At::Dir { flags: Some(3) }, out: 2 }),
        (libc::SYS_statx, Call::Statx),
        (libc::SYS_openat, Call::Open { dir: Some(0), path: 1, flags: Some(2), mode: 3 }),
        (libc::SYS_openat2, Call::OpenHow),
        (libc::SYS_mkdirat, Call::MakeDir { dir: Some(0), path: 1 }),
        (libc::SYS_mknodat, Call::MakeNode { dir: Some(0), path: 1 }),
        (libc::SYS_symlinkat, Call::MakeLink { dir: Some(1), path: 2 }),
        (libc::SYS_setuid, Call::Set(Set::User)),
        (libc::SYS_setgid, Call::Set(Set::Group)),
        (libc::SYS_setreuid, Call::Set(Set::TwoUsers)),
        (libc::SYS_setregid, Call::Set(Set::TwoGroups)),
        (libc::SYS_setresuid, Call::Set(Set::ThreeUsers)),
        (libc::SYS_setresgid, Call::Set(Set::ThreeGroups)),
        (libc::SYS_setfsuid, Call::Set(Set::FileUser)),
        (libc::SYS_setfsgid, Call::Set(Set::FileGroup)),
        (libc::SYS_setgroups, Call::Set(Set::Groups)),
        (libc::SYS_getuid, Call::Get(Get::User)),
        (libc::SYS_geteuid, Call::Get(Get::EffectiveUser)),
        (libc::SYS_getgid, Call::Get(Get::Group)),
        (libc::SYS_getegid, Call::Get(Get::EffectiveGroup)),
        (libc::SYS_getresuid, Call::Get(Get::ThreeUsers)),
        (libc::SYS_getresgid, Call::Get(Get::ThreeGroups)),
        (libc::SYS_getgroups, Call::Get(Get::Groups)),
        (libc::SYS_execve, Call::Execute { dir: None, path: 0, flags: None }),
        (libc::SYS_execveat, Call::Execute { dir: Some(0), path: 1, flags: Some(4) }),
        (libc::SYS_chroot, Call::Chroot),
        (libc::SYS_getsockopt, Call::PeerIds),
    ];
    calls.extend(old());
    calls
}

/// Calls that newer machines no longer have.
#[cfg(target_arch = "x86_64")]
fn old() -> Vec<(i64, Call)> {
    let (followed, itself) = (At::Path { follow: true }, At::Path { follow: false });
    vec![
        (libc::SYS_chown, Call::Owner { at: followed, ids: 1 }),
        (libc::SYS_lchown, Call::Owner { at: itself, ids: 1 }),
        (libc::SYS_chmod, Call::Mode { at: followed, mode: 1 }),
        (libc::SYS_stat, Call::Stat { at: followed, out: 1 }),
        (libc::SYS_lstat, Call::Stat { at: itself, out: 1 }),
        (libc::SYS_open, Call::Open { dir: None, path: 0, flags: Some(1), mode: 2 }),
        (libc::SYS_creat, Call::Open { dir: None, path: 0, flags: None, mode: 1 }),
        (libc::SYS_mkdir, Call::MakeDir { dir: None, path: 0 }),
        (libc::SYS_mknod, Call::MakeNode { dir: None, path: 0 }),
        (libc::SYS_symlink, Call::MakeLink { dir: None, path: 1 }),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
const fn old() -> Vec<(i64, Call)> {
    Vec::new()
}

/// The bits of a type in a mode that character and block devices have in common, and no other.
const DEVICE_MASK: u32 = 0o130_000;
const DEVICE: u32 = 0o020_000;

/// `O_CREAT`, and the bit that only `O_TMPFILE` has.
pub(super) const CREATES: u32 = 0o100 | 0o20_000_000;

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const SUCCEED: u32 = 0x0005_0000;
const UNKNOWN: u32 = SUCCEED | libc::ENOSYS as u32;

/// Changes of owners and ids in the 32-bit interfaces of both machines, whose numbers are the same
/// but for fchownat(2). They succeed without doing anything.
const NARROW: [u32; 22] = [
    16, 23, 46, 70, 71, 81, 95, 138, 139, 164, 170, 182, 198, 203, 204, 206, 207, 208, 210, 212,
    213, 214,
];

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0: u32 = 16;

/// The audit numbers of the native interface and the 32-bit one, and that one's fchownat(2).
const fn interfaces(arch: Arch) -> (u32, u32, u32) {
    match arch {
        Arch::X86_64 => (0xc000_003e, 0x4000_0003, 298),
        Arch::Aarch64 => (0xc000_00b7, 0x4000_0028, 325),
    }
}

/// The filter of a supervised step: what the kernel asks about.
pub(in super::super) fn filter(pretend: Pretend) -> Vec<Instruction> {
    match pretend {
        Pretend::Ids => filter_of_ids(),
        Pretend::NewDevices | Pretend::Devices => filter_of_devices(pretend),
    }
}

/// The kernel asks about devices that are made and, where there are some, about every look at a
/// file.
fn filter_of_devices(pretend: Pretend) -> Vec<Instruction> {
    program(&[], |call, body| match call {
        Call::MakeNode { path, .. } => {
            body.extend([load(arg(path + 1)), op(0x54, DEVICE_MASK)]); // A &= K
            body.extend([jump(0x15, DEVICE, 0, 1), ret(NOTIFY), ret(ALLOW)]);
        }
        Call::Stat { .. } | Call::Statx if pretend == Pretend::Devices => body.push(ret(NOTIFY)),
        Call::Owner { .. }
        | Call::Mode { .. }
        | Call::Stat { .. }
        | Call::Statx
        | Call::Open { .. }
        | Call::OpenHow
        | Call::MakeDir { .. }
        | Call::MakeLink { .. }
        | Call::Set(_)
        | Call::Get(_)
        | Call::Execute { .. }
        | Call::Chroot
        | Call::PeerIds => {}
    })
}

/// The kernel asks about every call of [`native`].
fn filter_of_ids() -> Vec<Instruction> {
    program(&NARROW, |call, body| match call {
        Call::Open { flags: Some(index), .. } => {
            body.extend([load(arg(index)), jump(0x45, CREATES, 0, 1), ret(NOTIFY), ret(ALLOW)]);
        }
        Call::PeerIds => {
            let (level, name) =
                (libc::SOL_SOCKET.cast_unsigned(), libc::SO_PEERCRED.cast_unsigned());
            body.extend([load(arg(1)), jump(0x15, level, 0, 3)]);
            body.extend([load(arg(2)), jump(0x15, name, 0, 1), ret(NOTIFY), ret(ALLOW)]);
        }
        Call::Owner { .. }
        | Call::Mode { .. }
        | Call::Stat { .. }
        | Call::Statx
        | Call::Open { .. }
        | Call::OpenHow
        | Call::MakeDir { .. }
        | Call::MakeNode { .. }
        | Call::MakeLink { .. }
        | Call::Set(_)
        | Call::Get(_)
        | Call::Execute { .. }
        | Call::Chroot => body.push(ret(NOTIFY)),
    })
}

/// The filter of a step that nobody can be asked about: owners and ids change without effect.
pub(in super::super) fn filter_unanswered() -> Vec<Instruction> {
    program(&NARROW, |call, body| match call {
        Call::Owner { .. } | Call::Set(_) => body.push(ret(SUCCEED)),
        Call::Mode { .. }
        | Call::Stat { .. }
        | Call::Statx
        | Call::Open { .. }
        | Call::OpenHow
        | Call::MakeDir { .. }
        | Call::MakeNode { .. }
        | Call::MakeLink { .. }
        | Call::Get(_)
        | Call::Execute { .. }
        | Call::Chroot
        | Call::PeerIds => {}
    })
}

/// A program that gives the native calls their verdicts; those of the 32-bit interface that are
/// listed succeed.
fn program(succeeding: &[u32], verdict: impl Fn(Call, &mut Vec<Instruction>)) -> Vec<Instruction> {
    let (native_arch, narrow, narrow_fchownat) = interfaces(Arch::HERE);
    let mut body = vec![load(NUMBER)];
    if Arch::HERE == Arch::X86_64 {
        // x32: a step has no use for it, and the numbers would be others.
        body.extend([jump(0x45, 0x4000_0000, 0, 1), ret(UNKNOWN)]);
    }
    for (number, call) in native() {
        let mut answer = Vec::new();
        verdict(call, &mut answer);
        let (Ok(number), Ok(skip)) = (u32::try_from(number), u8::try_from(answer.len())) else {
            continue;
        };
        if skip > 0 {
            body.push(jump(0x15, number, 0, skip));
            body.extend(answer);
        }
    }
    body.push(ret(ALLOW));

    let mut program = vec![load(ARCH), jump(0x15, native_arch, 1, 0)];
    program.push(op(0x05, u32::try_from(body.len()).unwrap_or(u32::MAX)));
    program.extend(body);
    if !succeeding.is_empty() {
        program.extend([jump(0x15, narrow, 1, 0), ret(ALLOW), load(NUMBER)]);
        for number in succeeding.iter().copied().chain([215, 216, narrow_fchownat]) {
            program.extend([jump(0x15, number, 0, 1), ret(SUCCEED)]);
        }
    }
    program.push(ret(ALLOW));
    program
}

/// Offset of the low half of an argument, on the little-endian machines that we run on.
fn arg(index: usize) -> u32 {
    ARG0 + 8 * u32::try_from(index).unwrap_or(0)
}

const fn load(offset: u32) -> Instruction {
    op(0x20, offset)
}

const fn ret(value: u32) -> Instruction {
    op(0x06, value)
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(program: &[Instruction], arch: u32, number: u32, args: [u32; 3]) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let take = |yes: bool| usize::from(if yes { jt } else { jf });
            match code {
                0x20 => {
                    a = match k {
                        NUMBER => number,
                        ARCH => arch,
                        16 => args[0],
                        24 => args[1],
                        32 => args[2],
                        other => panic!("a load from {other}"),
                    }
                }
                0x05 => at += k as usize,
                0x15 => at += take(a == k),
                0x45 => at += take(a & k != 0),
                0x54 => a &= k,
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn asks_about_the_calls_of_the_table_only() {
        let (native_arch, ..) = interfaces(Arch::HERE);
        let program = filter(Pretend::Ids);
        for number in 0..600_u32 {
            let listed = native().into_iter().find(|it| it.0 == i64::from(number));
            let got = run(&program, native_arch, number, [0; 3]);
            match listed.map(|it| it.1) {
                None | Some(Call::Open { flags: Some(_), .. } | Call::PeerIds) => {
                    assert_eq!(got, ALLOW, "{number}");
                }
                Some(_) => assert_eq!(got, NOTIFY, "{number}"),
            }
        }
    }

    #[test]
    fn asks_about_what_creates() {
        let (native_arch, narrow, _) = interfaces(Arch::HERE);
        let program = filter(Pretend::Ids);
        let openat = u32::try_from(libc::SYS_openat).unwrap();
        assert_eq!(run(&program, native_arch, openat, [0, 0, 0o2]), ALLOW);
        assert_eq!(run(&program, native_arch, openat, [0, 0, 0o101]), NOTIFY);
        assert_eq!(run(&program, native_arch, openat, [0, 0, 0o20_200_000]), NOTIFY);
        let getsockopt = u32::try_from(libc::SYS_getsockopt).unwrap();
        assert_eq!(run(&program, native_arch, getsockopt, [0, 1, 17]), NOTIFY);
        assert_eq!(run(&program, native_arch, getsockopt, [0, 1, 3]), ALLOW);
        assert_eq!(run(&program, native_arch, getsockopt, [0, 6, 17]), ALLOW);
        assert_eq!(run(&program, narrow, 212, [0; 3]), SUCCEED);
        assert_eq!(run(&program, narrow, 5, [0; 3]), ALLOW);
    }

    #[test]
    fn asks_about_devices_only() {
        let (native_arch, ..) = interfaces(Arch::HERE);
        let mknodat = u32::try_from(libc::SYS_mknodat).unwrap();
        let fstat = u32::try_from(libc::SYS_fstat).unwrap();
        for (pretend, look) in [(Pretend::NewDevices, ALLOW), (Pretend::Devices, NOTIFY)] {
            let program = filter(pretend);
            let run = |number, mode| run(&program, native_arch, number, [0, 0, mode]);
            for mode in [libc::S_IFCHR | 0o666, libc::S_IFBLK] {
                assert_eq!(run(mknodat, mode), NOTIFY, "{mode:o}");
            }
            for kind in [0, libc::S_IFREG, libc::S_IFDIR, libc::S_IFIFO, libc::S_IFSOCK] {
                assert_eq!(run(mknodat, kind | 0o777), ALLOW, "{kind:o}");
            }
            assert_eq!(run(mknodat, libc::S_IFLNK), ALLOW);
            assert_eq!(run(fstat, 0), look);
        }
    }

    #[test]
    fn where_nobody_answers_owners_change_without_effect() {
        let (native_arch, ..) = interfaces(Arch::HERE);
        let program = filter_unanswered();
        let run = |number: i64| run(&program, native_arch, u32::try_from(number).unwrap(), [0; 3]);
        assert_eq!(run(libc::SYS_fchownat), SUCCEED);
        assert_eq!(run(libc::SYS_setgroups), SUCCEED);
        assert_eq!(run(libc::SYS_getuid), ALLOW);
        assert_eq!(run(libc::SYS_statx), ALLOW);
    }
}
