//! A logical line taken apart: keyword, flags, arguments. What all instruction parsers start from.

use std::ops::Range;

use crate::ast::{CommandLine, Header, Heredoc, KeyValue};
use crate::diagnostic::Diagnostic;
use crate::flags::{self, Flags, Kind, RawFlag};
use crate::heredoc;
use crate::json_form::{self, JsonForm};
use crate::lines::{Line, Lines};
use crate::text::Word;
use crate::words::{self, RawWord};

pub(super) type Parsed<T> = Result<T, Diagnostic>;

/// One instruction, not yet understood.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) header: Header,
    pub(super) heredocs: Vec<Heredoc>,
    line: Line<'a>,
    parts: Parts,
    escape: char,
}

/// Where the parts of a line are.
#[derive(Clone, Debug)]
struct Parts {
    keyword: Range<usize>,
    flags: Vec<RawFlag>,
    /// Arguments without blanks around them.
    arguments: Range<usize>,
}

impl Parts {
    fn of(line: &str, range: Range<usize>, escape: char) -> Self {
        let text = line[range.clone()].trim_start();
        let start = range.end - text.len();
        let end = start + text.trim_end().len();
        let n_keyword = line[start..end].find(words::is_separator).unwrap_or(end - start);
        let keyword = start..start + n_keyword;
        let (flags, at) = flags::take(line, keyword.end..end, escape);
        let arguments = &line[at..end];
        let at = end - arguments.trim_start().len();
        Self { keyword, flags, arguments: at..end.max(at) }
    }
}

impl<'a> Node<'a> {
    /// Takes a line apart, and its here-documents off the lines behind it.
    pub(super) fn read(lines: &mut Lines<'a>, line: Line<'a>, escape: char) -> Parsed<Self> {
        let parts = Parts::of(&line.text, 0..line.text.len(), escape);
        let mut span = line.whole_span();
        let mut heredocs = Vec::new();
        if line.text.contains("<<") && can_have_heredocs(&line.text, &parts, escape) {
            for mark in heredoc::marks_of_line(&line.text) {
                let heredoc = lines.heredoc(mark, &line)?;
                span = span.to(heredoc.span);
                heredocs.push(heredoc);
            }
        }
        let header = Header {
            keyword: line.word(parts.keyword.clone()),
            span,
            original: line.text.trim().to_owned(),
            comments: line.comments.clone(),
            empty_continuation: line.has_empty_continuation.then_some(line.last),
        };
        Ok(Self { header, heredocs, line, parts, escape })
    }

