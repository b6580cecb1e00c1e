//! Stages: their names and numbers, what each needs, which ones a target reaches.
//!
//! A stage is what one `FROM` begins. What `COPY --from` and `RUN --mount=from=` name and no stage
//! is called, an image or a named context, is a stage too, an *implicit* one without instructions;
//! it takes the next number, as in BuildKit.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rbuild_store::platform::Platform;
use rbuild_store::reference::Reference;

use crate::ast::{Dockerfile, FromInstruction, Instruction};
use crate::diagnostic::Diagnostic;
use crate::expand::{Expander, Expansion};
use crate::gotext::quote;
use crate::lint::{Finding, Linter};
use crate::options::BuildOptions;
use crate::parse::mount;
use crate::scope::{Env, Globals};
use crate::suggest;
use crate::text::{Span, Word};

/// Stages of a circle that an error names; of more it says how many they are.
const MAX_SHOWN_STAGES: usize = 8;

/// The name of the image without files.
pub(crate) const SCRATCH: &str = "scratch";

/// Index of a stage: its number.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct StageId(pub(crate) usize);

/// An instruction of a stage and the stages that it takes files from.
#[derive(Clone, Debug)]
pub(crate) struct Command<'a> {
    /// The instruction; owned where it is a trigger.
    pub(crate) instruction: Cow<'a, Instruction>,
    /// For `COPY --from` the stage, for `RUN` one for each mount.
    pub(crate) sources: Vec<StageId>,
    /// Whether it is a trigger of the base (`ONBUILD`).
    pub(crate) is_trigger: bool,
}

/// A stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage<'a> {
    /// Its `FROM`; none if it is implicit.
    pub(crate) from: Option<&'a FromInstruction>,
    /// The lines to blame: its `FROM`, or the instruction that names it.
    pub(crate) span: Span,
    /// `AS name`; empty if it has none.
    pub(crate) name: String,
    /// What progress calls it; empty if it is the only stage.
    pub(crate) shown_name: String,
    /// Image, stage or `scratch`, variables expanded.
    pub(crate) base_name: String,
    /// The stage that `base_name` names.
    pub(crate) base: Option<StageId>,
    /// `--platform`.
    pub(crate) platform: Option<Platform>,
    /// The named context that stands in for it: its key in the options.
    pub(crate) context: Option<String>,
    /// Its instructions, `FROM` not among them.
    pub(crate) commands: Vec<Command<'a>>,
    /// Stages that it takes files from, and the instructions that do.
    pub(crate) needs: Vec<(StageId, Span)>,
    /// How many steps progress counts.
    pub(crate) n_steps: usize,
    /// Global arguments that its `FROM` uses.
    pub(crate) used_args: BTreeSet<String>,
}

impl Stage<'_> {
    /// Whether it is none of the Dockerfile's.
    pub(crate) fn is_implicit(&self) -> bool {
        self.from.is_none()
    }
}

/// All stages, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stages<'a> {
    list: Vec<Stage<'a>>,
    by_name: BTreeMap<String, StageId>,
}

impl<'a> std::ops::Index<StageId> for Stages<'a> {
    type Output = Stage<'a>;

    fn index(&self, id: StageId) -> &Stage<'a> {
        &self.list[id.0]
    }
}

impl std::ops::IndexMut<StageId> for Stages<'_> {
    fn index_mut(&mut self, id: StageId) -> &mut Self::Output {
        &mut self.list[id.0]
    }
}

/// What names of stages depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    /// Named contexts, platform.
    pub(crate) options: &'a BuildOptions,
    /// The platform that is built.
    pub(crate) target_platform: &'a Platform,
    /// Global variables.
    pub(crate) globals: &'a Globals,
    /// How words are expanded.
    pub(crate) rules: Expander,
}

