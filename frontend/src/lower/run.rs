//! `RUN`: to a process with its mounts.

use std::fmt::Write as _;

use rbuild_solver::llb::op::{
    ExecMeta, ExecOp, Mount, MountKind, NetMode, Op, SecretEnv, SecurityMode,
};

use crate::ast::{CommandLine, Heredoc, RunInstruction, RunNetwork, RunSecurity};
use crate::diagnostic::Diagnostic;
use crate::expand::Expander;
use crate::lower::LowerError;
use crate::lower::build::{Build, upper_keyword};
use crate::lower::copy::inline_file;
use crate::lower::draft::Node;
use crate::scope;
use crate::stages::{Command, StageId};

/// Where a script with an interpreter line appears.
const SCRIPT_DIR: &str = "/dev/pipes";

/// Permission bits of such a script.
const SCRIPT_MODE: u32 = 0o755;

/// Where shared memory is.
const SHM_DIR: &str = "/dev/shm";

/// What the value of a secret is shown as.
const MASK: &str = "****";

/// The mounts of a process while they are collected.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Trees and caches: sorted by destination at the end.
    pub(crate) trees: Vec<(Option<Node>, Mount)>,
    /// Secrets and agents: in the order in which they are written.
    pub(crate) others: Vec<Mount>,
    /// Secrets in variables.
    pub(crate) secret_env: Vec<SecretEnv>,
    /// Sockets of agents.
    pub(crate) sockets: Vec<String>,
}

impl Mounts {
    /// Adds a tree without options.
    pub(crate) fn add(
        &mut self,
        tree: Option<Node>,
        dest: &str,
        output: Option<usize>,
        kind: MountKind,
    ) {
        let readonly = false;
        let dest = dest.to_owned();
        let selector = String::new();
        self.trees.push((tree, Mount { input: None, selector, dest, output, readonly, kind }));
    }

    /// The inputs, each once, and the mounts on them: by destination, so the root is the first.
    fn finish(mut self) -> (Vec<Node>, Vec<Mount>) {
        self.trees.sort_by(|(_, left), (_, right)| left.dest.cmp(&right.dest));
        let mut inputs: Vec<Node> = Vec::new();
        let mut mounts = Vec::with_capacity(self.trees.len() + self.others.len());
        for (tree, mut mount) in self.trees {
            mount.input = tree.map(|tree| {
                let known = inputs.iter().position(|it| *it == tree);
                known.unwrap_or_else(|| {
                    inputs.push(tree);
                    inputs.len() - 1
                })
            });
            mounts.push(mount);
        }
        mounts.extend(self.others);
        (inputs, mounts)
    }
}