    /// The instruction that is the argument of this one (`ONBUILD`).
    pub(super) fn inner(&self) -> Option<InnerNode<'_>> {
        if self.arguments().is_empty() {
            return None;
        }
        let range = self.parts.arguments.clone();
        let parts = Parts::of(&self.line.text, range, self.escape);
        Some(InnerNode {
            keyword: self.line.text[parts.keyword.clone()].to_owned(),
            parts,
            node: self,
        })
    }

    /// The arguments as text.
    pub(super) fn arguments(&self) -> &str {
        &self.line.text[self.parts.arguments.clone()]
    }

    /// The arguments as one word.
    pub(super) fn argument_word(&self) -> Word {
        self.line.word(self.parts.arguments.clone())
    }

    /// The text behind the keyword, with blanks at its end but not at its start.
    pub(super) fn behind_keyword(&self) -> Word {
        let start = self.parts.keyword.end;
        let text = self.line.text[start..].trim_start();
        self.line.word(self.line.text.len() - text.len()..self.line.text.len())
    }

    /// The only argument, the whole rest of the line.
    pub(super) fn one_argument(&self, name: &str) -> Parsed<Word> {
        if self.arguments().is_empty() {
            return Err(self.error(format!("{name} requires exactly one argument")));
        }
        Ok(self.argument_word())
    }

    /// Arguments between blanks.
    pub(super) fn blank_separated(&self) -> Vec<Word> {
        let words = words::split_at_blanks(&self.line.text, self.parts.arguments.clone());
        words.into_iter().map(|word| self.word(&word)).collect()
    }

    /// Arguments between blanks, quotes and escapes counting.
    pub(super) fn quoted_words(&self) -> Vec<RawWord> {
        words::split(&self.line.text, self.parts.arguments.clone(), self.escape)
    }

    /// The place of a word.
    pub(super) fn word(&self, raw: &RawWord) -> Word {
        Word::new(raw.text.clone(), self.line.span(raw.range.clone()))
    }

    /// A word cut at its first `=`.
    pub(super) fn split_at_equals(&self, raw: &RawWord) -> Option<(Word, Word)> {
        let (name, value) = raw.text.split_once('=')?;
        let equals = raw.range.start + name.len();
        let name_word = Word::new(name.to_owned(), self.line.span(raw.range.start..equals));
        let value_word = Word::new(value.to_owned(), self.line.span(equals + 1..raw.range.end));
        Some((name_word, value_word))
    }

    /// Arguments in JSON form; none if they are not.
    pub(super) fn json(&self) -> Parsed<Option<Vec<String>>> {
        self.json_at(self.parts.arguments.clone())
    }

    fn json_at(&self, range: Range<usize>) -> Parsed<Option<Vec<String>>> {
        match json_form::read(&self.line.text[range.clone()]) {
            JsonForm::Texts(texts) => Ok(Some(texts)),
            JsonForm::No => Ok(None),
            JsonForm::NotTexts => {
                let text = "when using JSON array syntax, arrays must be comprised of strings only";
                Err(Diagnostic::new(self.line.span(range), text))
            }
        }
    }

    /// Arguments as a list: in JSON form or between blanks.
    pub(super) fn list(&self) -> Parsed<Vec<Word>> {
        let Some(texts) = self.json()? else { return Ok(self.blank_separated()) };
        let span = self.argument_word().span;
        Ok(texts.into_iter().map(|text| Word::new(text, span)).collect())
    }

    /// Arguments as a command: in JSON form or for the shell.
    pub(super) fn command(&self) -> Parsed<CommandLine> {
        self.command_at(self.parts.arguments.clone())
    }

    fn command_at(&self, range: Range<usize>) -> Parsed<CommandLine> {
        Ok(match self.json_at(range.clone())? {
            Some(texts) => CommandLine::Exec(texts),
            None => CommandLine::Shell(self.line.word(range)),
        })
    }

    /// The first word of the arguments, and the command behind it; none if there is no word.
    pub(super) fn word_and_command(&self) -> Parsed<Option<(Word, CommandLine)>> {
        self.word_and_command_at(self.parts.arguments.clone())
    }

    fn word_and_command_at(&self, range: Range<usize>) -> Parsed<Option<(Word, CommandLine)>> {
        let text = &self.line.text[range.clone()];
        if text.is_empty() {
            return Ok(None);
        }
        let n_word = text.find(char::is_whitespace).unwrap_or(text.len());
        let word = self.line.word(range.start..range.start + n_word);
        let command_start = range.end - text[n_word..].trim_start().len();
        Ok(Some((word, self.command_at(command_start..range.end)?)))
    }

    /// Arguments as pairs, as `ENV` and `LABEL` have them.
    pub(super) fn pairs(&self, name: &str) -> Parsed<Vec<KeyValue>> {
        let pairs = self.pairs_at(name, self.parts.arguments.clone())?;
        if pairs.is_empty() {
            return Err(self.error(format!("{name} requires at least one argument")));
        }
        if let Some(pair) = pairs.iter().find(|pair| pair.key.value.is_empty()) {
            let span = pair.key.span.to(pair.value.span);
            return Err(Diagnostic::new(span, format!("{name} names can not be blank")));
        }
        Ok(pairs)
    }

    fn pairs_at(&self, name: &str, range: Range<usize>) -> Parsed<Vec<KeyValue>> {
        let words = words::split(&self.line.text, range.clone(), self.escape);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        if !first.text.contains('=') {
            return self.legacy_pair(name, range).map(|pair| vec![pair]);
        }
        let pair = |word: &RawWord| {
            let Some((key, value)) = self.split_at_equals(word) else {
                let text = format!(
                    "Syntax error - can't find = in \"{}\". Must be of the form: name=value",
                    word.text
                );
                let help = "quote a value that has blanks in it";
                return Err(
                    Diagnostic::new(self.line.span(word.range.clone()), text).with_help(help)
                );
            };
            Ok(KeyValue { key, value, legacy: false })
        };
        words.iter().map(pair).collect()
    }

    /// `ENV key value`: all behind the first blanks is the value.
    fn legacy_pair(&self, name: &str, range: Range<usize>) -> Parsed<KeyValue> {
        let text = &self.line.text[range.clone()];
        let Some(n_key) = text.find(words::is_separator) else {
            let error = self.error(format!("{name} must have two arguments"));
            return Err(error.with_help(format!("write `{name} {text}=VALUE`")));
        };
        let value_start = range.end - text[n_key..].trim_start_matches(words::is_separator).len();
        Ok(KeyValue {
            key: self.line.word(range.start..range.start + n_key),
            value: self.line.word(value_start..range.end),
            legacy: true,
        })
    }

    /// Checks the flags against the known ones.
    pub(super) fn flags(&self, known: &[(&'static str, Kind)]) -> Parsed<Flags> {
        Flags::check(&self.line, &self.parts.flags, known)
    }

    /// Refuses any flag.
    pub(super) fn no_flags(&self) -> Parsed<()> {
        self.flags(&[]).map(drop)
    }

    /// An error about the instruction as a whole, at its logical line.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.line.span(0..self.line.text.trim_end().len()), message)
    }

    /// Refuses bytes that are not UTF-8 in what a program will get as text.
    pub(super) fn only_text(&self, name: &str) -> Parsed<()> {
        match self.line.first_invalid(self.header.span) {
            None => Ok(()),
            Some(span) => {
                Err(Diagnostic::new(span, format!("{name} holds a byte that is not UTF-8"))
                    .with_help("convert the file to UTF-8, or write the byte with printf '\\ooo'"))
            }
        }
    }
}