impl<'a> Stages<'a> {
    /// The stages of a Dockerfile, names expanded; what they need is not known yet.
    pub(crate) fn collect(
        dockerfile: &'a Dockerfile,
        naming: &Naming<'_>,
        linter: &mut Linter,
    ) -> Result<Self, Diagnostic> {
        let mut stages = Self::default();
        for instruction in &dockerfile.instructions {
            if let Instruction::From(from) = instruction {
                let number = stages.list.len();
                let mut stage = name_stage(from, number, naming, linter)?;
                stage.context = match stage.name.as_str() {
                    "" => None,
                    name => named_context(name, stage.platform.as_ref(), naming)
                        .map_err(|text| Diagnostic::new(stage.span, text))?,
                };
                stages.add(stage);
            } else if let Some(stage) = stages.list.last_mut() {
                stage.commands.push(Command {
                    instruction: Cow::Borrowed(instruction),
                    sources: Vec::new(),
                    is_trigger: false,
                });
            }
        }
        for stage in &mut stages.list {
            if stage.context.is_some() {
                stage.base = None;
                continue;
            }
            let is_from_image = stage.base.is_none() && stage.base_name != SCRATCH;
            let n_counted = stage.commands.iter().filter(|it| is_counted(&it.instruction)).count();
            stage.n_steps = n_counted + usize::from(is_from_image);
        }
        Ok(stages)
    }

    fn add(&mut self, mut stage: Stage<'a>) -> StageId {
        let id = StageId(self.list.len());
        stage.base = self.by_name.get(&stage.base_name).copied();
        if !stage.name.is_empty() {
            self.by_name.insert(stage.name.clone(), id);
        }
        self.list.push(stage);
        id
    }

    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = StageId> + use<> {
        (0..self.list.len()).map(StageId)
    }

