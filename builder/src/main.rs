//! The binary: builds container images from Dockerfiles, without root, daemon or privileges.
//!
//! Hidden commands come first: the worker and the init of a step are this same program, started
//! again, and must do nothing else before.

#![allow(unreachable_pub, reason = "a binary: what is public is so between its modules")]

mod cli;
mod cmd;
mod context;
mod env;
mod gateway;
mod output;
mod place;
mod progress;
mod report;
mod session;
mod signal;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::raw::Cli;
use crate::env::Env;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Freed memory goes back to the system after so many milliseconds.
const KEEP_MEMORY_MILLISECONDS: i64 = 10;

fn main() -> ExitCode {
    rbuild_solver::sandbox::sys::give_memory_back_after(KEEP_MEMORY_MILLISECONDS);
    if let Some(code) =
        rbuild_solver::worker::dispatch_hidden(&std::env::args_os().collect::<Vec<_>>())
    {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; anything else is a wrong flag.
            drop(error.print());
            if let Some(way) = foreign_flag(&error) {
                drop(writeln!(std::io::stderr().lock(), "hint: {way}"));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let env = match Env::read() {
        Ok(env) => env,
        Err(error) => {
            return fail(&report::Failure::host("find the current directory", &error));
        }
    };
    match cmd::run(&cli, &env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

/// What to write instead of a flag that other builders have.
fn foreign_flag(error: &clap::Error) -> Option<&'static str> {
    let clap::error::ContextValue::String(flag) =
        error.get(clap::error::ContextKind::InvalidArg)?
    else {
        return None;
    };
    cli::foreign::way_out(flag)
}

fn fail(failure: &report::Failure) -> ExitCode {
    // There is nobody left to tell if standard error is closed.
    drop(std::io::stderr().lock().write_all(failure.render().as_bytes()));
    ExitCode::from(failure.kind.exit_code())
}
