//! The `git` program, in an environment that knows no configuration, hooks, helpers or prompts.

use std::path::{Path, PathBuf};

use rbuild_solver::session::{SessionError, SessionErrorKind};
use tokio::process::Command;

/// What `git` sees besides [`inherited`]: no configuration, no prompts.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// How `git` calls `ssh`: without configuration, and without other keys than the agent's.
const SSH: &str = "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none";

/// Settings of every call.
const SETTINGS: [&str; 7] = [
    "core.hooksPath=/dev/null",
    "protocol.version=2",
    "advice.detachedHead=false",
    "core.symlinks=true",
    "core.autocrlf=false",
    "init.defaultBranch=master",
    "safe.directory=*",
];

/// How far `git` may reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// Over the network.
    Network,
    /// A repository on this disk, which is ours.
    Disk,
}

impl Reach {
    fn protocols(self) -> &'static str {
        match self {
            Self::Network => "http:https:git:ssh",
            Self::Disk => "file",
        }
    }
}

/// The `git` program for one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Git {
    /// Socket of the ssh agent.
    pub(super) ssh_agent: Option<PathBuf>,
    /// A setting with credentials: name and value. Other users must not see it, so it goes into
    /// the environment.
    pub(super) authorization: Option<(String, String)>,
}

/// A repository: its own directory, and where its files are checked out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repository<'a> {
    pub(super) git_dir: &'a Path,
    pub(super) work_tree: Option<&'a Path>,
}

impl Git {
    /// Runs `git` and returns what it prints. What servers that know no shallow transfer refuse is
    /// asked for in full.
    ///
    /// # Errors
    ///
    /// `Remote` with what `git` says; `Host` if there is no `git`.
    pub(super) async fn run(
        &self,
        reach: Reach,
        repository: Option<Repository<'_>>,
        arguments: &[&str],
    ) -> Result<String, SessionError> {
        let output = self.output(reach, repository, arguments).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let deep: Vec<&str> = arguments.iter().copied().filter(|it| *it != "--depth=1").collect();
        if deep.len() < arguments.len() && (said.contains("shallow") || said.contains("--depth")) {
            return Box::pin(self.run(reach, repository, &deep)).await;
        }
        Err(SessionError::remote(format!(
            "git {} failed: {}",
            arguments.first().unwrap_or(&""),
            said.trim()
        )))
    }

    async fn output(
        &self,
        reach: Reach,
        repository: Option<Repository<'_>>,
        arguments: &[&str],
    ) -> Result<std::process::Output, SessionError> {
        let mut command = Command::new("git");
        command.env_clear().envs(ENVIRONMENT).envs(inherited());
        command.env("GIT_ALLOW_PROTOCOL", reach.protocols()).env("GIT_SSH_COMMAND", ssh_command());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        if let Some(repository) = repository {
            if let Some(work_tree) = repository.work_tree {
                command.arg("--work-tree").arg(work_tree).current_dir(work_tree);
            }
            command.arg("--git-dir").arg(repository.git_dir);
        }
        command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        if let Some(agent) = &self.ssh_agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        if let Some((name, value)) = &self.authorization {
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", name).env("GIT_CONFIG_VALUE_0", value);
        }
        command.output().await.map_err(|error| SessionError {
            kind: SessionErrorKind::Host,
            text: format!("cannot run git: {error}"),
            hint: Some("git sources need the `git` program in PATH".to_owned()),
        })
    }
}

/// `ssh` with the hosts that this user knows: a new one is added, one whose key has changed is not
/// talked to. By itself it would look for them in the home of the user database.
#[expect(clippy::disallowed_methods, reason = "as for the other variables of git")]
fn ssh_command() -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    if home.is_empty() || home.contains('"') {
        return format!("{SSH} -o StrictHostKeyChecking=accept-new");
    }
    let file = format!("{home}/.ssh/known_hosts").replace('%', "%%").replace('\'', "'\\''");
    format!("{SSH} -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile=\"{file}\"'")
}

/// Variables that are passed on: where programs are, and how the network is reached.
#[expect(
    clippy::disallowed_methods,
    reason = "git is a program; only these variables are passed on"
)]
fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    const NAMES: [&str; 10] = [
        "PATH",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "SSL_CERT_FILE",
    ];
    NAMES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}