    /// Names, for suggestions.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.list.iter().map(|it| it.shown_name.as_str()).filter(|it| !it.is_empty()).collect()
    }

    /// The stage that is built: the named one, or the last. To be asked before [`Self::link`].
    pub(crate) fn target(&self, name: Option<&str>) -> Result<StageId, Diagnostic> {
        let Some(name) = name.filter(|it| !it.is_empty()) else {
            let last = self.list.len().checked_sub(1).map(StageId);
            return last.ok_or_else(|| {
                Diagnostic::of_file("dockerfile contains no stages to build")
                    .with_help("begin it with a FROM instruction")
            });
        };
        self.by_name.get(&name.to_lowercase()).copied().ok_or_else(|| {
            let names = self.names();
            let suggestion = suggest::did_you_mean(name, names.iter().copied());
            let quoted = quote(name);
            let mut error = Diagnostic::of_file(format!(
                "target stage {quoted} could not be found{suggestion}"
            ));
            if !names.is_empty() {
                error = error.with_help(format!("stages are: {}", names.join(", ")));
            }
            error
        })
    }

    /// Finds out what each stage needs. Afterwards the last stages are the implicit ones.
    pub(crate) fn link(&mut self) -> Result<(), Diagnostic> {
        let mut id = StageId(0);
        while id.0 < self.list.len() {
            for index in 0..self[id].commands.len() {
                self.link_command(id, index)?;
            }
            id.0 += 1;
        }
        self.check_cycles()?;
        if let [only] = &mut self.list[..] {
            only.shown_name.clear();
        }
        Ok(())
    }

    /// Puts triggers of the base before the instructions of a stage. Returns whether they take
    /// files from other stages.
    pub(crate) fn add_triggers(
        &mut self,
        id: StageId,
        triggers: Vec<Instruction>,
    ) -> Result<bool, Diagnostic> {
        let n_triggers = triggers.len();
        let commands = triggers.into_iter().map(|instruction| Command {
            instruction: Cow::Owned(instruction),
            sources: Vec::new(),
            is_trigger: true,
        });
        self[id].commands.splice(0..0, commands);
        self[id].n_steps += n_triggers;
        let mut has_sources = false;
        for index in 0..n_triggers {
            self.link_command(id, index)?;
            has_sources |= !self[id].commands[index].sources.is_empty();
        }
        Ok(has_sources)
    }

    fn link_command(&mut self, id: StageId, index: usize) -> Result<(), Diagnostic> {
        let instruction = self[id].commands[index].instruction.clone();
        let span = instruction.header().span;
        let names: Vec<String> = if let Instruction::Copy(copy) = &*instruction {
            let from = copy.from.iter().filter(|from| !from.value.is_empty());
            from.map(|from| from.value.clone()).collect()
        } else if let Instruction::Run(run) = &*instruction {
            let sources = run.mounts.iter().map(|it| mount::source_name(&it.value));
            sources.map(|name| name.unwrap_or_else(|| SCRATCH.to_owned())).collect()
        } else {
            return Ok(());
        };
        let is_copy = matches!(&*instruction, Instruction::Copy(_));
        let mut sources = Vec::with_capacity(names.len());
        for name in names {
            let source = if is_copy { self.copy_source(&name, span)? } else { None };
            let source = source.or_else(|| self.by_name.get(&name.to_lowercase()).copied());
            let source = source
                .unwrap_or_else(|| self.add(Stage { base_name: name, span, ..Stage::default() }));
            self[id].needs.push((source, span));
            sources.push(source);
        }
        self[id].commands[index].sources = sources;
        Ok(())
    }

    /// The stage that `COPY --from` means by number; none if it is a name.
    fn copy_source(&self, name: &str, span: Span) -> Result<Option<StageId>, Diagnostic> {
        let without_variables = Expander::new('\\').expand(name, &|_| None);
        if without_variables.map_or(true, |it| it.text != name) {
            let message = "variable expansion is not supported for --from, define a new stage with \
                           FROM using ARG from global scope as a workaround";
            return Err(Diagnostic::new(span, message));
        }
        let Ok(number) = name.parse::<i64>() else { return Ok(None) };
        match usize::try_from(number) {
            Ok(index) if index < self.list.len() => Ok(Some(StageId(index))),
            Ok(_) | Err(_) => Err(Diagnostic::new(span, format!("invalid stage index {number}"))
                .with_help("stages are counted from 0")),
        }
    }

    /// Refuses stages that need each other. (A base is always an earlier stage.)
    fn check_cycles(&self) -> Result<(), Diagnostic> {
        #[derive(Clone, Copy, Eq, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.list.len()];
        for start in self.ids() {
            // Depth first, with a stack of its own: a chain of stages is as long as the file.
            let mut stack = vec![(start, 0)];
            while let Some((id, next)) = stack.pop() {
                marks[id.0] =
                    if next == 0 && marks[id.0] == Mark::Done { continue } else { Mark::Open };
                let Some(&(needed, span)) = self[id].needs.get(next) else {
                    marks[id.0] = Mark::Done;
                    continue;
                };
                stack.push((id, next + 1));
                match marks[needed.0] {
                    Mark::New => stack.push((needed, 0)),
                    Mark::Open => {
                        let open: Vec<StageId> = stack.iter().map(|&(id, _)| id).collect();
                        return Err(self.cycle(span, start, &open, needed));
                    }
                    Mark::Done => {}
                }
            }
        }
        Ok(())
    }

    /// Stages need each other: those of `open` from `needed` on.
    fn cycle(&self, span: Span, start: StageId, open: &[StageId], needed: StageId) -> Diagnostic {
        let name = &self[start].shown_name;
        let message = format!("circular dependency detected on stage: {name}");
        let error = Diagnostic::new(span, message);
        let first = open.iter().position(|id| *id == needed).unwrap_or_default();
        let names: Vec<&str> =
            open[first..].iter().map(|id| self[*id].shown_name.as_str()).collect();
        match &names[..] {
            [_] => error.with_help("a stage cannot take files from itself: name an earlier one"),
            [first, ..] if names.len() <= MAX_SHOWN_STAGES => error
                .with_note(format!("each needs files of the next: {}, {first}", names.join(", ")))
                .with_help("move what they share into a stage that needs none of them"),
            _ => error.with_note(format!("{} stages need files of each other", names.len())),
        }
    }

    /// Which stages `target` needs, itself included, by number.
    pub(crate) fn reachable(&self, target: StageId) -> Vec<bool> {
        let mut is_reached = vec![false; self.list.len()];
        let mut stack = vec![target];
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut is_reached[id.0], true) {
                stack.extend(self[id].base);
                stack.extend(self[id].needs.iter().map(|&(needed, _)| needed));
            }
        }
        is_reached
    }
}

/// Whether progress counts an instruction.
fn is_counted(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
    )
}

