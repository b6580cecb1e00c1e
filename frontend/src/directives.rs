//! Directives: `# key=value` comments at the very top (`syntax`, `escape`, `check`).
//!
//! They end at the first line that is not one of these three: an instruction, an empty line, any
//! other comment. Two readers look at them, as in BuildKit, with two small differences: `escape`
//! may be indented and does not follow a `#!` line, `syntax` and `check` may not and do.
//!
//! The other spellings of `syntax` (`// syntax=`, a JSON object) choose a frontend for a file that
//! is no Dockerfile; they are not read here.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::text::{SourceText, Word};

/// The directives of a Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directives {
    /// `syntax`: reference of the frontend image, as written up to the first blank.
    pub syntax: Option<Word>,
    /// `escape`: the character that escapes and continues lines; a backslash unless given.
    pub escape: char,
    /// `check`: options of the linter, as written up to the first blank.
    pub check: Option<Word>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// Refuses a frontend (`# syntax=`, `BUILDKIT_SYNTAX`) that is another language than this one.
///
/// All images called `docker/dockerfile` and `docker/dockerfile-upstream`, with every tag and from
/// every registry (many keep a copy), are the language that is understood here without them.
///
/// # Errors
///
/// If it is another one.
pub fn accept_frontend(asked: Option<&str>, directives: &Directives) -> Result<(), Diagnostic> {
    let word = directives.syntax.as_ref();
    let Some(name) = asked.or(word.map(|it| it.value.as_str())).filter(|it| !it.is_empty()) else {
        return Ok(());
    };
    let path = name.split('@').next().unwrap_or(name);
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    let known = ["docker/dockerfile", "docker/dockerfile-upstream"];
    let is_known = known.iter().any(|known| {
        path.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('/'))
    });
    if is_known {
        return Ok(());
    }
    let text = format!("the frontend `{name}` is not supported");
    let error = match word.filter(|_| asked.is_none()) {
        Some(word) => Diagnostic::new(word.span, text),
        None => Diagnostic::of_file(text),
    };
    Err(error.with_help("only docker/dockerfile is understood, and no image is run for it"))
}

impl Directives {
    /// Reads the directives; also says how many lines they take, which are no comments.
    pub(crate) fn read(source: &SourceText, errors: &mut Vec<Diagnostic>) -> (Self, u32) {
        let mut directives = Self::default();
        let mut seen = BTreeSet::new();
        let mut n_lines = 0;
        for number in 1..=source.n_lines() {
            let Some((name, value)) = directive(source, number, Indent::Allowed) else { break };
            n_lines = number;
            if !seen.insert(name) {
                let span = source.span(source.content_range(number));
                let text = format!("only one {name} parser directive can be used");
                errors.push(Diagnostic::new(span, text));
            } else if name == "escape" {
                match &source.text()[value.clone()] {
                    "\\" => directives.escape = '\\',
                    "`" => directives.escape = '`',
                    other => {
                        let text = format!("invalid escape token '{other}' does not match ` or \\");
                        errors.push(Diagnostic::new(source.span(value), text));
                    }
                }
            }
        }
        directives.syntax = first_word(source, "syntax");
        directives.check = first_word(source, "check");
        (directives, n_lines)
    }
}

/// The value of a directive up to the first blank.
fn first_word(source: &SourceText, wanted: &str) -> Option<Word> {
    let first = if source.text().starts_with("#!") { 2 } else { 1 };
    for number in first..=source.n_lines() {
        let (name, value) = directive(source, number, Indent::Refused)?;
        if name == wanted {
            let text = &source.text()[value.clone()];
            let word = text.split(' ').next().unwrap_or_default();
            let span = source.span(value.start..value.start + word.len());
            return Some(Word::new(word.to_owned(), span));
        }
    }
    None
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Indent {
    Allowed,
    Refused,
}

/// Name and place of the value, if line `number` is a directive.
fn directive(
    source: &SourceText,
    number: u32,
    indent: Indent,
) -> Option<(&'static str, Range<usize>)> {
    let range = source.content_range(number);
    let line = &source.text()[range.clone()];
    let from_hash = if indent == Indent::Allowed { line.trim_start() } else { line };
    let text = from_hash.strip_prefix('#')?.trim_start();
    let n_name = text.find(|it: char| !it.is_ascii_alphanumeric())?;
    let (name, rest) = text.split_at(n_name);
    let name =
        ["syntax", "escape", "check"].into_iter().find(|it| it.eq_ignore_ascii_case(name))?;
    let value = rest.trim_start_matches(is_blank).strip_prefix('=')?;
    let trimmed = value.trim_matches(is_blank);
    if value.is_empty() {
        return None;
    }
    // A value of blanks only is its last blank.
    let value = if trimmed.is_empty() { &value[value.len() - 1..] } else { trimmed };
    let start = range.start + (value.as_ptr() as usize - line.as_ptr() as usize);
    Some((name, start..start + value.len()))
}

fn is_blank(it: char) -> bool {
    matches!(it, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let source = SourceText::new("Dockerfile", text.as_bytes()).expect("it is small");
        let mut errors = Vec::new();
        let (directives, n_lines) = Directives::read(&source, &mut errors);
        let value = |word: Option<Word>| word.map_or("-".to_owned(), |it| it.value);
        let mut got = format!(
            "{} {} {} {n_lines}",
            value(directives.syntax),
            directives.escape,
            value(directives.check)
        );
        for error in errors {
            got.push_str("; ");
            got.push_str(&error.message);
        }
        assert_eq!(got, want, "{text:?}");
    }

    #[test]
    fn other_languages_are_refused() {
        let accepts = |name| accept_frontend(Some(name), &Directives::default()).is_ok();
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "docker/dockerfile-upstream:master",
            "localhost:5000/hub/docker/dockerfile:1@sha256:abc",
            "",
        ] {
            assert!(accepts(name), "{name}");
        }
        for name in ["dockerfile", "notdocker/dockerfile", "docker/dockerfile2", "a/b:1", ":"] {
            assert!(!accepts(name), "{name}");
        }
        assert!(accept_frontend(None, &Directives::default()).is_ok());
    }

    #[test]
    fn reads_directives() {
        check(
            "#syntax=a/b:1\n# Escape = `\r\n#check=skip=all;error=true x\n",
            "a/b:1 ` skip=all;error=true 3",
        );
        check("# syntax=a b\nFROM c\n# escape=`\n", "a \\ - 1");
        check("\n# escape=`\n", "- \\ - 0");
        check("# a comment\n# escape=`\n", "- \\ - 0");
        check("# key=value\n# escape=`\n", "- \\ - 0");
        check("  # escape=`\n  # check=skip=all\n", "- ` - 2");
        check("#!/usr/bin/env x\n# escape=`\n# check=a\n", "- \\ a 0");
        check("\u{feff}# escape=`", "- ` - 1");
    }

    #[test]
    fn refuses_bad_ones() {
        check(
            "# escape=x\n# escape=`\n",
            "- \\ - 2; invalid escape token 'x' does not match ` or \\; \
             only one escape parser directive can be used",
        );
        check("# escape= \n", "- \\ - 1; invalid escape token ' ' does not match ` or \\");
        check("# escape=\n", "- \\ - 0");
    }
}
