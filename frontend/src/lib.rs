//! Dockerfile text in, LLB graph and image configuration out. No I/O: asks through [`gateway`].

pub mod ast;
pub mod diagnostic;
pub mod directives;
pub mod expand;
pub mod gateway;
pub mod heredoc;
pub mod options;
pub mod parse;
pub mod pattern;
pub mod suggest;
pub mod text;
