//! What stages are from: images, named contexts, nothing; and the triggers they bring along.

use std::collections::BTreeMap;

use rbuild_solver::llb::Meta;
use rbuild_solver::llb::op::{FileAction, FileActionKind, FileInput, FileOp, Op, SourceOp};
use rbuild_store::image::config::ImageConfig;
use rbuild_store::platform::Platform;
use rbuild_store::reference::Reference;

use crate::ast::{ArgInstruction, Instruction};
use crate::diagnostic::Diagnostic;
use crate::expand::Expander;
use crate::gateway::{GatewayError, ImageRequest, ResolvedImage};
use crate::gotext::quote;
use crate::lint::{Finding, Linter};
use crate::lower::build::{Build, location, of_gateway};
use crate::lower::draft::{Draft, Node};
use crate::lower::stage::{Progress, based_on, empty_image, has_no_layers};
use crate::lower::{Input, LowerError, copy, local};
use crate::options::NamedContext;
use crate::parse;
use crate::scope::{self, Env};
use crate::stages::{Command, Naming, SCRATCH, StageId, named_context};
use crate::suggest;
use crate::text::Span;

/// Images that people mean when they misspell one.
const COMMON_IMAGES: [&str; 7] =
    ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

impl Build<'_> {
    /// Settles all stages that need no image and returns what to ask for the others. A stage is
    /// asked for once.
    pub(crate) fn pending(&mut self) -> Result<Vec<(StageId, ImageRequest)>, LowerError> {
        let needed = self.needed();
        let mut requests = Vec::new();
        for id in self.stages.ids() {
            let state = &self.states[id.0];
            if self.stages[id].base.is_some() || state.progress != Progress::New {
                continue;
            }
            if needed[id.0] {
                self.states[id.0].progress = Progress::Based;
            }
            if let Some(request) = self.base_of(id, needed[id.0])? {
                requests.push((id, request));
            }
        }
        Ok(requests)
    }

    /// Settles a stage, or says which image it needs. Of a stage that is not needed, only the name
    /// is checked.
    fn base_of(
        &mut self,
        id: StageId,
        is_needed: bool,
    ) -> Result<Option<ImageRequest>, LowerError> {
        let stage = &self.stages[id];
        let span = stage.span;
        let asked = stage.platform.clone().unwrap_or_else(|| self.target_platform.clone());
        if stage.base_name == SCRATCH && stage.context.is_none() {
            let platform = self.target_platform.clone();
            let is_implicit = stage.is_implicit();
            let state = self.state(id);
            state.image = empty_image(&platform);
            state.platform = platform;
            state.progress = if is_implicit { Progress::Done } else { Progress::Based };
            return Ok(None);
        }
        let name = stage.base_name.clone();
        let reference: Reference = name.parse().map_err(|error| {
            Diagnostic::new(span, format!("failed to parse stage name {}: {error}", quote(&name)))
        })?;
        let full = reference.or_latest().to_string();
        if !is_needed {
            return Ok(None);
        }
        if let Some(key) = stage.context.clone() {
            let platform = stage.platform.clone();
            return self.context_base(id, &key, platform.as_ref().unwrap_or(&asked));
        }
        let naming = Naming {
            options: self.options(),
            target_platform: &self.target_platform,
            globals: &self.globals,
            rules: self.rules,
        };
        let key = named_context(&full, Some(&asked), &naming)
            .map_err(|text| Diagnostic::new(span, text))?;
        if let Some(key) = key {
            return self.context_base(id, &key, &asked);
        }
        self.state(id).platform = asked.clone();
        let prefix =
            if self.options().multi_platform { format!("{asked} ") } else { String::new() };
        let name = format!("[{prefix}internal] load metadata for {full}");
        Ok(Some(ImageRequest { reference: full, platform: asked, name }))
    }

    /// A stage that is a named context, or whose base is one.
    fn context_base(
        &mut self,
        id: StageId,
        key: &str,
        platform: &Platform,
    ) -> Result<Option<ImageRequest>, LowerError> {
        let is_whole_stage = self.stages[id].context.is_some() || self.stages[id].is_implicit();
        let Some(context) = self.options().named_contexts.get(key) else { return Ok(None) };
        let state = self.state(id);
        if is_whole_stage {
            state.progress = Progress::Done;
        }
        state.platform = platform.clone();
        state.image = empty_image(platform);
        let paths = state.paths;
        match context {
            NamedContext::Image(name) => {
                let reference = context_reference(name, self.stages[id].span)?;
                return Ok(reference.map(|reference| {
                    let name = format!("[context {key}] load metadata for {reference}");
                    ImageRequest { reference, platform: platform.clone(), name }
                }));
            }
            NamedContext::Local { source } => {
                let excludes =
                    local::excludes_of(self.input.gateway, source).map_err(of_gateway)?;
                let shown = format!("[context {key}] load from client");
                let node = self.add_local(source, shown, excludes, paths);
                self.state(id).fs = Some(node);
            }
            NamedContext::Source { identifier, attrs } => {
                let op = SourceOp {
                    identifier: identifier.clone(),
                    attrs: attrs.clone(),
                    platform: None,
                };
                let name = if identifier.starts_with("git://") {
                    format!("[internal] load git source {identifier}")
                } else {
                    format!("[context {key}] {identifier}")
                };
                let meta = Meta { name, ..Meta::default() };
                self.state(id).fs = Some(self.draft.add(Op::Source(op), Vec::new(), meta));
            }
        }
        Ok(None)
    }

    /// Takes the answer to what [`Self::pending`] asked.
    pub(crate) fn resolved(
        &mut self,
        id: StageId,
        answer: Option<&Result<ResolvedImage, GatewayError>>,
    ) -> Result<(), LowerError> {
        let image = match answer {
            Some(Ok(image)) => image,
            Some(Err(error)) => return Err(self.unresolved(id, error)),
            None => {
                let text = format!("{}: no answer", self.stages[id].base_name);
                return Err(Diagnostic::new(self.stages[id].span, text).into());
            }
        };
        let key = self.context_key(id);
        let is_context = key.is_some();
        let name = match key {
            Some(key) if image.pinned.starts_with("oci-layout://") => {
                format!("[context {key}] OCI load from client")
            }
            Some(key) => format!("[context {key}] {}", without_scheme(&image.pinned)),
            None => {
                let text = format!("FROM {}", without_scheme(&image.pinned));
                self.next_step(id, &text, false)
            }
        };
        let span = self.stages[id].span;
        let whole_stage = self.stages[id].context.is_some();
        let platform = self.states[id.0].platform.clone();
        if !is_context {
            self.warn_other_platform(id, &platform, &image.config);
        }
        if !has_no_layers(&image.config) {
            let op = SourceOp {
                identifier: image.pinned.clone(),
                attrs: BTreeMap::new(),
                platform: Some(platform.normalized()),
            };
            let meta = Meta { name, location: location(span), ..Meta::default() };
            let node = self.draft.add(Op::Source(op), Vec::new(), meta);
            self.state(id).fs = Some(node);
        }
        let is_implicit = self.stages[id].is_implicit();
        let state = self.state(id);
        state.image = based_on(&image.config);
        state.pinned = state.fs.is_some().then(|| image.pinned.clone());
        if is_implicit {
            state.progress = Progress::Done;
        }
        if whole_stage && !image.config.os.is_empty() && !image.config.architecture.is_empty() {
            state.platform = Platform {
                os: image.config.os.clone(),
                architecture: image.config.architecture.clone(),
                variant: image.config.variant.clone().unwrap_or_default(),
                os_version: image.config.os_version.clone().unwrap_or_default(),
            };
        }
        for line in &state.image.config.env {
            let (name, value) = scope::split_pair(line);
            state.env.set(name, value);
        }
        Ok(())
    }

    /// The named context that a stage is from.
    fn context_key(&self, id: StageId) -> Option<String> {
        let stage = &self.stages[id];
        if stage.context.is_some() {
            return stage.context.clone();
        }
        let naming = Naming {
            options: self.options(),
            target_platform: &self.target_platform,
            globals: &self.globals,
            rules: self.rules,
        };
        let full = stage.base_name.parse::<Reference>().ok()?.or_latest().to_string();
        named_context(&full, Some(&self.states[id.0].platform), &naming).ok().flatten()
    }

    fn unresolved(&self, id: StageId, error: &GatewayError) -> LowerError {
        let stage = &self.stages[id];
        let known = self.stages.names().into_iter().filter(|it| *it != stage.shown_name);
        let suggestion = suggest::did_you_mean(&stage.base_name, known.chain(COMMON_IMAGES));
        let message = format!("{}: {}{suggestion}", stage.base_name, error.text);
        let mut diagnostic = Diagnostic::new(stage.span, message);
        diagnostic.help.clone_from(&error.hint);
        LowerError { diagnostics: diagnostic.into(), cause: Some(error.kind) }
    }

    fn warn_other_platform(&mut self, id: StageId, expected: &Platform, actual: &ImageConfig) {
        let Some(from) = self.stages[id].from else { return };
        if expected.os == actual.os && expected.architecture == actual.architecture {
            return;
        }
        let actual = Platform {
            os: actual.os.clone(),
            architecture: actual.architecture.clone(),
            variant: actual.variant.clone().unwrap_or_default(),
            os_version: String::new(),
        };
        let finding = Finding::invalid_base_image_platform(
            &from.image.value,
            &expected.normalized().to_string(),
            &actual.normalized().to_string(),
        );
        self.linter.report(&from.header, finding);
    }

    /// Puts the triggers of each needed stage's base before its instructions. Returns whether they
    /// need more stages.
    pub(crate) fn add_triggers(&mut self) -> Result<bool, LowerError> {
        let needed = self.needed();
        let mut has_needs = false;
        for id in self.stages.ids() {
            let stage = &self.stages[id];
            let state = &self.states[id.0];
            let is_own = !stage.is_implicit() && stage.context.is_none();
            if !needed[id.0] || state.has_triggers {
                continue;
            }
            let mut texts = state.image.config.on_build.clone();
            if let Some(base) = stage.base {
                texts.extend(triggers_of(&self.stages[base].commands));
            }
            let span = stage.span;
            let state = self.state(id);
            state.has_triggers = true;
            state.image.config.on_build.clear();
            if is_own && !texts.is_empty() {
                let triggers = parse_triggers(&texts, span)?;
                has_needs |= self.stages.add_triggers(id, triggers)?;
            }
        }
        self.make_states();
        Ok(has_needs)
    }
}

