//! The command line, in two steps: what was typed, and what it means here.

pub mod foreign;
pub mod network;
pub mod output;
pub mod progress;
pub mod raw;
pub mod remote;
pub mod request;
pub mod resources;
pub mod spec;
