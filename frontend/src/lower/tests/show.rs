//! Graph and history as text: what is the default is left out.

use std::fmt::Write as _;

use rbuild_solver::llb::op::{
    ChmodOpt, Chown, ExecOp, FileAction, FileActionKind, FileCopy, FileInput, Mount, NetMode, Op,
    SecurityMode, UserOpt,
};
use rbuild_store::image::config::ImageConfig;

use super::Lowered;

/// Every vertex: number, inputs, name, then what it does.
pub(super) fn graph(lowered: &Lowered) -> String {
    let mut out = String::new();
    for id in lowered.graph.ids() {
        let vertex = &lowered.graph[id];
        let inputs: Vec<String> =
            vertex.inputs.iter().map(|edge| format!("v{}", edge.vertex.index())).collect();
        let lines = vertex
            .meta
            .location
            .as_ref()
            .map_or(String::new(), |it| format!(" ({}-{})", it.first, it.last));
        let uncached = if vertex.meta.ignore_cache { " no cache" } else { "" };
        let name = &vertex.meta.name;
        line(
            &mut out,
            format_args!("v{} <- [{}] {name}{lines}{uncached}", id.index(), inputs.join(" ")),
        );
        operation(&mut out, &vertex.op);
    }
    for target in &lowered.targets {
        let edge = target.edge.map_or("nothing".to_owned(), |it| format!("v{}", it.vertex.index()));
        line(&mut out, format_args!("{} is {edge}", target.platform));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string");
    out.push('\n');
}

fn operation(out: &mut String, op: &Op) {
    match op {
        Op::Source(source) => {
            line(out, format_args!("    {}", source.identifier.replace(&"ab".repeat(32), "ab")));
            for (key, value) in &source.attrs {
                line(out, format_args!("    {key}={value}"));
            }
        }
        Op::Exec(exec) => process(out, exec),
        Op::File(file) => file.actions.iter().for_each(|it| action(out, it)),
        Op::Merge(_) => line(out, format_args!("    merge")),
        Op::Diff(_) | Op::Build(_) => line(out, format_args!("    unexpected")),
    }
}

fn process(out: &mut String, exec: &ExecOp) {
    let meta = &exec.meta;
    line(out, format_args!("    {:?} in {} {:?}", meta.args, meta.cwd, meta.env));
    for (name, value) in [("user", &meta.user), ("host name", &meta.hostname)] {
        if !value.is_empty() {
            line(out, format_args!("    {name} {value}"));
        }
    }
    if let Some(proxy) = &meta.proxy_env {
        line(out, format_args!("    http proxy {}", proxy.http_proxy));
    }
    if exec.network != NetMode::default() || exec.security != SecurityMode::default() {
        line(out, format_args!("    {:?} {:?}", exec.network, exec.security));
    }
    for secret in &exec.secret_env {
        line(
            out,
            format_args!(
                "    secret {} in ${} optional={}",
                secret.id, secret.name, secret.optional
            ),
        );
    }
    for Mount { input, selector, dest, output, readonly, kind } in &exec.mounts {
        if dest == "/" {
            continue;
        }
        let input = input.map_or("nothing".to_owned(), |it| format!("input {it}"));
        let mode = if *readonly { "ro" } else { "rw" };
        line(out, format_args!("    mount {dest} {mode} {input}{selector} {kind:?} {output:?}"));
    }
}

fn input(input: FileInput) -> String {
    match input {
        FileInput::Scratch => "nothing".to_owned(),
        FileInput::Input(number) => format!("input {number}"),
        FileInput::Action(number) => format!("action {number}"),
    }
}

fn action(out: &mut String, action: &FileAction) {
    let base = input(action.input);
    match &action.kind {
        FileActionKind::Copy(copy) => {
            let from = action.secondary.map_or("nothing".to_owned(), input);
            let FileCopy { src, dest, .. } = copy;
            line(out, format_args!("    {base}: copy {src} of {from} to {dest}{}", options(copy)));
        }
        FileActionKind::Mkfile { path, mode, data, .. } => {
            let data = String::from_utf8_lossy(data);
            line(out, format_args!("    {base}: file {path} {mode:o} {data:?}"));
        }
        FileActionKind::Mkdir { path, mode, owner, timestamp, .. } => {
            let owner = owner.as_ref().map_or(String::new(), |it| format!(" {}", chown(it)));
            let time = timestamp.map_or(String::new(), |it| format!(" at {it}"));
            line(out, format_args!("    {base}: directory {path} {mode:o}{owner}{time}"));
        }
        FileActionKind::Rm { .. } | FileActionKind::Symlink { .. } => {
            line(out, format_args!("    unexpected"));
        }
    }
}

fn options(copy: &FileCopy) -> String {
    let mut words = Vec::new();
    if copy.follow_symlink && copy.dir_copy_contents && copy.allow_wildcard {
        words.push("path".to_owned());
    }
    if copy.attempt_unpack {
        words.push("unpack".to_owned());
    }
    words.extend(copy.owner.as_ref().map(chown));
    words.extend(copy.mode.as_ref().map(|mode| match mode {
        ChmodOpt::Bits(bits) => format!("mode={bits:o}"),
        ChmodOpt::Symbolic(text) => format!("mode={text}"),
    }));
    for (name, list) in [
        ("include", &copy.include_patterns),
        ("exclude", &copy.exclude_patterns),
        ("required", &copy.required_paths),
    ] {
        if !list.is_empty() {
            words.push(format!("{name}={list:?}"));
        }
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(" ")) }
}

fn chown(chown: &Chown) -> String {
    let show = |it: &Option<UserOpt>| match it {
        None => "-".to_owned(),
        Some(UserOpt::Id(id)) => id.to_string(),
        Some(UserOpt::Name(name)) => name.clone(),
    };
    format!("owner={}:{}", show(&chown.user), show(&chown.group))
}

/// The history behind that of the base: `-` marks entries without a layer.
pub(super) fn history(config: &ImageConfig) -> String {
    let mut out = String::new();
    for entry in config.history.iter().filter(|it| it.comment.is_some()) {
        let mark = if entry.empty_layer { '-' } else { '+' };
        let time = entry.created.as_deref().map_or(String::new(), |it| format!("{it} "));
        let text = entry.created_by.as_deref().unwrap_or_default();
        line(&mut out, format_args!("{mark} {time}{text}"));
    }
    out
}
