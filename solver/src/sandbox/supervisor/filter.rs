//! The filter that has the kernel ask the supervisor. Pure.

use super::calls::{Interface, Topic, calls};
use super::people::CARRIER;
use crate::sandbox::bpf::{
    ALLOW, Arch, NOTIFY, SUCCEED, UNKNOWN, X32_BIT, and, arg, by_interface, if_any, if_equal, load,
    ret,
};
use crate::sandbox::plan::Pretend;
use crate::sandbox::sys::Instruction;

/// The bits of a type in a mode that character and block devices have in common, and no other.
const DEVICE_MASK: u32 = 0o130_000;
const DEVICE: u32 = 0o020_000;

/// `PR_SET_KEEPCAPS`.
const KEEP_CAPS: u32 = 8;

/// The kernel's number of an interface of this machine (`AUDIT_ARCH_*`).
pub(super) const fn audit(interface: Interface) -> u32 {
    let [wide, narrow] = Arch::HERE.audit();
    match interface {
        Interface::Wide => wide,
        Interface::Narrow => narrow,
    }
}

/// The filter of a supervised step: what the kernel asks about.
pub(crate) fn filter(pretend: Pretend) -> Vec<Instruction> {
    program(|topic| match (pretend, topic) {
        (Pretend::Ids | Pretend::Devices, Topic::Missing) => vec![ret(UNKNOWN)],
        (Pretend::Ids | Pretend::Devices, Topic::Look)
        | (Pretend::Ids, Topic::Identity | Topic::Node(_) | Topic::Other) => vec![ret(NOTIFY)],
        (Pretend::Ids, Topic::Peer) => peer(),
        (Pretend::Ids, Topic::Keep) => {
            vec![load(arg(0)), if_equal(KEEP_CAPS, 0, 1), ret(NOTIFY), ret(ALLOW)]
        }
        (Pretend::Ids, Topic::Limit(resource, new)) => limit(resource, new),
        (Pretend::Devices | Pretend::NewDevices, Topic::Node(mode)) => node(mode),
        (
            Pretend::Devices,
            Topic::Identity | Topic::Peer | Topic::Keep | Topic::Limit(..) | Topic::Other,
        )
        | (
            Pretend::NewDevices,
            Topic::Identity
            | Topic::Look
            | Topic::Peer
            | Topic::Keep
            | Topic::Limit(..)
            | Topic::Missing
            | Topic::Other,
        ) => Vec::new(),
    })
}

/// The filter of a step that nobody can be asked about: owners and ids change without effect.
pub(crate) fn filter_unanswered() -> Vec<Instruction> {
    program(|topic| match topic {
        Topic::Identity => vec![ret(SUCCEED)],
        Topic::Look
        | Topic::Node(_)
        | Topic::Peer
        | Topic::Keep
        | Topic::Limit(..)
        | Topic::Missing
        | Topic::Other => Vec::new(),
    })
}

/// Asks if the mode is a device's.
fn node(mode: usize) -> Vec<Instruction> {
    let masked = and(DEVICE_MASK);
    vec![load(arg(mode)), masked, if_equal(DEVICE, 0, 1), ret(NOTIFY), ret(ALLOW)]
}

/// Asks if it is `SO_PEERCRED` of `SOL_SOCKET`.
fn peer() -> Vec<Instruction> {
    let (level, name) = (libc::SOL_SOCKET.cast_unsigned(), libc::SO_PEERCRED.cast_unsigned());
    let level = [load(arg(1)), if_equal(level, 0, 3)];
    [&level[..], &[load(arg(2)), if_equal(name, 0, 1), ret(NOTIFY), ret(ALLOW)]].concat()
}

/// The limit that says who a process is changes without effect.
fn limit(resource: usize, new: usize) -> Vec<Instruction> {
    let resource = [load(arg(resource)), if_equal(CARRIER, 0, 3)];
    [&resource[..], &[load(arg(new)), if_equal(0, 1, 0), ret(SUCCEED), ret(ALLOW)]].concat()
}

/// A program that gives the calls of each interface their verdicts, and lets all others through.
fn program(verdict: impl Fn(Topic) -> Vec<Instruction>) -> Vec<Instruction> {
    let part = |interface| {
        let mut body = Vec::new();
        if (Arch::HERE, interface) == (Arch::X86_64, Interface::Wide) {
            // x32: a step has no use for it, and the numbers would be others.
            body.extend([if_any(X32_BIT, 0, 1), ret(UNKNOWN)]);
        }
        for (number, call) in calls(interface) {
            let answer = verdict(call.topic());
            match u8::try_from(answer.len()) {
                Ok(0) | Err(_) => {}
                Ok(skip) => body.push(if_equal(number, 0, skip)),
            }
            body.extend(answer);
        }
        body.push(ret(ALLOW));
        (audit(interface), body)
    };
    by_interface([Interface::Wide, Interface::Narrow].map(part), ALLOW)
}

