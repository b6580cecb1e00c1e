//! The system call filter of a step: Docker's default profile as a program for the kernel. Pure.
//!
//! Differences from Docker's: fsync(2) and its relatives succeed without doing anything, and 64-bit
//! arguments whose upper half the kernel ignores are compared without it. As with Docker, a call
//! that is newer than the profile does not exist (`ENOSYS`), so that libraries fall back; a known
//! call that is not allowed is forbidden (`EPERM`). The 32-bit and x32 interfaces are filtered by
//! the same rules.
//!
//! The program looks at the architecture, then finds the call's number by halving a sorted list of
//! ranges: some ten comparisons, which the kernel runs only once per number where the answer does
//! not depend on arguments.

use super::bpf::{
    ALLOW, Arch, FORBID, KILL_PROCESS, SUCCEED, UNKNOWN, X32_BIT, and, arg, by_interface, if_any,
    if_at_least, load, one_of, ret, skip,
};
use super::caps;
use super::seccomp_table::{Rule, TABLE, X};
use super::sys::Instruction;

/// What a range of call numbers gets.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    Return(u32),
    Clone,
    Socket,
    Personality,
}

/// Numbers that only x32 uses, without `kexec_load` (528) and `move_pages` (533).
const X32_ONLY: [(u32, u32); 3] = [(512, 527), (529, 532), (534, 547)];

/// clone(2) flags that make namespaces: all but the time namespace, which clone cannot make.
const CLONE_NEW: u32 = 0x7e02_0000;

/// Address families that are kept away: kernel cryptography and virtual machine sockets, both with
/// a history of holes.
const FAMILIES: [u32; 2] = [38, 40];

/// Execution domains: Linux, Linux with 32-bit addresses, with the 3 GB limit, and the question.
const PERSONALITIES: [u32; 5] = [0, 8, 0x0002_0000, 0x0002_0008, u32::MAX];

/// The columns of the table for the own interface and the 32-bit one.
const fn columns(arch: Arch) -> [usize; 2] {
    match arch {
        Arch::X86_64 => [0, 1],
        Arch::Aarch64 => [2, 3],
    }
}

/// The filter of a process that may have capabilities `caps`.
pub fn filter(arch: Arch, caps: u64) -> Vec<Instruction> {
    let part = |column| {
        let mut body = tree(&ranges(column, caps));
        if column == 0 {
            body.insert(0, and(!X32_BIT));
        }
        body
    };
    let ([wide, narrow], columns) = (arch.audit(), columns(arch));
    by_interface([(wide, part(columns[0])), (narrow, part(columns[1]))], KILL_PROCESS)
}

/// The verdicts in order of call numbers: each holds from its number to the next one's.
fn ranges(column: usize, caps: u64) -> Vec<(u32, Verdict)> {
    let mut calls: Vec<(u32, Verdict)> = TABLE
        .iter()
        .filter(|(_, _, numbers)| numbers[column] != X)
        .map(|(_, rule, numbers)| (numbers[column], verdict(*rule, caps)))
        .collect();
    if column == 0 {
        let only = X32_ONLY.iter().flat_map(|&(first, last)| first..=last);
        calls.extend(only.map(|number| (number, Verdict::Return(ALLOW))));
    }
    calls.sort_by_key(|it| it.0);

    let newest = TABLE.iter().map(|it| it.2[column]).filter(|&it| it != X && it < 0x1000).max();
    let newest = newest.unwrap_or(0);
    let default = |number: u32| Verdict::Return(if number > newest { UNKNOWN } else { FORBID });
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |from: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|it| it.1 != verdict) {
            ranges.push((from, verdict));
        }
    };
    let mut free = 0;
    for (number, verdict) in calls {
        if number > free {
            push(free, default(free));
            if free <= newest && number > newest + 1 {
                push(newest + 1, default(newest + 1));
            }
        }
        push(number, verdict);
        free = number + 1;
    }
    push(free, default(free.max(newest + 1)));
    ranges
}

fn verdict(rule: Rule, set: u64) -> Verdict {
    let admin = caps::has(set, caps::number::SYS_ADMIN);
    let allowed = |yes: bool, no: u32| Verdict::Return(if yes { ALLOW } else { no });
    match rule {
        Rule::Always => allowed(true, FORBID),
        Rule::Cap(cap) => allowed(caps::has(set, cap), FORBID),
        Rule::Caps(one, other) => allowed(caps::has(set, one) || caps::has(set, other), FORBID),
        Rule::Clone if !admin => Verdict::Clone,
        Rule::Clone => allowed(true, FORBID),
        Rule::Clone3 => allowed(admin, UNKNOWN),
        Rule::Socket => Verdict::Socket,
        Rule::Personality => Verdict::Personality,
        Rule::Sync => Verdict::Return(SUCCEED),
    }
}

