//! Warnings about Dockerfiles: BuildKit's rules, by their names and with their texts.
//!
//! | part | is |
//! |---|---|
//! | [`Rule`] | the rules as a table: name, description, explanation |
//! | [`Finding`] | what a rule found, with its text |
//! | [`Options`] | which rules run: `# check=skip=A,B;error=true`, `BUILDKIT_DOCKERFILE_CHECK` |
//! | [`Linter`] | collects findings, leaves out what is switched off |
//! | [`answer`] | what `--call=check` prints |
//! | [`check_syntax`] | the rules that need nothing but the tree |
//!
//! The other rules strike during lowering, which calls [`Linter::report`] with the instruction at
//! fault: a comment `# check=skip=RULE` above an instruction switches a rule off for it alone.

pub mod answer;
mod explain;
mod finding;
mod options;
mod rules;
mod syntax;

use std::collections::BTreeSet;

use crate::ast::Header;
use crate::text::{SourceText, Span};

pub use finding::{Finding, is_secret_name};
pub use options::{Options, OptionsError, Selection};
pub use rules::Rule;
pub use syntax::check_syntax;

/// A rule that struck.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What it found.
    pub text: String,
    /// Where.
    pub span: Span,
}

impl Warning {
    /// One line: `Rule: text (line N)`.
    pub fn summary(&self) -> String {
        let Self { rule, text, span } = self;
        match span.first_line {
            0 => format!("{}: {text}", rule.name()),
            line => format!("{}: {text} (line {line})", rule.name()),
        }
    }

    /// The warning with its lines and a way out, as text of several lines.
    pub fn render(&self, source: &SourceText) -> String {
        crate::diagnostic::Diagnostic::new(self.span, self.summary())
            .with_note(self.rule.description())
            .with_help(format!("`rbuild explain-rule {}` says more", self.rule.name()))
            .render_as("warning", source)
    }
}

/// Collects warnings.
#[derive(Clone, Debug, Default)]
pub struct Linter {
    options: Options,
    warnings: Vec<Warning>,
}

impl Linter {
    /// A collector with these options.
    pub fn new(options: Options) -> Self {
        Self { options, warnings: Vec::new() }
    }

    /// Notes what was found in an instruction, at the instruction, unless the rule is switched off
    /// for the file or by a comment above the instruction.
    pub fn report(&mut self, header: &Header, finding: Finding) {
        self.report_at(header, header.span, finding);
    }

    /// As [`Linter::report`], at another place: that of an earlier instruction, or a part.
    pub fn report_at(&mut self, header: &Header, span: Span, finding: Finding) {
        let rule = finding.rule;
        if self.options.runs(rule) && !options::comments_skip(&header.comments, rule)
            || options::comments_enable(&self.options, &header.comments, rule)
        {
            self.push(span, finding);
        }
    }

    /// Notes what was found in the file; no comment of an instruction switches it off.
    pub fn report_in_file(&mut self, span: Span, finding: Finding) {
        if self.options.runs(finding.rule) {
            self.push(span, finding);
        }
    }

    fn push(&mut self, span: Span, finding: Finding) {
        let Finding { rule, text } = finding;
        self.warnings.push(Warning { rule, text, span });
    }

    /// The warnings so far, in the order in which they were found.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The warnings by place and rule. Like BuildKit, what is found twice is told twice.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Warning> {
        let key = |it: &Warning| (it.span.first_line, it.span.start, it.rule, it.text.clone());
        self.warnings.sort_by_key(key);
        self.warnings
    }

    /// Why the build must fail, where the options make warnings errors and there are some.
    pub fn failure(&self) -> Option<String> {
        if !self.options.error || self.warnings.is_empty() {
            return None;
        }
        let rules: BTreeSet<&str> = self.warnings.iter().map(|it| it.rule.name()).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        Some(format!("lint violation found for rules: {}", rules.join(", ")))
    }
}

#[cfg(test)]
mod tests;
