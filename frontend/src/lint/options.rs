//! Which rules run: `skip=A,B;experimental=C;error=true`, each part once, in any order.

use std::collections::BTreeSet;

use super::Rule;
use crate::ast::Dockerfile;
use crate::suggest::did_you_mean;

/// Some rules, or all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    /// All of them.
    All,
    /// Those with these names; unknown ones stand for nothing.
    Some(BTreeSet<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Selection {
    fn holds(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(rule.name()),
        }
    }

    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Self::All,
            names => Self::Some(names.split(',').map(|it| it.trim().to_owned()).collect()),
        }
    }
}

/// Options of the linter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Rules that do not run. Experimental rules are not meant.
    pub skip: Selection,
    /// Experimental rules that run.
    pub experimental: Selection,
    /// Whether a warning fails the build.
    pub error: bool,
}

/// The options cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("failed to parse check options: {0}")]
pub struct OptionsError(String);

impl Options {
    /// Reads options as they stand in `# check=` and in the build argument
    /// `BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    ///
    /// If a part is none of the three, or `error` is no truth value.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(OptionsError(format!("invalid check option \"{part}\"")));
            };
            match key.trim() {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => {
                    options.error = parse_bool(value.trim()).ok_or_else(|| {
                        let text = format!("failed to parse check option \"{part}\"");
                        OptionsError(format!("{text}: it can be true or false"))
                    })?;
                }
                key => {
                    let suggestion = did_you_mean(key, ["skip", "experimental", "error"]);
                    let text = format!("invalid check option \"{key}\"{suggestion}");
                    return Err(OptionsError(text));
                }
            }
        }
        Ok(options)
    }

    /// The options of a build: those of the build argument where it is given, else those of the
    /// directive.
    ///
    /// # Errors
    ///
    /// As [`Options::parse`].
    pub fn of_build(
        dockerfile: &Dockerfile,
        build_arg: Option<&str>,
    ) -> Result<Self, OptionsError> {
        let directive = dockerfile.directives.check.as_ref().map(|it| it.value.as_str());
        Self::parse(build_arg.or(directive).unwrap_or_default())
    }

    /// Whether a rule runs.
    pub fn runs(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.holds(rule) } else { !self.skip.holds(rule) }
    }
}

/// Whether comments above an instruction switch a rule off.
pub(super) fn comments_skip(comments: &[String], rule: Rule) -> bool {
    !rule.is_experimental() && of_comments(comments).is_some_and(|it| it.skip.holds(rule))
}

/// Whether they switch an experimental rule on that is not on for the file.
pub(super) fn comments_enable(options: &Options, comments: &[String], rule: Rule) -> bool {
    rule.is_experimental()
        && !options.runs(rule)
        && of_comments(comments).is_some_and(|it| it.experimental.holds(rule))
}

/// The options in the first comment that is `check=…`; none if it cannot be read.
fn of_comments(comments: &[String]) -> Option<Options> {
    let value = comments.iter().find_map(|comment| {
        let (key, value) = comment.split_once('=')?;
        key.trim_end().eq_ignore_ascii_case("check").then_some(value.trim())
    })?;
    Options::parse(value.split(' ').next().unwrap_or_default()).ok()
}

/// A truth value in Go's spellings.
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
