//! What stands between `${` and `}`.

use super::{Lexer, Unset};
use crate::pattern::{self, Length};

const MISSING_BRACE: &str = "syntax error: missing '}'";

impl Lexer<'_> {
    /// Reads behind `${` up to and with `}`.
    pub(super) fn braced(&mut self) -> Result<String, String> {
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            None => Err(MISSING_BRACE.to_owned()),
            Some('}') => match self.value(&name) {
                None if self.rules.unset == Unset::Keep => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => match self.chars.next() {
                None => Err(MISSING_BRACE.to_owned()),
                Some(modifier @ ('#' | '%')) => Err(unsupported(":", modifier)),
                Some(modifier) => self.conditional(&name, ":", modifier),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.conditional(&name, "", modifier),
            Some(modifier @ ('#' | '%')) => self.trim(&name, modifier),
            Some('/') => self.replace(&name),
            Some(modifier) => Err(unsupported("", modifier)),
        }
    }

    /// The word of a form, up to `}`.
    fn word(&mut self, raw_escapes: bool) -> Result<String, String> {
        match self.until(Some('}'), raw_escapes) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.at_end() => Err(MISSING_BRACE.to_owned()),
            Err(reason) => Err(reason),
        }
    }

    fn conditional(&mut self, name: &str, colon: &str, modifier: char) -> Result<String, String> {
        let word = self.word(false)?;
        let value = self.value(name);
        let Some(value) = value else {
            if self.rules.unset == Unset::Keep {
                return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
            }
            return match modifier {
                '-' => Ok(word),
                '+' => Ok(String::new()),
                '?' => Err(strikes(name, &word, "is not allowed to be unset")),
                _ => Err(unsupported(colon, modifier)),
            };
        };
        let counts_as_unset = !colon.is_empty() && value.is_empty();
        match modifier {
            '-' => Ok(if counts_as_unset { word } else { value }),
            '+' => Ok(if counts_as_unset { value } else { word }),
            '?' if counts_as_unset => Err(strikes(name, &word, "is not allowed to be empty")),
            '?' => Ok(value),
            _ => Err(unsupported(colon, modifier)),
        }
    }

    fn trim(&mut self, name: &str, modifier: char) -> Result<String, String> {
        let word = self.word(true)?;
        let Some(value) = self.value_or_keep(name) else {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        };
        let (pattern, length) = match word.strip_prefix(modifier) {
            Some(pattern) => (pattern, Length::Longest),
            None => (&word[..], Length::Shortest),
        };
        let trimmed = if modifier == '#' {
            pattern::trim_prefix(pattern, &value, length)
        } else {
            pattern::trim_suffix(pattern, &value, length)
        };
        trimmed.map_err(|reason| invalid_pattern(pattern, &reason))
    }

    fn replace(&mut self, name: &str) -> Result<String, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = match self.until(Some('/'), true) {
            Ok((pattern, _)) => pattern,
            Err(_) if self.at_end() => {
                return Err("syntax error: missing '/' in ${}".to_owned());
            }
            Err(reason) => return Err(reason),
        };
        let replacement = self.word(true)?;
        let Some(value) = self.value_or_keep(name) else {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        };
        let replaced = if all {
            pattern::replace_all(&pattern, &value, &replacement)
        } else {
            pattern::replace_first(&pattern, &value, &replacement)
        };
        replaced.map_err(|reason| invalid_pattern(&pattern, &reason))
    }

    /// The value, empty where unset; none where the rules say to keep what is unset.
    fn value_or_keep(&mut self, name: &str) -> Option<String> {
        match self.value(name) {
            None if self.rules.unset == Unset::Keep => None,
            value => Some(value.unwrap_or_default()),
        }
    }
}

fn unsupported(colon: &str, modifier: char) -> String {
    format!("unsupported modifier ({colon}{modifier}) in substitution")
}

fn strikes(name: &str, word: &str, default: &str) -> String {
    let message = if word.is_empty() { default } else { word };
    format!("{name}: {message}")
}

fn invalid_pattern(pattern: &str, reason: &str) -> String {
    format!("invalid pattern ({pattern}) in substitution: {reason}")
}
