//! `RUN --mount`.

use rbuild_solver::llb::op::{CacheSharing, Mount, MountKind, SecretEnv};

use rbuild_store::pattern::clean;

use crate::ast::RunInstruction;
use crate::diagnostic::Diagnostic;
use crate::gotext::quote;
use crate::lower::LowerError;
use crate::lower::build::{Build, MAIN_PATHS};
use crate::lower::draft::Node;
use crate::lower::paths;
use crate::lower::run::Mounts;
use crate::lower::stage::MountInfo;
use crate::parse::mount as syntax;
use crate::parse::mount::{MountType, Sharing};
use crate::stages::{Command, StageId};

/// Permission bits of a cache, of a secret and of an agent's socket.
const CACHE_MODE: u32 = 0o755;
const SECRET_MODE: u32 = 0o400;
const SOCKET_MODE: u32 = 0o600;

impl Build<'_> {
    /// Adds the mounts of a `RUN`.
    pub(crate) fn lower_mounts(
        &mut self,
        id: StageId,
        run: &RunInstruction,
        command: &Command<'_>,
        mounts: &mut Mounts,
    ) -> Result<(), LowerError> {
        for (index, value) in run.mounts.iter().enumerate() {
            let mount = self.expand_mount(id, run, &value.value)?;
            let refuse = |text: String| Diagnostic::new(run.header.span, text);
            self.note_mount(id, run, &mount);
            match mount.kind {
                MountType::Secret => {
                    add_secret(&mount, self.states[id.0].dir(), mounts).map_err(refuse)?;
                }
                MountType::Ssh => {
                    add_agent(&mount, self.states[id.0].dir(), mounts).map_err(refuse)?;
                }
                MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                    let source = command.sources.get(index).copied();
                    self.add_tree(id, run, &mount, source, mounts)?;
                }
            }
        }
        Ok(())
    }

    /// Remembers secrets and agents for `--call=outline`.
    fn note_mount(&mut self, id: StageId, run: &RunInstruction, mount: &syntax::Mount) {
        let state = &mut self.states[id.0];
        let (list, name) = match mount.kind {
            MountType::Secret => (&mut state.secrets, secret_id(mount).unwrap_or_default()),
            MountType::Ssh => (&mut state.agents, agent_id(mount)),
            MountType::Bind | MountType::Cache | MountType::Tmpfs => return,
        };
        if list.iter().all(|known| known.id != name) {
            let (id, required, span) = (name.to_owned(), mount.required, run.header.span);
            list.push(MountInfo { id, required, span });
        }
    }

    fn expand_mount(
        &mut self,
        id: StageId,
        run: &RunInstruction,
        value: &str,
    ) -> Result<syntax::Mount, Diagnostic> {
        let mut unset = Vec::new();
        let env = &self.states[id.0].env;
        let rules = self.rules;
        let mount = syntax::parse(value, &mut |word| {
            let expansion = env.expand(rules, word)?;
            unset.extend(expansion.unmatched);
            Ok(expansion.text)
        });
        self.warn_unset(id, &run.header, &unset);
        mount.map_err(|error| Diagnostic::new(run.header.span, error.to_string()))
    }

    /// A mount of a tree, of a cache, or of memory.
    fn add_tree(
        &mut self,
        id: StageId,
        run: &RunInstruction,
        mount: &syntax::Mount,
        source: Option<StageId>,
        mounts: &mut Mounts,
    ) -> Result<(), LowerError> {
        let span = run.header.span;
        let dest = absolute(self.states[id.0].dir(), &mount.target);
        if dest == "/" {
            let message = format!("invalid mount target {}", quote(&mount.target));
            return Err(Diagnostic::new(span, message)
                .with_help("name a directory below the root: `target=/path`")
                .into());
        }
        let tree = self.mounted_tree(run, mount, source)?;
        let selector = match paths::rooted(&mount.source) {
            root if root == "/" => String::new(),
            selector => selector,
        };
        let kind = match mount.kind {
            MountType::Cache => self.cache(mount, !selector.is_empty()),
            MountType::Tmpfs => {
                MountKind::Tmpfs { size: u64::try_from(mount.size_bytes).unwrap_or(0) }
            }
            MountType::Bind | MountType::Secret | MountType::Ssh => MountKind::Bind,
        };
        let readonly = mount.read_only;
        mounts
            .trees
            .push((tree, Mount { input: None, selector, dest, output: None, readonly, kind }));
        Ok(())
    }

    /// What is mounted. None is an empty tree.
    fn mounted_tree(
        &mut self,
        run: &RunInstruction,
        mount: &syntax::Mount,
        source: Option<StageId>,
    ) -> Result<Option<Node>, LowerError> {
        if mount.from.is_empty() {
            if mount.kind != MountType::Bind {
                return Ok(None);
            }
            self.paths[MAIN_PATHS].add(&mount.source);
            return self.main_context().map(Some);
        }
        let Some(source) = source.filter(|source| self.states[source.0].is_done()) else {
            let message = format!(
                "cannot mount from stage {} to {}, stage needs to be defined before current command",
                quote(&mount.from),
                quote(&mount.target)
            );
            return Err(Diagnostic::new(run.header.span, message).into());
        };
        if mount.kind == MountType::Tmpfs {
            return Ok(None);
        }
        let state = &self.states[source.0];
        self.paths[state.paths].add(&mount.source);
        Ok(state.fs)
    }

    fn cache(&self, mount: &syntax::Mount, has_selector: bool) -> MountKind {
        let id = match mount.id.as_str() {
            "" => clean(&mount.target),
            id => id.to_owned(),
        };
        let namespace = self.given.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        let own = if has_selector { None } else { Some(mount) };
        MountKind::Cache {
            id: format!("{namespace}/{id}"),
            sharing: match mount.sharing {
                None | Some(Sharing::Shared) => CacheSharing::Shared,
                Some(Sharing::Private) => CacheSharing::Private,
                Some(Sharing::Locked) => CacheSharing::Locked,
            },
            mode: own.and_then(|it| it.mode).unwrap_or(CACHE_MODE),
            uid: own.and_then(|it| it.uid).unwrap_or(0),
            gid: own.and_then(|it| it.gid).unwrap_or(0),
        }
    }
}

