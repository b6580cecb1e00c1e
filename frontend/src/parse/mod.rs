//! Dockerfile text to [`crate::ast`].

pub mod mount;

use crate::ast::{Dockerfile, Instruction};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::text::{SourceText, Span};

/// Parses a Dockerfile.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the file.
pub fn parse(source: &SourceText) -> Result<Dockerfile, Diagnostics> {
    Err(Diagnostics::from(Diagnostic::of_file(format!("{}: not parsed", source.name()))))
}

/// Parses an `ONBUILD` trigger of a base image. All its spans become `span`.
///
/// # Errors
///
/// As [`parse`]; also if it is not exactly one instruction.
pub fn parse_trigger(trigger: &str, span: Span) -> Result<Instruction, Diagnostics> {
    Err(Diagnostics::from(Diagnostic::new(span, trigger.to_owned())))
}
