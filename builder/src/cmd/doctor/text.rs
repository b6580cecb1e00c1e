//! What the doctor says to people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rbuild_solver::sandbox::host::Explained;

use super::{MISSING, PLANNED, Report};

/// Columns of the names.
const NAMES: usize = 34;

impl Report {
    /// All of it.
    pub(super) fn text(&self) -> String {
        let mut rows = Rows::default();
        let nothing = "none: RUN cannot be contained here, everything else works";
        let rung = self.rung().map_or(nothing, rbuild_solver::sandbox::rung::Rung::name);
        let why = self.why_plain();
        let why = if why.is_empty() { why } else { format!(" ({why})") };
        let place = match self.store_fs.as_str() {
            "" => self.store.clone(),
            kind => format!("{} on {kind}", self.store),
        };
        for (name, value) in [
            ("isolation", rung),
            ("snapshots", &format!("{}{why}", self.snapshots())),
            ("network of RUN", self.network()),
            ("limits of RUN", self.limits()),
            ("store", &place),
        ] {
            rows.line(&format!("{name}:"), value);
        }
        rows.text.push_str("\nHow steps can be held, the strongest way first\n");
        for (rung, found) in &self.rungs {
            rows.row(rung.name(), found);
        }
        for name in PLANNED {
            rows.line(&format!("  {name}"), MISSING);
        }
        let not_promised = self.not_promised();
        if let Some(rung) = self.rung() {
            writeln!(rows.text, "\nWhat `{}` does not promise here", rung.name())
                .expect("a string");
        }
        for promise in not_promised {
            writeln!(rows.text, "  - {promise}").expect("a string");
        }
        rows.text.push_str("\nNetworks of steps\n");
        for (network, found) in &self.networks {
            rows.row(network.name(), found);
        }
        rows.text.push_str("\nWhat was asked, just now\n");
        for (question, found) in &self.questions {
            rows.row(question.name(), found);
        }
        rows.text
    }
}

/// Rows of a text in which nothing is explained twice.
#[derive(Default)]
struct Rows {
    text: String,
    explained: BTreeSet<String>,
}

impl Rows {
    fn row(&mut self, name: &str, found: &Result<(), Explained>) {
        let name = format!("  {name}");
        let Err(refused) = found else {
            return self.line(&name, "works");
        };
        let all = refused.to_string();
        let mut more = all.lines().skip(1).peekable();
        let again = more.peek().is_some() && !self.explained.insert(all.clone());
        let mark = if again { " (as above)" } else { "" };
        self.line(&name, &format!("refused: {}{mark}", refused.refusal));
        for line in more.filter(|_| !again) {
            self.line("", line);
        }
    }

    fn line(&mut self, name: &str, what: &str) {
        writeln!(self.text, "{name:<NAMES$}{what}").expect("writing to a string");
    }
}
