//! The language in which the end-to-end tests of `tests/it` are written.
//!
//! A test makes a [`space::TestSpace`], writes files into its context, runs the binary under test, and looks at what it
//! said ([`ran::Ran`]) and at what it made ([`image::Image`], [`tree::Tree`]). What it needs of the machine it names
//! first ([`needs!`]). Not here: the tests themselves, and the tasks that prepare a machine for them (`tests/xtask`).

pub mod base;
pub mod binary;
pub mod disk;
pub mod docker_registry;
pub mod host;
mod http;
pub mod image;
pub mod ran;
pub mod registry;
pub mod sources;
pub mod space;
pub mod tree;
pub mod web;
