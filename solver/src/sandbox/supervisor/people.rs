//! Which ids each process believes to have.
//!
//! The ids of all processes are numbered, and a process carries its number in a resource limit that
//! Linux has had no use for since 2.4: `RLIMIT_LOCKS`. Threads share it, fork and exec hand it on,
//! and it ends with the process, so no table of processes can be wrong about any of that. The limit
//! cannot be set by the step itself (PAM does so in every session): the filter says that it was.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::AsFd as _;

use rustix::io::Errno;

use super::calls::{Get, Set};
use super::ids::{Change, Ids};
use super::tracee::{self, Tracees, id};
use crate::sandbox::asked::{Answer, Reply, Stop, int, leave};
use crate::sandbox::sys::{self, Notification};

/// The limit that carries the number.
pub(crate) const CARRIER: u32 = 10;

/// Most groups of a process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Most different sets of ids in one step.
const MAX_PEOPLE: usize = 1 << 16;

/// Bytes of the kernel's `struct ucred`: three numbers of 4 bytes.
const UCRED_BYTES: u32 = 12;

#[derive(Debug)]
pub(super) struct People {
    known: Vec<Ids>,
    numbers: HashMap<Ids, usize>,
    /// Who asks, as far as that was looked up.
    caller: Cell<Option<(i32, usize)>>,
}

impl People {
    pub(super) fn new() -> Self {
        let root = Ids::default();
        Self {
            known: vec![root.clone()],
            numbers: HashMap::from([(root, 0)]),
            caller: Cell::new(None),
        }
    }

    /// Makes `pid` root: the first process of a step.
    #[expect(clippy::unused_self, reason = "belongs to what it serves")]
    pub(super) fn adopt(&self, pid: i32) -> Result<(), Stop> {
        sys::soft_limit(pid, CARRIER, Some(0)).map(drop).map_err(leave)
    }

    /// Whether nobody has ever been anybody but root.
    pub(super) const fn only_root(&self) -> bool {
        self.known.len() == 1
    }

    /// To be called with every call: what was looked up counts for one.
    pub(super) fn hear(&self) {
        self.caller.set(None);
    }

    /// The ids of `pid`.
    pub(super) fn of(&self, pid: i32) -> &Ids {
        if self.only_root() {
            return &self.known[0];
        }
        let number = match self.caller.get() {
            Some((caller, number)) if caller == pid => number,
            Some(_) | None => {
                let number = sys::soft_limit(pid, CARRIER, None).map_or(0, |it| it.0);
                let number = usize::try_from(number).unwrap_or(0);
                self.caller.set(Some((pid, number)));
                number
            }
        };
        self.known.get(number).unwrap_or(&self.known[0])
    }

    /// Gives `pid` other ids.
    pub(super) fn become_(&mut self, pid: i32, ids: Ids) -> Result<(), Stop> {
        let number = if let Some(&number) = self.numbers.get(&ids) {
            number
        } else {
            let number = self.known.len();
            if number >= MAX_PEOPLE {
                return Err(Stop::Failed(Errno::AGAIN));
            }
            self.known.push(ids.clone());
            self.numbers.insert(ids, number);
            number
        };
        self.caller.set(None);
        let set = sys::soft_limit(pid, CARRIER, Some(number as u64));
        set.map(drop).map_err(|_| Stop::Failed(Errno::AGAIN))
    }

    /// setuid(2) and its relatives.
    pub(super) fn set(&mut self, tracees: &Tracees, call: &Notification, set: Set) -> Answer {
        let [a, b, c, ..] = call.args.map(id);
        let ids = self.of(call.pid);
        let (old_user, old_group) = (ids.user.files, ids.group.files);
        let change = match set {
            Set::User => Change::User(a),
            Set::Group => Change::Group(a),
            Set::TwoUsers => Change::TwoUsers(a, b),
            Set::TwoGroups => Change::TwoGroups(a, b),
            Set::ThreeUsers => Change::ThreeUsers([a, b, c]),
            Set::ThreeGroups => Change::ThreeGroups([a, b, c]),
            Set::FileUser => Change::FileUser(a),
            Set::FileGroup => Change::FileGroup(a),
            Set::Groups => Change::Groups(groups(tracees, call)?),
        };
        // The all-ones id is no id.
        if matches!(change, Change::User(u32::MAX) | Change::Group(u32::MAX)) {
            return Err(Stop::Failed(Errno::INVAL));
        }
        let new = ids.after(change).ok_or(Stop::Failed(Errno::PERM))?;
        if new != *ids {
            self.become_(call.pid, new)?;
        }
        Ok(Reply::Value(match set {
            Set::FileUser => old_user.into(),
            Set::FileGroup => old_group.into(),
            Set::User
            | Set::Group
            | Set::TwoUsers
            | Set::TwoGroups
            | Set::ThreeUsers
            | Set::ThreeGroups
            | Set::Groups => 0,
        }))
    }

