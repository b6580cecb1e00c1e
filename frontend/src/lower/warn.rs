//! Warnings that only a lowering can find: they need values of variables, the base image or the
//! ignore file. Rules and texts are BuildKit's.

use crate::ast::Header;
use crate::text::Span;

/// A rule of the linter struck.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Warning {
    /// Name of the rule.
    pub(crate) rule: &'static str,
    /// Where.
    pub(crate) span: Span,
    /// What.
    pub(crate) text: String,
    /// Comments above the instruction: they can switch rules off.
    pub(crate) comments: Vec<String>,
}

/// Warnings in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings {
    /// The warnings.
    pub(crate) list: Vec<Warning>,
}

impl Warnings {
    /// Adds a warning about a whole instruction.
    pub(crate) fn add(&mut self, rule: &'static str, header: &Header, text: String) {
        self.add_at(rule, header, header.span, text);
    }

    /// Adds a warning about an instruction, at another place.
    pub(crate) fn add_at(&mut self, rule: &'static str, header: &Header, span: Span, text: String) {
        self.list.push(Warning { rule, span, text, comments: header.comments.clone() });
    }
}

/// Words that a secret is called by.
const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words that say that it is none.
const PUBLIC_WORDS: [&str; 3] = ["public", "file", "version"];

/// Whether a variable's name says that it holds a secret: `API_KEY`, `token`, but not
/// `TOKEN_FILE`. A word is what `_` separates.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let has_word = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    has_word(&SECRET_WORDS) && !has_word(&PUBLIC_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_by_name() {
        for name in ["API_KEY", "token", "GITHUB_TOKEN", "secret_MESSAGE", "A_password_B"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["KEYBOARD", "TOKEN_FILE", "PUBLIC_KEY", "GIT_TOKENS", "key_version", ""] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
