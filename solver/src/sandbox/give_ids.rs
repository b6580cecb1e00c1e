//! Gives a user namespace its ids: all, a range, or one.

use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread::Builder;

use serde::{Deserialize, Serialize};

use super::idmap::{self, Extent};
use super::refusal::Refusal;
use crate::snapshot::{MapKey, Ownership};

/// A [`MapKey`] as it goes over the wire.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum MapName {
    /// The host's own ids.
    Root,
    /// Ids 1 to `count` are `base` and up.
    Range {
        /// First subordinate id.
        base: u32,
        /// How many.
        count: u32,
    },
    /// One id, which is root.
    Single {
        /// Which it is outside.
        uid: u32,
    },
}

impl MapName {
    /// What the host can hold of an image's ownership.
    pub fn ownership(self) -> Ownership {
        match self {
            Self::Root | Self::Range { .. } => Ownership::Real,
            Self::Single { .. } => Ownership::Recorded,
        }
    }

    /// As the snapshots name it.
    pub fn key(self) -> MapKey {
        match self {
            Self::Root => MapKey::root(),
            Self::Range { base, count } => MapKey::range(base, count),
            Self::Single { uid } => MapKey::single(uid),
        }
    }
}

/// Gives the user namespace of a process (its number, or `self`) our own ids, and no others.
pub(crate) fn write_single(process: &str, (uid, gid): (u32, u32)) -> Result<MapName, Refusal> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{process}/{file}");
        fs::write(&path, text).map_err(|error| Refusal::new(format!("writing {file}"), &error))
    };
    write("setgroups", "deny")?;
    write("uid_map", &idmap::text(&idmap::single(uid)))?;
    write("gid_map", &idmap::text(&idmap::single(gid)))?;
    Ok(MapName::Single { uid })
}

/// Effective user and group id.
pub(crate) fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Gives the user namespace of process `pid` its ids: all that we have ourselves where we may,
/// else our own and our subordinate ones.
pub(crate) fn write_maps(pid: u32) -> Result<MapName, Refusal> {
    let (uid, gid) = own_ids();
    if uid == 0 {
        let own = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let count = idmap::ids(&idmap::identity(&own));
        // Root of a namespace with few ids has no more to give.
        if count <= u64::from(idmap::MIN_RANGE) {
            let detail = format!("root has {count} of the 65536 ids that images use");
            return Err(Refusal { call: "/proc/self/uid_map".to_owned(), errno: 0, detail });
        }
        if write_directly(pid).is_ok() {
            return Ok(MapName::Root);
        }
    }
    let name = user_name(uid).unwrap_or_default();
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid) = (file("/etc/subuid"), file("/etc/subgid"));
    let uids = idmap::subordinate(&subuid, &name, uid);
    let gids = idmap::subordinate(&subgid, &name, uid);
    let enough = |ranges: &[(u32, u32)]| {
        ranges.iter().map(|it| u64::from(it.1)).sum::<u64>() >= u64::from(idmap::MIN_RANGE)
    };
    for (ranges, path) in [(&uids, "/etc/subuid"), (&gids, "/etc/subgid")] {
        if !enough(ranges) {
            let who = if name.is_empty() { uid.to_string() } else { name.clone() };
            let (least, call) = (idmap::MIN_RANGE, path.to_owned());
            let detail = format!("no range of {least} ids for user {who}");
            return Err(Refusal { call, errno: 0, detail });
        }
    }
    let maps = [("newuidmap", idmap::ranges(uid, &uids)), ("newgidmap", idmap::ranges(gid, &gids))];
    help(pid, &maps)?;
    let (base, _) = uids[0];
    let count = uids.iter().map(|it| it.1).sum();
    Ok(MapName::Range { base, count })
}

fn write_directly(pid: u32) -> io::Result<()> {
    for file in ["uid_map", "gid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{file}"))?;
        fs::write(format!("/proc/{pid}/{file}"), idmap::text(&idmap::identity(&own)))?;
    }
    Ok(())
}

/// Has newuidmap(1) and newgidmap(1) write the maps, both at once.
fn help(pid: u32, maps: &[(&str, Vec<Extent>); 2]) -> Result<(), Refusal> {
    let run = |(program, map): &(&str, Vec<Extent>)| {
        Command::new(program)
            .arg(pid.to_string())
            .args(idmap::arguments(map))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
    };
    // Who starts a program waits until it is loaded: hence a thread for the other one.
    let outputs = std::thread::scope(|scope| {
        let other = Builder::new().spawn_scoped(scope, || run(&maps[1]));
        let one = run(&maps[0]);
        let other = other.and_then(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic)));
        [one, other]
    });
    for ((program, _), output) in maps.iter().zip(outputs) {
        let output = output.map_err(|error| {
            let mut refusal = Refusal::new(*program, &error);
            if error.kind() == io::ErrorKind::NotFound {
                refusal = Refusal {
                    call: (*program).to_owned(),
                    errno: 0,
                    detail: "not installed (Debian package `uidmap`)".to_owned(),
                };
            }
            refusal
        })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let text = text.trim();
            let own_name = text.strip_prefix(*program).and_then(|it| it.strip_prefix(": "));
            let detail = own_name.unwrap_or(text).to_owned();
            return Err(Refusal { call: (*program).to_owned(), errno: 0, detail });
        }
    }
    Ok(())
}

/// The command that gives this user a range of ids.
pub(crate) fn range_command() -> String {
    let (uid, _) = own_ids();
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let texts = [file("/etc/subuid"), file("/etc/subgid")];
    let name = user_name(uid).unwrap_or_default();
    idmap::range_command(texts.each_ref().map(String::as_str), &name, uid)
}

/// The name of a user, as `/etc/subuid` may have it.
fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
    Some(user.name)
}
