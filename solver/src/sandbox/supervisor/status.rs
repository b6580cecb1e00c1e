//! `/proc/self/status` of a process that is not root, with the ids that it believes to have.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::Supervisor;
use super::ids::{Ids, Roles};
use crate::sandbox::asked::{Answer, Stop, leave};
use crate::sandbox::sys::Notification;

/// What the file's path ends with.
const NAME: &[u8] = b"/status";

impl Supervisor {
    /// Answers with a file in memory if `there` is the caller's own status.
    pub(super) fn open_status(
        &self,
        call: &Notification,
        there: BorrowedFd<'_>,
        ids: &Ids,
        flags: OFlags,
    ) -> Answer {
        let path = self.tracees.path_of(there).ok_or(Stop::Continue)?;
        let dir = path.strip_suffix(NAME).ok_or(Stop::Continue)?;
        let own = self.tracees.own_number(call.pid).ok_or(Stop::Continue)?.to_string();
        if !dir.ends_with(format!("/{own}").as_bytes()) {
            return Err(Stop::Continue);
        }
        let status = self.tracees.status(call.pid).ok_or(Stop::Continue)?;
        let kind = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("status", kind)?;
        let mut file = std::fs::File::from(file);
        file.write_all(rewrite(&status, ids, &own).as_bytes()).map_err(leave)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
        self.send(call, file.as_fd(), flags)
    }
}

/// The text with the ids, and without the capabilities and numbers that the process does not know.
fn rewrite(status: &str, ids: &Ids, own: &str) -> String {
    let roles = |it: Roles| format!("{}\t{}\t{}\t{}", it.real, it.effective, it.saved, it.files);
    let mut text = String::new();
    for line in status.lines() {
        let (name, value) = line.split_once(":\t").unwrap_or((line, ""));
        let new = match name {
            "Uid" => roles(ids.user),
            "Gid" => roles(ids.group),
            "Groups" => {
                let groups: Vec<String> = ids.groups.iter().map(u32::to_string).collect();
                groups.join(" ")
            }
            "CapPrm" | "CapEff" if !ids.is_root() => format!("{:016x}", 0),
            "Pid" | "Tgid" => own.to_owned(),
            "NStgid" | "NSpid" | "NSpgid" | "NSsid" => {
                value.split_whitespace().next_back().unwrap_or_default().to_owned()
            }
            _ => value.to_owned(),
        };
        let _ = writeln!(text, "{name}:\t{new}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_who_the_process_is_to_itself() {
        let all = |id| Roles { real: id, effective: id, saved: id, files: id };
        let ids = Ids { user: all(901), group: all(900), groups: vec![5, 900], ..Ids::default() };
        let status = "Name:\tsh\nTgid:\t77\nPid:\t77\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \n\
                      NSpid:\t77\t8\t3\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n";
        let expect = "Name:\tsh\nTgid:\t3\nPid:\t3\nUid:\t901\t901\t901\t901\nGid:\t900\t900\t900\t900\n\
                      Groups:\t5 900\nNSpid:\t3\nCapEff:\t0000000000000000\nSeccomp:\t2\n";
        assert_eq!(rewrite(status, &ids, "3"), expect);
    }
}
