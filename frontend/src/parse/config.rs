//! Instructions that change the image config only, and `WORKDIR`.

use super::from::doc_of;
use super::node::{Node, Parsed};
use crate::ast::{
    ArgDeclaration, ArgInstruction, CmdInstruction, EntrypointInstruction, EnvInstruction,
    ExposeInstruction, LabelInstruction, MaintainerInstruction, OnbuildInstruction,
    ShellInstruction, StopsignalInstruction, UserInstruction, VolumeInstruction,
    WorkdirInstruction,
};
use crate::diagnostic::Diagnostic;
use crate::text::Word;

pub(super) fn arg(node: &Node<'_>) -> Parsed<ArgInstruction> {
    let words = node.quoted_words();
    if words.is_empty() {
        return Err(node.error("ARG requires at least one argument"));
    }
    let mut declarations = Vec::with_capacity(words.len());
    for raw in &words {
        let (name, value) = match node.split_at_equals(raw) {
            Some((name, value)) => (name, Some(value)),
            None => (node.word(raw), None),
        };
        if name.value.is_empty() {
            return Err(Diagnostic::new(node.word(raw).span, "ARG names can not be blank"));
        }
        let doc = doc_of(&node.header.comments, &name.value);
        declarations.push(ArgDeclaration { name, value, doc });
    }
    Ok(ArgInstruction { header: node.header.clone(), declarations })
}

pub(super) fn env(node: &Node<'_>) -> Parsed<EnvInstruction> {
    node.no_flags()?;
    Ok(EnvInstruction { header: node.header.clone(), pairs: node.pairs("ENV")? })
}

pub(super) fn label(node: &Node<'_>) -> Parsed<LabelInstruction> {
    node.no_flags()?;
    Ok(LabelInstruction { header: node.header.clone(), pairs: node.pairs("LABEL")? })
}

pub(super) fn expose(node: &Node<'_>) -> Parsed<ExposeInstruction> {
    let mut ports = node.blank_separated();
    if ports.is_empty() {
        return Err(node.error("EXPOSE requires at least one argument"));
    }
    node.no_flags()?;
    ports.sort_by(|a, b| a.value.cmp(&b.value));
    Ok(ExposeInstruction { header: node.header.clone(), ports })
}

pub(super) fn volume(node: &Node<'_>) -> Parsed<VolumeInstruction> {
    let words = node.list()?;
    if words.is_empty() {
        return Err(node.error("VOLUME requires at least one argument"));
    }
    node.no_flags()?;
    let mut volumes = Vec::with_capacity(words.len());
    for word in words {
        let path = word.value.trim();
        if path.is_empty() {
            let text = "VOLUME specified can not be an empty string";
            return Err(Diagnostic::new(word.span, text));
        }
        volumes.push(Word::new(path.to_owned(), word.span));
    }
    Ok(VolumeInstruction { header: node.header.clone(), volumes })
}

pub(super) fn user(node: &Node<'_>) -> Parsed<UserInstruction> {
    let user = node.one_argument("USER")?;
    node.no_flags()?;
    Ok(UserInstruction { header: node.header.clone(), user })
}

pub(super) fn workdir(node: &Node<'_>) -> Parsed<WorkdirInstruction> {
    let path = node.one_argument("WORKDIR")?;
    node.no_flags()?;
    Ok(WorkdirInstruction { header: node.header.clone(), path })
}

pub(super) fn maintainer(node: &Node<'_>) -> Parsed<MaintainerInstruction> {
    let name = node.one_argument("MAINTAINER")?;
    node.no_flags()?;
    Ok(MaintainerInstruction { header: node.header.clone(), name })
}

pub(super) fn stopsignal(node: &Node<'_>) -> Parsed<StopsignalInstruction> {
    let signal = node.one_argument("STOPSIGNAL")?;
    Ok(StopsignalInstruction { header: node.header.clone(), signal })
}

pub(super) fn cmd(node: &Node<'_>) -> Parsed<CmdInstruction> {
    node.no_flags()?;
    Ok(CmdInstruction { header: node.header.clone(), command: node.command()? })
}

pub(super) fn entrypoint(node: &Node<'_>) -> Parsed<EntrypointInstruction> {
    node.no_flags()?;
    Ok(EntrypointInstruction { header: node.header.clone(), command: node.command()? })
}

pub(super) fn shell(node: &Node<'_>) -> Parsed<ShellInstruction> {
    node.no_flags()?;
    let error = |text: &str| node.error(text).with_help("write `SHELL [\"/bin/sh\", \"-c\"]`");
    match node.json()? {
        Some(shell) if !shell.is_empty() => {
            Ok(ShellInstruction { header: node.header.clone(), shell })
        }
        None if !node.arguments().is_empty() => {
            Err(error("SHELL requires the arguments to be in JSON form"))
        }
        _ => Err(error("SHELL requires at least one argument")),
    }
}

pub(super) fn onbuild(node: &Node<'_>) -> Parsed<OnbuildInstruction> {
    let Some(inner) = node.inner() else {
        return Err(node.error("ONBUILD requires at least one argument"));
    };
    node.no_flags()?;
    match inner.keyword.to_uppercase().as_str() {
        "ONBUILD" => {
            return Err(node.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        }
        name @ ("MAINTAINER" | "FROM") => {
            return Err(node.error(format!("{name} isn't allowed as an ONBUILD trigger")));
        }
        _ => inner.check()?,
    }
    let mut trigger = node.behind_keyword();
    for heredoc in &node.heredocs {
        trigger.value.push('\n');
        trigger.value.push_str(&String::from_utf8_lossy(&heredoc.content));
        trigger.value.push_str(&heredoc.name);
    }
    Ok(OnbuildInstruction { header: node.header.clone(), trigger })
}
