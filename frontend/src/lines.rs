//! Physical lines to logical lines: continuations joined, comments and empty lines between them
//! left out, bodies of here-documents taken off on request. Each logical line knows for each of
//! its bytes where it stands in the file.

use std::ops::Range;

use crate::ast::Heredoc;
use crate::diagnostic::Diagnostic;
use crate::heredoc::Mark;
use crate::text::{SourceText, Span, Word};

/// Longest physical line in bytes, without its line end: BuildKit's.
pub(crate) const MAX_LINE_BYTES: usize = (64 << 10) - 1;

/// Where the places of a text are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Places {
    /// In the text itself.
    Own,
    /// All at one place of another text, which triggers it.
    Fixed(Span),
}

/// Reads logical lines.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    source: &'a SourceText,
    places: Places,
    escape: char,
    /// So many lines at the top are directives, not comments.
    n_directives: u32,
    /// Number of the next physical line.
    next: u32,
    /// Comments since the last instruction.
    comments: Vec<String>,
}

/// A logical line; not empty, except of a lone continuation at the end of the file.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    source: &'a SourceText,
    places: Places,
    /// The joined text; blanks at its start are trimmed, those at its end are not.
    pub(crate) text: String,
    /// Where parts of `text` begin: offset in it, offset in the source. Sorted; the first is at 0.
    parts: Vec<(usize, usize)>,
    /// Its last physical line.
    pub(crate) last: u32,
    /// Whether there is an empty line among its continuation lines.
    pub(crate) has_empty_continuation: bool,
    /// Comments above.
    pub(crate) comments: Vec<String>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(
        source: &'a SourceText,
        places: Places,
        escape: char,
        n_directives: u32,
    ) -> Self {
        Self { source, places, escape, n_directives, next: 1, comments: Vec::new() }
    }

    /// The next logical line; none at the end of the file.
    pub(crate) fn next_line(&mut self) -> Option<Result<Line<'a>, Diagnostic>> {
        loop {
            let (number, range) = match self.next_physical()? {
                Ok(physical) => physical,
                Err(error) => return Some(Err(error)),
            };
            let content = &self.source.text()[range.clone()];
            let trimmed = content.trim_start();
            if trimmed.starts_with('#') {
                self.note_comment(number, content);
            } else if !trimmed.is_empty() {
                let start = range.end - trimmed.len();
                return Some(self.join(number, start..range.end));
            }
        }
    }

    /// Number and place, without line end, of the next physical line.
    fn next_physical(&mut self) -> Option<Result<(u32, Range<usize>), Diagnostic>> {
        let number = self.next;
        let whole = self.source.line_range(number);
        if whole.is_empty() {
            return None;
        }
        self.next += 1;
        let n_end = usize::from(self.source.text()[whole.clone()].ends_with('\n'));
        let n_bytes = self.source.n_bytes(whole.start..whole.end - n_end);
        if n_bytes > MAX_LINE_BYTES {
            let text = format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}");
            let span = self.span(whole.start..whole.start);
            let note = format!("it has {n_bytes} bytes");
            return Some(Err(Diagnostic::new(span, text).with_note(note)));
        }
        Some(Ok((number, self.source.content_range(number))))
    }

    fn note_comment(&mut self, number: u32, content: &str) {
        if number <= self.n_directives {
            return;
        }
        // An indented comment keeps its mark, as in BuildKit.
        let mut chars = content.chars();
        chars.next();
        match chars.as_str().trim() {
            "" => self.comments.clear(),
            comment => self.comments.push(comment.to_owned()),
        }
    }

    /// Joins the line at `first` with those that continue it.
    fn join(&mut self, number: u32, first: Range<usize>) -> Result<Line<'a>, Diagnostic> {
        let source = self.source;
        let mut line = Line {
            source,
            places: self.places,
            text: String::new(),
            parts: Vec::new(),
            last: number,
            has_empty_continuation: false,
            comments: std::mem::take(&mut self.comments),
        };
        let mut continues = line.push(first, self.escape);
        while continues {
            let Some(physical) = self.next_physical() else { break };
            let (number, range) = physical?;
            line.last = number;
            let trimmed = source.text()[range.clone()].trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                line.has_empty_continuation = true;
                continue;
            }
            continues = line.push(range, self.escape);
        }
        Ok(line)
    }

    /// Takes the body of a here-document off, up to its delimiter.
    pub(crate) fn heredoc(&mut self, mark: Mark, line: &Line<'_>) -> Result<Heredoc, Diagnostic> {
        let body_start = self.source.line_range(self.next).start;
        let mut near_miss = None;
        while let Some(physical) = self.next_physical() {
            let (number, range) = physical?;
            let content = &self.source.text()[range.clone()];
            let candidate = if mark.chomp { content.trim_start_matches('\t') } else { content };
            if candidate == mark.name {
                let body = body_start..self.source.line_range(number).start;
                return Ok(Heredoc {
                    name: mark.name,
                    expand: mark.expand,
                    chomp: mark.chomp,
                    descriptor: mark.descriptor,
                    content: self.source.raw(body.clone()),
                    span: self.span(body_start..range.end),
                });
            }
            if near_miss.is_none() && content.trim() == mark.name {
                near_miss = Some(number);
            }
        }
        let at = line.text.find("<<").unwrap_or(0);
        let error = Diagnostic::new(line.span(at..line.text.len()), "unterminated heredoc")
            .with_note(format!("no line below is `{}` and nothing else", mark.name));
        Err(match near_miss {
            Some(number) => error
                .with_help(format!("remove the blanks around `{}` on line {number}", mark.name)),
            None => error,
        })
    }

    fn span(&self, range: Range<usize>) -> Span {
        match self.places {
            Places::Own => self.source.span(range),
            Places::Fixed(span) => span,
        }
    }
}

