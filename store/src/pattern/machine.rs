//! One pattern of a [`super::PatternSet`], compiled.
//!
//! BuildKit's matcher turns each pattern into a regular expression without knowing about classes,
//! so that what stands between brackets is rewritten too: `[*]` becomes `[[^/]*]`; and of the signs
//! that mean something to RE2 it escapes only some, so that `|` separates alternatives. The meaning
//! of such patterns is defined by that, and it is kept: a pattern is rewritten to the same
//! expression, which [`read`] reads. A pattern without wildcards, one that ends in its only `**`,
//! and one that starts with its only `**` are compared as text.
//!
//! Matching keeps a set of states and never backtracks, so no pattern is slow.

mod read;

use super::glob::decode;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) enum Machine {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    States {
        prefix: Vec<u8>,
        states: Vec<State>,
        suffix: Vec<u8>,
    },
    /// One of several.
    Either(Vec<Self>),
}

/// Words of the small and the large set of states.
const SMALL: usize = 1;
const LARGE: usize = 64;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// One character.
    One(Class),
    /// At most one.
    Maybe(Class),
    /// Any number of them.
    Many(Class),
    /// Nothing, or anything that ends in `/`.
    Dirs,
    /// Inside of `Dirs`, always the next state.
    DirsInner,
    /// Only at the start of the path.
    Start,
    /// Only at its end.
    End,
    /// Only where a word begins or ends; or, if false, only elsewhere.
    Boundary(bool),
}

/// A set of characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn literal(found: char) -> Self {
        Self { negated: false, ranges: vec![(found, found)] }
    }

    fn not(found: char) -> Self {
        Self { negated: true, ranges: vec![(found, found)] }
    }

    fn contains(&self, found: char) -> bool {
        self.ranges.iter().any(|&(low, high)| low <= found && found <= high) != self.negated
    }
}

/// What stands before and behind a place of the path.
#[derive(Clone, Copy)]
struct Place {
    before: Option<char>,
    behind: Option<char>,
}

impl Place {
    fn is_boundary(self) -> bool {
        let word = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric() || it == '_');
        word(self.before) != word(self.behind)
    }
}

impl Machine {
    /// Compiles a cleaned pattern without `!`; none if it cannot be.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let (form, expression) = rewrite(pattern);
        Some(match form {
            Form::Exact => Self::Exact(pattern.as_bytes().to_vec()),
            Form::Prefix => Self::Prefix(pattern.as_bytes()[..pattern.len() - 2].to_vec()),
            Form::Suffix => Self::Suffix(pattern.as_bytes()[2..].to_vec()),
            Form::Expression => {
                let mut machines: Vec<Self> =
                    read::read(&expression)?.into_iter().map(Self::of_states).collect();
                if machines.len() == 1 { machines.remove(0) } else { Self::Either(machines) }
            }
        })
    }

    fn of_states(mut states: Vec<State>) -> Self {
        let prefix = take_literals(&mut states, false);
        let suffix = take_literals(&mut states, true);
        Self::States { prefix, states, suffix }
    }

    /// Whether the whole path matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => {
                path.ends_with(text) || (text.first() == Some(&b'/') && path == &text[1..])
            }
            Self::States { prefix, states, suffix } => {
                let Some(rest) = path.strip_prefix(prefix.as_slice()) else { return false };
                let Some(middle) = rest.strip_suffix(suffix.as_slice()) else { return false };
                if states.len() < SMALL * 64 {
                    run::<SMALL>(states, middle)
                } else if states.len() < LARGE * 64 {
                    run::<LARGE>(states, middle)
                } else {
                    // Longer than any path can be (PATH_MAX).
                    false
                }
            }
            Self::Either(machines) => machines.iter().any(|it| it.matches(path)),
        }
    }

    /// Whether only one path matches.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// Text that every matching path starts with.
    pub(super) fn literal_prefix(&self) -> &[u8] {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::States { prefix: text, .. } => text,
            Self::Suffix(_) | Self::Either(_) => b"",
        }
    }
}

