//! What is wrong with a Dockerfile, said with file, line, column, the line itself and a caret.

use std::fmt::Write as _;

use crate::text::{SourceText, Span};

/// More lines of one span than this are not shown.
const MAX_SHOWN_LINES: u32 = 8;

/// More characters of one line than this are not shown.
const MAX_SHOWN_COLUMNS: usize = 160;

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// What is wrong, in lower case and without full stop.
    pub message: String,
    /// Where; none where the file as a whole is meant.
    pub span: Option<Span>,
    /// Facts that explain it.
    pub notes: Vec<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: Some(span), notes: Vec::new(), help: None }
    }

    /// A diagnostic about the file as a whole.
    pub fn of_file(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, notes: Vec::new(), help: None }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The diagnostic as text of several lines, with a line end:
    ///
    /// ```text
    /// error: unknown instruction: RUNN (did you mean RUN?)
    ///  --> Dockerfile:2:1
    ///   |
    /// 2 | RUNN make
    ///   | ^^^^
    /// ```
    pub fn render(&self, source: &SourceText) -> String {
        self.render_as("error", source)
    }

    /// The same with another word than `error`, `warning` for example.
    pub fn render_as(&self, kind: &str, source: &SourceText) -> String {
        let mut out = format!("{kind}: {}\n", self.message);
        let gutter = match self.span {
            Some(span) if span.first_line > 0 => {
                let gutter = span.last_line.to_string().len();
                excerpt(&mut out, source, span, gutter);
                gutter
            }
            _ => {
                let _ = writeln!(out, " --> {}", source.name());
                1
            }
        };
        for note in &self.notes {
            let _ = writeln!(out, "{:gutter$} = note: {note}", "");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{:gutter$} = help: {help}", "");
        }
        out
    }
}

/// Place, lines and carets of a span.
fn excerpt(out: &mut String, source: &SourceText, span: Span, gutter: usize) {
    let column = source.column_of(span.start);
    let _ = writeln!(out, "{:gutter$}--> {}:{}:{column}", "", source.name(), span.first_line);
    let _ = writeln!(out, "{:gutter$} |", "");
    let shown = span.last_line.min(span.first_line.saturating_add(MAX_SHOWN_LINES - 1));
    for number in span.first_line..=shown {
        let line = source.line(number);
        let clipped: String = line.chars().take(MAX_SHOWN_COLUMNS).collect();
        let _ = writeln!(out, "{number:gutter$} | {}", clipped.replace('\t', " "));
        if number == span.first_line {
            let n_before = column.saturating_sub(1);
            let in_line = clipped.chars().count().saturating_sub(n_before);
            let n_marked = source
                .text()
                .get(span.start..span.end)
                .map_or(1, |marked| marked.lines().next().unwrap_or_default().chars().count());
            if n_before <= MAX_SHOWN_COLUMNS {
                let carets = "^".repeat(n_marked.min(in_line).max(1));
                let _ = writeln!(out, "{:gutter$} | {:n_before$}{carets}", "", "");
            }
        }
    }
    if shown < span.last_line {
        let _ = writeln!(out, "{:gutter$} | ...", "");
    }
}

/// The lines `first..=last` of a file marked among those around them, as BuildKit shows them: two lines
/// on each side of one line, else one; what is missing on one side is shown on the other.
pub fn marked_excerpt(name: &str, text: &str, first: u32, last: u32) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let n_lines = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    if first < 1 || first > n_lines {
        return String::new();
    }
    let (mut from, mut to) = (first, last.clamp(first, n_lines));
    let wanted = if last == first { 4 } else { 2 };
    let mut n_around = 0;
    while n_around < wanted {
        if from > 1 {
            from -= 1;
            n_around += 1;
        }
        if to < n_lines {
            to += 1;
            n_around += 1;
        }
        // Also where the file has no more lines.
        n_around += 1;
    }
    let mut out = format!("{name}:{first}\n--------------------\n");
    for (number, line) in (1..).zip(lines).filter(|(number, _)| (from..=to).contains(number)) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:3} | {mark} {}", line.trim_end_matches('\r'));
    }
    out.push_str("--------------------\n");
    out
}

/// Everything that is wrong, in the order of the file; never empty where it is an error.
#[derive(Clone, Debug, Default, Eq, PartialEq, thiserror::Error)]
pub struct Diagnostics {
    /// The diagnostics.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// All of them as text.
    pub fn render(&self, source: &SourceText) -> String {
        let rendered: Vec<String> = self.list.iter().map(|it| it.render(source)).collect();
        rendered.join("\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic] }
    }
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            match diagnostic.span {
                Some(span) if span.first_line > 0 => {
                    write!(f, "line {}: {}", span.first_line, diagnostic.message)?;
                }
                _ => f.write_str(&diagnostic.message)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn shows_the_line_and_a_caret() {
        let source = SourceText::new("Dockerfile", b"FROM a\nRUN \t--bad=1 x \\\n  y\n").unwrap();
        let flag = source.text().find("--bad").unwrap();
        let diagnostic = Diagnostic::new(source.span(flag..flag + 7), "unknown flag: --bad")
            .with_note("a fact")
            .with_help("a way out");
        expect![[r#"
            error: unknown flag: --bad
             --> Dockerfile:2:6
              |
            2 | RUN  --bad=1 x \
              |      ^^^^^^^
              = note: a fact
              = help: a way out
        "#]]
        .assert_eq(&diagnostic.render(&source));
    }

    #[test]
    fn lines_are_marked_among_others() {
        let shown = |first, last| marked_excerpt("D", "a\nb\nc\nd\ne", first, last);
        let rule = "--------------------\n";
        let body = "   1 | >>> a\n   2 |     b\n   3 |     c\n";
        assert_eq!(shown(1, 1), format!("D:1\n{rule}{body}{rule}"));
        let body = "   2 |     b\n   3 | >>> c\n   4 | >>> d\n   5 |     e\n";
        assert_eq!(shown(3, 4), format!("D:3\n{rule}{body}{rule}"));
        assert_eq!(shown(0, 0), "");
        assert_eq!(marked_excerpt("D", "", 1, 1), format!("D:1\n{rule}   1 | >>> \n{rule}"));
    }

    #[test]
    fn of_the_whole_file() {
        let source = SourceText::new("Dockerfile", b"").unwrap();
        let rendered = Diagnostic::of_file("file with no instructions").render(&source);
        assert_eq!(rendered, "error: file with no instructions\n --> Dockerfile\n");
    }
}