/// The name of a secret: `source` or `id`, else the last component of `target`.
fn secret_id(mount: &syntax::Mount) -> Option<&str> {
    let named = if mount.source.is_empty() { &mount.id } else { &mount.source };
    match named.as_str() {
        "" if mount.target.is_empty() => None,
        "" => Some(paths::base_name(&mount.target)),
        id => Some(id),
    }
}

fn agent_id(mount: &syntax::Mount) -> &str {
    if mount.id.is_empty() { "default" } else { &mount.id }
}

fn add_secret(mount: &syntax::Mount, dir: &str, mounts: &mut Mounts) -> Result<(), String> {
    let id = secret_id(mount).ok_or_else(|| "one of source, target required".to_owned())?;
    let optional = !mount.required;
    if let Some(name) = &mount.env {
        let name = if name.is_empty() { paths::base_name(id) } else { name };
        let (id, name) = (id.to_owned(), name.to_owned());
        mounts.secret_env.push(SecretEnv { id, name, optional });
    }
    let dest = match mount.target.as_str() {
        "" if mount.env.is_some() => return Ok(()),
        "" => format!("/run/secrets/{}", paths::base_name(id)),
        target => absolute(dir, target),
    };
    let kind = MountKind::Secret {
        id: id.to_owned(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(SECRET_MODE),
        optional,
    };
    mounts.others.push(file_mount(dest, kind));
    Ok(())
}

fn add_agent(mount: &syntax::Mount, dir: &str, mounts: &mut Mounts) -> Result<(), String> {
    if !mount.source.is_empty() {
        return Err("ssh does not support source".to_owned());
    }
    let dest = match mount.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{}", mounts.sockets.len()),
        target => absolute(dir, target),
    };
    let kind = MountKind::Ssh {
        id: agent_id(mount).to_owned(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(SOCKET_MODE),
        optional: !mount.required,
    };
    mounts.sockets.push(dest.clone());
    mounts.others.push(file_mount(dest, kind));
    Ok(())
}

/// A destination, from the working directory `dir`.
fn absolute(dir: &str, target: &str) -> String {
    if target.starts_with('/') {
        paths::rooted(target)
    } else {
        paths::rooted(&format!("{dir}/{target}"))
    }
}

fn file_mount(dest: String, kind: MountKind) -> Mount {
    Mount { input: None, selector: String::new(), dest, output: None, readonly: false, kind }
}
