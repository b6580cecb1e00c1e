//! Reads the regular expressions that a pattern can be rewritten to: a part of RE2's language.

use super::{Class, State};

/// Most repetitions of one character: RE2's limit.
const MAX_REPEATED: usize = 1000;

/// Every character.
const ANY: (char, char) = ('\0', char::MAX);

/// The classes `\d`, `\s`, `\w`, and those with names. All are of ASCII.
const NAMED: &[(&str, &[(char, char)])] = &[
    ("d", &[('0', '9')]),
    ("s", &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
    ("w", &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", &[('0', '9')]),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

/// What one element is.
enum Element {
    /// Of one character.
    Class(Class),
    /// Of none.
    Look(State),
}

/// The alternatives of an expression. None if it is none, or has a class of Unicode (`\pL`).
pub(super) fn read(expression: &str) -> Option<Vec<Vec<State>>> {
    let mut alternatives = Vec::new();
    let mut states = Vec::new();
    let mut rest = expression;
    // What comes next can be repeated.
    let mut last: Option<Element> = None;
    while let Some(found) = rest.chars().next() {
        if let Some((least, most, after)) = repetition(rest) {
            repeat(&mut states, last.take()?, least, most)?;
            rest = after;
            continue;
        }
        push(&mut states, last.take());
        if let Some(after) = rest.strip_prefix("(.*/)?") {
            states.extend([State::Dirs, State::DirsInner]);
            rest = after;
            // Not to be repeated again.
            if repetition(rest).is_some() {
                return None;
            }
            continue;
        }
        if let Some(after) = rest.strip_prefix(".*") {
            states.push(State::Many(Class::not('\n')));
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix("\\Q") {
            let (text, after) = after.split_once("\\E").unwrap_or((after, ""));
            states.extend(text.chars().map(|it| State::One(Class::literal(it))));
            rest = after;
            continue;
        }
        rest = &rest[found.len_utf8()..];
        last = Some(match found {
            '|' => {
                alternatives.push(anchored(std::mem::take(&mut states)));
                continue;
            }
            '^' => Element::Look(State::Start),
            '$' => Element::Look(State::End),
            '[' => {
                let (class, after) = read_class(rest)?;
                rest = after;
                Element::Class(class)
            }
            '\\' => {
                let (element, after) = read_escape(rest)?;
                rest = after;
                element
            }
            other => Element::Class(Class::literal(other)),
        });
    }
    push(&mut states, last);
    alternatives.push(anchored(states));
    Some(alternatives)
}

fn push(states: &mut Vec<State>, element: Option<Element>) {
    match element {
        Some(Element::Class(class)) => states.push(State::One(class)),
        Some(Element::Look(state)) => states.push(state),
        None => {}
    }
}

/// Makes states that hold for the whole text of those that look for a part of it.
fn anchored(mut states: Vec<State>) -> Vec<State> {
    let any = || State::Many(Class { negated: false, ranges: vec![ANY] });
    match states.first() {
        Some(State::Start) => drop(states.remove(0)),
        _ => states.insert(0, any()),
    }
    match states.last() {
        Some(State::End) => drop(states.pop()),
        _ => states.push(any()),
    }
    states
}

/// `*`, `{2}`, `{2,}`, `{2,3}`: how often at least and, if that is limited, at most. What is not
/// quite one stands for itself.
fn repetition(rest: &str) -> Option<(usize, Option<usize>, &str)> {
    if let Some(after) = rest.strip_prefix('*') {
        return Some((0, None, after));
    }
    let (inner, after) = rest.strip_prefix('{')?.split_once('}')?;
    let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
    let most = if most.is_empty() && inner.contains(',') { None } else { Some(number(most)?) };
    Some((number(least)?, most, after))
}

/// A number without superfluous zeros; a very large one is as good as any.
fn number(text: &str) -> Option<usize> {
    let is_plain = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_number = is_plain && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

fn repeat(
    states: &mut Vec<State>,
    element: Element,
    least: usize,
    most: Option<usize>,
) -> Option<()> {
    if least.max(most.unwrap_or(0)) > MAX_REPEATED || most.is_some_and(|most| most < least) {
        return None;
    }
    match element {
        Element::Look(state) => states.extend((least > 0).then_some(state)),
        Element::Class(class) => {
            states.extend(std::iter::repeat_n(State::One(class.clone()), least));
            match most {
                None => states.push(State::Many(class)),
                Some(most) => {
                    states.extend(std::iter::repeat_n(State::Maybe(class), most - least));
                }
            }
        }
    }
    Some(())
}

/// A class after its `[`: a `]` in first place is a member, and so is any `[` that no name follows.
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
        if let Some((class, after)) = rest.strip_prefix("[:").and_then(|it| it.split_once(":]")) {
            ranges.extend(named(class.trim_start_matches('^'), class.starts_with('^'))?);
            rest = after;
            continue;
        }
        if let Some((several, after)) = several(rest) {
            ranges.extend(several);
            rest = after;
            continue;
        }
        let (low, after) = read_member(rest)?;
        rest = after;
        let mut high = low;
        if rest.starts_with('-') && !rest.starts_with("-]") {
            (high, rest) = read_member(&rest[1..])?;
        }
        if high < low {
            return None;
        }
        ranges.push((low, high));
    }
}

/// A class by its name, or all that is not in it.
fn named(name: &str, negated: bool) -> Option<Vec<(char, char)>> {
    let (_, ranges) = NAMED.iter().find(|(its_name, _)| *its_name == name)?;
    if !negated {
        return Some(ranges.to_vec());
    }
    // The classes are in order, and all of ASCII.
    let next = |it: char| char::from(it as u8 + 1);
    let before = |it: char| char::from(it as u8 - 1);
    let mut others = Vec::new();
    let mut from = ANY.0;
    for &(low, high) in *ranges {
        if low > from {
            others.push((from, before(low)));
        }
        from = next(high);
    }
    others.push((from, ANY.1));
    Some(others)
}

/// `\d`, `\D`, `\s`, … at the start of a text.
fn several(rest: &str) -> Option<(Vec<(char, char)>, &str)> {
    let letter = rest.strip_prefix('\\')?.chars().next()?;
    if !matches!(letter.to_ascii_lowercase(), 'd' | 's' | 'w') {
        return None;
    }
    let name = letter.to_ascii_lowercase().to_string();
    Some((named(&name, letter.is_ascii_uppercase())?, &rest[2..]))
}

/// One member of a class.
fn read_member(rest: &str) -> Option<(char, &str)> {
    let found = rest.chars().next()?;
    let after = &rest[found.len_utf8()..];
    if found == '\\' { read_character(after) } else { Some((found, after)) }
}

/// An escape after its backslash.
fn read_escape(rest: &str) -> Option<(Element, &str)> {
    let found = rest.chars().next()?;
    let look = match found {
        'A' => State::Start,
        'z' => State::End,
        'b' | 'B' => State::Boundary(found == 'b'),
        'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
            let name = found.to_ascii_lowercase().to_string();
            let ranges = named(&name, found.is_ascii_uppercase())?;
            return Some((Element::Class(Class { negated: false, ranges }), &rest[1..]));
        }
        _ => {
            let (character, after) = read_character(rest)?;
            return Some((Element::Class(Class::literal(character)), after));
        }
    };
    Some((Element::Look(look), &rest[1..]))
}

/// An escape that stands for one character, after its backslash.
fn read_character(rest: &str) -> Option<(char, &str)> {
    let found = rest.chars().next()?;
    let after = &rest[found.len_utf8()..];
    let character = match found {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        'x' => return hexadecimal(after),
        '0'..='7' => {
            let is_octal = |it: char| matches!(it, '0'..='7');
            let digits = rest.chars().take(3).take_while(|it| is_octal(*it)).count();
            // One digit but zero would stand for a group.
            if digits == 1 && found != '0' {
                return None;
            }
            let code = u32::from_str_radix(&rest[..digits], 8).ok()?;
            return Some((char::from_u32(code)?, &rest[digits..]));
        }
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => other,
        _ => return None,
    };
    Some((character, after))
}

/// Two digits, or any in braces.
fn hexadecimal(rest: &str) -> Option<(char, &str)> {
    let (digits, after) = match rest.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => rest.split_at_checked(2)?,
    };
    let is_plain = digits.bytes().all(|it| it.is_ascii_hexdigit());
    let code = is_plain.then(|| u32::from_str_radix(digits, 16).ok())??;
    Some((char::from_u32(code)?, after))
}