enum Form {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// The expression that BuildKit's matcher makes, and how it is compared.
fn rewrite(pattern: &str) -> (Form, String) {
    let mut form = Form::Exact;
    let mut expression = "^".to_owned();
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(found) = chars.next() {
        match found {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    expression.push_str("(.*/)?");
                    form = Form::Expression;
                } else if matches!(form, Form::Exact) {
                    form = Form::Prefix;
                } else {
                    expression.push_str(".*");
                    form = Form::Expression;
                }
                if first {
                    form = Form::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                form = Form::Expression;
            }
            '?' => {
                expression.push_str("[^/]");
                form = Form::Expression;
            }
            '.' | '+' | '(' | ')' | '$' => {
                expression.push('\\');
                expression.push(found);
            }
            '\\' => {
                expression.push('\\');
                if let Some(escaped) = chars.next() {
                    expression.push(escaped);
                    form = Form::Expression;
                }
            }
            '[' | ']' => {
                expression.push(found);
                form = Form::Expression;
            }
            other => expression.push(other),
        }
        first = false;
    }
    expression.push('$');
    (form, expression)
}

/// Removes the literal characters at one end and returns their text.
fn take_literals(states: &mut Vec<State>, at_end: bool) -> Vec<u8> {
    let literal = |state: &State| match state {
        State::One(Class { negated: false, ranges }) => match ranges.as_slice() {
            &[(low, high)] if low == high && low != char::REPLACEMENT_CHARACTER => Some(low),
            _ => None,
        },
        State::One(_)
        | State::Maybe(_)
        | State::Many(_)
        | State::Dirs
        | State::DirsInner
        | State::Start
        | State::End
        | State::Boundary(_) => None,
    };
    // These look at what stands around them.
    let looks = |it: &State| matches!(it, State::Start | State::End | State::Boundary(_));
    if states.iter().any(looks) {
        return Vec::new();
    }
    let text: String = if at_end {
        let kept = states.iter().rposition(|state| literal(state).is_none()).map_or(0, |at| at + 1);
        states.drain(kept..).filter_map(|state| literal(&state)).collect()
    } else {
        let end = states.iter().position(|state| literal(state).is_none()).unwrap_or(states.len());
        states.drain(..end).filter_map(|state| literal(&state)).collect()
    };
    text.into_bytes()
}

/// Runs the states over the whole text with `N` words of state bits.
fn run<const N: usize>(states: &[State], text: &[u8]) -> bool {
    let decoded = |at: usize| (at < text.len()).then(|| decode(&text[at..]));
    let mut coming = decoded(0);
    let mut now = [0_u64; N];
    enter(states, &mut now, 0, Place { before: None, behind: coming.map(|it| it.0) });
    let mut at = 0;
    while let Some((found, width)) = coming {
        at += width;
        coming = decoded(at);
        let place = Place { before: Some(found), behind: coming.map(|it| it.0) };
        let mut next = [0_u64; N];
        let mut alive = false;
        for (word, mut bits) in now.into_iter().enumerate() {
            while bits != 0 {
                let state = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                alive |= step(states, &mut next, state, found, place);
            }
        }
        if !alive {
            return false;
        }
        now = next;
    }
    now[states.len() / 64] & (1 << (states.len() % 64)) != 0
}

/// Where one state goes on a character, which leads to `place`; whether anywhere.
fn step<const N: usize>(
    states: &[State],
    next: &mut [u64; N],
    state: usize,
    found: char,
    place: Place,
) -> bool {
    match states.get(state) {
        Some(State::One(class) | State::Maybe(class)) if class.contains(found) => {
            enter(states, next, state + 1, place);
        }
        Some(State::Many(class)) if class.contains(found) => enter(states, next, state, place),
        Some(State::DirsInner) if found != '\n' => {
            next[state / 64] |= 1 << (state % 64);
            if found == '/' {
                enter(states, next, state + 1, place);
            }
        }
        _ => return false,
    }
    true
}

/// Adds a state and all that can be reached from it without a character.
fn enter<const N: usize>(states: &[State], set: &mut [u64; N], mut state: usize, place: Place) {
    loop {
        if set[state / 64] & (1 << (state % 64)) != 0 {
            return;
        }
        set[state / 64] |= 1 << (state % 64);
        match states.get(state) {
            Some(State::Maybe(_) | State::Many(_)) => state += 1,
            Some(State::Dirs) => {
                set[(state + 1) / 64] |= 1 << ((state + 1) % 64);
                state += 2;
            }
            Some(State::Start) if place.before.is_none() => state += 1,
            Some(State::End) if place.behind.is_none() => state += 1,
            Some(State::Boundary(wanted)) if place.is_boundary() == *wanted => state += 1,
            Some(
                State::One(_) | State::DirsInner | State::Start | State::End | State::Boundary(_),
            )
            | None => return,
        }
    }
}
