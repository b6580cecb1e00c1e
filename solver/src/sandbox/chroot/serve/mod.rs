//! Answers what the tree of a step cannot: files of the kernel, devices, secrets.
//!
//! A call whose path is none of these is handed back to the kernel, which carries it out in the
//! step's root, so nothing depends on whether the path is still the same by then. Where a file is
//! opened for a step it becomes a descriptor of the step by injection. Directories are never: they
//! would lead out of the tree. Instead the names in them are made in the tree ([`mirror`]).

mod look;
mod mirror;
mod mode;
mod node;
mod open;
mod readonly;
mod tracee;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub(super) use open::memory;

use self::mirror::Mirror;
use self::tracee::{PATH_MAX, Tracees};
use super::calls::{self, Call};
use super::changes::{self, Change, Mounts, Name};
use super::fence::Reach;
use super::paths::{self, Place, Who};
use super::plan::{Nodes, Secret};
use crate::sandbox::asked::{Answer, Heard, Stop, answer_next, int};
use crate::sandbox::bpf::Arch;
use crate::sandbox::plan::Report;
use crate::sandbox::sys::{self, Notification};

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Bytes of a path that tell most of them from what is served.
const START: usize = 64;

/// What a call is about.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Subject {
    /// A file of the kernel.
    Place(Place),
    /// A secret, by its number.
    Secret(usize),
}

/// Who answers the calls of one step.
#[derive(Debug)]
pub(super) struct Server {
    listener: OwnedFd,
    tracees: Tracees,
    /// The root of the step.
    root: OwnedFd,
    /// Where that is, from the keeper's root.
    root_path: Vec<u8>,
    /// `/sys` of the container.
    sys: OwnedFd,
    mirror: Mirror,
    calls: HashMap<i64, Call>,
    nodes: Nodes,
    secrets: Vec<(Secret, OwnedFd)>,
    hostname: String,
    network: bool,
    mounts: Mounts,
    /// Devices whose files cannot carry a record.
    made: RefCell<Vec<Report>>,
}

/// What a server is made of, before there is a listener.
#[derive(Debug)]
pub(super) struct Served {
    /// The root of the step.
    pub(super) root: OwnedFd,
    /// How it has its devices.
    pub(super) nodes: Nodes,
    /// Secrets with files in memory that hold them.
    pub(super) secrets: Vec<(Secret, OwnedFd)>,
    /// What it takes its host for.
    pub(super) hostname: String,
    /// How far its signals reach.
    pub(super) reach: Reach,
    /// Whether it may talk to other machines.
    pub(super) network: bool,
    /// What it mounts.
    pub(super) mounts: Mounts,
}

impl Server {
    /// Answers what `listener` tells of.
    pub(super) fn new(listener: OwnedFd, served: Served) -> io::Result<Self> {
        let Served { root, nodes, secrets, hostname, reach, network, mounts } = served;
        let open = |path| rustix::fs::open(path, PATH | OFlags::DIRECTORY, Mode::empty());
        let tracees = Tracees::new(open("/proc")?);
        let root_path = path_of(&root)?;
        sys::wake_up_here(listener.as_fd());
        Ok(Self {
            listener,
            tracees,
            mirror: Mirror::new(&root)?,
            root,
            root_path,
            sys: open("/sys")?,
            calls: calls::native(reach, mounts.any_readonly()).into_iter().collect(),
            nodes,
            secrets,
            hostname,
            network,
            mounts,
            made: RefCell::default(),
        })
    }

    /// What was made that cannot tell what it is.
    pub(super) fn made(self) -> Vec<Report> {
        self.made.into_inner()
    }

    /// What tells of calls.
    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers the next call. False if there will be none.
    pub(super) fn answer_next(&self) -> bool {
        answer_next(self.listener.as_fd(), |call| self.handle(call)) != Heard::End
    }