/// The triggers that a stage leaves to those that are from it.
fn triggers_of(commands: &[Command<'_>]) -> impl Iterator<Item = String> {
    commands.iter().filter_map(|command| {
        let Instruction::Onbuild(onbuild) = &*command.instruction else { return None };
        Some(onbuild.trigger.value.clone())
    })
}

fn parse_triggers(texts: &[String], span: Span) -> Result<Vec<Instruction>, LowerError> {
    texts.iter().map(|text| Ok(parse::parse_trigger(text, span)?)).collect()
}

fn without_scheme(pinned: &str) -> &str {
    pinned.split_once("://").map_or(pinned, |(_, rest)| rest)
}

/// The image that a named context means, in full form; none if it is `scratch`.
fn context_reference(name: &str, span: Span) -> Result<Option<String>, Diagnostic> {
    if name.starts_with("oci-layout://") {
        return Ok(Some(name.to_owned()));
    }
    let bare = name.strip_prefix("docker-image:").unwrap_or(name);
    let bare = bare.strip_prefix("//").unwrap_or(bare);
    if bare == SCRATCH {
        return Ok(None);
    }
    match bare.parse::<Reference>() {
        Ok(reference) => Ok(Some(reference.or_latest().to_string())),
        Err(error) => Err(Diagnostic::new(span, format!("{bare}: {error}"))),
    }
}

/// A main context that is not local: a git repository, or a file that may be an archive.
pub(crate) fn remote_context(
    draft: &mut Draft,
    identifier: &str,
    attrs: &BTreeMap<String, String>,
    unpack: bool,
) -> Node {
    let name = if identifier.starts_with("git://") {
        format!("[internal] load git source {identifier}")
    } else {
        "[internal] load remote build context".to_owned()
    };
    let file = attrs.get("http.filename").map_or("context", String::as_str);
    let op = SourceOp { identifier: identifier.to_owned(), attrs: attrs.clone(), platform: None };
    let source = draft.add(Op::Source(op), Vec::new(), Meta { name, ..Meta::default() });
    if !unpack {
        return source;
    }
    let mut unpacked = copy::plain_copy(&format!("/{file}"), "/");
    unpacked.attempt_unpack = true;
    let action = FileAction {
        input: FileInput::Scratch,
        secondary: Some(FileInput::Input(0)),
        output: Some(0),
        kind: FileActionKind::Copy(unpacked),
    };
    let name = "[internal] unpack remote build context".to_owned();
    let op = FileOp { actions: vec![action], platform: None };
    draft.add(Op::File(op), vec![source], Meta { name, ..Meta::default() })
}

/// Warns of `FROM`s that name no image if nothing is said on the command line.
pub(crate) fn warn_bad_defaults(
    input: Input<'_>,
    rules: Expander,
    platform_args: &Env,
    declared: &[&ArgInstruction],
    linter: &mut Linter,
) {
    let nothing = BTreeMap::new();
    let Ok(globals) = scope::globals(platform_args.clone(), rules, declared, &nothing) else {
        return;
    };
    for instruction in &input.dockerfile.instructions {
        let Instruction::From(from) = instruction else { continue };
        let Ok(name) = globals.env.expand(rules, &from.image.value) else { return };
        if name.text.parse::<Reference>().is_err() {
            let finding = Finding::invalid_default_arg_in_from(&from.image.value);
            linter.report(&from.header, finding);
        }
    }
}
