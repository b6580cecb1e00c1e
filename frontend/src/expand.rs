//! Words: quotes, escapes and variables, as the shell lexer of BuildKit reads them.
//!
//! | form | value |
//! |---|---|
//! | `$x` `${x}` | the value, nothing where unset |
//! | `${x-w}` `${x:-w}` | `w` where unset (or, with the colon, empty) |
//! | `${x+w}` `${x:+w}` | `w` where set (and not empty) |
//! | `${x?w}` `${x:?w}` | an error with text `w` where unset (or empty) |
//! | `${x#p}` `${x##p}` | without the shortest (longest) prefix that matches `p` |
//! | `${x%p}` `${x%%p}` | without the shortest (longest) such suffix |
//! | `${x/p/w}` `${x//p/w}` | with the first match (each match) of `p` replaced |
//!
//! Pure text: what is set is asked through a function. Two results come from one walk: the whole
//! text, and the words it falls into. Blanks that come from a variable outside of quotes separate
//! words, others do not.

mod braced;

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting of `${x:-${y:-…}}`.
pub const MAX_NESTING: usize = 100;

/// Longest result of one expansion, in bytes: variables that hold each other grow exponentially.
pub const MAX_EXPANDED_BYTES: usize = 16 << 20;

/// The value of a variable; none where it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What becomes of quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quotes {
    /// They quote, and are removed.
    Remove,
    /// They quote, and stay in the result.
    Keep,
    /// They are ordinary characters.
    Ignore,
}

/// What becomes of a variable that is not set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unset {
    /// Nothing.
    Empty,
    /// It stays as it is written.
    Keep,
}

/// Rules of an expansion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expander {
    /// The escape character of the Dockerfile.
    pub escape: char,
    /// What becomes of quotes.
    pub quotes: Quotes,
    /// Whether escape characters stay in the result.
    pub raw_escapes: bool,
    /// What becomes of a variable that is not set.
    pub unset: Unset,
}

/// What a word expands to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expansion {
    /// The whole text.
    pub text: String,
    /// The words it falls into; none is empty.
    pub words: Vec<String>,
    /// Names of variables that were asked for and are set.
    pub matched: BTreeSet<String>,
    /// Names of variables that were asked for and are not set.
    pub unmatched: BTreeSet<String>,
}

/// A word cannot be expanded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("failed to process \"{}\": {reason}", shorten(word))]
pub struct ExpandError {
    /// The word.
    pub word: String,
    /// Why.
    pub reason: String,
}

/// Words of any length must not fill the screen.
fn shorten(word: &str) -> String {
    const MAX_SHOWN_CHARS: usize = 120;
    match word.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &word[..end]),
        None => word.to_owned(),
    }
}

impl Expander {
    /// The rules for values of most instructions.
    pub fn new(escape: char) -> Self {
        Self { escape, quotes: Quotes::Remove, raw_escapes: false, unset: Unset::Empty }
    }

    /// The rules for bodies of here-documents: quotes mean nothing.
    pub fn for_heredoc() -> Self {
        Self { quotes: Quotes::Ignore, ..Self::new('\\') }
    }

    /// The rules for text that is only shown: quotes stay, and so does what is not set.
    pub fn for_display(escape: char) -> Self {
        Self { quotes: Quotes::Keep, unset: Unset::Keep, ..Self::new(escape) }
    }