    fn handle(&self, call: &Notification) -> Answer {
        let args = &call.args;
        if call.arch != Arch::HERE.audit()[0] {
            return self.handle_narrow(call);
        }
        match *self.calls.get(&call.number).ok_or(Stop::Continue)? {
            Call::Open { dir, path, flags } => {
                self.open_anything(call, Name { dir, path }, args[flags])
            }
            Call::OpenHow => {
                let mut how = [0; 8];
                self.tracees.read(call.pid, args[2], &mut how)?;
                self.open_anything(call, Name { dir: Some(0), path: 1 }, u64::from_le_bytes(how))
            }
            Call::Stat { path, out, .. } => {
                let subject = self.subject(call, args[path])?;
                self.stat(call, &subject, args[out])
            }
            Call::Statx => {
                let subject = self.subject(call, args[1])?;
                self.statx(call, &subject)
            }
            Call::Access { dir, path, mode } => match self.subject(call, args[path]) {
                Err(Stop::Continue) if self.mounts.any_readonly() && args[mode] & 2 != 0 => {
                    self.may_write(call, Name { dir, path })
                }
                subject => self.access(call, &subject?, args[mode]),
            },
            Call::ReadLink { path, .. } => {
                if paths::is_a_real_link(&self.tracees.path(call.pid, args[path])?) {
                    return Err(Stop::Continue);
                }
                let subject = self.subject(call, args[path])?;
                self.read_link(call, &subject, (args[path + 1], args[path + 2]))
            }
            Call::ChangeDir => {
                if let Ok(Subject::Place(place)) = self.subject(call, args[0]) {
                    // Where there is nothing to be shown the kernel says what is wrong.
                    drop(self.show(call, &place));
                }
                Err(Stop::Continue)
            }
            Call::MakeNode { dir, path } => {
                if self.mounts.any_readonly() {
                    match self.change(call, Change::Make(Name { dir, path })) {
                        Err(Stop::Continue) => {}
                        answer => return answer,
                    }
                }
                self.make_node(call, dir, path)
            }
            Call::Change(change) => self.change(call, change),
            Call::Mode(change, mode) => {
                if self.mounts.any_readonly() {
                    match self.change(call, change) {
                        Err(Stop::Continue) => {}
                        answer => return answer,
                    }
                }
                self.set_mode(call, change, args[mode])
            }
            Call::Names => self.names(call, args[0]),
            Call::Process { pid } => self.about(args[pid]),
            Call::Kind { process } => match args[0] {
                kind if kind == process || kind == process + 1 => self.about(args[1]),
                _ => Err(Stop::Failed(Errno::PERM)),
            },
        }
    }

    /// Of the 32-bit interfaces only modes and signals are asked about.
    fn handle_narrow(&self, call: &Notification) -> Answer {
        let modes = changes::narrow_modes(Arch::HERE);
        match modes.into_iter().find(|it| i64::from(it.0) == call.number) {
            Some((_, change, mode)) => self.set_mode(call, change, call.args[mode]),
            None => self.about(call.args[0]),
        }
    }

    /// open(2) of what may be a file of the kernel, a secret, or on a read-only mount.
    fn open_anything(&self, call: &Notification, at: Name, flags: u64) -> Answer {
        let dir = at.dir.map_or(libc::AT_FDCWD, |it| int(call.args[it]));
        let subject = match dir {
            libc::AT_FDCWD => self.subject(call, call.args[at.path]),
            // What is found from an open directory is what it is.
            _ => Err(Stop::Continue),
        };
        match subject {
            Err(Stop::Continue) if self.mounts.any_readonly() => {
                self.write(call, at, OFlags::from_bits_retain(int(flags).cast_unsigned()))
            }
            subject => self.open(call, &subject?, flags),
        }
    }

    /// Calls about other processes, or groups of them.
    fn about(&self, pid: u64) -> Answer {
        let pid = int(pid);
        // All that the caller may signal: more than its own.
        if pid == -1 {
            return Err(Stop::Failed(Errno::PERM));
        }
        let ours = self.tracees.is_ours(pid.saturating_abs());
        Err(if ours { Stop::Continue } else { Stop::Failed(Errno::SRCH) })
    }