/// Expands image and platform of a `FROM`.
fn name_stage<'a>(
    from: &'a FromInstruction,
    number: usize,
    naming: &Naming<'_>,
    linter: &mut Linter,
) -> Result<Stage<'a>, Diagnostic> {
    let span = from.header.span;
    let globals = &naming.globals.env;
    let expansion = globals.expand(naming.rules, &from.image.value);
    let image = expansion.map_err(|error| Diagnostic::new(from.image.span, error.to_string()))?;
    warn_undeclared(from, &image, naming.globals, linter);
    if image.text.is_empty() {
        let written = &from.image.value;
        return Err(Diagnostic::new(
            from.image.span,
            format!("base name ({written}) should not be blank"),
        )
        .with_help("declare the variable with ARG before the first FROM"));
    }
    let mut used_args = image.matched;
    let name = from.alias.as_ref().map(|it| it.name.clone()).unwrap_or_default();
    let mut platform = None;
    if let Some(written) = from.platform.as_ref().filter(|it| !it.value.is_empty()) {
        let (parsed, matched) = stage_platform(from, written, naming, &name, linter)?;
        used_args.extend(matched);
        platform = Some(parsed);
    }
    Ok(Stage {
        from: Some(from),
        span,
        shown_name: if name.is_empty() { format!("stage-{number}") } else { name.clone() },
        name,
        base_name: image.text,
        platform,
        used_args,
        ..Stage::default()
    })
}

fn stage_platform(
    from: &FromInstruction,
    word: &Word,
    naming: &Naming<'_>,
    name: &str,
    linter: &mut Linter,
) -> Result<(Platform, BTreeSet<String>), Diagnostic> {
    let (written, span) = (word.value.as_str(), word.span);
    let globals = &naming.globals.env;
    let expansion = globals.expand(naming.rules, written).map_err(|error| {
        Diagnostic::new(
            span,
            format!("failed to process arguments for platform {written}: {error}"),
        )
    })?;
    warn_undeclared(from, &expansion, naming.globals, linter);
    let suggestion = || {
        let mut names = expansion.unmatched.iter();
        names
            .find_map(|it| suggest::nearest(it, globals.names()))
            .map_or(String::new(), |it| format!(" (did you mean {it}?)"))
    };
    warn_platform(from, written, &expansion, name, globals, linter);
    if expansion.text.is_empty() {
        let message = format!("empty platform value from expression {written}{}", suggestion());
        return Err(Diagnostic::new(span, message));
    }
    match expansion.text.parse::<Platform>() {
        Ok(platform) => Ok((platform, expansion.matched)),
        Err(error) => {
            let message = format!("failed to parse platform {written}: {error}{}", suggestion());
            Err(Diagnostic::new(span, message).with_help("for example linux/amd64, linux/arm/v7"))
        }
    }
}

fn warn_undeclared(
    from: &FromInstruction,
    expansion: &Expansion,
    globals: &Globals,
    linter: &mut Linter,
) {
    let known: Vec<&str> =
        globals.args.keys().map(String::as_str).chain(globals.env.names()).collect();
    for name in expansion.unmatched.iter().filter(|it| !known.contains(&it.as_str())) {
        let suggestion = suggest::nearest(name, known.iter().copied());
        linter.report(&from.header, Finding::undefined_arg_in_from(name, suggestion));
    }
}

fn warn_platform(
    from: &FromInstruction,
    written: &str,
    expansion: &Expansion,
    stage_name: &str,
    globals: &Env,
    linter: &mut Linter,
) {
    let is_constant = expansion.matched.is_empty() && expansion.unmatched.is_empty();
    let only_target = expansion.unmatched.is_empty()
        && expansion.matched.iter().eq(["TARGETPLATFORM"])
        && globals.get("TARGETPLATFORM") == Some(&expansion.text);
    if only_target {
        linter.report(&from.header, Finding::redundant_target_platform(written));
    } else if is_constant
        && let Ok(platform) = expansion.text.parse::<Platform>()
        && !stage_name.contains(&platform.os)
        && !stage_name.contains(&platform.architecture)
    {
        let finding = Finding::from_platform_flag_const_disallowed(&expansion.text);
        linter.report(&from.header, finding);
    }
}

/// The key of the named context that is called `name`: by platform first (`name::linux/amd64`).
///
/// # Errors
///
/// If no context can be called so.
pub(crate) fn named_context(
    name: &str,
    platform: Option<&Platform>,
    naming: &Naming<'_>,
) -> Result<Option<String>, String> {
    if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
        return Ok(None);
    }
    let reference: Reference =
        name.parse().map_err(|error| format!("invalid context name {name}: {error}"))?;
    let familiar = reference.familiar();
    let familiar = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let platform = platform.unwrap_or(naming.target_platform).normalized();
    let of_platform = format!("{familiar}::{platform}");
    let known = &naming.options.named_contexts;
    Ok([of_platform.as_str(), familiar]
        .into_iter()
        .find(|key| known.contains_key(*key))
        .map(str::to_owned))
}
