//! `RUN`.

use super::mount;
use super::node::{Node, Parsed};
use crate::ast::{Device, RunInstruction, RunNetwork, RunSecurity};
use crate::csv;
use crate::diagnostic::Diagnostic;
use crate::flags::Kind;
use crate::suggest::did_you_mean;
use crate::text::Word;

pub(super) fn run(node: &Node<'_>) -> Parsed<RunInstruction> {
    let flags = node.flags(&[
        ("mount", Kind::Texts),
        ("network", Kind::Text),
        ("security", Kind::Text),
        ("device", Kind::Texts),
    ])?;
    node.only_text("RUN")?;
    let mounts = flags.texts("mount");
    for word in &mounts {
        mount::check(&word.value).map_err(|error| Diagnostic::new(word.span, error.0))?;
    }
    Ok(RunInstruction {
        header: node.header.clone(),
        mounts,
        network: flags.given("network").map(network).transpose()?,
        security: flags.given("security").map(security).transpose()?,
        devices: flags.texts("device").iter().map(device).collect::<Parsed<_>>()?,
        command: node.command()?,
        heredocs: node.heredocs.clone(),
    })
}

fn network(word: &Word) -> Parsed<RunNetwork> {
    match word.value.as_str() {
        "default" => Ok(RunNetwork::Default),
        "none" => Ok(RunNetwork::None),
        "host" => Ok(RunNetwork::Host),
        other => {
            let known = ["default", "none", "host"];
            let text = format!("invalid network mode \"{other}\"{}", did_you_mean(other, known));
            Err(Diagnostic::new(word.span, text).with_help("it can be default, none, or host"))
        }
    }
}

fn security(word: &Word) -> Parsed<RunSecurity> {
    match word.value.as_str() {
        "sandbox" => Ok(RunSecurity::Sandbox),
        "insecure" => Ok(RunSecurity::Insecure),
        other => {
            let known = ["sandbox", "insecure"];
            let text = format!("security \"{other}\" is not valid{}", did_you_mean(other, known));
            Err(Diagnostic::new(word.span, text).with_help("it can be sandbox or insecure"))
        }
    }
}

/// `vendor.com/class=name,required`: the name is what is no other field.
fn device(word: &Word) -> Parsed<Device> {
    let error = |text: String| Diagnostic::new(word.span, text);
    let fields = csv::fields(&word.value)
        .map_err(|cause| error(format!("failed to parse csv devices: {cause}")))?;
    let mut device = Device { name: String::new(), required: false };
    for field in fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required = mount::parse_bool(value)
                    .ok_or_else(|| error(format!("invalid value for required: {value}")))?;
            }
            ("name", Some(value)) if device.name.is_empty() => value.clone_into(&mut device.name),
            ("name", Some(_)) => {
                return Err(error(format!("device name already set to {}", device.name)));
            }
            _ if device.name.is_empty() => device.name = field,
            (_, None) => {
                return Err(error(format!("invalid field '{field}' must be a key=value pair")));
            }
            (key, Some(_)) => {
                let suggestion = did_you_mean(key, ["name", "required"]);
                return Err(error(format!("unexpected key '{key}' in '{field}'{suggestion}")));
            }
        }
    }
    Ok(device)
}
