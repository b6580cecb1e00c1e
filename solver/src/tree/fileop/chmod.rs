//! Modes of copied files: octal, or symbolic as `chmod` has them.
//!
//! The symbolic language is BSD's `setmode(3)`, which BuildKit uses, with a file creation mask of
//! zero: `[ugoa]*([+-=][rwxXst]*|[+-=][ugo])+`, separated by commas. `X` looks at the mode before
//! the first change; copies (`g=u`) look at the mode so far.

use super::error::FileOpError;
use crate::llb::op::ChmodOpt;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const READ: u32 = 0o444;
const WRITE: u32 = 0o222;
const EXECUTE: u32 = 0o111;
/// What a clause without `ugoa` concerns: all but the sticky bit.
const STANDARD: u32 = 0o6777;

/// A change of modes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Chmod {
    /// Modes stay.
    #[default]
    Keep,
    /// These bits exactly.
    Bits(u32),
    /// Steps, one after the other.
    Steps(Vec<Step>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Set(u32),
    Clear(u32),
    /// Sets the bits if the file is a directory or had an execute bit.
    SetIfExecutable(u32),
    /// Copies the three bits at shift `from` to the classes of `to` (a mode of whole classes).
    Copy {
        from: u32,
        to: u32,
        op: char,
    },
}

impl Chmod {
    /// Reads what the operation says.
    pub(super) fn new(mode: Option<&ChmodOpt>) -> Result<Self, FileOpError> {
        match mode {
            None => Ok(Self::Keep),
            Some(ChmodOpt::Bits(bits)) => Ok(Self::Bits(bits & 0o7777)),
            Some(ChmodOpt::Symbolic(text)) => {
                parse(text).ok_or_else(|| FileOpError::Mode { mode: text.clone() })
            }
        }
    }

    /// The mode of directories that are made for a copy: octal modes count without their special
    /// bits, symbolic ones not at all.
    pub(super) fn parents(&self) -> u32 {
        match self {
            Self::Bits(bits) => bits & 0o777,
            Self::Keep | Self::Steps(_) => 0o755,
        }
    }

    /// The mode of a copied file that had `mode`.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let steps = match self {
            Self::Keep => return mode,
            Self::Bits(bits) => return *bits,
            Self::Steps(steps) => steps,
        };
        steps.iter().fold(mode, |so_far, step| match *step {
            Step::Set(bits) => so_far | bits,
            Step::Clear(bits) => so_far & !bits,
            Step::SetIfExecutable(bits) if is_dir || mode & EXECUTE != 0 => so_far | bits,
            Step::SetIfExecutable(_) => so_far,
            Step::Copy { from, to, op } => {
                let value = (so_far >> from) & 0o7;
                let bits = (value * 0o111) & to;
                match op {
                    '+' => so_far | bits,
                    '-' => so_far & !bits,
                    _ => so_far & !to | bits,
                }
            }
        })
    }
}

fn parse(text: &str) -> Option<Chmod> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777)?;
        return Some(Chmod::Bits(bits));
    }
    let mut steps = Vec::new();
    for clause in text.split(',') {
        let end = clause.find(|letter| !"ugoa".contains(letter))?;
        let who = clause[..end].chars().fold(0, |who, letter| {
            who | match letter {
                'a' => STANDARD,
                'u' => SET_UID | 0o700,
                'g' => SET_GID | 0o070,
                _ => 0o007,
            }
        });
        let mut rest = &clause[end..];
        while !rest.is_empty() {
            rest = action(rest, who, &mut steps)?;
        }
    }
    Some(Chmod::Steps(steps))
}

