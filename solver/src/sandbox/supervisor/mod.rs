//! Answers system calls of a step as if it had what the host does not have: devices that it made,
//! and, where there is one id only, all the others.
//!
//! ```text
//!  the step                          worker: one thread for each step that asks
//!  --------                          ------------------------------------------
//!  chown, stat, setuid, … ─ kernel ─> Supervisor: reads the arguments from the step's memory,
//!                                     resolves the path from the step's root,
//!                                     acts on the inode and its record
//!  result or descriptor   <────────── answer, or "carry it out yourself"
//! ```
//!
//! Owners, groups, devices and the modes that go with them are kept as the records of
//! [`crate::snapshot::owner`], on the inodes themselves: they follow renames, links and copy-up,
//! and the layer's difference reads them. What cannot carry one (links, pipes) is in a table by
//! inode, until the step ends. Which ids a process believes to have is a number in one of its
//! resource limits that the kernel has no use for ([`people`]): fork and exec hand it on exactly.
//!
//! This is fidelity, not a fence: a step that wins a race against its supervisor deceives itself.
//! The fence is the namespace, which the step shares with nobody. For that to hold, the supervisor
//! does nothing that the step could not do itself: it follows no magic link, which would resolve
//! with the supervisor's rights, unless to find that the kernel may carry the call out; it never
//! opens what is there but as a path, it reads no memory twice, and what it read of a process
//! counts only if that still waits for its answer.

mod access_list;
mod attributes;
mod calls;
mod create;
mod device;
mod filter;
mod ids;
mod narrow;
mod open;
mod owner;
mod people;
mod permit;
mod record;
mod status;
mod tracee;
mod walk;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

pub(super) use filter::{filter, filter_unanswered};
pub(super) use people::CARRIER;

use self::attributes::Attributes;
use self::calls::{Call, Interface};
use self::people::People;
use self::tracee::Tracees;
use super::asked::{Answer, Heard, Stop, answer_next, leave};
use super::plan::Pretend;
use super::sys::{self, Notification};
use crate::snapshot::has_devices;
use crate::snapshot::inodes::Foreign;
use crate::snapshot::owner::Record;
use crate::tree::view::View;

/// An inode: device, number, time of birth in nanoseconds (numbers are used again).
pub(super) type Inode = (u64, u64, i128);

/// Records of inodes that cannot carry one themselves.
pub(super) type Records = HashMap<Inode, Record>;

/// A thread that answers a step's calls.
#[derive(Debug)]
pub(super) struct Running(JoinHandle<Records>);

impl Running {
    /// Waits until the last process of the step is gone.
    pub(super) fn join(self) -> Records {
        self.0.join().unwrap_or_default()
    }
}

/// The tree that a step starts from.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    /// What the image says of it.
    pub(super) view: View,
    /// What is recorded of its inodes already.
    pub(super) known: Records,
    /// Where an overlay puts what the step writes: inodes there have numbers of their own.
    pub(super) upper: Option<PathBuf>,
}

/// Starts to answer the calls that `listener` tells of.
///
/// # Errors
///
/// If no thread can be made.
pub(super) fn start(listener: OwnedFd, from: Start, pretend: Pretend) -> io::Result<Running> {
    let work = move || -> Records {
        let Start { view, known, upper } = from;
        // If it cannot start, the listener closes, and the step's calls fail with ENOSYS.
        let Ok(mut supervisor) = Supervisor::new(listener, view, pretend) else {
            return Records::new();
        };
        supervisor.records = known;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        supervisor.upper = upper.and_then(|it| rustix::fs::open(it, flags, Mode::empty()).ok());
        supervisor.run();
        supervisor.records
    };
    std::thread::Builder::new().name("supervisor".to_owned()).spawn(work).map(Running)
}

struct Supervisor {
    listener: Rc<OwnedFd>,
    pretend: Pretend,
    tracees: Tracees,
    people: People,
    records: Records,
    /// See [`Start::upper`].
    upper: Option<OwnedFd>,
    attributes: RefCell<Attributes>,
    view: View,
    foreign: Foreign,
    calls: HashMap<(u32, i64), Call>,
    /// Whether there may be devices in the tree.
    devices: bool,
    /// Whether a call was received.
    started: bool,
    /// Whether somebody may have another root than the step.
    several_roots: bool,
}

impl Supervisor {
    /// In its thread: the root directory and the umask become its own.
    fn new(listener: OwnedFd, view: View, pretend: Pretend) -> io::Result<Self> {
        let tracees = Tracees::new()?;
        sys::unshare(UnshareFlags::FS)?;
        rustix::process::umask(Mode::empty());
        sys::wake_up_here(listener.as_fd());
        let (foreign, devices) = match pretend {
            Pretend::Ids => (Foreign::of(&view), view.layers().iter().any(|it| has_devices(it))),
            Pretend::NewDevices | Pretend::Devices => (Foreign::default(), true),
        };
        Ok(Self {
            listener: Rc::new(listener),
            pretend,
            tracees,
            people: People::new(),
            records: Records::new(),
            upper: None,
            attributes: RefCell::default(),
            view,
            foreign,
            calls: [Interface::Wide, Interface::Narrow].into_iter().flat_map(numbered).collect(),
            devices,
            started: false,
            several_roots: false,
        })
    }

