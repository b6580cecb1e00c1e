//! Flags of instructions: `--name=value` before the arguments.

use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::lines::Line;
use crate::suggest::did_you_mean;
use crate::text::Word;

/// A flag as written; quotes and escapes are removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RawFlag {
    /// `--name=value` or `--name`.
    pub(crate) text: String,
    /// Its place in the line.
    pub(crate) range: Range<usize>,
}

/// Takes the flags off the beginning of a part of a line. Returns them and where the rest begins.
/// A lone `--` ends them.
pub(crate) fn take(line: &str, range: Range<usize>, escape: char) -> (Vec<RawFlag>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        let rest = &line[at..range.end];
        at = range.end - rest.trim_start().len();
        if !line[at..range.end].starts_with("--") {
            return (flags, at);
        }
        let flag = read_one(line, at..range.end, escape);
        at = flag.range.end;
        if flag.text == "--" {
            return (flags, at);
        }
        flags.push(flag);
    }
}

/// Reads up to a blank that is neither quoted nor escaped.
fn read_one(line: &str, range: Range<usize>, escape: char) -> RawFlag {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = line[range.clone()].char_indices();
    while let Some((offset, next)) = chars.next() {
        match quote {
            None if next.is_whitespace() => {
                return RawFlag { text, range: range.start..range.start + offset };
            }
            None if matches!(next, '\'' | '"') => quote = Some(next),
            Some(open) if next == open => quote = None,
            // Also between single quotes; an escape character at the end is dropped.
            _ if next == escape => text.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => text.push(next),
        }
    }
    RawFlag { text, range }
}

/// What value a flag takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// None, or `=true` or `=false`.
    Switch,
    /// One text.
    Text,
    /// A text; the flag may be repeated.
    Texts,
}

/// The flags of one instruction, checked against those it knows.
#[derive(Debug)]
pub(crate) struct Flags {
    values: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Checks flags against the known ones.
    pub(crate) fn check(
        line: &Line<'_>,
        raw: &[RawFlag],
        known: &[(&'static str, Kind)],
    ) -> Result<Self, Diagnostic> {
        let mut flags = Self { values: Vec::new() };
        for flag in raw {
            let error = |text: String| Diagnostic::new(line.span(flag.range.clone()), text);
            let (dashed, value) = match flag.text.split_once('=') {
                Some((dashed, value)) => (dashed, Some(value)),
                None => (&flag.text[..], None),
            };
            let name = dashed.strip_prefix("--").unwrap_or(dashed);
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(error, dashed, name, known));
            };
            if kind != Kind::Texts && flags.values.iter().any(|(it, _)| *it == name) {
                return Err(error(format!("duplicate flag specified: {dashed}")));
            }
            let value = match (kind, value) {
                (Kind::Switch, None) => "true",
                (_, None) | (Kind::Switch, Some("")) => {
                    let error = error(format!("missing a value on flag: {dashed}"));
                    return Err(error.with_help(format!("write `{dashed}=VALUE`, without blanks")));
                }
                (_, Some(value)) => value,
            };
            if kind == Kind::Switch && parse_switch(value).is_none() {
                let text = format!("expecting boolean value for flag {dashed}, not: {value}");
                return Err(error(text));
            }
            flags.values.push((name, value_word(line, flag, value)));
        }
        Ok(flags)
    }

    /// Value of a text flag; none where it is not given or empty.
    pub(crate) fn text(&self, name: &str) -> Option<Word> {
        self.given(name).filter(|word| !word.value.is_empty()).cloned()
    }

    /// Value of a flag, if it is given.
    pub(crate) fn given(&self, name: &str) -> Option<&Word> {
        self.values.iter().find(|(it, _)| *it == name).map(|(_, word)| word)
    }

    /// Values of a flag that may be repeated.
    pub(crate) fn texts(&self, name: &str) -> Vec<Word> {
        let named = self.values.iter().filter(|(it, _)| *it == name);
        named.map(|(_, word)| word.clone()).collect()
    }

    /// Value of a switch, if it is given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.given(name).and_then(|word| parse_switch(&word.value))
    }
}

fn unknown(
    error: impl Fn(String) -> Diagnostic,
    dashed: &str,
    name: &str,
    known: &[(&'static str, Kind)],
) -> Diagnostic {
    let names = || known.iter().map(|(name, _)| *name);
    let error = error(format!("unknown flag: {dashed}{}", did_you_mean(name, names())));
    let list: Vec<String> = names().map(|name| format!("--{name}")).collect();
    if list.is_empty() {
        error.with_help("this instruction has no flags")
    } else {
        error.with_help(format!("it knows {}", list.join(", ")))
    }
}

fn parse_switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The value with its place: behind the `=` where there is one.
fn value_word(line: &Line<'_>, flag: &RawFlag, value: &str) -> Word {
    let equals = line.text[flag.range.clone()].find('=');
    let start = equals.map_or(flag.range.start, |it| flag.range.start + it + 1);
    Word::new(value.to_owned(), line.span(start..flag.range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: &[&str], want_rest: &str) {
        let (flags, rest) = take(line, 0..line.len(), '\\');
        let got: Vec<&str> = flags.iter().map(|it| &it.text[..]).collect();
        assert_eq!((got, &line[rest..]), (want.to_vec(), want_rest), "{line}");
    }

    #[test]
    fn takes_flags_off() {
        check("--a=1 --b c --d", &["--a=1", "--b"], "c --d");
        check("--a='x y'\" z\" rest", &["--a=x y z"], "rest");
        check(r"--a=\ b\\ --c=é", &["--a= b\\", "--c=é"], "");
        check("--a -- --b", &["--a"], " --b");
        check("-- [ ]", &[], " [ ]");
        check("-a b", &[], "-a b");
        check("--a=\"open", &["--a=open"], "");
        check("--a=\\", &["--a="], "");
    }
}
