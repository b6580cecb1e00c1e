//! The last words of failed steps, repeated where nobody has to look for them.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

use rbuild_store::digest::Digest;

/// How many lines of a failed step are repeated, as BuildKit does.
const LINES: usize = 10;

/// Last lines of every vertex, and which vertices failed.
#[derive(Debug, Default)]
pub struct Tails {
    lines: HashMap<Digest, VecDeque<String>>,
    failed: Vec<(Digest, String)>,
}

impl Tails {
    /// A vertex said something.
    pub fn line(&mut self, vertex: Digest, line: String) {
        let lines = self.lines.entry(vertex).or_default();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// A vertex ended and needs no repetition.
    pub fn succeeded(&mut self, vertex: Digest) {
        self.lines.remove(&vertex);
    }

    /// A vertex failed.
    pub fn failed(&mut self, vertex: Digest, name: &str) {
        if !self.failed.iter().any(|(it, _)| *it == vertex) {
            self.failed.push((vertex, name.to_owned()));
        }
    }

    /// What to repeat: nothing if no step failed that had said something.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (vertex, name) in &self.failed {
            let Some(lines) = self.lines.get(vertex) else { continue };
            writeln!(out, "------\n > {}:", name.replace('\n', " ")).expect("writing to a string");
            for line in lines {
                writeln!(out, "{line}").expect("writing to a string");
            }
            out.push_str("------\n");
        }
        out
    }
}
