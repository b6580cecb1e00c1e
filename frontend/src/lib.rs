//! Dockerfile text in, LLB graph and image configuration out. No I/O: asks through [`gateway`].
//!
//! ```text
//! bytes -- text::SourceText --> parse::parse --> ast::Dockerfile --> lowering --> graph, config
//! ```
//!
//! Everything here is pure, takes any input without a panic, and names its limits.

pub mod ast;
pub mod call;
mod csv;
pub mod diagnostic;
pub mod directives;
pub mod dump;
mod duration;
pub mod expand;
mod flags;
pub mod gateway;
mod gotext;
pub mod heredoc;
mod json_form;
mod lines;
pub mod lint;
pub mod lower;
pub mod options;
pub mod parse;
pub mod pattern;
mod scope;
mod stages;
pub mod suggest;
pub mod text;
mod words;
