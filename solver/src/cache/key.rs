//! Which part of an operation enters its key, and how.
//!
//! Every field of an operation is named here, so that adding one does not compile until someone
//! has decided whether it belongs to the key.

use std::collections::BTreeMap;

use super::parts::KeyParts;
use crate::llb::Vertex;
use crate::llb::op::{
    DiffOp, ExecMeta, ExecOp, FileActionKind, FileInput, FileOp, Mount, MountKind, Op, SourceOp,
};

/// What of an input decides the result, where it is less than all of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContentInput<'a> {
    /// The files that action number `action` copies.
    Copy {
        /// Index of the input.
        input: usize,
        /// Index of the action.
        action: usize,
    },
    /// What is mounted read-only: the path below the input's root.
    Bind {
        /// Index of the input.
        input: usize,
        /// Path in the input.
        selector: &'a str,
    },
}

impl ContentInput<'_> {
    /// Index of the input.
    pub const fn input(&self) -> usize {
        match *self {
            Self::Copy { input, .. } | Self::Bind { input, .. } => input,
        }
    }
}

/// The inputs of `vertex` that matter only by the content of what is selected from them.
///
/// An input that is also built upon or mounted writable is not among them.
pub fn content_inputs(vertex: &Vertex) -> Vec<ContentInput<'_>> {
    let found = match &vertex.op {
        Op::File(op) => op
            .actions
            .iter()
            .enumerate()
            .filter_map(|(action, it)| match it.secondary {
                Some(FileInput::Input(input)) => Some(ContentInput::Copy { input, action }),
                Some(FileInput::Scratch | FileInput::Action(_)) | None => None,
            })
            .collect(),
        Op::Exec(op) => op
            .mounts
            .iter()
            .filter(|mount| mount.readonly && mount.kind == MountKind::Bind && mount.dest != "/")
            .filter_map(|mount| {
                Some(ContentInput::Bind { input: mount.input?, selector: &mount.selector })
            })
            .collect(),
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) => Vec::new(),
    };
    let whole = whole_inputs(vertex);
    found.into_iter().filter(|it: &ContentInput<'_>| !whole.contains(&it.input())).collect()
}

/// The inputs that matter as a whole.
fn whole_inputs(vertex: &Vertex) -> Vec<usize> {
    match &vertex.op {
        Op::File(op) => op
            .actions
            .iter()
            .filter_map(|action| match action.input {
                FileInput::Input(input) => Some(input),
                FileInput::Scratch | FileInput::Action(_) => None,
            })
            .collect(),
        Op::Exec(op) => op
            .mounts
            .iter()
            .filter(|mount| !mount.readonly || mount.kind != MountKind::Bind || mount.dest == "/")
            .filter_map(|mount| mount.input)
            .collect(),
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) => {
            (0..vertex.inputs.len()).collect()
        }
    }
}

/// The parts of the key that the operation itself decides; inputs are added by the caller.
pub fn definition_parts(op: &Op) -> KeyParts {
    let mut parts = KeyParts::default();
    match op {
        Op::Source(op) => source(&mut parts, op),
        Op::Exec(op) => exec(&mut parts, op),
        Op::File(op) => file(&mut parts, op),
        Op::Merge(_) => parts.add_value("kind", &"merge"),
        Op::Diff(DiffOp { lower, upper }) => {
            parts.add_value("kind", &"diff");
            parts.add_value("sides", &(lower, upper));
        }
        Op::Build(op) => {
            parts.add_value("kind", &"build");
            parts.add_value("build", op);
        }
    }
    parts
}

fn source(parts: &mut KeyParts, op: &SourceOp) {
    let SourceOp { identifier, attrs, platform } = op;
    parts.add_value("kind", &"source");
    // An image is its digest: by which name it was found does not matter.
    let identity = match identifier.split_once("://") {
        Some(("docker-image" | "oci-layout", rest)) => {
            rest.rsplit_once('@').map_or(rest, |(_, digest)| digest)
        }
        Some(_) | None => identifier,
    };
    parts.add_value("source", &identity);
    parts.add_value("platform", platform);
    for (name, value) in attrs {
        parts.add_value(format!("attr.{name}"), value);
    }
}

fn exec(parts: &mut KeyParts, op: &ExecOp) {
    let ExecOp { meta, mounts, network, security, secret_env, platform } = op;
    // Proxies and addresses are where the result was made, not what it is.
    let ExecMeta {
        args,
        env,
        cwd,
        user,
        proxy_env: _,
        extra_hosts,
        hostname,
        ulimits,
        cgroup_parent: _,
        remove_mount_stubs_recursive,
        valid_exit_codes,
    } = meta;
    parts.add_value("kind", &"exec");
    parts.add_value("argv", args);
    for (number, variable) in env.iter().enumerate() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        parts.add_value(format!("env.{name}"), &(number, value));
    }
    parts.add_value("cwd", cwd);
    parts.add_value("user", user);
    if !extra_hosts.is_empty() {
        parts.add_value("hosts", &extra_hosts.iter().map(|it| &it.host).collect::<Vec<_>>());
    }
    parts.add_value("hostname", hostname);
    if !ulimits.is_empty() {
        parts.add_value("ulimits", ulimits);
    }
    parts.add_value("stubs", remove_mount_stubs_recursive);
    parts.add_value("valid_exit_codes", valid_exit_codes);
    parts.add_value("network", network);
    parts.add_value("security", security);
    parts.add_value("platform", platform);
    for secret in secret_env {
        parts.add_value(format!("secret_env.{}", secret.name), secret);
    }
    for mount in mounts {
        let Mount { input, selector: _, dest, output, readonly, kind } = mount;
        // A selector is part of the content; a cache's name and sharing do not decide the result.
        let kind = match kind {
            MountKind::Cache { id: _, sharing: _, mode: _, uid: _, gid: _ } => {
                serde_json::json!("cache")
            }
            MountKind::Bind
            | MountKind::Tmpfs { .. }
            | MountKind::Secret { .. }
            | MountKind::Ssh { .. } => {
                serde_json::to_value(kind).expect("a mount has only string keys")
            }
        };
        let selector = if *readonly { "" } else { &mount.selector };
        parts.add_value(format!("mount.{dest}"), &(input, selector, output, readonly, kind));
    }
}

fn file(parts: &mut KeyParts, op: &FileOp) {
    let FileOp { actions, platform: _ } = op;
    parts.add_value("kind", &"file");
    for action in actions {
        let name = match &action.kind {
            FileActionKind::Copy(copy) => format!("copy.{}", copy.dest),
            FileActionKind::Mkfile { path, .. } => format!("mkfile.{path}"),
            FileActionKind::Mkdir { path, .. } => format!("mkdir.{path}"),
            FileActionKind::Rm { path, .. } => format!("rm.{path}"),
            FileActionKind::Symlink { newpath, .. } => format!("symlink.{newpath}"),
        };
        parts.add_value(name, action);
    }
}

/// Attributes by name, for callers that need one as a JSON list.
pub fn json_list(attrs: &BTreeMap<String, String>, name: &str) -> Vec<String> {
    attrs.get(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