/// A program that ends with the verdict of the range that the accumulator lies in.
fn tree(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((first, verdict)) = high.first() else {
        return vec![ret(FORBID)];
    };
    if low.is_empty() {
        return leaf(verdict);
    }
    let (low, high) = (tree(low), tree(high));
    let mut program = vec![];
    match u8::try_from(low.len()) {
        Ok(length) => program.push(if_at_least(*first, length, 0)),
        Err(_) => program.extend([if_at_least(*first, 0, 1), skip(&low)]),
    }
    program.extend(low);
    program.extend(high);
    program
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Return(value) => vec![ret(*value)],
        Verdict::Clone => {
            vec![load(arg(0)), if_any(CLONE_NEW, 1, 0), ret(ALLOW), ret(FORBID)]
        }
        Verdict::Socket => one_of(&FAMILIES, FORBID, ALLOW),
        Verdict::Personality => one_of(&PERSONALITIES, ALLOW, FORBID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::bpf;

    fn run(program: &[Instruction], audit: u32, number: u32, arg0: u32) -> u32 {
        bpf::run(program, audit, number, [arg0, 0, 0, 0])
    }

    const X64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;

    /// The program against the table, one call after the other, with no tree and no ranges.
    #[test]
    fn agrees_with_the_table_for_every_number() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for set in [caps::SANDBOX, caps::ALL, 0] {
                let program = filter(arch, set);
                assert!(program.len() < 4096, "the kernel's limit");
                for (audit, column) in arch.audit().into_iter().zip(columns(arch)) {
                    for number in 0..700 {
                        let got = run(&program, audit, number, 0);
                        let row = TABLE.iter().find(|it| it.2[column] == number);
                        let expect = match row.map(|it| verdict(it.1, set)) {
                            Some(Verdict::Return(value)) => value,
                            Some(Verdict::Clone | Verdict::Socket | Verdict::Personality) => ALLOW,
                            None if column == 0
                                && X32_ONLY.iter().any(|it| (it.0..=it.1).contains(&number)) =>
                            {
                                ALLOW
                            }
                            None if number > 466 => UNKNOWN,
                            None => FORBID,
                        };
                        assert_eq!(got, expect, "{arch:?} {column} call {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn arguments_count() {
        let program = filter(Arch::X86_64, caps::SANDBOX);
        let x64 = |number, arg0| run(&program, X64, number, arg0);
        assert_eq!(x64(56, 0x0001_1200), ALLOW, "fork");
        assert_eq!(x64(56, 0x1000_0000), FORBID, "clone(NEWUSER)");
        assert_eq!(x64(435, 0), UNKNOWN, "clone3");
        assert_eq!(x64(41, 2), ALLOW, "socket(INET)");
        assert_eq!(x64(41, 38), FORBID, "socket(ALG)");
        assert_eq!(x64(41, 39), ALLOW, "socket(NFC)");
        assert_eq!(x64(41, 40), FORBID, "socket(VSOCK)");
        assert_eq!(x64(135, 0x0002_0008), ALLOW, "personality");
        assert_eq!(x64(135, 0x0004_0000), FORBID, "no randomised addresses");
        assert_eq!(x64(74, 0), SUCCEED, "fsync");
        assert_eq!(x64(165, 0), FORBID, "mount");
        assert_eq!(x64(272, 0), FORBID, "unshare");
        assert_eq!(x64(425, 0), FORBID, "io_uring_setup");
    }

    #[test]
    fn the_other_interfaces_of_the_processor_have_no_way_around() {
        let program = filter(Arch::X86_64, caps::SANDBOX);
        assert_eq!(run(&program, X64, X32_BIT + 165, 0), FORBID, "mount by x32");
        assert_eq!(run(&program, X64, X32_BIT + 528, 0), UNKNOWN, "kexec_load by x32");
        assert_eq!(run(&program, X64, X32_BIT + 520, 0), ALLOW, "execve by x32");
        assert_eq!(run(&program, I386, 21, 0), FORBID, "mount by int 0x80");
        assert_eq!(run(&program, I386, 120, 0x1000_0000), FORBID, "clone(NEWUSER) by int 0x80");
        assert_eq!(run(&program, 0xc000_00b7, 0, 0), KILL_PROCESS, "an Arm call");
    }

    #[test]
    fn the_table_is_sorted_and_unique() {
        assert!(TABLE.windows(2).all(|it| it[0].0 < it[1].0));
        for column in 0..4 {
            let mut numbers: Vec<u32> =
                TABLE.iter().map(|it| it.2[column]).filter(|&it| it != X).collect();
            numbers.sort_unstable();
            let n = numbers.len();
            // One Arm call has two names.
            numbers.dedup();
            assert!(n - numbers.len() <= usize::from(column == 3), "column {column}");
        }
    }
}
