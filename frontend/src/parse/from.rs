//! `FROM`.

use super::node::{Node, Parsed};
use crate::ast::{Alias, FromInstruction};
use crate::diagnostic::Diagnostic;
use crate::flags::Kind;

pub(super) fn from(node: &Node<'_>) -> Parsed<FromInstruction> {
    let mut words = node.blank_separated().into_iter();
    let (image, alias) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(image), None, ..) => (image, None),
        (Some(image), Some(keyword), Some(name), None)
            if keyword.value.eq_ignore_ascii_case("as") =>
        {
            (image, Some((keyword, name)))
        }
        _ => {
            let error = node.error("FROM requires either one or three arguments");
            return Err(error.with_help("write `FROM image` or `FROM image AS name`"));
        }
    };
    let alias = match alias {
        None => None,
        Some((keyword, written)) => {
            let name = written.value.to_lowercase();
            if !is_stage_name(&name) {
                let text = format!(
                    "invalid name for build stage: \"{}\", name can't start with a number or \
                     contain symbols",
                    written.value
                );
                return Err(Diagnostic::new(written.span, text));
            }
            Some(Alias { keyword, name, written })
        }
    };
    let platform = node.flags(&[("platform", Kind::Text)])?.text("platform");
    let doc = alias.as_ref().and_then(|it| doc_of(&node.header.comments, &it.name));
    Ok(FromInstruction { header: node.header.clone(), platform, image, alias, doc })
}

fn is_stage_name(name: &str) -> bool {
    let is_allowed =
        |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'-' | b'_' | b'.');
    name.bytes().next().is_some_and(|it| it.is_ascii_lowercase()) && name.bytes().all(is_allowed)
}

/// The description of `name` in the comments above: `# name description`.
pub(super) fn doc_of(comments: &[String], name: &str) -> Option<String> {
    let after = |comment: &String| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(after)
}
