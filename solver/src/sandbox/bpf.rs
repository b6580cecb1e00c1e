//! The instructions of a system call filter, and what it may answer: seccomp(2), `<linux/filter.h>`,
//! `<linux/seccomp.h>`. Pure.

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

    /// What the kernel calls the own interface and the 32-bit one (`AUDIT_ARCH_*`).
    pub const fn audit(self) -> [u32; 2] {
        match self {
            Self::X86_64 => [0xc000_003e, 0x4000_0003],
            Self::Aarch64 => [0xc000_00b7, 0x4000_0028],
        }
    }
}

/// The kernel carries the call out.
pub const ALLOW: u32 = 0x7fff_0000;
/// Whoever listens is asked.
pub const NOTIFY: u32 = 0x7fc0_0000;
/// The caller ends.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// The call succeeds without doing anything.
pub const SUCCEED: u32 = errno(0);
/// The call is known and forbidden.
pub const FORBID: u32 = errno(libc::EPERM as u32);
/// The call does not exist.
pub const UNKNOWN: u32 = errno(libc::ENOSYS as u32);

/// The call fails with this error.
pub const fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

/// Set in the number of an x32 call.
pub const X32_BIT: u32 = 0x4000_0000;

/// Offsets in the kernel's `struct seccomp_data`: number of the call, its interface.
pub const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Offset of the low half of an argument, on the little-endian machines that we run on.
pub fn arg(index: usize) -> u32 {
    16 + 8 * u32::try_from(index).unwrap_or(u32::MAX / 16)
}

/// A = the word at `offset` of the call.
pub const fn load(offset: u32) -> Instruction {
    op(0x20, offset)
}

/// A = A & `mask`.
pub const fn and(mask: u32) -> Instruction {
    op(0x54, mask)
}

/// The answer.
pub const fn ret(answer: u32) -> Instruction {
    op(0x06, answer)
}

/// Skips `yes` instructions if A is `value`, else `no`.
pub const fn if_equal(value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: 0x15, jt: yes, jf: no, k: value }
}

/// Skips `yes` instructions if A is at least `value`, else `no`.
pub const fn if_at_least(value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: 0x35, jt: yes, jf: no, k: value }
}

/// Skips `yes` instructions if A has any of `bits`, else `no`.
pub const fn if_any(bits: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code: 0x45, jt: yes, jf: no, k: bits }
}

/// Skips all of `program`.
pub fn skip(program: &[Instruction]) -> Instruction {
    op(0x05, u32::try_from(program.len()).unwrap_or(u32::MAX))
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// `yes` if the first argument is among `values`, else `no`.
pub fn one_of(values: &[u32], yes: u32, no: u32) -> Vec<Instruction> {
    let mut program = vec![load(arg(0))];
    for (index, &value) in values.iter().enumerate() {
        let rest = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        program.push(if_equal(value, rest, 0));
    }
    program.extend([ret(no), ret(yes)]);
    program
}

/// A program of one part for each interface, which starts with the call's number in A and ends
/// with an answer; `other` is the answer to all other interfaces.
pub fn by_interface(parts: [(u32, Vec<Instruction>); 2], other: u32) -> Vec<Instruction> {
    let mut program = vec![load(ARCH)];
    for (audit, body) in parts {
        let number = load(NUMBER);
        let body = [&[number], &body[..]].concat();
        program.extend([if_equal(audit, 1, 0), skip(&body)]);
        program.extend(body);
    }
    program.push(ret(other));
    program
}

/// Runs the program as the kernel would.
#[cfg(test)]
pub fn run(program: &[Instruction], audit: u32, number: u32, args: [u32; 4]) -> u32 {
    let (mut at, mut a) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let take = |yes: bool| usize::from(if yes { jt } else { jf });
        match code {
            0x20 => {
                a = match k {
                    NUMBER => number,
                    ARCH => audit,
                    offset => args[(offset as usize - 16) / 8],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_has_its_part() {
        let part = |answer| vec![if_equal(7, 0, 1), ret(answer), ret(ALLOW)];
        let program = by_interface([(1, part(FORBID)), (2, part(UNKNOWN))], KILL_PROCESS);
        let answers = [(1, 7), (2, 7), (1, 8), (2, 8), (3, 7)];
        let answers = answers.map(|(audit, number)| run(&program, audit, number, [0; 4]));
        assert_eq!(answers, [FORBID, UNKNOWN, ALLOW, ALLOW, KILL_PROCESS]);
    }

    #[test]
    fn one_of_some() {
        let program = by_interface([(1, one_of(&[4, 5, 6], SUCCEED, FORBID)), (2, vec![])], ALLOW);
        let answer = |first| run(&program, 1, 0, [first, 4, 4, 4]);
        assert_eq!([3, 4, 5, 6, 7].map(answer), [FORBID, SUCCEED, SUCCEED, SUCCEED, FORBID]);
    }
}
