//! One pattern of a [`super::PatternSet`], compiled.
//!
//! BuildKit's matcher turns each pattern into a regular expression without knowing about classes,
//! so that what stands between brackets is rewritten too: `[*]` becomes `[[^/]*]`. The meaning of
//! such patterns is defined by that, and it is kept: a pattern is rewritten to the same expression,
//! and the few forms that can occur in one are read here. A pattern without wildcards, one that
//! ends in its only `**`, and one that starts with its only `**` are compared as text.
//!
//! Matching keeps a set of states and never backtracks, so no pattern is slow.

use super::glob::decode;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) enum Machine {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    States { prefix: Vec<u8>, states: Vec<State>, suffix: Vec<u8> },
}

/// Words of the small and the large set of states.
const SMALL: usize = 1;
const LARGE: usize = 64;

// `\d`, `\s` and `\w` of RE2.
const DIGIT: &[(char, char)] = &[('0', '9')];
const SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// One character.
    One(Class),
    /// Any number of them.
    Many(Class),
    /// Nothing, or anything that ends in `/`.
    Dirs,
    /// Inside of `Dirs`, always the next state.
    DirsInner,
    /// Only at the start of the path.
    Start,
}

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

impl Machine {
    /// Compiles a cleaned pattern without `!`; none if it cannot be.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let (form, expression) = rewrite(pattern);
        Some(match form {
            Form::Exact => Self::Exact(pattern.as_bytes().to_vec()),
            Form::Prefix => Self::Prefix(pattern.as_bytes()[..pattern.len() - 2].to_vec()),
            Form::Suffix => Self::Suffix(pattern.as_bytes()[2..].to_vec()),
            Form::Expression => {
                let mut states = read(&expression)?;
                let prefix = take_literals(&mut states, false);
                let suffix = take_literals(&mut states, true);
                Self::States { prefix, states, suffix }
            }
        })
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
            Self::Suffix(_) => b"",
        }
    }
}

enum Form {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// The expression that BuildKit's matcher makes, without its anchors, and how it is compared.
fn rewrite(pattern: &str) -> (Form, String) {
    let mut form = Form::Exact;
    let mut expression = String::new();
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
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
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
    (form, expression)
}

/// Reads the expressions that [`rewrite`] can make.
fn read(expression: &str) -> Option<Vec<State>> {
    let mut states = Vec::new();
    let mut rest = expression;
    while let Some(found) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("(.*/)?") {
            states.extend([State::Dirs, State::DirsInner]);
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix(".*") {
            states.push(State::Many(Class::not('\n')));
            rest = after;
            continue;
        }
        rest = &rest[found.len_utf8()..];
        let class = match found {
            '^' => {
                states.push(State::Start);
                continue;
            }
            '[' => {
                let (class, after) = read_class(rest)?;
                rest = after;
                class
            }
            '\\' => {
                let (class, after) = read_escape(rest)?;
                rest = after;
                class
            }
            other => Class::literal(other),
        };
        match rest.strip_prefix('*') {
            Some(after) => {
                states.push(State::Many(class));
                rest = after;
            }
            None => states.push(State::One(class)),
        }
    }
    Some(states)
}

/// A class after its `[`. As in RE2: a `]` in first place is a member, and so is any `[`.
fn read_class(mut rest: &str) -> Option<(Class, &str)> {
    let negated = rest.starts_with('^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        if !first && let Some(after) = rest.strip_prefix(']') {
            return Some((Class { negated, ranges }, after));
        }
        // A `-` counts as a member only in first or last place.
        if rest.starts_with('-') && !first && !rest.starts_with("-]") {
            return None;
        }
        first = false;
        let (low, after) = read_member(rest)?;
        rest = after;
        let mut high = low.clone();
        if rest.starts_with('-') && !rest.starts_with("-]") {
            (high, rest) = read_member(&rest[1..])?;
        }
        match (low.as_slice(), high.as_slice()) {
            (&[(low, _)], &[(_, high)]) if low <= high => ranges.push((low, high)),
            (several, same) if several == same => ranges.extend_from_slice(several),
            _ => return None,
        }
    }
}

