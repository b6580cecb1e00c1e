//! How a failure is told: kind, text, place, way out, exit code.

use std::fmt::Write as _;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The Dockerfile is wrong, or a command failed. Exit code 1.
    User,
    /// A flag is wrong. Exit code 2.
    Usage,
    /// The host refuses or is full. Exit code 3.
    Host,
    /// A registry or another server refused or lied. Exit code 4.
    Remote,
    /// An invariant broke. Exit code 101.
    Bug,
    /// The user interrupted. Exit code 130.
    Interrupted,
}

impl Kind {
    /// The process's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Usage => 2,
            Self::Host => 3,
            Self::Remote => 4,
            Self::Bug => 101,
            Self::Interrupted => 130,
        }
    }
}

/// A failure, ready to be shown.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Whose turn it is.
    pub kind: Kind,
    /// What could not be done and why.
    pub text: String,
    /// Lines shown before the text as they are: the step's last output, the Dockerfile excerpt.
    pub excerpt: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without excerpt or hint.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), excerpt: String::new(), hint: None }
    }

    /// A wrong flag.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text)
    }

    /// A failure of the host, with the whole chain of causes.
    pub fn host(action: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Kind::Host, format!("cannot {action}: {}", chain(error)))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do about causes that can strike anywhere.
    fn known_way_out(&self) -> Option<&'static str> {
        let full = ["No space left on device", "Disk quota exceeded"]
            .iter()
            .any(|cause| self.text.contains(cause));
        full.then_some("`rbuild prune` frees space, and `--root DIR` puts the store somewhere else")
    }

    /// The text as it is printed to standard error.
    pub fn render(&self) -> String {
        let mut out = String::new();
        if !self.excerpt.is_empty() {
            out.push_str(self.excerpt.trim_end_matches('\n'));
            out.push('\n');
        }
        writeln!(out, "ERROR: {}", self.text.trim_end()).expect("writing to a string");
        if let Some(hint) = self.hint.as_deref().or_else(|| self.known_way_out()) {
            writeln!(out, "hint: {hint}").expect("writing to a string");
        }
        if self.kind == Kind::Bug {
            out.push_str("This is a fault of rbuild: please report it.\n");
        }
        out
    }
}

/// An error and its causes, joined by colons; a cause that its parent repeats is left out.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rbuild_frontend::diagnostic::marked_excerpt;

    use super::*;

    #[test]
    fn a_failed_step_shows_its_lines() {
        let text = "FROM busybox\n\nRUN true\nRUN false \\\n  && true\nRUN x\nRUN y\nRUN z\n";
        let mut failure =
            Failure::new(Kind::User, "process \"/bin/sh -c false\" failed: exit code: 1");
        failure.excerpt = marked_excerpt("Dockerfile", text, 4, 5);
        expect![[r#"
            Dockerfile:4
            --------------------
               3 |     RUN true
               4 | >>> RUN false \
               5 | >>>   && true
               6 |     RUN x
            --------------------
            ERROR: process "/bin/sh -c false" failed: exit code: 1
        "#]]
        .assert_eq(&failure.render());
    }
}
