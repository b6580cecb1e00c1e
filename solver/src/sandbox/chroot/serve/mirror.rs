//! Directories of the kernel, as a step lists them: their names, made in the step's own tree.
//!
//! What is opened by such a name is asked about again, by its whole path; so files are empty here.
//! The step may do with these directories what it likes: they are only ever reached from the
//! descriptors that were taken before it began, and no link in them is followed.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Server;
use super::look::BENEATH;
use crate::sandbox::asked::Stop;
use crate::sandbox::chroot::paths::{self, Kind, Place, Who};
use crate::sandbox::sys::Notification;

/// Most names of a directory that are shown.
const MAX_NAMES: usize = 100_000;

const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where the names are made.
#[derive(Debug)]
pub(super) struct Mirror {
    proc: OwnedFd,
    sys: OwnedFd,
}

/// What a name stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Name {
    Directory,
    Link(Vec<u8>),
    File,
}

impl Mirror {
    /// For the step with this root.
    pub(super) fn new(root: &OwnedFd) -> Result<Self, Errno> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = |path| rustix::fs::openat2(root, path, LIST, Mode::empty(), inside);
        Ok(Self { proc: open("proc")?, sys: open("sys")? })
    }
}

impl Server {
    /// Makes the names of a directory of the kernel in the tree; yields the directory there.
    pub(super) fn show(&self, call: &Notification, place: &Place) -> Result<OwnedFd, Stop> {
        Ok(match place {
            Place::Processes => make(&self.mirror.proc, b"", &self.processes()?)?,
            Place::Process(who, rest) => {
                let (is_visible, path) =
                    (paths::in_a_process(rest), self.of_process(call, *who, rest)?);
                if is_visible != Kind::Directory {
                    return Err(Errno::NOTDIR.into());
                }
                let pid = self.number_of(call, *who)?;
                let names = self.of_a_process(call, pid, rest, &path)?;
                if *who == Who::Caller {
                    // For those who look at what the names are: what they lead to is asked about.
                    let own = [b"self/", rest.as_slice()].concat();
                    let _ = directory(&self.mirror.proc, &own).and_then(|it| add(&it, &names));
                }
                make(&self.mirror.proc, &path, &names)?
            }
            Place::Kernel(rest) if paths::in_the_kernel(rest) => {
                make(&self.mirror.proc, rest, &list(&self.tracees.proc, rest)?)?
            }
            Place::System(rest) if paths::in_the_system(rest, self.network) => {
                let mut names = list(&self.sys, rest)?;
                names.retain(|name, _| {
                    let full = [rest.as_slice(), b"/", name.as_slice()].concat();
                    paths::in_the_system(&full, self.network)
                });
                make(&self.mirror.sys, rest, &names)?
            }
            Place::Kernel(_)
            | Place::System(_)
            | Place::Descriptor(..)
            | Place::Link(..)
            | Place::Device(_)
            | Place::NewTerminal
            | Place::Terminal(_) => return Err(Errno::NOENT.into()),
        })
    }

    /// What is in `/proc`: the step's processes, and what the kernel has there beside.
    fn processes(&self) -> Result<BTreeMap<Vec<u8>, Name>, Errno> {
        let mut names = list(&self.tracees.proc, b"")?;
        names.retain(|name, _| {
            let number = std::str::from_utf8(name).ok().and_then(|it| it.parse::<i32>().ok());
            number.map_or_else(|| paths::in_the_kernel(name), |pid| self.tracees.is_ours(pid))
        });
        // These lie there already, and are what they are.
        for name in ["self", "thread-self", "mounts"] {
            names.insert(name.into(), Name::Directory);
        }
        Ok(names)
    }

    /// What is in a directory of a process.
    fn of_a_process(
        &self,
        call: &Notification,
        pid: i32,
        rest: &[u8],
        path: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Name>, Errno> {
        let list = || list(&self.tracees.proc, path);
        let mut names = match list() {
            Err(Errno::ACCESS | Errno::PERM) => self.tracees.as_it(call.pid, list)?,
            names => names?,
        };
        if rest == b"fd" {
            for (name, kind) in &mut names {
                let link = format!("fd/{}", String::from_utf8_lossy(name));
                let target = self.link_of(pid, &link).unwrap_or_default();
                *kind = Name::Link(self.inside(&target).unwrap_or(target));
            }
            if self.tracees.process_of(call.pid) == Some(pid) {
                // What this listing itself will be.
                let mut numbers = (0_u32..).map(|it| it.to_string().into_bytes());
                let free = numbers.find(|it| !names.contains_key(it)).unwrap_or_default();
                names.insert(free, Name::Link([b"/proc/", path].concat()));
            }
        } else if rest.is_empty() {
            names.retain(|name, _| {
                paths::in_a_process(name) != Kind::Nothing
                    || matches!(name.as_slice(), b"cwd" | b"root" | b"exe")
            });
            names.insert(b"root".to_vec(), Name::Link(b"/".to_vec()));
        }
        Ok(names)
    }
}

/// The names in a directory of the kernel.
fn list(base: &OwnedFd, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Name>, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let dir = rustix::fs::openat2(base, path, LIST, Mode::empty(), BENEATH)?;
    let mut names = BTreeMap::new();
    for entry in Dir::read_from(&dir)?.take(MAX_NAMES) {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Directory => Name::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&dir, name, Vec::new());
                Name::Link(target.map(std::ffi::CString::into_bytes).unwrap_or_default())
            }
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Name::File,
        };
        names.insert(name.to_bytes().to_vec(), kind);
    }
    Ok(names)
}

/// The directory `path` of a mirror, made if it is missing.
fn directory(base: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let open =
        |dir: &OwnedFd, name: &[u8]| rustix::fs::openat2(dir, name, LIST, Mode::empty(), beneath);
    let mut here = open(base, b".")?;
    for part in path.split(|&it| it == b'/').filter(|it| !it.is_empty()) {
        match rustix::fs::mkdirat(&here, part, Mode::from_raw_mode(0o555)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        here = open(&here, part)?;
    }
    Ok(here)
}

/// Makes a directory have these names and no others.
fn make(base: &OwnedFd, path: &[u8], names: &BTreeMap<Vec<u8>, Name>) -> Result<OwnedFd, Errno> {
    let dir = directory(base, path)?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." && !is_right(&dir, name, names) {
            let is_dir = entry.file_type() == FileType::Directory;
            let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // A directory that has something in it stays: nobody is misled for long.
            let _ = rustix::fs::unlinkat(&dir, name, flags);
        }
    }
    add(&dir, names)?;
    rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
    Ok(dir)
}

fn is_right(dir: &OwnedFd, name: &CStr, names: &BTreeMap<Vec<u8>, Name>) -> bool {
    match names.get(name.to_bytes()) {
        None => false,
        Some(Name::Link(target)) => {
            rustix::fs::readlinkat(dir, name, Vec::new()).is_ok_and(|it| it.to_bytes() == target)
        }
        Some(Name::Directory | Name::File) => true,
    }
}

fn add(dir: &OwnedFd, names: &BTreeMap<Vec<u8>, Name>) -> Result<(), Errno> {
    for (name, kind) in names {
        let name = name.as_slice();
        let made = match kind {
            Name::Directory => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o555)),
            // A link has to lead somewhere.
            Name::Link(target) if target.is_empty() => rustix::fs::symlinkat("?", dir, name),
            Name::Link(target) => rustix::fs::symlinkat(target.as_slice(), dir, name),
            Name::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o444);
                rustix::fs::openat(dir, name, flags, mode).map(drop)
            }
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
