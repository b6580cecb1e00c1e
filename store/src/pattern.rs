//! Patterns of paths: `.dockerignore`, `COPY --exclude`, include lists, wildcards of `COPY`.
//!
//! Two kinds that look alike and are not:
//!
//! - [`Glob`]: Go's `path/filepath.Match`, one pattern against one whole path; `*` stays within a
//!   component and there is no `**`. The wildcards of `COPY` and `ADD` are these.
//! - [`PatternSet`]: an ordered list as in `.dockerignore`, with `**`, with exceptions (`!`), where
//!   a pattern that matches a directory also matches what is below it. BuildKit's include and
//!   exclude patterns are these (`moby/patternmatcher`).
//!
//! Patterns are text; paths are bytes, components joined by `/`, as in [`crate::entry::Entry::path`].

mod glob;
mod machine;

pub use glob::{Glob, has_wildcards};
use machine::Machine;

/// Why a text is not a pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// A bracket, range or backslash that does not end, or an impossible range.
    #[error("syntax error in pattern `{pattern}`")]
    Syntax {
        /// The pattern, cleaned.
        pattern: String,
    },
    /// A `!` alone excepts nothing.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
}

/// The shortest form of a path, lexically: no empty components, no `.`, no inner `..`; never empty.
/// Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The patterns of a `.dockerignore` file, in order: comments and empty lines dropped, each line
/// trimmed and cleaned, a leading slash removed. Not checked: see [`PatternSet::new`].
///
/// Bytes that are not UTF-8 become U+FFFD.
pub fn parse_ignore_file(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    let mut patterns = Vec::new();
    for line in text.lines() {
        // Only a `#` in the first column starts a comment.
        let pattern = if line.starts_with('#') { "" } else { line.trim() };
        if pattern.is_empty() {
            continue;
        }
        let (mark, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", pattern),
        };
        let mut pattern = if pattern.is_empty() { String::new() } else { clean(pattern) };
        if pattern.len() > 1 && pattern.starts_with('/') {
            pattern.remove(0);
        }
        patterns.push(format!("{mark}{pattern}"));
    }
    patterns
}

/// An ordered list of patterns; the last one that matches decides.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
    exceptions: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    exception: bool,
    machine: Machine,
}

/// Which patterns of a set matched a directory: input for the paths below it.
///
/// The default value says that nothing is known, which is right for the top of a walk.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Matched(Box<[bool]>);

impl PatternSet {
    /// Compiles `patterns`; blank ones are dropped.
    ///
    /// # Errors
    /// If one is not a pattern.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut set = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let cleaned = clean(pattern);
            let (exception, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclamation),
                Some(rest) => (true, rest.to_owned()),
                None => (false, cleaned),
            };
            check(&text)?;
            let machine = Machine::new(&text)
                .ok_or_else(|| PatternError::Syntax { pattern: text.clone() })?;
            set.exceptions |= exception;
            set.patterns.push(Pattern { text, exception, machine });
        }
        Ok(set)
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether one of the patterns starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether the path, or a directory that it is in, is matched and not excepted.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.decide(path, &Matched::default(), |_, _| {})
    }

    /// As [`PatternSet::matches`] for a path in a directory whose own result is known.
    pub fn matches_in(&self, path: &[u8], parent: &Matched) -> bool {
        self.decide(path, parent, |_, _| {})
    }

    /// As [`PatternSet::matches_in`] for a directory; also says what to pass on for the paths in it.
    pub fn matches_dir(&self, path: &[u8], parent: &Matched) -> (bool, Matched) {
        let mut own = vec![false; self.patterns.len()];
        let matched = self.decide(path, parent, |at, matched| own[at] = matched);
        (matched, Matched(own.into_boxed_slice()))
    }

    fn decide(&self, path: &[u8], parent: &Matched, mut note: impl FnMut(usize, bool)) -> bool {
        let unknown = parent.0.is_empty();
        let mut result = false;
        for (at, pattern) in self.patterns.iter().enumerate() {
            let mut matched = !unknown && parent.0[at];
            if !matched {
                // Another match would change nothing. That it is not even noted (so that the
                // paths below do not inherit it) is how BuildKit's matcher works.
                if pattern.exception != result {
                    continue;
                }
                matched = pattern.machine.matches(path)
                    || (unknown && parents(path).any(|dir| pattern.machine.matches(dir)));
            }
            note(at, matched);
            if matched {
                result = !pattern.exception;
            }
        }
        result
    }

    /// Whether a pattern may match something below `dir` though `dir` itself is not matched.
    /// Never wrong when it says no.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| !pattern.exception && pattern.may_match_below(dir))
    }

    /// Whether an exception may match something below `dir` though `dir` itself is matched.
    /// Never wrong when it says no.
    pub fn may_except_below(&self, dir: &[u8]) -> bool {
        self.exceptions
            && self.patterns.iter().any(|pattern| pattern.exception && pattern.may_match_below(dir))
    }

    /// The patterns as they were compiled, in order, exceptions with their `!`.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.patterns
            .iter()
            .map(|pattern| format!("{}{}", if pattern.exception { "!" } else { "" }, pattern.text))
    }
}

/// Refuses what BuildKit's matcher refuses: it tries each pattern as a [`Glob`] on the path `.`,
/// and what stands behind the first part that does not match is not looked at.
fn check(pattern: &str) -> Result<(), PatternError> {
    let mut end = 0;
    loop {
        end += pattern[end..].bytes().take_while(|it| *it == b'*').count();
        let start = end;
        end += chunk(&pattern[start..]);
        let whole = |_| PatternError::Syntax { pattern: pattern.to_owned() };
        Glob::new(&pattern[start..end]).map_err(whole)?;
        let so_far = Glob::new(&format!("{}*", &pattern[..end])).map_err(whole)?;
        if end == pattern.len() || !so_far.matches(b".") {
            return Ok(());
        }
    }
}

/// How long the part of a pattern is that ends at its first `*` outside of a class.
fn chunk(pattern: &str) -> usize {
    let mut bytes = pattern.bytes().enumerate();
    let mut in_class = false;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => return at,
            _ => {}
        }
    }
    pattern.len()
}

impl Pattern {
    fn may_match_below(&self, dir: &[u8]) -> bool {
        let fixed = self.machine.literal_prefix();
        let shared = fixed.len().min(dir.len());
        if fixed[..shared] != dir[..shared] {
            return false;
        }
        match fixed.get(shared) {
            // The pattern goes on below the directory.
            Some(&next) => next == b'/',
            // The whole fixed part lies at or above the directory: the rest, if any, may match.
            None => !self.machine.is_exact(),
        }
    }
}

/// `a`, `a/b` of `a/b/c`.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    memchr::memchr_iter(b'/', path).map(|at| &path[..at])
}

#[cfg(test)]
mod tests;
