//! Instructions that change only the configuration, and `WORKDIR`.

use std::fmt::Write as _;

use rbuild_solver::llb::op::{FileAction, FileActionKind, FileInput, FileOp, Op};
use rbuild_store::image::config::{Empty, Healthcheck};

use crate::ast::{
    CmdInstruction, CommandLine, EntrypointInstruction, EnvInstruction, ExposeInstruction, Header,
    HealthcheckInstruction, KeyValue, LabelInstruction, MaintainerInstruction, ShellInstruction,
    StopsignalInstruction, UserInstruction, VolumeInstruction, WorkdirInstruction,
};
use crate::diagnostic::Diagnostic;
use crate::gotext;
use crate::lint::{Finding, is_secret_name};
use crate::lower::build::Build;
use crate::lower::copy::owner;
use crate::lower::{expose, paths};
use crate::scope;
use crate::stages::StageId;
use crate::text::Span;

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;

impl Build<'_> {
    pub(crate) fn lower_env(
        &mut self,
        id: StageId,
        env: &EnvInstruction,
    ) -> Result<(), Diagnostic> {
        let pairs = self.expand_pairs(id, &env.header, &env.pairs)?;
        let mut text = String::from("ENV");
        for (name, value) in &pairs {
            if is_secret_name(name) {
                let finding = Finding::secrets_used_in_arg_or_env("ENV", name);
                self.linter.report(&env.header, finding);
            }
            write!(text, " {name}={value}").expect("writing to a string");
            let state = self.state(id);
            state.env.set(name, value);
            scope::set_in_config(&mut state.image.config.env, name, value);
        }
        self.commit(id, text, false);
        Ok(())
    }

    pub(crate) fn lower_label(
        &mut self,
        id: StageId,
        label: &LabelInstruction,
    ) -> Result<(), Diagnostic> {
        let pairs = self.expand_pairs(id, &label.header, &label.pairs)?;
        let mut text = String::from("LABEL");
        for (name, value) in pairs {
            write!(text, " {name}={value}").expect("writing to a string");
            self.state(id).image.config.labels.insert(name, value);
        }
        self.commit(id, text, false);
        Ok(())
    }

    /// All values see the variables as they were before the instruction.
    fn expand_pairs(
        &mut self,
        id: StageId,
        header: &Header,
        pairs: &[KeyValue],
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = self.expand(id, header, &pair.key)?;
            expanded.push((name, self.expand(id, header, &pair.value)?));
            if pair.legacy {
                let finding = Finding::legacy_key_value_format(&header.keyword.value);
                self.linter.report(header, finding);
            }
        }
        Ok(expanded)
    }

    pub(crate) fn lower_expose(
        &mut self,
        id: StageId,
        it: &ExposeInstruction,
    ) -> Result<(), Diagnostic> {
        let mut all = Vec::new();
        for word in &it.ports {
            let expansion = self.states[id.0]
                .env
                .expand(self.rules, &word.value)
                .map_err(|error| Diagnostic::new(word.span, error.to_string()))?;
            let span = word.span;
            self.spend(expansion.text.len());
            for word in &expansion.words {
                let (ports, oddities) =
                    expose::parse(word).map_err(|error| Diagnostic::new(span, error))?;
                if oddities.protocol_case {
                    self.linter.report(&it.header, Finding::expose_proto_casing(word));
                }
                if oddities.mapping {
                    self.linter.report(&it.header, Finding::expose_invalid_format(word));
                }
                self.spend(ports.iter().map(String::len).sum());
                self.check_spent(span)?;
                all.extend(ports);
            }
        }
        let exposed = &mut self.state(id).image.config.exposed_ports;
        exposed.extend(all.iter().map(|port| (port.clone(), Empty {})));
        self.commit(id, format!("EXPOSE {}", gotext::list(&all)), false);
        Ok(())
    }

    pub(crate) fn lower_volume(
        &mut self,
        id: StageId,
        it: &VolumeInstruction,
    ) -> Result<(), Diagnostic> {
        let mut volumes = Vec::with_capacity(it.volumes.len());
        for word in &it.volumes {
            let volume = self.expand(id, &it.header, word)?;
            if volume.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(Diagnostic::new(word.span, message));
            }
            volumes.push(volume);
        }
        let known = &mut self.state(id).image.config.volumes;
        known.extend(volumes.iter().map(|volume| (volume.clone(), Empty {})));
        self.commit(id, format!("VOLUME {}", gotext::list(&volumes)), false);
        Ok(())
    }

    pub(crate) fn lower_user(
        &mut self,
        id: StageId,
        it: &UserInstruction,
    ) -> Result<(), Diagnostic> {
        let user = self.expand(id, &it.header, &it.user)?;
        self.commit(id, format!("USER {user}"), false);
        self.state(id).image.config.user = user;
        Ok(())
    }

    pub(crate) fn lower_workdir(
        &mut self,
        id: StageId,
        it: &WorkdirInstruction,
        is_trigger: bool,
    ) -> Result<(), Diagnostic> {
        let path = self.expand(id, &it.header, &it.path)?;
        if !self.states[id.0].has_workdir && !path.starts_with('/') {
            self.linter.report(&it.header, Finding::workdir_relative_path(&path));
        }
        let state = self.state(id);
        state.has_workdir = true;
        let dir = paths::workdir(&state.image.config.working_dir, &path);
        state.image.config.working_dir.clone_from(&dir);
        let has_layer = dir != "/";
        if has_layer {
            let shown = self.shown_line(id, &it.header);
            let name = self.next_step(id, &shown, is_trigger);
            let mut meta = self.meta(id, &it.header, name);
            meta.ignore_cache = false;
            self.make_directory(id, &dir, meta);
        }
        self.commit(id, format!("WORKDIR {dir}"), has_layer);
        Ok(())
    }

    fn make_directory(&mut self, id: StageId, dir: &str, meta: rbuild_solver::llb::Meta) {
        let state = &self.states[id.0];
        let user = &state.image.config.user;
        let kind = FileActionKind::Mkdir {
            path: paths::rooted(dir),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| owner(user)),
            timestamp: self.epoch.map(|seconds| seconds.saturating_mul(NANOS)),
        };
        let inputs: Vec<_> = state.fs.into_iter().collect();
        let input = if inputs.is_empty() { FileInput::Scratch } else { FileInput::Input(0) };
        let action = FileAction { input, secondary: None, output: Some(0), kind };
        let op = FileOp { actions: vec![action], platform: None };
        let node = self.draft.add(Op::File(op), inputs, meta);
        self.state(id).fs = Some(node);
    }

    pub(crate) fn lower_cmd(&mut self, id: StageId, it: &CmdInstruction) {
        let previous = self.state(id).cmd.replace(it.header.span);
        self.warn_repeated(&it.header, previous);
        let args = self.command_args(id, &it.header, &it.command);
        self.commit(id, format!("CMD {}", gotext::quoted_list(&args)), false);
        let config = &mut self.state(id).image.config;
        config.cmd = Some(args);
        config.args_escaped = true;
    }

    pub(crate) fn lower_entrypoint(&mut self, id: StageId, it: &EntrypointInstruction) {
        let previous = self.state(id).entrypoint.replace(it.header.span);
        self.warn_repeated(&it.header, previous);
        let args = self.command_args(id, &it.header, &it.command);
        self.commit(id, format!("ENTRYPOINT {}", gotext::quoted_list(&args)), false);
        let state = self.state(id);
        if state.cmd.is_none() {
            state.image.config.cmd = None;
        }
        state.image.config.entrypoint = Some(args);
    }

    /// The arguments of a command, with the shell where it is text.
    fn command_args(&mut self, id: StageId, header: &Header, command: &CommandLine) -> Vec<String> {
        let line = match command {
            CommandLine::Exec(args) => return args.clone(),
            CommandLine::Shell(line) => line,
        };
        if self.states[id.0].image.config.shell.is_empty() {
            self.linter.report(header, Finding::json_args_recommended(&header.keyword.value));
        }
        self.states[id.0].with_shell(&line.value)
    }

    /// The older one of two is what has no effect.
    fn warn_repeated(&mut self, header: &Header, previous: Option<Span>) {
        if let Some(span) = previous {
            let finding = Finding::multiple_instructions_disallowed(&header.keyword.value);
            self.linter.report_at(header, span, finding);
        }
    }

    pub(crate) fn lower_healthcheck(&mut self, id: StageId, it: &HealthcheckInstruction) {
        let previous = self.state(id).healthcheck.replace(it.header.span);
        self.warn_repeated(&it.header, previous);
        let check = match &it.check {
            None => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
            Some(check) => {
                let (kind, args) = match &check.command {
                    CommandLine::Shell(line) => ("CMD-SHELL", vec![line.value.clone()]),
                    CommandLine::Exec(args) => ("CMD", args.clone()),
                };
                Healthcheck {
                    test: std::iter::once(kind.to_owned()).chain(args).collect(),
                    interval: gotext::nanos(check.interval),
                    timeout: gotext::nanos(check.timeout),
                    start_period: gotext::nanos(check.start_period),
                    start_interval: gotext::nanos(check.start_interval),
                    retries: i64::from(check.retries),
                }
            }
        };
        self.commit(id, format!("HEALTHCHECK {}", gotext::healthcheck(&check)), false);
        self.state(id).image.config.healthcheck = Some(check);
    }

    pub(crate) fn lower_stopsignal(
        &mut self,
        id: StageId,
        it: &StopsignalInstruction,
    ) -> Result<(), Diagnostic> {
        let signal = self.expand(id, &it.header, &it.signal)?;
        if !is_signal(&signal) {
            let message = format!("invalid signal: {signal}");
            return Err(Diagnostic::new(it.signal.span, message)
                .with_help("a name such as SIGTERM, or a number"));
        }
        self.commit(id, format!("STOPSIGNAL {signal}"), false);
        self.state(id).image.config.stop_signal = signal;
        Ok(())
    }

    pub(crate) fn lower_shell(&mut self, id: StageId, it: &ShellInstruction) {
        self.commit(id, format!("SHELL {}", gotext::list(&it.shell)), false);
        self.state(id).image.config.shell.clone_from(&it.shell);
    }

    pub(crate) fn lower_maintainer(&mut self, id: StageId, it: &MaintainerInstruction) {
        let name = &it.name.value;
        self.commit(id, format!("MAINTAINER {name}"), false);
        self.state(id).image.author.clone_from(name);
    }
}

/// Names of signals, without `SIG`, as BuildKit knows them on Linux.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN",
    "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Highest number after `RTMIN+` and `RTMAX-`.
const MAX_REALTIME_OFFSET: u32 = 15;

/// Whether a text names a signal: a number that is not 0, or a name in any case, with or without
/// `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, max: u32| {
        rest.parse::<u32>().is_ok_and(|it| (1..=max).contains(&it) && !rest.starts_with(['+', '0']))
    };
    SIGNALS.contains(&name)
        || name == "RTMIN"
        || name == "RTMAX"
        || name.strip_prefix("RTMIN+").is_some_and(|rest| offset(rest, MAX_REALTIME_OFFSET))
        || name.strip_prefix("RTMAX-").is_some_and(|rest| offset(rest, MAX_REALTIME_OFFSET - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for text in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-14", "SigKill", "-1"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["", "0", "SIG", "SIGFOO", "RTMIN+16", "SIGSIGTERM", "RTMAX-15"] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
