//! The calls that a supervisor answers, by name; their numbers are in the table of all calls. Pure.

use crate::sandbox::bpf::Arch;
use crate::sandbox::seccomp_table::{TABLE, X};

/// What a call is about, and where in its arguments things are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// chown(2) and its relatives.
    Owner { at: At, ids: usize },
    /// chmod(2) and its relatives.
    Mode { at: At, mode: usize },
    /// stat(2) and its relatives.
    Stat { at: At, out: usize },
    /// The same with the structure of 32-bit programs.
    NarrowStat { at: At, out: usize },
    /// statx(2).
    Statx,
    /// open(2).
    Open { dir: Option<usize>, path: usize, flags: Option<usize>, mode: usize },
    /// openat2(2), whose flags the filter cannot see.
    OpenHow,
    /// mkdir(2).
    MakeDir { dir: Option<usize>, path: usize },
    /// mknod(2).
    MakeNode { dir: Option<usize>, path: usize },
    /// symlink(2).
    MakeLink { dir: Option<usize>, path: usize },
    /// bind(2), which makes a socket where its address is a path.
    Bind,
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
    /// access(2) and its relatives.
    Access { at: At, mode: usize },
    /// unlink(2), rmdir(2).
    Remove { name: Name },
    /// rename(2).
    Rename { from: Name, to: Name },
    /// link(2).
    Link { from: Name, to: Name },
    /// setrlimit(2) and its relative: the number of the limit, and the new one.
    Limit { resource: usize, new: usize },
    /// truncate(2).
    Truncate,
    /// chdir(2).
    ChangeDir { at: At },
    /// utime(2) and its relatives.
    Times { at: At, times: usize },
    /// setxattr(2), with its value and, behind that, its length and flags; removexattr(2).
    SetAttribute { at: At, name: usize, value: Option<usize> },
    /// listxattr(2).
    ListAttributes { at: At, list: usize },
    /// prctl(2) with `PR_SET_KEEPCAPS`.
    Keep,
    /// What everybody can do in another way.
    Missing,
}

impl Call {
    /// Whether a process that is root of files does nothing here that would be pretended: it is
    /// asked about for the sake of the others.
    pub(super) const fn only_restricts(self) -> bool {
        matches!(
            self,
            Self::Access { .. }
                | Self::Remove { .. }
                | Self::Rename { .. }
                | Self::Link { .. }
                | Self::Truncate
                | Self::ChangeDir { .. }
                | Self::Times { .. }
        )
    }
}

/// What the filters tell calls apart by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Topic {
    /// It changes an owner or the process's ids.
    Identity,
    /// It looks at, or opens, what may be a device.
    Look,
    /// It makes a device, if its argument with the mode, of which this is the number, says so.
    Node(usize),
    /// It asks who is at the other end of a socket, if its arguments say so.
    Peer,
    /// It changes a resource limit: the numbers of the arguments that say which, and whether.
    Limit(usize, usize),
    /// It says that capabilities outlive a change of ids, if its arguments say so.
    Keep,
    /// It does not exist.
    Missing,
    /// Something else that depends on ids.
    Other,
}

impl Call {
    pub(super) const fn topic(self) -> Topic {
        match self {
            Self::Owner { .. } | Self::Set(_) => Topic::Identity,
            Self::Stat { .. }
            | Self::NarrowStat { .. }
            | Self::Statx
            | Self::Open { .. }
            | Self::OpenHow
            | Self::SetAttribute { .. }
            | Self::ListAttributes { .. } => Topic::Look,
            Self::MakeNode { path, .. } => Topic::Node(path + 1),
            Self::PeerIds => Topic::Peer,
            Self::Limit { resource, new } => Topic::Limit(resource, new),
            Self::Keep => Topic::Keep,
            Self::Missing => Topic::Missing,
            Self::Mode { .. }
            | Self::MakeDir { .. }
            | Self::MakeLink { .. }
            | Self::Bind
            | Self::Get(_)
            | Self::Execute { .. }
            | Self::Chroot
            | Self::Access { .. }
            | Self::Remove { .. }
            | Self::Rename { .. }
            | Self::Link { .. }
            | Self::Truncate
            | Self::ChangeDir { .. }
            | Self::Times { .. } => Topic::Other,
        }
    }
}

/// Argument numbers of a directory, if the call has one, and of a path in it.
pub(super) type Name = (Option<usize>, usize);

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

const FD: At = At::Fd;
const FOLLOWED: At = At::Path { follow: true };
const ITSELF: At = At::Path { follow: false };

const fn below(flags: Option<usize>) -> At {
    At::Dir { flags }
}