impl Line<'_> {
    /// Adds a physical line without its continuation mark; says whether it had one.
    fn push(&mut self, range: Range<usize>, escape: char) -> bool {
        let content = &self.source.text()[range.clone()];
        let before_mark = content.trim_end_matches([' ', '\t']).strip_suffix(escape);
        // An escaped escape character is none.
        let before_mark = before_mark.filter(|it| !it.ends_with(escape));
        self.parts.push((self.text.len(), range.start));
        self.text.push_str(before_mark.unwrap_or(content));
        before_mark.is_some()
    }

    /// Where a part of the text stands.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        if let Places::Fixed(span) = self.places {
            return span;
        }
        let start = self.source_offset(range.start);
        if range.is_empty() {
            return self.source.span(start..start);
        }
        self.source.span(start..self.source_offset(range.end - 1) + 1)
    }

    /// From the first character to the last, and down to the last physical line, which may hold a
    /// comment.
    pub(crate) fn whole_span(&self) -> Span {
        let mut span = self.span(0..self.text.trim_end().len());
        if let Places::Own = self.places {
            span.last_line = span.last_line.max(self.last);
        }
        span
    }

    fn source_offset(&self, offset: usize) -> usize {
        let index = self.parts.partition_point(|&(joined, _)| joined <= offset);
        let (joined, source) = self.parts[index.saturating_sub(1)];
        source + (offset - joined)
    }

    /// A part of the text with its place.
    pub(crate) fn word(&self, range: Range<usize>) -> Word {
        Word::new(self.text[range.clone()].to_owned(), self.span(range))
    }

    /// First byte in `span` that is not text; none for a text that was text before.
    pub(crate) fn first_invalid(&self, span: Span) -> Option<Span> {
        let Places::Own = self.places else { return None };
        let (offset, _) = self.source.first_invalid(span.start..span.end)?;
        Some(self.source.span(offset..offset + char::REPLACEMENT_CHARACTER.len_utf8()))
    }
}
