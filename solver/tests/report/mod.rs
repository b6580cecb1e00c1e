//! What a test binary with its own `main` tells: the lines of Rust's test runner, which whoever runs
//! all tests adds up, and what was skipped, in the file that `RBUILD_SKIPS` names.

use std::io::Write as _;

/// The results so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    /// Tells of a case.
    pub(crate) fn case(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Err(text) => {
                self.failed += 1;
                println!("test {name} ... FAILED: {text}");
            }
        }
    }

    /// Tells of what could not be tried here. It counts as one that passed, as everywhere.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        self.passed += 1;
        println!("SKIPPED: {name}: {reason}");
        #[expect(clippy::disallowed_methods, reason = "how tests are started")]
        if let Ok(file) = std::env::var("RBUILD_SKIPS") {
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(&file);
            let written = opened.and_then(|mut file| writeln!(file, "{name}: {reason}"));
            written.unwrap_or_else(|error| panic!("could not write `{file}`: {error}"));
        }
    }

    /// Ends with the sum; whether nothing failed.
    pub(crate) fn close(&self) -> bool {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        let Self { passed, failed } = self;
        println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured");
        self.failed == 0
    }
}
