//! The calls that change a file or a name, of which a step with read-only mounts asks. Pure.

use crate::sandbox::bpf::Arch;

/// How a call changes what it names; numbers are those of its arguments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// It makes a name.
    Make(Name),
    /// It takes a name away.
    Remove(Name),
    /// It changes what a name stands for; where the name is a link, what that leads to.
    Content(Name),
    /// It changes what a name itself stands for.
    Itself(Name),
    /// As one of these two, by a flag in this argument.
    ByFlag(Name, usize),
    /// It changes what a descriptor is open on.
    Open(usize),
    /// It gives one of two names to what the other one stands for, which loses that name or not.
    Move(Name, Name),
    /// As [`Self::Move`], but the old name stays.
    Link(Name, Name),
    /// open(2) for writing of a file that is made if it is missing.
    Create(Name),
}

/// Arguments that name something: a directory's descriptor, if there is one, and a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Name {
    pub(super) dir: Option<usize>,
    pub(super) path: usize,
}

/// `fchmodat2`, for which the C library's names are newer than its list.
const FCHMODAT2: i64 = 452;

const fn at(dir: usize) -> Name {
    Name { dir: Some(dir), path: dir + 1 }
}

const fn here(path: usize) -> Name {
    Name { dir: None, path }
}

/// The calls of this machine's own interface; open(2) and mknod(2) are asked about anyway.
pub(super) fn native() -> Vec<(i64, Change)> {
    let mut calls = vec![
        (libc::SYS_mkdirat, Change::Make(at(0))),
        (libc::SYS_symlinkat, Change::Make(at(1))),
        (libc::SYS_unlinkat, Change::Remove(at(0))),
        (libc::SYS_linkat, Change::Link(at(0), at(2))),
        (libc::SYS_renameat2, Change::Move(at(0), at(2))),
        (libc::SYS_fchownat, Change::ByFlag(at(0), 4)),
        (libc::SYS_utimensat, Change::ByFlag(at(0), 3)),
        (libc::SYS_truncate, Change::Content(here(0))),
        (libc::SYS_setxattr, Change::Content(here(0))),
        (libc::SYS_lsetxattr, Change::Itself(here(0))),
        (libc::SYS_removexattr, Change::Content(here(0))),
        (libc::SYS_lremovexattr, Change::Itself(here(0))),
        (libc::SYS_fchown, Change::Open(0)),
        (libc::SYS_fsetxattr, Change::Open(0)),
        (libc::SYS_fremovexattr, Change::Open(0)),
    ];
    calls.extend(old());
    calls
}

/// The calls that set modes, with the argument that the mode is.
pub(super) fn modes() -> Vec<(i64, Change, usize)> {
    let mut calls = vec![
        (libc::SYS_fchmodat, Change::Content(at(0)), 2),
        (FCHMODAT2, Change::ByFlag(at(0), 3), 2),
        (libc::SYS_fchmod, Change::Open(0), 1),
    ];
    #[cfg(target_arch = "x86_64")]
    calls.push((libc::SYS_chmod, Change::Content(here(0)), 1));
    calls
}

/// The same for 32-bit programs.
pub(super) const fn narrow_modes(arch: Arch) -> [(u32, Change, usize); 4] {
    let fchmodat = match arch {
        Arch::X86_64 => 306,
        Arch::Aarch64 => 333,
    };
    [
        (15, Change::Content(here(0)), 1),
        (94, Change::Open(0), 1),
        (fchmodat, Change::Content(at(0)), 2),
        (452, Change::ByFlag(at(0), 3), 2),
    ]
}

/// Calls that newer machines no longer have.
#[cfg(target_arch = "x86_64")]
fn old() -> Vec<(i64, Change)> {
    vec![
        (libc::SYS_creat, Change::Create(here(0))),
        (libc::SYS_mkdir, Change::Make(here(0))),
        (libc::SYS_symlink, Change::Make(here(1))),
        (libc::SYS_unlink, Change::Remove(here(0))),
        (libc::SYS_rmdir, Change::Remove(here(0))),
        (libc::SYS_link, Change::Link(here(0), here(1))),
        (libc::SYS_rename, Change::Move(here(0), here(1))),
        (libc::SYS_renameat, Change::Move(at(0), at(2))),
        (libc::SYS_chown, Change::Content(here(0))),
        (libc::SYS_lchown, Change::Itself(here(0))),
        (libc::SYS_utime, Change::Content(here(0))),
        (libc::SYS_utimes, Change::Content(here(0))),
        (libc::SYS_futimesat, Change::Content(at(0))),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn old() -> Vec<(i64, Change)> {
    vec![(libc::SYS_renameat, Change::Move(at(0), at(2)))]
}

/// The mounts of a step by their paths in the tree, and whether each can only be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts(Vec<(Vec<u8>, bool)>);

/// What a path is to the mounts of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Within {
    /// The number of the mount it is on; none for the root.
    pub(super) mount: Option<usize>,
    /// Whether it is where that is mounted.
    pub(super) is_point: bool,
    /// Whether that can only be read.
    pub(super) readonly: bool,
}

impl Mounts {
    /// From absolute paths without links.
    pub(super) fn new(mounts: impl IntoIterator<Item = (Vec<u8>, bool)>) -> Self {
        Self(mounts.into_iter().collect())
    }

    /// Whether one of them can only be read.
    pub(super) fn any_readonly(&self) -> bool {
        self.0.iter().any(|it| it.1)
    }

    /// What an absolute path without links is to them.
    pub(super) fn find(&self, path: &[u8]) -> Within {
        let around = |mount: &[u8]| {
            mount == b"/"
                || path
                    .strip_prefix(mount)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        // The later one of two at the same place hides the other one.
        let found = self.0.iter().enumerate().filter(|it| around(&it.1.0));
        match found.max_by_key(|it| it.1.0.len()) {
            Some((number, (point, readonly))) => {
                Within { mount: Some(number), is_point: point == path, readonly: *readonly }
            }
            None => Within { mount: None, is_point: false, readonly: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = [("/", true), ("/a", false), ("/a/b", true), ("/a/b", false), ("/c", true)];
        let mounts = Mounts::new(mounts.map(|it| (it.0.as_bytes().to_vec(), it.1)));
        let find = |path: &str| {
            let Within { mount, is_point, readonly } = mounts.find(path.as_bytes());
            (mount.unwrap_or(9), is_point, readonly)
        };
        assert_eq!(find("/x"), (0, false, true));
        assert_eq!(find("/a"), (1, true, false));
        assert_eq!(find("/ab"), (0, false, true));
        assert_eq!(find("/a/b/c"), (3, false, false));
        assert_eq!(find("/c/d"), (4, false, true));
        assert_eq!(Mounts::default().find(b"/x").mount, None);
    }

    #[test]
    fn each_call_is_there_once() {
        let all = native().into_iter().map(|it| it.0).chain(modes().into_iter().map(|it| it.0));
        let numbers: std::collections::BTreeSet<i64> = all.collect();
        assert_eq!(numbers.len(), native().len() + modes().len());
    }
}
