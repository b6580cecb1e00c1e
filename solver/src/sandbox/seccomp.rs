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

use super::caps;
use super::seccomp_table::{Rule, TABLE, X};
use super::sys::Instruction;

/// A processor architecture that we run on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arch {
    /// x86-64, with i386 and x32 beside it.
    X86_64,
    /// 64-bit Arm, with 32-bit Arm beside it.
    Aarch64,
}

impl Arch {
    /// The one this program is built for.
    pub const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// What the kernel calls the interfaces (`AUDIT_ARCH_*`), with their columns in the table.
    const fn interfaces(self) -> [(u32, usize); 2] {
        match self {
            Self::X86_64 => [(0xc000_003e, 0), (0x4000_0003, 1)],
            Self::Aarch64 => [(0xc000_00b7, 2), (0x4000_0028, 3)],
        }
    }
}

/// What a range of call numbers gets.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    Return(u32),
    Clone,
    Socket,
    Personality,
}

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const SUCCEED: u32 = errno(0);
const FORBID: u32 = errno(libc::EPERM as u32);
const UNKNOWN: u32 = errno(libc::ENOSYS as u32);

const fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

/// Set in the number of an x32 call.
const X32_BIT: u32 = 0x4000_0000;

/// Numbers that only x32 uses, without `kexec_load` (528) and `move_pages` (533).
const X32_ONLY: [(u32, u32); 3] = [(512, 527), (529, 532), (534, 547)];

/// clone(2) flags that make namespaces: all but the time namespace, which clone cannot make.
const CLONE_NEW: u32 = 0x7e02_0000;

/// Address families that are kept away: kernel cryptography and virtual machine sockets, both with
/// a history of holes.
const FAMILIES: [u32; 2] = [38, 40];

/// Execution domains: Linux, Linux with 32-bit addresses, with the 3 GB limit, and the question.
const PERSONALITIES: [u32; 5] = [0, 8, 0x0002_0000, 0x0002_0008, u32::MAX];

/// Offsets in the kernel's `struct seccomp_data`: number, architecture, arguments (low halves).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0: u32 = 16;

/// The filter of a process that may have capabilities `caps`.
pub fn filter(arch: Arch, caps: u64) -> Vec<Instruction> {
    let mut program = vec![load(ARCH)];
    for (audit, column) in arch.interfaces() {
        let mut body = vec![load(NUMBER)];
        if column == 0 {
            body.push(op(0x54, !X32_BIT)); // A &= K
        }
        body.extend(tree(&ranges(column, caps)));
        // Skip this interface's part if the call came by another.
        program.push(jump(0x15, audit, 1, 0)); // if A == K
        program.push(op(0x05, length(&body))); // skip K
        program.extend(body);
    }
    program.push(ret(KILL_PROCESS));
    program
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
        Ok(skip) => program.push(jump(0x35, *first, skip, 0)), // if A >= K
        Err(_) => program.extend([jump(0x35, *first, 0, 1), op(0x05, length(&low))]),
    }
    program.extend(low);
    program.extend(high);
    program
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Return(value) => vec![ret(*value)],
        Verdict::Clone => {
            vec![load(ARG0), jump(0x45, CLONE_NEW, 1, 0), ret(ALLOW), ret(FORBID)] // if A & K
        }
        Verdict::Socket => one_of(&FAMILIES, FORBID, ALLOW),
        Verdict::Personality => one_of(&PERSONALITIES, ALLOW, FORBID),
    }
}

/// `yes` if the first argument is among `values`, else `no`.
fn one_of(values: &[u32], yes: u32, no: u32) -> Vec<Instruction> {
    let mut program = vec![load(ARG0)];
    for (index, &value) in values.iter().enumerate() {
        let rest = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        program.push(jump(0x15, value, rest, 0));
    }
    program.extend([ret(no), ret(yes)]);
    program
}

fn load(offset: u32) -> Instruction {
    op(0x20, offset)
}

fn ret(value: u32) -> Instruction {
    op(0x06, value)
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn length(program: &[Instruction]) -> u32 {
    u32::try_from(program.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(program: &[Instruction], arch: u32, number: u32, arg0: u32) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let take = |yes: bool| usize::from(if yes { jt } else { jf });
            match code {
                0x20 => {
                    a = match k {
                        NUMBER => number,
                        ARCH => arch,
                        ARG0 => arg0,
                        other => panic!("a load from {other}"),
                    }
                }
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += take(a == k),
                0x35 => at += take(a >= k),
                0x45 => at += take(a & k != 0),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
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
                for (audit, column) in arch.interfaces() {
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
