//! The rules that need nothing but the tree.

use std::collections::BTreeSet;

use super::{Finding, Linter};
use crate::ast::{Dockerfile, FromInstruction, Header, Instruction};
use crate::text::Span;

/// Names that cannot be meant as stages.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Runs the rules about empty continuation lines, casing, names of stages, `MAINTAINER` and
/// descriptions over the whole file, whatever the target needs of it.
pub fn check_syntax(dockerfile: &Dockerfile, linter: &mut Linter) {
    for instruction in &dockerfile.instructions {
        let header = instruction.header();
        if let Some(line) = header.empty_continuation {
            let span = Span { first_line: line, last_line: line, ..header.span };
            linter.report_in_file(span, Finding::no_empty_continuation());
        }
        check_instruction(instruction, linter);
    }
    check_stage_names(dockerfile, linter);
    check_casing(dockerfile, linter);
}

fn check_instruction(instruction: &Instruction, linter: &mut Linter) {
    let header = instruction.header();
    if let Instruction::Maintainer(_) = instruction {
        linter.report(header, Finding::maintainer_deprecated());
    }
    if let Instruction::From(from) = instruction {
        check_from(from, linter);
        let name = from.alias.as_ref().map(|alias| alias.name.as_str());
        check_description(header, "FROM", name.as_slice(), linter);
    }
    if let Instruction::Arg(arg) = instruction {
        let names: Vec<&str> = arg.declarations.iter().map(|it| it.name.value.as_str()).collect();
        check_description(header, "ARG", &names, linter);
    }
}

fn check_from(from: &FromInstruction, linter: &mut Linter) {
    let Some(alias) = &from.alias else { return };
    let header = &from.header;
    let written = alias.written.value.as_str();
    if written != written.to_lowercase() {
        linter.report(header, Finding::stage_name_casing(written));
    }
    let (keyword, as_keyword) = (header.keyword.value.as_str(), alias.keyword.value.as_str());
    let matches = match Casing::of(keyword) {
        Casing::Lower => as_keyword == as_keyword.to_lowercase(),
        Casing::Upper => as_keyword == as_keyword.to_uppercase(),
        // That is another rule's business.
        Casing::Mixed => true,
    };
    if !matches {
        linter.report(header, Finding::from_as_casing(keyword, as_keyword));
    }
}

/// The last comment above must begin with a name that the instruction declares.
fn check_description(header: &Header, instruction: &str, names: &[&str], linter: &mut Linter) {
    let (Some(comment), Some(&first)) = (header.comments.last(), names.first()) else { return };
    let described = comment.split(' ').next().unwrap_or_default();
    if names.contains(&described) {
        return;
    }
    let name = if names.len() > 1 { "<arg_key>" } else { first };
    linter.report(header, Finding::invalid_definition_description(instruction, name));
}

fn check_stage_names(dockerfile: &Dockerfile, linter: &mut Linter) {
    let mut names = BTreeSet::new();
    for instruction in &dockerfile.instructions {
        let Instruction::From(from) = instruction else { continue };
        let Some(alias) = &from.alias else { continue };
        let stage = alias.name.as_str();
        if RESERVED.contains(&stage) {
            linter.report_in_file(from.header.span, Finding::reserved_stage_name(stage));
        }
        if !names.insert(stage) {
            linter.report_in_file(from.header.span, Finding::duplicate_stage_name(stage));
        }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Casing {
    Lower,
    Upper,
    Mixed,
}

impl Casing {
    fn of(keyword: &str) -> Self {
        if keyword == keyword.to_lowercase() {
            Self::Lower
        } else if keyword == keyword.to_uppercase() {
            Self::Upper
        } else {
            Self::Mixed
        }
    }
}

/// All keywords have the casing of the majority; upper case where there is none. `ARG` before the
/// first `FROM` neither counts nor is checked.
fn check_casing(dockerfile: &Dockerfile, linter: &mut Linter) {
    let is_from = |it: &&Instruction| matches!(it, Instruction::From(_));
    let in_stages = || dockerfile.instructions.iter().skip_while(|it| !is_from(it));
    let casing = |it: &Instruction| Casing::of(&it.header().keyword.value);
    let count = |wanted: Casing| in_stages().filter(|it| casing(it) == wanted).count();
    let (majority, name) = if count(Casing::Lower) > count(Casing::Upper) {
        (Casing::Lower, "lowercase")
    } else {
        (Casing::Upper, "uppercase")
    };
    for instruction in in_stages().filter(|it| casing(it) != majority) {
        let header = instruction.header();
        let keyword = header.keyword.value.as_str();
        let finding = Finding::consistent_instruction_casing(keyword, name);
        linter.report_in_file(header.span, finding);
    }
}
