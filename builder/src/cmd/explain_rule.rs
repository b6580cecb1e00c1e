//! `rbuild explain-rule`: what a lint rule means.

use std::fmt::Write as _;

use rbuild_frontend::lint::Rule;
use rbuild_frontend::suggest;

use super::print;
use crate::cli::raw::ExplainRule;
use crate::report::Failure;

/// Explains a rule, or lists all.
///
/// # Errors
///
/// If there is no such rule.
pub fn run(raw: &ExplainRule) -> Result<(), Failure> {
    let Some(name) = &raw.name else {
        let mut out = String::new();
        for rule in Rule::ALL {
            writeln!(out, "{:<32} {}", rule.name(), rule.description())
                .expect("writing to a string");
        }
        return print(&out);
    };
    if let Some(rule) = Rule::by_name(name) {
        print(&format!("{}\n", rule.explanation().trim_end()))
    } else {
        let hint = suggest::nearest(name, Rule::ALL.iter().map(|rule| rule.name()));
        let failure = Failure::usage(format!("there is no rule `{name}`"));
        Err(match hint {
            Some(near) => failure.hint(format!("there is `{near}`")),
            None => failure.hint("`rbuild explain-rule` lists them"),
        })
    }
}
