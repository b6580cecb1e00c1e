//! `COPY` and `ADD`.

use std::collections::BTreeMap;

use super::node::{Node, Parsed};
use crate::ast::{AddInstruction, CopyInstruction, Heredoc, InlineFile, Transfer};
use crate::diagnostic::Diagnostic;
use crate::flags::{Flags, Kind};
use crate::heredoc;

pub(super) fn copy(node: &Node<'_>) -> Parsed<CopyInstruction> {
    let flags = node.flags(&[
        ("chown", Kind::Text),
        ("from", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Switch),
        ("exclude", Kind::Texts),
        ("parents", Kind::Switch),
    ])?;
    Ok(CopyInstruction {
        header: node.header.clone(),
        transfer: transfer(node, &flags, "COPY")?,
        from: flags.text("from"),
        parents: flags.switch("parents").unwrap_or(false),
    })
}

pub(super) fn add(node: &Node<'_>) -> Parsed<AddInstruction> {
    let flags = node.flags(&[
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Switch),
        ("keep-git-dir", Kind::Switch),
        ("checksum", Kind::Text),
        ("unpack", Kind::Switch),
        ("exclude", Kind::Texts),
    ])?;
    Ok(AddInstruction {
        header: node.header.clone(),
        transfer: transfer(node, &flags, "ADD")?,
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.switch("unpack"),
    })
}

fn transfer(node: &Node<'_>, flags: &Flags, name: &str) -> Parsed<Transfer> {
    let mut words = node.list()?;
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
        node.error(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could \
             not be determined"
        ))
    })?;
    if heredoc::parse_mark(&destination.value).is_some() {
        let text = format!("{name} cannot accept a heredoc as a destination");
        return Err(Diagnostic::new(destination.span, text));
    }
    // Of several with one delimiter the last is meant.
    let bodies: BTreeMap<&str, &Heredoc> =
        node.heredocs.iter().map(|it| (it.name.as_str(), it)).collect();
    let mut sources = Vec::new();
    let mut inline = Vec::new();
    for word in words {
        let Some(mark) = heredoc::parse_mark(&word.value) else {
            sources.push(word);
            continue;
        };
        let body = bodies.get(mark.name.as_str());
        let content = body.map(|it| it.content.clone()).unwrap_or_default();
        inline.push(InlineFile {
            name: mark.name,
            content: if mark.chomp { heredoc::chomp(&content) } else { content },
            expand: mark.expand,
            span: word.span,
        });
    }
    Ok(Transfer {
        sources,
        inline,
        destination,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        excludes: flags.texts("exclude"),
    })
}
