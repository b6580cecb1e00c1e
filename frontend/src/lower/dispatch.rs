//! A stage, instruction by instruction.

use crate::ast::{ArgInstruction, Instruction};
use crate::diagnostic::Diagnostic;
use crate::lint::{Finding, is_secret_name};
use crate::lower::LowerError;
use crate::lower::build::Build;
use crate::lower::stage::{Progress, ensure_path};
use crate::scope::{self, ArgInfo, split_pair};
use crate::stages::{Command, StageId};

impl Build<'_> {
    /// Lowers a stage. The stages that it is from and takes files from are lowered already, or it
    /// is refused.
    pub(crate) fn lower_stage(&mut self, id: StageId) -> Result<(), LowerError> {
        if let Some(base) = self.stages[id].base {
            let mut state = std::mem::take(&mut self.states[id.0]);
            state.inherit(&self.states[base.0]);
            self.states[id.0] = state;
        }
        let span = self.stages[id].span;
        self.spend_environment(id);
        self.check_spent(span)?;
        let state = self.state(id);
        state.progress = Progress::Done;
        let os = state.platform.os.clone();
        ensure_path(&mut state.image, &os);
        for line in state.image.config.env.clone() {
            let (name, value) = split_pair(&line);
            state.env.set(name, value);
        }
        let dir = state.image.config.working_dir.clone();
        if !dir.is_empty() {
            state.image.config.working_dir = super::paths::workdir(&dir, &dir);
        }
        for index in 0..self.stages[id].commands.len() {
            let command = self.stages[id].commands[index].clone();
            self.lower_command(id, &command).map_err(|mut error| {
                for diagnostic in &mut error.diagnostics.list {
                    diagnostic.span.get_or_insert(span);
                }
                error
            })?;
        }
        Ok(())
    }

    fn lower_command(&mut self, id: StageId, command: &Command<'_>) -> Result<(), LowerError> {
        self.check_spent(command.instruction.header().span)?;
        match &*command.instruction {
            Instruction::From(_) => {}
            Instruction::Arg(it) => self.lower_arg(id, it)?,
            Instruction::Run(it) => self.lower_run(id, it, command)?,
            Instruction::Copy(it) => self.lower_copy(id, it, command)?,
            Instruction::Add(it) => self.lower_add(id, it, command)?,
            Instruction::Env(it) => self.lower_env(id, it)?,
            Instruction::Label(it) => self.lower_label(id, it)?,
            Instruction::Expose(it) => self.lower_expose(id, it)?,
            Instruction::Volume(it) => self.lower_volume(id, it)?,
            Instruction::User(it) => self.lower_user(id, it)?,
            Instruction::Workdir(it) => self.lower_workdir(id, it, command.is_trigger)?,
            Instruction::Cmd(it) => self.lower_cmd(id, it),
            Instruction::Entrypoint(it) => self.lower_entrypoint(id, it),
            Instruction::Healthcheck(it) => self.lower_healthcheck(id, it),
            Instruction::Stopsignal(it) => self.lower_stopsignal(id, it)?,
            Instruction::Shell(it) => self.lower_shell(id, it),
            Instruction::Onbuild(it) => {
                self.state(id).image.config.on_build.push(it.trigger.value.clone());
            }
            Instruction::Maintainer(it) => self.lower_maintainer(id, it),
        }
        Ok(())
    }

    /// `ARG`: a `--build-arg`, else the default, else the global argument of the name.
    fn lower_arg(&mut self, id: StageId, arg: &ArgInstruction) -> Result<(), Diagnostic> {
        let mut shown = Vec::with_capacity(arg.declarations.len());
        for declared in &arg.declarations {
            // BuildKit expands names of arguments only to forget them; so a name is as written.
            let name = declared.name.value.as_str();
            if is_secret_name(name) {
                let finding = Finding::secrets_used_in_arg_or_env("ARG", name);
                self.linter.report(&arg.header, finding);
            }
            let value = if let Some(value) = self.given.get(name) {
                Some(value.clone())
            } else if let Some(default) = &declared.value {
                Some(self.expand(id, &arg.header, default)?)
            } else {
                self.globals.env.get(name).map(str::to_owned)
            };
            let is_global =
                !self.given.contains_key(name) && declared.value.is_none() && value.is_some();
            let info = (!is_global).then(|| ArgInfo {
                doc: declared.doc.clone(),
                value: value.clone().unwrap_or_default(),
                span: arg.header.span,
                ..ArgInfo::default()
            });
            let state = self.state(id);
            state.args.push((name.to_owned(), info));
            if let Some(value) = &value
                && !scope::NOT_IN_ENVIRONMENT.contains(&name)
            {
                state.env.set(name, value);
            }
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            });
            state.build_args.push((name.to_owned(), value));
        }
        self.commit(id, format!("ARG {}", shown.join(" ")), false);
        Ok(())
    }

    /// Adds an entry to the history of a stage.
    pub(crate) fn commit(&mut self, id: StageId, created_by: String, has_layer: bool) {
        let epoch = self.epoch;
        self.spend(created_by.len());
        self.state(id).commit(created_by, has_layer, epoch);
    }

    /// Counts a copy of the variables of a stage.
    pub(crate) fn spend_environment(&mut self, id: StageId) {
        let n_bytes = self.states[id.0].env.n_bytes();
        self.spend(n_bytes);
    }
}