    /// prctl(2) with `PR_SET_KEEPCAPS`.
    pub(super) fn keep(&mut self, call: &Notification) -> Answer {
        let ids = self.of(call.pid).clone();
        let new = Ids { keeps_capabilities: call.args[1] == 1, ..ids.clone() };
        if new != ids {
            self.become_(call.pid, new)?;
        }
        Err(Stop::Continue)
    }

    /// getuid(2) and its relatives.
    pub(super) fn get(&self, _: &Tracees, call: &Notification, get: Get) -> Answer {
        let ids = self.of(call.pid);
        let three = |roles: super::ids::Roles| -> Answer {
            for (address, id) in call.args.iter().zip([roles.real, roles.effective, roles.saved]) {
                tracee::write(call.pid, *address, &id.to_ne_bytes())?;
            }
            Ok(Reply::Value(0))
        };
        let value = match get {
            Get::User => ids.user.real,
            Get::EffectiveUser => ids.user.effective,
            Get::Group => ids.group.real,
            Get::EffectiveGroup => ids.group.effective,
            Get::ThreeUsers => return three(ids.user),
            Get::ThreeGroups => return three(ids.group),
            Get::Groups => return all_groups(call, &ids.groups),
        };
        Ok(Reply::Value(value.into()))
    }

    /// getsockopt(2) with `SO_PEERCRED`: who is at the other end.
    pub(super) fn peer(&self, tracees: &Tracees, call: &Notification) -> Answer {
        let [fd, _, _, out, length, _] = call.args;
        let mut given = [0; 4];
        tracee::read(call.pid, length, &mut given)?;
        if u32::from_ne_bytes(given) < UCRED_BYTES {
            return Err(Stop::Continue);
        }
        let socket = tracees.socket(call.pid, fd)?;
        let peer = rustix::net::sockopt::socket_peercred(socket.as_fd()).map_err(leave)?;
        let pid = peer.pid.as_raw_nonzero().get();
        let number = tracees.own_number(pid).ok_or(Stop::Continue)?;
        let ids = self.of(pid);
        let mut bytes = Vec::new();
        for value in [number.cast_unsigned(), ids.user.effective, ids.group.effective] {
            bytes.extend_from_slice(&value.to_ne_bytes());
        }
        tracee::write(call.pid, out, &bytes)?;
        tracee::write(call.pid, length, &UCRED_BYTES.to_ne_bytes())?;
        Ok(Reply::Value(0))
    }
}

/// The argument of setgroups(2).
fn groups(_: &Tracees, call: &Notification) -> Result<Vec<u32>, Stop> {
    let count = usize::try_from(call.args[0]).unwrap_or(usize::MAX);
    if count > MAX_GROUPS {
        return Err(Stop::Failed(Errno::INVAL));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; count * 4];
    tracee::read(call.pid, call.args[1], &mut bytes)?;
    let mut groups: Vec<u32> =
        bytes.chunks_exact(4).map(|it| u32::from_ne_bytes([it[0], it[1], it[2], it[3]])).collect();
    // As the kernel keeps them.
    groups.sort_unstable();
    Ok(groups)
}

fn all_groups(call: &Notification, groups: &[u32]) -> Answer {
    let room = int(call.args[0]);
    let count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
    if room < 0 || (room != 0 && room < count) {
        return Err(Stop::Failed(Errno::INVAL));
    }
    if room != 0 && count != 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|it| it.to_ne_bytes()).collect();
        tracee::write(call.pid, call.args[1], &bytes)?;
    }
    Ok(Reply::Value(count.into()))
}