/// The calls of the 64-bit interfaces.
#[rustfmt::skip]
const WIDE: &[(&str, Call)] = &[
    ("chown", Call::Owner { at: FOLLOWED, ids: 1 }),
    ("fchown", Call::Owner { at: FD, ids: 1 }),
    ("fstat", Call::Stat { at: FD, out: 1 }),
    ("getegid", Call::Get(Get::EffectiveGroup)),
    ("geteuid", Call::Get(Get::EffectiveUser)),
    ("getgid", Call::Get(Get::Group)),
    ("getgroups", Call::Get(Get::Groups)),
    ("getresgid", Call::Get(Get::ThreeGroups)),
    ("getresuid", Call::Get(Get::ThreeUsers)),
    ("getuid", Call::Get(Get::User)),
    ("lchown", Call::Owner { at: ITSELF, ids: 1 }),
    ("lstat", Call::Stat { at: ITSELF, out: 1 }),
    ("newfstatat", Call::Stat { at: below(Some(3)), out: 2 }),
    ("setfsgid", Call::Set(Set::FileGroup)),
    ("setfsuid", Call::Set(Set::FileUser)),
    ("setgid", Call::Set(Set::Group)),
    ("setgroups", Call::Set(Set::Groups)),
    ("setregid", Call::Set(Set::TwoGroups)),
    ("setresgid", Call::Set(Set::ThreeGroups)),
    ("setresuid", Call::Set(Set::ThreeUsers)),
    ("setreuid", Call::Set(Set::TwoUsers)),
    ("setuid", Call::Set(Set::User)),
    ("stat", Call::Stat { at: FOLLOWED, out: 1 }),
];

/// What the 32-bit interfaces have instead; there the calls of [`WIDE`] have ids of 16 bits, or
/// structures that nobody has used for decades.
#[rustfmt::skip]
const NARROW: &[(&str, Call)] = &[
    ("chown32", Call::Owner { at: FOLLOWED, ids: 1 }),
    ("fchown32", Call::Owner { at: FD, ids: 1 }),
    ("fstat64", Call::NarrowStat { at: FD, out: 1 }),
    ("fstatat64", Call::NarrowStat { at: below(Some(3)), out: 2 }),
    ("getegid32", Call::Get(Get::EffectiveGroup)),
    ("geteuid32", Call::Get(Get::EffectiveUser)),
    ("getgid32", Call::Get(Get::Group)),
    ("getgroups32", Call::Get(Get::Groups)),
    ("getresgid32", Call::Get(Get::ThreeGroups)),
    ("getresuid32", Call::Get(Get::ThreeUsers)),
    ("getuid32", Call::Get(Get::User)),
    ("lchown32", Call::Owner { at: ITSELF, ids: 1 }),
    ("lstat64", Call::NarrowStat { at: ITSELF, out: 1 }),
    ("setfsgid32", Call::Set(Set::FileGroup)),
    ("setfsuid32", Call::Set(Set::FileUser)),
    ("setgid32", Call::Set(Set::Group)),
    ("setgroups32", Call::Set(Set::Groups)),
    ("setregid32", Call::Set(Set::TwoGroups)),
    ("setresgid32", Call::Set(Set::ThreeGroups)),
    ("setresuid32", Call::Set(Set::ThreeUsers)),
    ("setreuid32", Call::Set(Set::TwoUsers)),
    ("setuid32", Call::Set(Set::User)),
    ("stat64", Call::NarrowStat { at: FOLLOWED, out: 1 }),
    ("truncate64", Call::Truncate),
];

