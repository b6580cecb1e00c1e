//! The conformance kit beside the project: BuildKit's recorded results, compared with ours.

use std::process::Command;

use crate::host::{Host, exists};
use crate::run::{Failure, Outcome, headline, root, run};
use crate::{binary, packages, users};

/// `cargo xtask conform [ARG...]`: arguments go to the kit's runner, `run` if there are none.
pub(crate) fn conform(args: &[String]) -> Outcome {
    let kit = root().join("../shared/conformance/conform");
    if !exists(&kit) {
        return Err(Failure::new(format!("there is no conformance kit at `{}`", kit.display())));
    }
    let host = Host::look()?;
    packages::ensure(&host, packages::ROOTLESS);
    packages::ensure(&host, packages::TESTS);
    let rbuild = binary::release(&host)?;
    let mut command = Command::new(kit);
    if args.first().is_none_or(|first| first.starts_with('-')) {
        command.arg("run");
    }
    command.args(args);
    if host.root {
        users::ensure_test_user(&host)?;
        let home = std::env::temp_dir().join("rbuild-conform");
        crate::run::remove_dir(&home)?;
        let reachable = home.join("rbuild");
        run(Command::new("install").args(["-D", "-m", "755"]).arg(&rbuild).arg(&reachable))?;
        let candidate = format!("runuser -u {} -- {} build", users::TEST_USER, reachable.display());
        command.args(["--candidate", &candidate, "--owner", users::TEST_USER]);
    } else {
        command.env("RBUILD", &rbuild);
    }
    headline("conformance");
    run(&mut command)
}
