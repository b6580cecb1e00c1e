//! The checks that every commit passes, and accepting new expectations.

use std::process::Command;

use crate::run::{Outcome, cargo, headline, program, root, run};
use crate::{binary, packages};

/// `cargo xtask check`.
pub(crate) fn check() -> Outcome {
    lint()?;
    headline("tests");
    run(cargo().args(["test", "--workspace", "--no-fail-fast"]))?;
    if program("cargo-deny").is_some() {
        headline("dependencies");
        run(cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        println!(
            "note: cargo-deny is not installed; licences and duplicates of dependencies were not checked"
        );
    }
    Ok(())
}

/// `cargo xtask lint`: format, lints, documentation, and the other processor where its compiler is here.
pub(crate) fn lint() -> Outcome {
    headline("format");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    headline("lints");
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    headline("documentation");
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    let target = "aarch64-unknown-linux-musl";
    if packages::missing(packages::CROSS).is_empty() && binary::ensure_target(target) {
        headline("the other processor");
        run(cargo().args(["check", "--package", "rbuild", "--target", target]))?;
    } else {
        println!("note: no compiler for {target}; that it compiles there was not checked");
    }
    Ok(())
}

/// `cargo xtask bless`.
pub(crate) fn bless() -> Outcome {
    run(cargo().args(["test", "--workspace", "--no-fail-fast"]).env("UPDATE_EXPECT", "1"))?;
    run(Command::new("git").args(["status", "--short"]).current_dir(root()))
}
