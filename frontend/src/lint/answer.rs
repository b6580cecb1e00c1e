//! What a check of a Dockerfile found: what `--call=check` answers. The JSON is BuildKit's, without
//! the addresses of web pages: [`Rule::explanation`](super::Rule::explanation) stands for them.

use serde::Serialize;

use super::Warning;
use crate::call::{Location, encoded};
use crate::diagnostic::{Diagnostics, marked_excerpt};
use crate::text::SourceText;

/// The answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// What the rules found.
    pub warnings: Vec<Found>,
    /// The Dockerfile; locations are in it.
    pub sources: [Source; 1],
    /// Why the Dockerfile cannot be built.
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
}

/// A warning.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The rule's name.
    pub rule_name: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// The text of the warning.
    pub detail: String,
    /// Where.
    pub location: Location,
}

/// A file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Source {
    /// Its name.
    pub filename: String,
    /// Its content in base 64.
    pub data: String,
    /// Its language.
    pub language: &'static str,
}

/// What is wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub location: Location,
}

impl Answer {
    /// The answer about `source`.
    pub fn new(source: &SourceText, warnings: &[Warning], error: Option<&Diagnostics>) -> Self {
        let warnings = warnings.iter().map(|it| Found {
            rule_name: it.rule.name(),
            description: it.rule.description(),
            detail: it.text.clone(),
            location: it.span.into(),
        });
        let first = error.and_then(|error| error.list.first());
        let error = first.map(|it| Fault {
            message: it.message.clone(),
            location: it.span.unwrap_or_default().into(),
        });
        let (filename, data) = (source.name().to_owned(), encoded(source));
        let source = Source { filename, data, language: "Dockerfile" };
        Self { warnings: warnings.collect(), sources: [source], error }
    }
}

/// `1 warning has`, `2 warnings have`: how a summary counts them.
pub fn counted(n_warnings: usize) -> String {
    match n_warnings {
        1 => "1 warning has".to_owned(),
        many => format!("{many} warnings have"),
    }
}

/// The warnings with their lines, below a line that counts them: in BuildKit's form, with what each
/// rule is about where BuildKit has the address of a page.
pub fn to_text(warnings: &[Warning], source: &SourceText) -> String {
    if warnings.is_empty() {
        return "Check complete, no warnings found.\n".to_owned();
    }
    let mut text = format!("Check complete, {} been found!\n", counted(warnings.len()));
    for Warning { rule, text: detail, span } in warnings {
        let (name, about) = (rule.name(), rule.description());
        for part in ["\nWARNING: ", name, " - ", about, "\n", detail, "\n"] {
            text.push_str(part);
        }
        let (first, last) = (span.first_line, span.last_line);
        text.push_str(&marked_excerpt(source.name(), source.text(), first, last));
    }
    text.push_str("\n`rbuild explain-rule NAME` says more about a rule.\n");
    text
}
