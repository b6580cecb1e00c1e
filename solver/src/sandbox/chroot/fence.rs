//! Landlock: what a step may open, signal and connect to, whatever else it gets hold of.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::signal::kill;

/// The newest interface whose rights are known here.
const NEWEST: ABI = ABI::V6;

/// How far a keeper's signals reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// Its own step, and nobody else.
    Step,
    /// Everybody, as the kernel is older than 6.12 or has no Landlock.
    Everybody,
}

/// Keeps the caller, and all that it starts, from signalling processes outside and from sockets of
/// theirs that have no path. Files stay open to it.
pub(super) fn keep_to_own() -> Reach {
    let scoped = || -> io::Result<RulesetStatus> {
        let root = File::open("/")?;
        let restrict = || -> Result<RulesetStatus, RulesetError> {
            // A fence that says nothing of moving files between directories forbids it.
            let ruleset = Ruleset::default()
                .handle_access(AccessFs::Refer)?
                .scope(Scope::from_all(NEWEST))?
                .create()?
                .add_rule(PathBeneath::new(root, AccessFs::Refer))?;
            Ok(ruleset.restrict_self()?.ruleset)
        };
        restrict().map_err(io::Error::other)
    };
    // Found out by doing: much would be lost by a wrong answer.
    let parent = nix::unistd::getppid();
    match scoped() {
        Ok(RulesetStatus::FullyEnforced) if kill(parent, None) == Err(Errno::EPERM) => Reach::Step,
        Ok(_) | Err(_) => Reach::Everybody,
    }
}

/// Keeps the caller, and all that it starts, to the tree at `root`, and to signals and sockets of
/// its own. On an older kernel that is less, on one without Landlock nothing.
pub(super) fn confine(root: &OwnedFd) -> io::Result<()> {
    let build = || -> Result<(), RulesetError> {
        let all = AccessFs::from_all(NEWEST);
        Ruleset::default()
            .handle_access(all)?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .add_rule(PathBeneath::new(root, all))?
            .restrict_self()?;
        Ok(())
    };
    build().map_err(io::Error::other)
}
