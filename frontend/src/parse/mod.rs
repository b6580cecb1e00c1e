//! Dockerfile text to [`crate::ast`].
//!
//! One instruction after the other; an instruction that is wrong does not hide the errors of those
//! behind it. What is refused, and with which words, is what BuildKit refuses; what it silently
//! accepts (flags of `ARG`, `STOPSIGNAL`, `HEALTHCHECK NONE`) is accepted here.

mod config;
mod copy;
mod from;
mod health;
pub mod mount;
mod node;
mod run;

use crate::ast::{Dockerfile, Instruction};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::directives::Directives;
use crate::lines::{Lines, Places};
use crate::suggest;
use crate::text::{SourceText, Span};

use node::{Node, Parsed};

/// So many errors are collected; what follows is mostly caused by what is known by then.
pub const MAX_ERRORS: usize = 20;

/// Names of all instructions.
pub const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a Dockerfile.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the file.
pub fn parse(source: &SourceText) -> Result<Dockerfile, Diagnostics> {
    let (dockerfile, errors) = parse_partly(source);
    if errors.list.is_empty() { Ok(dockerfile) } else { Err(errors) }
}

/// Parses what can be parsed of a Dockerfile: what is right, and what is wrong with the rest.
pub fn parse_partly(source: &SourceText) -> (Dockerfile, Diagnostics) {
    let mut errors = Vec::new();
    let (directives, n_directives) = Directives::read(source, &mut errors);
    let mut lines = Lines::new(source, Places::Own, directives.escape, n_directives);
    let mut instructions = Vec::new();
    let mut order = Order::default();
    while let Some(line) = lines.next_line() {
        let node = line.and_then(|line| Node::read(&mut lines, line, directives.escape));
        let parsed = node.and_then(|node| {
            let in_order = order.check(&node);
            let instruction = instruction(&node)?;
            in_order.map(|()| instruction)
        });
        match parsed {
            Ok(instruction) => instructions.push(instruction),
            Err(error) => errors.push(error),
        }
        if errors.len() >= MAX_ERRORS {
            break;
        }
    }
    if errors.is_empty() {
        errors.extend(order.missing(source));
    }
    (Dockerfile { directives, instructions }, Diagnostics { list: errors })
}

/// Parses an `ONBUILD` trigger of a base image. All its spans become `span`.
///
/// # Errors
///
/// As [`parse`]; also if it is not exactly one instruction, or one that cannot be triggered.
pub fn parse_trigger(trigger: &str, span: Span) -> Result<Instruction, Diagnostics> {
    let error = |text: String| {
        let note = format!("in the ONBUILD trigger `{}` of the base image", trigger.trim_end());
        Diagnostics::from(Diagnostic::new(span, text).with_note(note))
    };
    let source = SourceText::new("ONBUILD trigger", trigger.as_bytes())
        .map_err(|cause| error(cause.to_string()))?;
    let mut lines = Lines::new(&source, Places::Fixed(span), '\\', 0);
    let mut instructions = Vec::new();
    while let Some(line) = lines.next_line() {
        let parsed = line
            .and_then(|line| Node::read(&mut lines, line, '\\'))
            .and_then(|node| instruction(&node));
        instructions.push(parsed.map_err(|cause| error(cause.message))?);
    }
    match (instructions.pop(), instructions.is_empty()) {
        (Some(Instruction::From(_)), true) => {
            Err(error("FROM isn't allowed as an ONBUILD trigger".to_owned()))
        }
        (Some(instruction), true) => Ok(instruction),
        _ => Err(error("onbuild trigger should be a single expression".to_owned())),
    }
}

/// What is known about the order of instructions.
#[derive(Debug, Default)]
struct Order {
    has_instruction: bool,
    has_from: bool,
    reported: bool,
}

impl Order {
    /// Refuses the first instruction that stands before `FROM` and may not.
    fn check(&mut self, node: &Node<'_>) -> Parsed<()> {
        let keyword = &node.header.keyword.value;
        self.has_instruction = true;
        self.has_from |= keyword.eq_ignore_ascii_case("FROM");
        if self.has_from || self.reported || keyword.eq_ignore_ascii_case("ARG") {
            return Ok(());
        }
        self.reported = true;
        Err(node
            .error("no build stage in current context")
            .with_help(format!("only ARG may stand before the first FROM, not {keyword}")))
    }

    /// What the file as a whole lacks.
    fn missing(&self, source: &SourceText) -> Option<Diagnostic> {
        if source.text().is_empty() {
            Some(Diagnostic::of_file("the Dockerfile cannot be empty"))
        } else if !self.has_instruction {
            Some(Diagnostic::of_file("file with no instructions"))
        } else if !self.has_from {
            let error = Diagnostic::of_file("dockerfile contains no stages to build");
            Some(error.with_help("add a FROM"))
        } else {
            None
        }
    }
}

fn instruction(node: &Node<'_>) -> Parsed<Instruction> {
    let keyword = &node.header.keyword;
    Ok(match keyword.value.to_ascii_uppercase().as_str() {
        "ADD" => Instruction::Add(copy::add(node)?),
        "ARG" => Instruction::Arg(config::arg(node)?),
        "CMD" => Instruction::Cmd(config::cmd(node)?),
        "COPY" => Instruction::Copy(copy::copy(node)?),
        "ENTRYPOINT" => Instruction::Entrypoint(config::entrypoint(node)?),
        "ENV" => Instruction::Env(config::env(node)?),
        "EXPOSE" => Instruction::Expose(config::expose(node)?),
        "FROM" => Instruction::From(from::from(node)?),
        "HEALTHCHECK" => Instruction::Healthcheck(health::healthcheck(node)?),
        "LABEL" => Instruction::Label(config::label(node)?),
        "MAINTAINER" => Instruction::Maintainer(config::maintainer(node)?),
        "ONBUILD" => Instruction::Onbuild(config::onbuild(node)?),
        "RUN" => Instruction::Run(run::run(node)?),
        "SHELL" => Instruction::Shell(config::shell(node)?),
        "STOPSIGNAL" => Instruction::Stopsignal(config::stopsignal(node)?),
        "USER" => Instruction::User(config::user(node)?),
        "VOLUME" => Instruction::Volume(config::volume(node)?),
        "WORKDIR" => Instruction::Workdir(config::workdir(node)?),
        upper => {
            let mut suggestion = suggest::did_you_mean(upper, INSTRUCTIONS);
            if keyword.value.chars().all(|it| !it.is_uppercase()) {
                suggestion = suggestion.to_ascii_lowercase();
            }
            let text = format!("unknown instruction: {}{suggestion}", keyword.value);
            return Err(Diagnostic::new(keyword.span, text));
        }
    })
}

#[cfg(test)]
mod tests;