    /// Expands `word`.
    ///
    /// # Errors
    ///
    /// An open quote or brace, an unknown form, a `${x?}` that strikes, an invalid pattern, or a
    /// limit.
    pub fn expand(&self, word: &str, lookup: Lookup<'_>) -> Result<Expansion, ExpandError> {
        // The lexer of BuildKit drops a byte order mark at the beginning of each word.
        let chars = word.strip_prefix('\u{feff}').unwrap_or(word).chars();
        let mut lexer = Lexer {
            rules: *self,
            raw_escapes: self.raw_escapes,
            chars: chars.peekable(),
            lookup,
            depth: 0,
            pending: String::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        match lexer.until(None, self.raw_escapes) {
            Ok((text, words)) => {
                Ok(Expansion { text, words, matched: lexer.matched, unmatched: lexer.unmatched })
            }
            Err(reason) => Err(ExpandError { word: word.to_owned(), reason }),
        }
    }
}

struct Lexer<'a> {
    rules: Expander,
    /// The rule of this name, or that of the pattern that is being read.
    raw_escapes: bool,
    chars: Peekable<Chars<'a>>,
    lookup: Lookup<'a>,
    depth: usize,
    /// The word that is being collected. There is one for all levels, as in BuildKit: a form with
    /// a word or pattern in it forgets what stood before it, so `80${x-81}` is the word `81`.
    pending: String,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), String> {
        if self.depth > MAX_NESTING {
            return Err(format!("substitutions are nested more than {MAX_NESTING} deep"));
        }
        self.depth += 1;
        let outer_raw_escapes = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer_raw_escapes;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut words = Vec::new();
        self.pending.clear();
        let has_quotes = self.rules.quotes != Quotes::Ignore;
        while let Some(next) = self.peek() {
            if text.len() > MAX_EXPANDED_BYTES {
                return Err(format!("the result is longer than {MAX_EXPANDED_BYTES} bytes"));
            }
            if Some(next) == stop {
                self.chars.next();
                return Ok((text, self.words(words)));
            }
            match next {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    value.chars().for_each(|it| self.add(it, &mut words));
                }
                '\'' if has_quotes => self.quoted(&mut text, Self::single_quoted)?,
                '"' if has_quotes => self.quoted(&mut text, Self::double_quoted)?,
                '<' => {
                    let mark = self.less_than();
                    text.push_str(&mark);
                    self.pending.push_str(&mark);
                }
                _ if next == self.rules.escape => self.escaped(&mut text),
                _ => {
                    self.chars.next();
                    text.push(next);
                    self.add(next, &mut words);
                }
            }
        }
        match stop {
            Some(stop) => {
                Err(format!("unexpected end of statement while looking for matching {stop}"))
            }
            None => Ok((text, self.words(words))),
        }
    }

    fn quoted(
        &mut self,
        text: &mut String,
        read: fn(&mut Self) -> Result<String, String>,
    ) -> Result<(), String> {
        let value = read(self)?;
        text.push_str(&value);
        self.pending.push_str(&value);
        Ok(())
    }

    /// An escape character and what follows; alone at the end it is dropped.
    fn escaped(&mut self, text: &mut String) {
        self.chars.next();
        if self.raw_escapes {
            text.push(self.rules.escape);
            self.pending.push(self.rules.escape);
        }
        if let Some(next) = self.chars.next() {
            text.push(next);
            self.pending.push(next);
        }
    }

    /// Adds a character that separates words if it is a blank.
    fn add(&mut self, next: char, words: &mut Vec<String>) {
        if !next.is_whitespace() {
            self.pending.push(next);
        } else if !self.pending.is_empty() {
            words.push(std::mem::take(&mut self.pending));
        }
    }

    /// All words, with the one that is being collected.
    fn words(&mut self, mut words: Vec<String>) -> Vec<String> {
        if !self.pending.is_empty() {
            words.push(std::mem::take(&mut self.pending));
        }
        words
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let keep = self.rules.quotes == Quotes::Keep;
        self.chars.next();
        let mut text = String::new();
        if keep {
            text.push('\'');
        }
        for next in self.chars.by_ref() {
            if next == '\'' {
                if keep {
                    text.push(next);
                }
                return Ok(text);
            }
            text.push(next);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let keep = self.rules.quotes == Quotes::Keep;
        self.chars.next();
        let mut text = String::new();
        if keep {
            text.push('"');
        }
        while let Some(next) = self.peek() {
            if next == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            self.chars.next();
            if next == '"' {
                if keep {
                    text.push(next);
                }
                return Ok(text);
            }
            if next != self.rules.escape {
                text.push(next);
                continue;
            }
            // Inside of double quotes only these can be escaped; before others it stays.
            if self.raw_escapes {
                text.push(next);
            }
            match self.peek() {
                None => {}
                Some(special) if special == '"' || special == '$' || special == next => {
                    self.chars.next();
                    text.push(special);
                }
                Some(_) => text.push(next),
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    /// `<`, or `<<` and the blanks behind it, which belong to the word of a here-document.
    fn less_than(&mut self) -> String {
        self.chars.next();
        if self.chars.next_if_eq(&'<').is_none() {
            return "<".to_owned();
        }
        let mut mark = "<<".to_owned();
        while let Some(blank) = self.chars.next_if(|it| matches!(it, '\t' | '\r' | ' ')) {
            mark.push(blank);
        }
        mark
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(&name) {
            None if self.rules.unset == Unset::Keep => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// Letters, digits and underscores; or digits only; or one special character; or nothing.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            let is_first = name.is_empty();
            if is_first && next.is_numeric() {
                while let Some(digit) = self.chars.next_if(|it| it.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            if is_first && matches!(next, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.chars.next();
                return next.to_string();
            }
            if !next.is_alphanumeric() && next != '_' {
                break;
            }
            self.chars.next();
            name.push(next);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let set = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        set.insert(name.to_owned());
        value
    }
}

#[cfg(test)]
mod tests;