#[cfg(test)]
mod tests {
    use super::super::calls::Call;
    use super::*;
    use crate::sandbox::bpf;

    fn run(program: &[Instruction], audit: u32, number: u32, [a, b, c]: [u32; 3]) -> u32 {
        bpf::run(program, audit, number, [a, b, c, 0])
    }

    const WIDE: u32 = audit(Interface::Wide);

    fn number(call: i64) -> u32 {
        u32::try_from(call).unwrap()
    }

    #[test]
    fn asks_about_the_calls_of_the_table_only() {
        let program = filter(Pretend::Ids);
        assert!(program.len() < 4096, "the kernel's limit");
        for interface in [Interface::Wide, Interface::Narrow] {
            let known = calls(interface);
            for number in 0..600_u32 {
                let got = run(&program, audit(interface), number, [0; 3]);
                let expect = match known.iter().find(|it| it.0 == number).map(|it| it.1) {
                    None | Some(Call::PeerIds | Call::Keep | Call::Limit { .. }) => ALLOW,
                    Some(Call::Missing) => UNKNOWN,
                    Some(_) => NOTIFY,
                };
                assert_eq!(got, expect, "{interface:?} {number}");
            }
        }
    }

    #[test]
    fn arguments_count() {
        let program = filter(Pretend::Ids);
        let getsockopt = number(libc::SYS_getsockopt);
        assert_eq!(run(&program, WIDE, getsockopt, [0, 1, 17]), NOTIFY);
        assert_eq!(run(&program, WIDE, getsockopt, [0, 1, 3]), ALLOW);
        assert_eq!(run(&program, WIDE, getsockopt, [0, 6, 17]), ALLOW);
        let prctl = number(libc::SYS_prctl);
        assert_eq!(run(&program, WIDE, prctl, [KEEP_CAPS, 1, 0]), NOTIFY);
        assert_eq!(run(&program, WIDE, prctl, [15, 1, 0]), ALLOW);
        let prlimit = number(libc::SYS_prlimit64);
        assert_eq!(run(&program, WIDE, prlimit, [0, CARRIER, 0x1000]), SUCCEED, "pam_limits");
        assert_eq!(run(&program, WIDE, prlimit, [0, CARRIER, 0]), ALLOW);
        assert_eq!(run(&program, WIDE, prlimit, [0, 7, 0x1000]), ALLOW);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn there_is_no_way_around_by_x32() {
        let setuid = number(libc::SYS_setuid);
        for pretend in [Pretend::Ids, Pretend::Devices, Pretend::NewDevices] {
            assert_eq!(run(&filter(pretend), WIDE, X32_BIT | setuid, [0; 3]), UNKNOWN);
        }
    }

    #[test]
    fn asks_about_devices_only() {
        let (mknodat, fstat) = (number(libc::SYS_mknodat), number(libc::SYS_fstat));
        for (pretend, look) in [(Pretend::NewDevices, ALLOW), (Pretend::Devices, NOTIFY)] {
            let program = filter(pretend);
            let run = |number, mode| run(&program, WIDE, number, [0, 0, mode]);
            for mode in [libc::S_IFCHR | 0o666, libc::S_IFBLK] {
                assert_eq!(run(mknodat, mode), NOTIFY, "{mode:o}");
            }
            for kind in [0, libc::S_IFREG, libc::S_IFDIR, libc::S_IFIFO, libc::S_IFSOCK] {
                assert_eq!(run(mknodat, kind | 0o777), ALLOW, "{kind:o}");
            }
            assert_eq!(run(mknodat, libc::S_IFLNK), ALLOW);
            assert_eq!(run(fstat, 0), look);
            assert_eq!(run(number(libc::SYS_fchown), 0), ALLOW);
        }
    }

    #[test]
    fn where_nobody_answers_owners_change_without_effect() {
        let program = filter_unanswered();
        let run = |call: i64| run(&program, WIDE, number(call), [0; 3]);
        assert_eq!(run(libc::SYS_fchownat), SUCCEED);
        assert_eq!(run(libc::SYS_setgroups), SUCCEED);
        assert_eq!(run(libc::SYS_getuid), ALLOW);
        assert_eq!(run(libc::SYS_statx), ALLOW);
    }
}
