//! What `--call` answers: the targets of a Dockerfile, the parameters of a target, the methods
//! there are. As data, as BuildKit's JSON, and as text.

use std::fmt::Write as _;

use base64::Engine as _;
use serde::Serialize;

use crate::ast::{Dockerfile, Instruction};
use crate::text::{SourceText, Span};

/// Lines of a Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Location {
    /// One range for each line; none means nowhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

/// From a line to a line: here, always the same.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Range {
    /// First line.
    pub start: Position,
    /// Last line.
    pub end: Position,
}

/// A line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Position {
    /// Its number, from 1.
    pub line: u32,
}

impl From<Span> for Location {
    fn from(span: Span) -> Self {
        let lines = (span.first_line..=span.last_line).filter(|it| *it > 0);
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Self { ranges: lines.map(range).collect() }
    }
}

/// The targets of a Dockerfile: its stages.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TargetList {
    /// The stages in their order.
    pub targets: Vec<TargetInfo>,
    /// The Dockerfile, in base 64.
    pub sources: Vec<String>,
}

/// A target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TargetInfo {
    /// Its name; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it is built where nobody says what to build.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// What the comment above says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it is from, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// `--platform`, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Its `FROM`.
    pub location: Location,
}

/// Parameters of a target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Outline {
    /// Name of the target; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comment above says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Build arguments that it uses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets that it mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineMount>,
    /// Agents that it mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineMount>,
    /// The Dockerfile, in base 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// A build argument.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// What the comment above says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where it is declared.
    pub location: Location,
}

/// A secret or an agent.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// Whether a step fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The first instruction that mounts it.
    pub location: Location,
}

/// A method of `--call`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Method {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Version of its answer.
    pub version: &'static str,
    /// What it does.
    pub description: &'static str,
}

/// The methods that [`describe`] lists: as in BuildKit, all but the check.
pub const METHODS: [Method; 3] = [
    Method {
        name: "outline",
        version: "1.0.0",
        description: "List all parameters current build target supports",
    },
    Method {
        name: "targets",
        version: "1.0.0",
        description: "List all targets current build supports",
    },
    Method {
        name: "subrequests.describe",
        version: "1.0.0",
        description: "List available subrequest types",
    },
];

/// The targets of a Dockerfile. Nothing is expanded.
pub fn targets(dockerfile: &Dockerfile, source: &SourceText) -> TargetList {
    let mut targets: Vec<TargetInfo> = Vec::new();
    for instruction in &dockerfile.instructions {
        let Instruction::From(from) = instruction else { continue };
        targets.push(TargetInfo {
            name: from.alias.as_ref().map(|it| it.name.clone()).unwrap_or_default(),
            default: false,
            description: from.doc.clone().unwrap_or_default(),
            base: from.image.value.clone(),
            platform: from.platform.as_ref().map(|it| it.value.clone()).unwrap_or_default(),
            location: from.header.span.into(),
        });
    }
    if let Some(last) = targets.last_mut() {
        last.default = true;
    }
    TargetList { targets, sources: vec![encoded(source)] }
}

/// The bytes of a Dockerfile in base 64.
pub(crate) fn encoded(source: &SourceText) -> String {
    base64::engine::general_purpose::STANDARD.encode(source.raw(0..source.text().len()))
}

impl TargetList {
    /// A table.
    pub fn to_text(&self) -> String {
        let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
        for target in &self.targets {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            rows.push([name, target.description.clone()]);
        }
        table(&rows, 1)
    }
}

impl Outline {
    /// Tables, each with an empty line behind it.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![["TARGET:".to_owned(), name.to_owned()]];
            if !self.description.is_empty() {
                rows.push(["DESCRIPTION:".to_owned(), self.description.clone()]);
            }
            push_table(&mut out, &rows, 1);
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
            for arg in &self.args {
                rows.push([&arg.name, &arg.value, &arg.description].map(String::clone));
            }
            push_table(&mut out, &rows, 3);
        }
        for (title, mounts) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if mounts.is_empty() {
                continue;
            }
            let mut rows = vec![[title.to_owned(), "REQUIRED".to_owned()]];
            for mount in mounts {
                let required = if mount.required { "true" } else { "" };
                rows.push([mount.name.clone(), required.to_owned()]);
            }
            push_table(&mut out, &rows, 3);
        }
        out
    }
}

/// The methods as JSON.
pub fn describe() -> serde_json::Value {
    let methods = METHODS.iter().map(|method| {
        serde_json::json!({
            "name": format!("frontend.{}", method.name),
            "version": method.version,
            "type": "rpc",
            "description": method.description,
            "opts": target_option(method),
            "inputs": null,
            "metadata": [
                { "name": "result.json", "description": "" },
                { "name": "result.txt", "description": "" },
            ],
            "refs": null,
        })
    });
    methods.collect()
}

fn target_option(method: &Method) -> serde_json::Value {
    match method.name {
        "outline" => serde_json::json!([
            { "name": "target", "description": "Target build stage" },
        ]),
        "targets" => serde_json::json!([]),
        _ => serde_json::Value::Null,
    }
}

/// The methods as a table.
pub fn describe_text() -> String {
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned)];
    for method in METHODS {
        rows.push([method.name, method.version, method.description].map(str::to_owned));
    }
    table(&rows, 1)
}

fn push_table<const N: usize>(out: &mut String, rows: &[[String; N]], gap: usize) {
    out.push_str(&table(rows, gap));
    out.push('\n');
}

/// Columns as wide as their widest cell and `gap` blanks; the last one is as long as it is.
fn table<const N: usize>(rows: &[[String; N]], gap: usize) -> String {
    let n_chars = |text: &str| text.chars().count();
    let width = |column: usize| rows.iter().map(|row| n_chars(&row[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(N - 1) {
            let padding = width + gap - n_chars(cell);
            write!(out, "{cell}{:padding$}", "").expect("writing to a string");
        }
        out.push_str(&row[N - 1]);
        out.push('\n');
    }
    out
}