impl Build<'_> {
    pub(crate) fn lower_run(
        &mut self,
        id: StageId,
        run: &RunInstruction,
        command: &Command<'_>,
    ) -> Result<(), LowerError> {
        let paths = self.states[id.0].paths;
        self.paths[paths].add("/");
        if let Some(device) = run.devices.first() {
            let message = format!("RUN --device={} is not supported", device.name);
            let help = "devices of the host are not given to a build; remove the flag";
            return Err(Diagnostic::new(run.header.span, message).with_help(help).into());
        }
        if matches!(&run.command, CommandLine::Exec(args) if args.is_empty()) {
            let message = "RUN has no arguments: `[]` names no program";
            let help = "write `RUN [\"program\", \"argument\"]`, or a command for the shell";
            return Err(Diagnostic::new(run.header.span, message).with_help(help).into());
        }
        let mut mounts = Mounts::default();
        mounts.add(self.states[id.0].fs, "/", Some(0), MountKind::Bind);
        let args = self.run_args(id, run, &mut mounts);
        self.lower_mounts(id, run, command, &mut mounts)?;
        if self.options().shm_size > 0 {
            mounts.add(None, SHM_DIR, None, MountKind::Tmpfs { size: self.options().shm_size });
        }
        let network = self.network(run)?;
        let security = self.security(run)?;
        let shown = self.shown_run(id, run, &mounts.secret_env);
        let name = self.next_step(id, &shown, command.is_trigger);
        let meta = self.meta(id, &run.header, name);
        let history = format!("RUN {} # buildkit", self.states[id.0].run_text(&args));
        self.spend_environment(id);
        let exec_meta = self.exec_meta(id, args, &mounts.sockets);
        let secret_env = std::mem::take(&mut mounts.secret_env);
        let (inputs, mounts) = mounts.finish();
        let platform = Some(self.states[id.0].platform.normalized());
        let op = ExecOp { meta: exec_meta, mounts, network, security, secret_env, platform };
        let node = self.draft.add(Op::Exec(op), inputs, meta);
        self.state(id).fs = Some(node);
        self.commit(id, history, true);
        Ok(())
    }

    /// The arguments of the process. A script with an interpreter line becomes a file.
    fn run_args(&mut self, id: StageId, run: &RunInstruction, mounts: &mut Mounts) -> Vec<String> {
        let line = match &run.command {
            CommandLine::Exec(args) => return args.clone(),
            CommandLine::Shell(line) => line,
        };
        let state = &self.states[id.0];
        let Some(script) = run.script() else {
            return state.with_shell(&with_bodies(&line.value, &run.heredocs));
        };
        let content = script.chomped();
        if state.image.os == "windows" || !content.starts_with(b"#!") {
            return state.with_shell(&String::from_utf8_lossy(&content));
        }
        let path = super::paths::rooted(&script.name);
        let args = state.with_shell(&format!("{SCRIPT_DIR}{path}"));
        let tree = inline_file(&mut self.draft, &path, SCRIPT_MODE, content);
        mounts.add(Some(tree), SCRIPT_DIR, None, MountKind::Bind);
        if let Some((_, mount)) = mounts.trees.last_mut() {
            mount.readonly = true;
        }
        args
    }

    fn exec_meta(&self, id: StageId, args: Vec<String>, sockets: &[String]) -> ExecMeta {
        let options = self.options();
        let state = &self.states[id.0];
        let mut env = state.env.to_lines();
        if let Some(socket) = sockets.first()
            && state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        let asked = self.given.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|it| !it.is_empty());
        ExecMeta {
            args,
            env,
            cwd: state.dir().to_owned(),
            user: state.image.config.user.clone(),
            proxy_env: scope::proxy_env(&self.given),
            extra_hosts: options.add_hosts.clone(),
            hostname: asked.unwrap_or(&options.hostname).clone(),
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }

    fn network(&self, run: &RunInstruction) -> Result<NetMode, Diagnostic> {
        let options = self.options();
        let network = match run.network {
            None | Some(RunNetwork::Default) => options.network,
            Some(RunNetwork::None) => NetMode::None,
            Some(RunNetwork::Host) => NetMode::Host,
        };
        // `--network=host` on the command line is a permission.
        if network == NetMode::Host && options.network != NetMode::Host {
            self.require("network.host", run)?;
        }
        Ok(network)
    }

    fn security(&self, run: &RunInstruction) -> Result<SecurityMode, Diagnostic> {
        match run.security {
            None | Some(RunSecurity::Sandbox) => Ok(SecurityMode::Sandbox),
            Some(RunSecurity::Insecure) => {
                self.require("security.insecure", run)?;
                Ok(SecurityMode::Insecure)
            }
        }
    }

    fn require(&self, entitlement: &str, run: &RunInstruction) -> Result<(), Diagnostic> {
        if self.options().allow.iter().any(|it| it == entitlement) {
            return Ok(());
        }
        Err(Diagnostic::new(run.header.span, format!("entitlement {entitlement} is not allowed"))
            .with_help(format!("allow it with `--allow {entitlement}`")))
    }

    /// What progress calls the step: variables expanded where they are set, but no secret.
    fn shown_run(&self, id: StageId, run: &RunInstruction, secrets: &[SecretEnv]) -> String {
        let mut line = run.header.original.clone();
        if run.script().is_some()
            && let Some(first) = run.heredocs.first()
        {
            write!(line, " ({})", summary(&first.content)).expect("writing to a string");
        }
        let rules = Expander::for_display(self.rules.escape);
        let env = &self.states[id.0].env;
        let expanded = rules.expand(&line, &|name| {
            if secrets.iter().any(|it| it.name == name) {
                return Some(MASK.to_owned());
            }
            env.get(name).map(str::to_owned)
        });
        upper_keyword(&expanded.map_or(line, |it| it.text))
    }
}

/// A command line with the bodies of its here-documents, for the shell.
fn with_bodies(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&heredoc.content));
        text.push_str(&heredoc.name);
    }
    text
}

/// The first line of a script.
fn summary(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{more}")
}