    /// What the path at `address` leads to, unless it is something in the tree.
    fn subject(&self, call: &Notification, address: u64) -> Result<Subject, Stop> {
        let (mut start, mut ends) = self.tracees.start(call.pid, address, START)?;
        if !ends && start.len() < START {
            // It goes on in the next page.
            (start, ends) = (self.tracees.path(call.pid, address)?, true);
        }
        if !paths::is_worth_a_look(&start) {
            if self.secrets.is_empty() {
                return Err(Stop::Continue);
            }
            let path = if ends { start } else { self.tracees.path(call.pid, address)? };
            return self.secret(call.pid, &path).map(Subject::Secret).ok_or(Stop::Continue);
        }
        let path = if ends { start } else { self.tracees.path(call.pid, address)? };
        let from = if path.starts_with(b"/") { Vec::new() } else { self.directory_of(call.pid)? };
        let path = paths::absolute(&from, &path);
        if let Some(place) = paths::place(&path)
            && !(matches!(place, Place::Device(_)) && self.nodes == Nodes::Real)
        {
            return Ok(Subject::Place(place));
        }
        self.secret(call.pid, &path).map(Subject::Secret).ok_or(Stop::Continue)
    }

    /// The secret whose place in the tree `path` leads to.
    fn secret(&self, pid: i32, path: &[u8]) -> Option<usize> {
        if self.secrets.is_empty() {
            return None;
        }
        let from = if path.starts_with(b"/") { Vec::new() } else { self.directory_of(pid).ok()? };
        let path = paths::absolute(&from, path);
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let relative = path.strip_prefix(b"/").filter(|it| !it.is_empty())?;
        let found = rustix::fs::openat2(&self.root, relative, PATH, Mode::empty(), inside).ok()?;
        let inode = rustix::fs::fstat(&found).ok()?.st_ino;
        self.secrets.iter().position(|it| it.0.inode == inode)
    }

    /// The working directory of `pid`, as it sees it.
    fn directory_of(&self, pid: i32) -> Result<Vec<u8>, Stop> {
        let path = self.link_of(pid, "cwd")?;
        self.inside(&path).ok_or(Stop::Continue)
    }

    /// Where a link in the directory of process `pid` leads, from the keeper's root.
    fn link_of(&self, pid: i32, link: &str) -> Result<Vec<u8>, Errno> {
        let read = || {
            let name = format!("{pid}/{link}");
            rustix::fs::readlinkat(&self.tracees.proc, name, Vec::with_capacity(256))
        };
        let found = match read() {
            Err(Errno::ACCESS | Errno::PERM) => self.tracees.as_it(pid, read),
            found => found,
        };
        found.map(std::ffi::CString::into_bytes)
    }

    /// A path of the keeper as the step has it; none if it lies outside of the step's tree.
    fn inside(&self, path: &[u8]) -> Option<Vec<u8>> {
        match path.strip_prefix(self.root_path.as_slice())? {
            [] => Some(b"/".to_vec()),
            rest @ [b'/', ..] => Some(rest.to_vec()),
            _ => None,
        }
    }

    /// The number of a process that a path names, if it belongs to the step.
    fn number_of(&self, call: &Notification, who: Who) -> Result<i32, Errno> {
        let found = match who {
            Who::Caller => self.tracees.process_of(call.pid),
            Who::Thread => Some(call.pid),
            Who::Number(number) => Some(number).filter(|&it| self.tracees.is_ours(it)),
        };
        found.ok_or(Errno::NOENT)
    }
}

/// Where a descriptor leads, from the caller's root.
fn path_of(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::readlink(name, Vec::new()).map(std::ffi::CString::into_bytes)
}

const _: () = assert!(START < PATH_MAX);