/// One member of a class: a character, or an escape that may stand for several.
fn read_member(rest: &str) -> Option<(Vec<(char, char)>, &str)> {
    let found = rest.chars().next()?;
    let after = &rest[found.len_utf8()..];
    if found != '\\' {
        return Some((vec![(found, found)], after));
    }
    let (class, after) = read_escape(after)?;
    // A negated class within a class is not worth its code: nobody excludes `[\D]`.
    (!class.negated).then_some((class.ranges, after))
}

/// An escape after its backslash: classes and control characters of RE2, and punctuation.
fn read_escape(rest: &str) -> Option<(Class, &str)> {
    let found = rest.chars().next()?;
    let several = |negated, ranges: &[(char, char)]| Class { negated, ranges: ranges.to_vec() };
    let class = match found {
        'd' => several(false, DIGIT),
        'D' => several(true, DIGIT),
        's' => several(false, SPACE),
        'S' => several(true, SPACE),
        'w' => several(false, WORD),
        'W' => several(true, WORD),
        'a' => Class::literal('\x07'),
        'f' => Class::literal('\x0c'),
        'n' => Class::literal('\n'),
        'r' => Class::literal('\r'),
        't' => Class::literal('\t'),
        'v' => Class::literal('\x0b'),
        punctuation if punctuation.is_ascii_punctuation() => Class::literal(punctuation),
        _ => return None,
    };
    Some((class, &rest[found.len_utf8()..]))
}

/// Removes the literal characters at one end and returns their text.
fn take_literals(states: &mut Vec<State>, at_end: bool) -> Vec<u8> {
    let literal = |state: &State| match state {
        State::One(Class { negated: false, ranges }) => match ranges.as_slice() {
            &[(low, high)] if low == high && low != char::REPLACEMENT_CHARACTER => Some(low),
            _ => None,
        },
        State::One(_) | State::Many(_) | State::Dirs | State::DirsInner | State::Start => None,
    };
    let text: String = if at_end {
        let kept = states.iter().rposition(|state| literal(state).is_none()).map_or(0, |at| at + 1);
        states.drain(kept..).filter_map(|state| literal(&state)).collect()
    } else {
        // A `^` further on would no longer be at the start.
        if states.contains(&State::Start) {
            return Vec::new();
        }
        let end = states.iter().position(|state| literal(state).is_none()).unwrap_or(states.len());
        states.drain(..end).filter_map(|state| literal(&state)).collect()
    };
    text.into_bytes()
}

/// Runs the states over the whole text with `N` words of state bits.
fn run<const N: usize>(states: &[State], text: &[u8]) -> bool {
    let mut now = [0_u64; N];
    enter(states, &mut now, 0, true);
    let mut at = 0;
    while at < text.len() {
        let (found, width) = decode(&text[at..]);
        at += width;
        let mut next = [0_u64; N];
        let mut alive = false;
        for (word, mut bits) in now.into_iter().enumerate() {
            while bits != 0 {
                let state = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                alive |= step(states, &mut next, state, found);
            }
        }
        if !alive {
            return false;
        }
        now = next;
    }
    now[states.len() / 64] & (1 << (states.len() % 64)) != 0
}

/// Where one state goes on a character; whether anywhere.
fn step<const N: usize>(states: &[State], next: &mut [u64; N], state: usize, found: char) -> bool {
    match states.get(state) {
        Some(State::One(class)) if class.contains(found) => enter(states, next, state + 1, false),
        Some(State::Many(class)) if class.contains(found) => enter(states, next, state, false),
        Some(State::DirsInner) if found != '\n' => {
            next[state / 64] |= 1 << (state % 64);
            if found == '/' {
                enter(states, next, state + 1, false);
            }
        }
        _ => return false,
    }
    true
}

/// Adds a state and all that can be reached from it without a character.
fn enter<const N: usize>(states: &[State], set: &mut [u64; N], mut state: usize, start: bool) {
    loop {
        if set[state / 64] & (1 << (state % 64)) != 0 {
            return;
        }
        set[state / 64] |= 1 << (state % 64);
        match states.get(state) {
            Some(State::Many(_)) => state += 1,
            Some(State::Dirs) => {
                set[(state + 1) / 64] |= 1 << ((state + 1) % 64);
                state += 2;
            }
            Some(State::Start) if start => state += 1,
            Some(State::One(_) | State::DirsInner | State::Start) | None => return,
        }
    }
}