/// What all interfaces have.
#[rustfmt::skip]
const COMMON: &[(&str, Call)] = &[
    ("access", Call::Access { at: FOLLOWED, mode: 1 }),
    ("bind", Call::Bind),
    ("chdir", Call::ChangeDir { at: FOLLOWED }),
    ("chmod", Call::Mode { at: FOLLOWED, mode: 1 }),
    ("chroot", Call::Chroot),
    ("creat", Call::Open { dir: None, path: 0, flags: None, mode: 1 }),
    ("execve", Call::Execute { dir: None, path: 0, flags: None }),
    ("execveat", Call::Execute { dir: Some(0), path: 1, flags: Some(4) }),
    ("faccessat", Call::Access { at: below(None), mode: 2 }),
    ("faccessat2", Call::Access { at: below(Some(3)), mode: 2 }),
    ("fchdir", Call::ChangeDir { at: FD }),
    ("fchmod", Call::Mode { at: FD, mode: 1 }),
    ("fchmodat", Call::Mode { at: below(None), mode: 2 }),
    ("fchmodat2", Call::Mode { at: below(Some(3)), mode: 2 }),
    ("fchownat", Call::Owner { at: below(Some(4)), ids: 2 }),
    ("flistxattr", Call::ListAttributes { at: FD, list: 1 }),
    ("fremovexattr", Call::SetAttribute { at: FD, name: 1, value: None }),
    ("fsetxattr", Call::SetAttribute { at: FD, name: 1, value: Some(2) }),
    ("futimesat", Call::Times { at: below(None), times: 2 }),
    ("getsockopt", Call::PeerIds),
    ("link", Call::Link { from: (None, 0), to: (None, 1) }),
    ("linkat", Call::Link { from: (Some(0), 1), to: (Some(2), 3) }),
    ("listxattr", Call::ListAttributes { at: FOLLOWED, list: 1 }),
    ("listxattrat", Call::Missing),
    ("llistxattr", Call::ListAttributes { at: ITSELF, list: 1 }),
    ("lremovexattr", Call::SetAttribute { at: ITSELF, name: 1, value: None }),
    ("lsetxattr", Call::SetAttribute { at: ITSELF, name: 1, value: Some(2) }),
    ("mkdir", Call::MakeDir { dir: None, path: 0 }),
    ("mkdirat", Call::MakeDir { dir: Some(0), path: 1 }),
    ("mknod", Call::MakeNode { dir: None, path: 0 }),
    ("mknodat", Call::MakeNode { dir: Some(0), path: 1 }),
    ("open", Call::Open { dir: None, path: 0, flags: Some(1), mode: 2 }),
    ("openat", Call::Open { dir: Some(0), path: 1, flags: Some(2), mode: 3 }),
    ("openat2", Call::OpenHow),
    ("prctl", Call::Keep),
    ("prlimit64", Call::Limit { resource: 1, new: 2 }),
    ("removexattr", Call::SetAttribute { at: FOLLOWED, name: 1, value: None }),
    ("removexattrat", Call::Missing),
    ("rename", Call::Rename { from: (None, 0), to: (None, 1) }),
    ("renameat", Call::Rename { from: (Some(0), 1), to: (Some(2), 3) }),
    ("renameat2", Call::Rename { from: (Some(0), 1), to: (Some(2), 3) }),
    ("rmdir", Call::Remove { name: (None, 0) }),
    ("setrlimit", Call::Limit { resource: 0, new: 1 }),
    ("setxattr", Call::SetAttribute { at: FOLLOWED, name: 1, value: Some(2) }),
    ("setxattrat", Call::Missing),
    ("statx", Call::Statx),
    ("symlink", Call::MakeLink { dir: None, path: 1 }),
    ("symlinkat", Call::MakeLink { dir: Some(1), path: 2 }),
    ("truncate", Call::Truncate),
    ("unlink", Call::Remove { name: (None, 0) }),
    ("unlinkat", Call::Remove { name: (Some(0), 1) }),
    ("utime", Call::Times { at: FOLLOWED, times: 1 }),
    ("utimensat", Call::Times { at: below(Some(3)), times: 2 }),
    ("utimensat_time64", Call::Times { at: below(Some(3)), times: 2 }),
    ("utimes", Call::Times { at: FOLLOWED, times: 1 }),
];

/// One of the two interfaces of a machine.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Interface {
    /// The machine's own.
    Wide,
    /// That of 32-bit programs.
    Narrow,
}

/// The calls of an interface of this machine by number.
pub(super) fn calls(interface: Interface) -> Vec<(u32, Call)> {
    let column = match (Arch::HERE, interface) {
        (Arch::X86_64, Interface::Wide) => 0,
        (Arch::X86_64, Interface::Narrow) => 1,
        (Arch::Aarch64, Interface::Wide) => 2,
        (Arch::Aarch64, Interface::Narrow) => 3,
    };
    let own: Vec<(&str, Call)> = match interface {
        Interface::Wide => WIDE.to_vec(),
        Interface::Narrow => {
            let old = WIDE.iter().map(|&(name, _)| (name, Call::Missing));
            NARROW.iter().copied().chain(old).collect()
        }
    };
    // 32-bit Arm has another structure: what is recorded its programs do not see.
    let known =
        |call: &Call| Arch::HERE == Arch::X86_64 || !matches!(call, Call::NarrowStat { .. });
    let all = own.into_iter().chain(COMMON.iter().copied()).filter(|it| known(&it.1));
    let number = |name: &str| TABLE.iter().find(|it| it.0 == name).map_or(X, |it| it.2[column]);
    all.map(|(name, call)| (number(name), call)).filter(|it| it.0 != X).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_a_call_and_every_call_has_one_meaning() {
        for (name, _) in [WIDE, NARROW, COMMON].concat() {
            assert!(TABLE.iter().any(|it| it.0 == name), "{name}");
        }
        for interface in [Interface::Wide, Interface::Narrow] {
            let mut numbers: Vec<u32> = calls(interface).iter().map(|it| it.0).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "{interface:?}");
        }
    }
}
