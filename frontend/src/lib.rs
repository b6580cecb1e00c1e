//! Dockerfile text in, LLB graph and image configuration out. No I/O: asks through [`gateway`].

pub mod gateway;
pub mod options;
