//! All end-to-end tests, one binary: it links once, and one module per topic keeps it readable.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests from the first line to the last"
)]

mod build;
mod cache;
mod chroot;
mod contexts;
mod copy;
mod devices;
mod errors;
mod examples;
mod hostile;
mod language;
mod layering;
mod main_job;
mod mounts;
mod output;
mod output_trees;
mod packages;
mod places;
mod progress;
mod pull;
mod questions;
mod reproducible;
mod rows;
mod run;
mod rungs;
mod rungs_change;
mod shipped;
mod ssh;
mod store;
mod table;
mod tidy;
mod users;
