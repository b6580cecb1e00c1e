//! Parameters of a target: what `--call=outline` answers.

use std::collections::BTreeSet;

use crate::call::{Outline, OutlineArg, OutlineMount, encoded};
use crate::lower::build::Build;
use crate::lower::stage::MountInfo;
use crate::stages::StageId;
use crate::text::{SourceText, Span};

impl Build<'_> {
    /// Parameters of the target and of the stages that it needs.
    pub(crate) fn outline(&self, source: &SourceText) -> Outline {
        let mut args: Vec<(Span, OutlineArg)> = Vec::new();
        let mut secrets: Vec<(Span, OutlineMount)> = Vec::new();
        let mut agents: Vec<(Span, OutlineMount)> = Vec::new();
        let mut is_seen = vec![false; self.states.len()];
        let mut stack = vec![self.target];
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut is_seen[id.0], true) {
                continue;
            }
            let stage = &self.stages[id];
            let state = &self.states[id.0];
            stack.extend(stage.needs.iter().rev().map(|&(needed, _)| needed));
            stack.extend(stage.base);
            for arg in self.used_args(id) {
                if args.iter().all(|(_, known)| known.name != arg.1.name) {
                    args.push(arg);
                }
            }
            add_mounts(&mut secrets, &state.secrets);
            add_mounts(&mut agents, &state.agents);
        }
        let target = self.stages[self.target].from;
        Outline {
            name: self.stages[self.target].name.clone(),
            description: target.and_then(|it| it.doc.clone()).unwrap_or_default(),
            args: by_line(args),
            secrets: by_line(secrets),
            ssh: by_line(agents),
            sources: vec![encoded(source)],
        }
    }

    /// Arguments that a stage declares, that its `FROM` uses, and that those use.
    fn used_args(&self, id: StageId) -> Vec<(Span, OutlineArg)> {
        let state = &self.states[id.0];
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let declared = state.args.iter().map(|(name, _)| name.as_str());
        let mut stack: Vec<&str> =
            declared.chain(self.stages[id].used_args.iter().map(String::as_str)).collect();
        while let Some(name) = stack.pop() {
            if names.insert(name)
                && let Some(info) = self.globals.args.get(name)
            {
                stack.extend(info.uses.iter().map(String::as_str));
            }
        }
        let infos = names.into_iter().filter_map(|name| {
            let own = state.args.iter().rev().find(|(known, info)| known == name && info.is_some());
            let info = own.and_then(|(_, info)| info.as_ref());
            let info = info.or_else(|| self.globals.args.get(name))?;
            let arg = OutlineArg {
                name: name.to_owned(),
                description: info.doc.clone().unwrap_or_default(),
                value: info.value.clone(),
                location: info.span.into(),
            };
            Some((info.span, arg))
        });
        infos.collect()
    }
}

fn add_mounts(all: &mut Vec<(Span, OutlineMount)>, mounts: &[MountInfo]) {
    for mount in mounts {
        if all.iter().all(|(_, known)| known.name != mount.id) {
            let location = mount.span.into();
            let mount_of =
                OutlineMount { name: mount.id.clone(), required: mount.required, location };
            all.push((mount.span, mount_of));
        }
    }
}

fn by_line<T>(mut list: Vec<(Span, T)>) -> Vec<T> {
    list.sort_by_key(|(span, _)| span.first_line);
    list.into_iter().map(|(_, it)| it).collect()
}
