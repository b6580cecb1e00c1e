//! The printed tree of a Dockerfile: one S-expression for each instruction, for golden tests and
//! `rbuild debug ast`.
//!
//! ```text
//! (directives escape=\)
//! (from 1 "alpine" platform="linux/arm64" as="base")
//! (run 2-3 mount="type=cache,target=/c" shell="make all")
//! ```
//!
//! Numbers are lines. Every field of the tree that is not empty is shown.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::ast::{
    CommandLine, Dockerfile, Header, Healthcheck, Heredoc, Instruction, KeyValue, RunInstruction,
    RunNetwork, RunSecurity, Transfer,
};
use crate::text::Word;

/// Prints the tree.
pub fn dump(dockerfile: &Dockerfile) -> String {
    let directives = &dockerfile.directives;
    let mut first = Node::new("directives");
    first.option("syntax", directives.syntax.as_ref());
    first.attribute("escape", directives.escape);
    first.option("check", directives.check.as_ref());
    let mut out = first.finish();
    for it in &dockerfile.instructions {
        out.push_str(&instruction(it));
    }
    out
}

/// Prints one instruction.
pub fn instruction(instruction: &Instruction) -> String {
    let mut node = Node::of(instruction.header());
    match instruction {
        Instruction::From(it) => {
            node.text(&it.image.value);
            node.option("platform", it.platform.as_ref());
            if let Some(alias) = &it.alias {
                node.quoted("as", &alias.name);
            }
        }
        Instruction::Arg(it) => {
            for declaration in &it.declarations {
                let name = &declaration.name.value;
                match &declaration.value {
                    Some(value) => node.quoted(name, &value.value),
                    None => node.text(name),
                }
            }
        }
        Instruction::Run(it) => run(&mut node, it),
        Instruction::Copy(it) => {
            node.option("from", it.from.as_ref());
            node.flag("parents", it.parents);
            transfer(&mut node, &it.transfer);
        }
        Instruction::Add(it) => {
            node.option("checksum", it.checksum.as_ref());
            if let Some(keep) = it.keep_git_dir {
                node.attribute("keep-git-dir", keep);
            }
            if let Some(unpack) = it.unpack {
                node.attribute("unpack", unpack);
            }
            transfer(&mut node, &it.transfer);
        }
        Instruction::Env(it) => pairs(&mut node, &it.pairs),
        Instruction::Label(it) => pairs(&mut node, &it.pairs),
        Instruction::Expose(it) => it.ports.iter().for_each(|word| node.text(&word.value)),
        Instruction::Volume(it) => it.volumes.iter().for_each(|word| node.text(&word.value)),
        Instruction::User(it) => node.text(&it.user.value),
        Instruction::Workdir(it) => node.text(&it.path.value),
        Instruction::Cmd(it) => command(&mut node, &it.command),
        Instruction::Entrypoint(it) => command(&mut node, &it.command),
        Instruction::Healthcheck(it) => match &it.check {
            Some(check) => healthcheck(&mut node, check),
            None => node.attribute("none", true),
        },
        Instruction::Stopsignal(it) => node.text(&it.signal.value),
        Instruction::Shell(it) => it.shell.iter().for_each(|word| node.text(word)),
        Instruction::Onbuild(it) => node.text(&it.trigger.value),
        Instruction::Maintainer(it) => node.text(&it.name.value),
    }
    node.finish()
}

fn run(node: &mut Node, run: &RunInstruction) {
    run.mounts.iter().for_each(|word| node.quoted("mount", &word.value));
    if let Some(network) = run.network {
        node.attribute(
            "network",
            match network {
                RunNetwork::Default => "default",
                RunNetwork::None => "none",
                RunNetwork::Host => "host",
            },
        );
    }
    if let Some(security) = run.security {
        node.attribute(
            "security",
            match security {
                RunSecurity::Sandbox => "sandbox",
                RunSecurity::Insecure => "insecure",
            },
        );
    }
    for device in &run.devices {
        node.quoted("device", &device.name);
        node.flag("required", device.required);
    }
    command(node, &run.command);
    run.heredocs.iter().for_each(|it| heredoc(node, it));
}

fn transfer(node: &mut Node, transfer: &Transfer) {
    node.option("chown", transfer.chown.as_ref());
    node.option("chmod", transfer.chmod.as_ref());
    node.flag("link", transfer.link);
    transfer.excludes.iter().for_each(|word| node.quoted("exclude", &word.value));
    transfer.sources.iter().for_each(|word| node.text(&word.value));
    for file in &transfer.inline {
        let mut inner = Node::inner("inline");
        inner.text(&file.name);
        inner.flag("expand", file.expand);
        inner.text(&String::from_utf8_lossy(&file.content));
        node.child(&inner);
    }
    node.quoted("to", &transfer.destination.value);
}

fn heredoc(node: &mut Node, heredoc: &Heredoc) {
    let mut inner = Node::inner("heredoc");
    inner.text(&heredoc.name);
    inner.flag("expand", heredoc.expand);
    inner.flag("chomp", heredoc.chomp);
    if heredoc.descriptor > 0 {
        inner.attribute("fd", heredoc.descriptor);
    }
    inner.text(&String::from_utf8_lossy(&heredoc.content));
    node.child(&inner);
}

fn healthcheck(node: &mut Node, check: &Healthcheck) {
    for (name, duration) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        if duration > Duration::ZERO {
            node.attribute(name, format_args!("{duration:?}"));
        }
    }
    if check.retries > 0 {
        node.attribute("retries", check.retries);
    }
    command(node, &check.command);
}

fn command(node: &mut Node, command: &CommandLine) {
    match command {
        CommandLine::Shell(line) => node.quoted("shell", &line.value),
        CommandLine::Exec(words) => {
            let mut inner = Node::inner("exec");
            for word in words {
                inner.text(word);
            }
            node.child(&inner);
        }
    }
}

fn pairs(node: &mut Node, pairs: &[KeyValue]) {
    for pair in pairs {
        node.quoted(&pair.key.value, &pair.value.value);
        node.flag("legacy", pair.legacy);
    }
}

/// An S-expression that is being written.
struct Node(String);

impl Node {
    fn new(name: &str) -> Self {
        Self(format!("({name}"))
    }

    fn of(header: &Header) -> Self {
        let mut node = Self::new(&header.keyword.value.to_lowercase());
        let (first, last) = (header.span.first_line, header.span.last_line);
        if first == last {
            node.raw(first);
        } else {
            node.raw(format_args!("{first}-{last}"));
        }
        node
    }

    fn inner(name: &str) -> Self {
        Self::new(name)
    }

    fn raw(&mut self, text: impl Display) {
        let _ = write!(self.0, " {text}");
    }

    fn text(&mut self, text: &str) {
        self.raw(format_args!("{text:?}"));
    }

    fn quoted(&mut self, name: &str, text: &str) {
        self.raw(format_args!("{name}={text:?}"));
    }

    fn attribute(&mut self, name: &str, value: impl Display) {
        self.raw(format_args!("{name}={value}"));
    }

    fn option(&mut self, name: &str, word: Option<&Word>) {
        if let Some(word) = word {
            self.quoted(name, &word.value);
        }
    }

    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.raw(name);
        }
    }

    fn child(&mut self, child: &Self) {
        let _ = write!(self.0, " {})", child.0);
    }

    fn finish(self) -> String {
        self.0 + ")\n"
    }
}