/// The argument of `ONBUILD`.
#[derive(Debug)]
pub(super) struct InnerNode<'a> {
    pub(super) keyword: String,
    parts: Parts,
    node: &'a Node<'a>,
}

impl InnerNode<'_> {
    /// Checks what BuildKit checks of a trigger where it is written; the rest shows where it is
    /// triggered.
    pub(super) fn check(&self) -> Parsed<()> {
        let arguments = self.parts.arguments.clone();
        match self.keyword.to_ascii_uppercase().as_str() {
            name @ ("ENV" | "LABEL") => self.node.pairs_at(name, arguments).map(drop),
            "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "COPY" | "ADD" | "VOLUME" => {
                self.node.json_at(arguments).map(drop)
            }
            "HEALTHCHECK" => self.node.word_and_command_at(arguments).map(drop),
            _ => Ok(()),
        }
    }
}

fn can_have_heredocs(line: &str, parts: &Parts, escape: char) -> bool {
    let is = |parts: &Parts, names: &[&str]| {
        names.iter().any(|it| it.eq_ignore_ascii_case(&line[parts.keyword.clone()]))
    };
    let inner;
    let parts = if is(parts, &["ONBUILD"]) {
        inner = Parts::of(line, parts.arguments.clone(), escape);
        &inner
    } else {
        parts
    };
    is(parts, &["RUN", "COPY", "ADD"])
        && json_form::read(&line[parts.arguments.clone()]) == JsonForm::No
}