    /// Answers until nobody is left who could ask.
    fn run(&mut self) {
        let listener = Rc::clone(&self.listener);
        let tells_of_the_end = tells_of_the_end(rustix::system::uname().release().to_bytes());
        let mut heard = Heard::Nobody;
        loop {
            if heard == Heard::Nobody || !tells_of_the_end {
                let mut fds = [PollFd::new(&*listener, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
                let found = fds[0].revents();
                if !found.contains(PollFlags::IN) {
                    if found.intersects(PollFlags::HUP | PollFlags::ERR) {
                        return;
                    }
                    continue;
                }
            }
            heard = answer_next(listener.as_fd(), |call| self.handle(call));
            if heard == Heard::End {
                return;
            }
        }
    }

    /// Stops if nobody waits for the answer any more: then what was read of the caller may be
    /// somebody else's, whose number is the same.
    fn still(&self, call: &Notification) -> Result<(), Stop> {
        if sys::is_waiting(self.listener.as_fd(), call.id) { Ok(()) } else { Err(Stop::Continue) }
    }

    fn handle(&mut self, call: &Notification) -> Answer {
        let kind = *self.calls.get(&(call.arch, call.number)).ok_or(Stop::Continue)?;
        self.people.hear();
        if !self.started {
            self.tracees.enter(call.pid).map_err(leave)?;
            if self.pretend == Pretend::Ids {
                self.people.adopt(call.pid).map_err(leave)?;
            }
            self.started = true;
        }
        if kind.only_restricts() && self.people.of(call.pid).user.is_root_only() {
            return Err(Stop::Continue);
        }
        if self.several_roots {
            self.tracees.enter(call.pid).map_err(leave)?;
        }
        match kind {
            Call::Stat { at, out } => self.stat(call, at, out),
            Call::NarrowStat { at, out } => self.narrow_stat(call, at, out),
            Call::Statx => self.statx(call),
            Call::Owner { at, ids } => self.change_owner(call, at, ids),
            Call::Mode { at, mode } => self.change_mode(call, at, mode),
            Call::Open { dir, path, flags, mode } => {
                let creat =
                    u64::from((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned());
                let flags = flags.map_or(creat, |index| call.args[index]);
                self.open(call, (dir, path), flags, call.args[mode])
            }
            Call::OpenHow => self.open_how(call),
            Call::MakeDir { dir, path } => self.make_dir(call, (dir, path)),
            Call::MakeNode { dir, path } if self.pretend == Pretend::Ids => {
                self.make_node(call, (dir, path))
            }
            Call::MakeNode { dir, path } => self.make_device(call, (dir, path)),
            Call::MakeLink { dir, path } => self.make_link(call, (dir, path)),
            Call::Bind => self.bind(call),
            Call::Set(set) => self.people.set(&self.tracees, call, set),
            Call::Get(get) => self.people.get(&self.tracees, call, get),
            Call::Execute { dir, path, flags } => self.execute(call, (dir, path), flags),
            Call::Chroot if !self.people.of(call.pid).is_root() => Err(Stop::Failed(Errno::PERM)),
            Call::Chroot => {
                self.several_roots = true;
                Err(Stop::Continue)
            }
            Call::Keep => self.people.keep(call),
            Call::PeerIds => self.people.peer(&self.tracees, call),
            Call::SetAttribute { at, name, value } => self.set_attribute(call, at, name, value),
            Call::ListAttributes { at, list } => self.list_attributes(call, at, list),
            // The filter has the answers.
            Call::Missing | Call::Limit { .. } => Err(Stop::Continue),
            Call::Access { at, mode } => self.access(call, at, mode),
            Call::Remove { name } => self.remove(call, name),
            Call::Rename { from, to } => self.rename(call, from, to),
            Call::Link { from, to } => self.link(call, from, to),
            Call::Truncate => self.truncate(call),
            Call::ChangeDir { at } => self.change_dir(call, at),
            Call::Times { at, times } => self.times(call, at, times),
        }
    }
}

/// Whether who waits for a call hears from this kernel that nobody is left (Linux 6.11): older ones
/// have to be asked before.
fn tells_of_the_end(release: &[u8]) -> bool {
    let text = String::from_utf8_lossy(release);
    let mut numbers = text.split(|it: char| !it.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= (6, 11))
}

/// The calls of an interface, by its number and theirs.
fn numbered(interface: Interface) -> impl Iterator<Item = ((u32, i64), Call)> {
    let audit = filter::audit(interface);
    calls::calls(interface).into_iter().map(move |(number, call)| ((audit, number.into()), call))
}

#[cfg(test)]
mod tests {
    use super::tells_of_the_end;

    #[test]
    fn kernels_are_told_apart() {
        for release in ["6.11.0", "6.18.5-amd64", "7.0"] {
            assert!(tells_of_the_end(release.as_bytes()), "{release}");
        }
        for release in ["6.9.12", "5.14.0-427.el9.x86_64", "4.4.0", "", "six.eleven"] {
            assert!(!tells_of_the_end(release.as_bytes()), "{release}");
        }
    }
}
