//! `SOURCE_DATE_EPOCH`: seconds, or the name of something that has a time.
//!
//! `context` is the main context, any other name a named context or a stage. Only git repositories
//! and files of web servers have a time: that of the commit, that of `Last-Modified`, else that of
//! the newest file of an archive. A stage is asked for its one source without being built.

use std::collections::BTreeMap;

use rbuild_solver::llb::op::SourceOp;

use crate::ast::{AddInstruction, ArgInstruction, FromInstruction, Instruction};
use crate::diagnostic::Diagnostic;
use crate::expand::Expander;
use crate::lower::build::of_gateway;
use crate::lower::copy::http_source;
use crate::lower::git_ref::GitRef;
use crate::lower::{Input, LowerError};
use crate::options::{MainContext, NamedContext};
use crate::scope::{Env, Globals};
use crate::stages::SCRATCH;
use crate::text::{Span, Word};

/// What a stage is told that has no `ADD`, or several.
const ONE: &str = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";

/// Name of the argument.
const NAME: &str = "SOURCE_DATE_EPOCH";

/// Settles `SOURCE_DATE_EPOCH`: a `--build-arg`, else a global `ARG` with a default. Afterwards
/// `given` and `globals` hold the number, or nothing if there is none.
///
/// # Errors
///
/// If the value is no number and names nothing that can have a time, or that cannot be reached.
pub(crate) fn settle(
    input: Input<'_>,
    rules: Expander,
    given: &mut BTreeMap<String, String>,
    globals: &mut Globals,
) -> Result<Option<i64>, LowerError> {
    let declared = globals.env.get(NAME).filter(|it| !it.is_empty()).map(str::to_owned);
    let Some(value) = given.get(NAME).cloned().or(declared) else { return Ok(None) };
    let epoch = match value.parse::<i64>() {
        Ok(epoch) => Some(epoch),
        Err(_) if value.is_empty() => None,
        Err(_) => match source_named(input, rules, &value, given, globals)? {
            Some(source) => input.gateway.source_time(&source).map_err(of_gateway)?,
            None => None,
        },
    };
    if let Some(text) = epoch.map(|epoch| epoch.to_string()) {
        if globals.env.get(NAME).is_some() {
            globals.env.set(NAME, &text);
        }
        if given.contains_key(NAME) {
            given.insert(NAME.to_owned(), text);
        }
    } else {
        globals.env.remove(NAME);
        given.remove(NAME);
    }
    Ok(epoch)
}

/// The source that a name stands for; none if it is one without a time.
fn source_named(
    input: Input<'_>,
    rules: Expander,
    name: &str,
    given: &BTreeMap<String, String>,
    globals: &Globals,
) -> Result<Option<SourceOp>, LowerError> {
    let options = input.options;
    let source = |identifier: &String, attrs: &BTreeMap<String, String>| SourceOp {
        identifier: identifier.clone(),
        attrs: attrs.clone(),
        platform: None,
    };
    if name == "context" {
        return Ok(match &options.context {
            MainContext::Local => None,
            MainContext::Source { identifier, attrs, .. } => Some(source(identifier, attrs)),
        });
    }
    match options.named_contexts.get(&name.to_lowercase()) {
        Some(NamedContext::Source { identifier, attrs }) => {
            return Ok(Some(source(identifier, attrs)));
        }
        Some(NamedContext::Local { .. } | NamedContext::Image(_)) => return Ok(None),
        None => {}
    }
    let mut stages = input.dockerfile.instructions.split(is_not_from_of(name));
    // What comes before the stage, then the stage with all that follows it.
    let (_, rest) = (stages.next(), stages.next());
    let from = input.dockerfile.instructions.iter().find_map(|it| from_of(it, name));
    let (Some(from), Some(rest)) = (from, rest) else {
        let help = "give seconds since 1970-01-01: `--build-arg SOURCE_DATE_EPOCH=1700000000`";
        let message = format!("invalid SOURCE_DATE_EPOCH: {name}");
        return Err(Diagnostic::of_file(message).with_help(help).into());
    };
    let mut env = globals.env.clone();
    env.remove(NAME);
    let own = rest.iter().take_while(|it| !matches!(it, Instruction::From(_)));
    source_of_stage(from, own, rules, env, given).map(Some)
}

fn from_of<'a>(instruction: &'a Instruction, name: &str) -> Option<&'a FromInstruction> {
    let Instruction::From(from) = instruction else { return None };
    let alias = from.alias.as_ref()?;
    alias.name.eq_ignore_ascii_case(name).then_some(from)
}

fn is_not_from_of(name: &str) -> impl Fn(&Instruction) -> bool {
    move |it| from_of(it, name).is_some()
}

/// The one remote source that a stage consists of.
fn source_of_stage<'a>(
    from: &FromInstruction,
    instructions: impl Iterator<Item = &'a Instruction>,
    rules: Expander,
    mut env: Env,
    given: &BTreeMap<String, String>,
) -> Result<SourceOp, LowerError> {
    let refuse = |span: Span, text: &str| LowerError::from(Diagnostic::new(span, text));
    if expand(&env, rules, &from.image)? != SCRATCH {
        return Err(refuse(from.header.span, "SOURCE_DATE_EPOCH stage must use FROM scratch"));
    }
    let mut source = None;
    for instruction in instructions {
        let span = instruction.header().span;
        if let Instruction::Arg(arg) = instruction {
            declare(arg, rules, &mut env, given)?;
            continue;
        }
        let Instruction::Add(add) = instruction else {
            let keyword = instruction.header().keyword.value.to_uppercase();
            let text = format!(
                "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {keyword} instruction"
            );
            return Err(refuse(span, &text));
        };
        if source.is_some() {
            return Err(refuse(span, ONE));
        }
        source = Some(source_of_add(add, rules, &env)?);
    }
    source.ok_or_else(|| refuse(from.header.span, ONE))
}

fn declare(
    arg: &ArgInstruction,
    rules: Expander,
    env: &mut Env,
    given: &BTreeMap<String, String>,
) -> Result<(), LowerError> {
    for declared in &arg.declarations {
        let name = &declared.name.value;
        let value = match (given.get(name), &declared.value) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => expand(env, rules, default)?,
            (None, None) => continue,
        };
        env.set(name, &value);
    }
    Ok(())
}

fn source_of_add(add: &AddInstruction, rules: Expander, env: &Env) -> Result<SourceOp, LowerError> {
    let refuse = |text: String| LowerError::from(Diagnostic::new(add.header.span, text));
    let [source] = &add.transfer.sources[..] else {
        let text = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source";
        return Err(refuse(text.to_owned()));
    };
    let address = expand(env, rules, source)?;
    let checksum = match &add.checksum {
        Some(checksum) => expand(env, rules, checksum)?,
        None => String::new(),
    };
    if let Some(git) = GitRef::parse(&address) {
        let mut git = git.map_err(refuse)?;
        if !checksum.is_empty() {
            git.checksum = checksum;
        }
        return Ok(git.to_source());
    }
    if address.starts_with("http://") || address.starts_with("https://") {
        return http_source(&address, &checksum).map(|(source, _)| source).map_err(refuse);
    }
    let text = "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD";
    Err(refuse(text.to_owned()))
}

fn expand(env: &Env, rules: Expander, word: &Word) -> Result<String, LowerError> {
    let expanded = env.expand(rules, &word.value);
    let expanded = expanded.map_err(|error| Diagnostic::new(word.span, error.to_string()))?;
    Ok(expanded.text)
}
