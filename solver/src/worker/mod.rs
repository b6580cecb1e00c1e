//! The process in the namespace: `rbuild worker`, and how the build process talks to it.

use std::ffi::OsStr;
use std::process::ExitCode;

pub mod client;
pub mod contents;
mod execution;
mod isolation;
pub mod launch;
pub mod proto;
pub mod serve;
pub mod wire;

/// Runs a hidden command if `args` (the process's own, its name included) ask for one: `worker`,
/// `init`, `probe` or `helper` alone, with a socket as standard input. To be called before anything else in `main`.
/// `init`, `cell` or `helper` alone, with a socket as standard input. To be called before anything else in `main`.
pub fn dispatch_hidden<T: AsRef<OsStr>>(args: &[T]) -> Option<ExitCode> {
    let [_, command] = args else {
        return None;
    };
    let command = command.as_ref();
    let hidden = if command == "worker" {
        serve::main
    } else if command == "init" {
        crate::sandbox::init::main
    } else if command == "probe" {
        crate::sandbox::probe::main
    } else if command == "cell" {
        crate::sandbox::chroot::main
    } else if command == "helper" {
        crate::sandbox::helper::main
    } else {
        return None;
    };
    // By hand, at a terminal or in a script, they are as unknown as any other word.
    rustix::net::sockopt::socket_type(rustix::stdio::stdin()).is_ok().then(hidden)
}
