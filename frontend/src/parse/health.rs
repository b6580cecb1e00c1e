//! `HEALTHCHECK`.

use std::time::Duration;

use super::node::{Node, Parsed};
use crate::ast::{CommandLine, Healthcheck, HealthcheckInstruction};
use crate::diagnostic::Diagnostic;
use crate::duration;
use crate::flags::{Flags, Kind};

/// Shortest duration that a flag may give, in nanoseconds; nothing shorter can be kept up.
const MIN_NANOSECONDS: i64 = 1_000_000;

pub(super) fn healthcheck(node: &Node<'_>) -> Parsed<HealthcheckInstruction> {
    let Some((kind, command)) = node.word_and_command()? else {
        return Err(node.error("HEALTHCHECK requires at least one argument"));
    };
    let is_empty = match &command {
        CommandLine::Shell(text) => text.value.is_empty(),
        CommandLine::Exec(texts) => texts.is_empty(),
    };
    let header = node.header.clone();
    match kind.value.to_uppercase().as_str() {
        "NONE" if is_empty => return Ok(HealthcheckInstruction { header, check: None }),
        "NONE" => return Err(node.error("HEALTHCHECK NONE takes no arguments")),
        _ => {}
    }
    let flags = node.flags(&[
        ("interval", Kind::Text),
        ("timeout", Kind::Text),
        ("start-period", Kind::Text),
        ("start-interval", Kind::Text),
        ("retries", Kind::Text),
    ])?;
    match kind.value.to_uppercase().as_str() {
        "CMD" if is_empty => return Err(node.error("Missing command after HEALTHCHECK CMD")),
        "CMD" => {}
        other => {
            let text = format!("Unknown type \"{other}\" in HEALTHCHECK (try CMD)");
            return Err(Diagnostic::new(kind.span, text));
        }
    }
    let check = Healthcheck {
        command,
        interval: duration(&flags, "interval")?,
        timeout: duration(&flags, "timeout")?,
        start_period: duration(&flags, "start-period")?,
        start_interval: duration(&flags, "start-interval")?,
        retries: retries(&flags)?,
    };
    Ok(HealthcheckInstruction { header, check: Some(check) })
}

fn duration(flags: &Flags, name: &str) -> Parsed<Duration> {
    let Some(word) = flags.text(name) else { return Ok(Duration::ZERO) };
    let nanoseconds = duration::parse(&word.value).map_err(|text| {
        Diagnostic::new(word.span, text)
            .with_help(format!("write `--{name}=1m30s`, with units h, m, s, ms"))
    })?;
    if nanoseconds != 0 && nanoseconds < MIN_NANOSECONDS {
        let text = format!("Interval \"{name}\" cannot be less than 1ms");
        return Err(Diagnostic::new(word.span, text));
    }
    Ok(Duration::from_nanos(nanoseconds.unsigned_abs()))
}

fn retries(flags: &Flags) -> Parsed<u32> {
    let Some(word) = flags.text("retries") else { return Ok(0) };
    match word.value.parse::<i32>() {
        Ok(retries) => u32::try_from(retries).map_err(|_| {
            Diagnostic::new(word.span, format!("--retries cannot be negative ({retries})"))
        }),
        Err(cause) => {
            let text = format!("--retries is not a number: \"{}\": {cause}", word.value);
            Err(Diagnostic::new(word.span, text))
        }
    }
}