/// One operator with its permissions; returns what follows.
fn action<'a>(text: &'a str, mut who: u32, steps: &mut Vec<Step>) -> Option<&'a str> {
    let mut letters = text.chars();
    let op = letters.next().filter(|op| "+-=".contains(*op))?;
    // `=` clears first, once.
    let mut cleared = op != '=';
    let (mut bits, mut conditional) = (0, 0);
    let special = who == 0 || who & !0o007 != 0;
    let mut rest = letters.as_str();
    while let Some(letter) = letters.next() {
        match letter {
            'r' => bits |= READ,
            'w' => bits |= WRITE,
            'x' => bits |= EXECUTE,
            'X' if op == '-' => bits |= EXECUTE,
            'X' => conditional |= EXECUTE,
            's' if special => bits |= SET_UID | SET_GID,
            't' if special => {
                who |= STICKY;
                bits |= STICKY;
            }
            's' | 't' => {}
            'u' | 'g' | 'o' => {
                if bits != 0 {
                    change(op, who, bits, steps);
                    bits = 0;
                }
                cleared = true;
                if conditional != 0 {
                    steps.push(Step::SetIfExecutable(masked(who, conditional)));
                    conditional = 0;
                }
                let from = match letter {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                steps.push(Step::Copy { from, to: classes(who), op });
            }
            _ => break,
        }
        rest = letters.as_str();
    }
    if bits != 0 || !cleared {
        change(op, who, bits, steps);
    }
    if conditional != 0 {
        steps.push(Step::SetIfExecutable(masked(who, conditional)));
    }
    Some(rest)
}

fn change(op: char, who: u32, bits: u32, steps: &mut Vec<Step>) {
    match op {
        '-' => steps.push(Step::Clear(masked(who, bits))),
        '+' => steps.push(Step::Set(masked(who, bits))),
        _ => {
            steps.push(Step::Clear(if who == 0 { STANDARD } else { who }));
            steps.push(Step::Set(masked(who, bits)));
        }
    }
}

fn masked(who: u32, bits: u32) -> u32 {
    if who == 0 { bits } else { who & bits }
}

/// The classes that a copy goes to.
fn classes(who: u32) -> u32 {
    let all = [0o700, 0o070, 0o007];
    all.into_iter().filter(|class| who == 0 || who & READ & class != 0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text from`: the mode that results, for a file and for a directory.
    #[track_caller]
    fn check(text: &str, from: u32, file: u32, dir: u32) {
        let chmod = Chmod::new(Some(&ChmodOpt::Symbolic(text.into()))).unwrap();
        let got = (chmod.apply(from, false), chmod.apply(from, true));
        assert_eq!(got, (file, dir), "{text} of {from:o}: {:o} {:o}", got.0, got.1);
    }

    #[test]
    fn symbolic_modes() {
        check("u=rwX,go=rX", 0o666, 0o644, 0o755);
        check("u=rwX,go=rX", 0o744, 0o755, 0o755);
        check("go-w,u+x", 0o666, 0o744, 0o744);
        check("a+X", 0o600, 0o600, 0o711);
        check("+x", 0o4640, 0o4751, 0o4751);
        check("a=", 0o7777, 0o1000, 0o1000);
        check("=r", 0o7777, 0o1444, 0o1444);
        check("g=u-w", 0o640, 0o640 | 0o040, 0o640 | 0o040);
        check("g=u", 0o741, 0o771, 0o771);
        check("o+u", 0o701, 0o707, 0o707);
        check("ug+s", 0o755, 0o6755, 0o6755);
        check("u+s", 0o755, 0o4755, 0o4755);
        check("o+s", 0o755, 0o755, 0o755);
        check("+t", 0o755, 0o1755, 0o1755);
        check("u+t", 0o755, 0o1755, 0o1755);
        check("u+r-w", 0o200, 0o400, 0o400);
        check("-X", 0o755, 0o644, 0o644);
        check("1755", 0, 0o1755, 0o1755);
    }

    #[test]
    fn refuses_what_is_no_mode() {
        for text in ["", "u", "u+r,", "rw", "u+z", "8", "77777", ",u+r", "u~r"] {
            assert!(Chmod::new(Some(&ChmodOpt::Symbolic(text.into()))).is_err(), "{text}");
        }
    }
}
