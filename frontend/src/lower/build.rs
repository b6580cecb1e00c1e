//! One walk: the lowering of a Dockerfile for one platform.

use std::collections::BTreeMap;

use rbuild_solver::llb::{Graph, Location, Meta};
use rbuild_store::image::config::History;
use rbuild_store::platform::Platform;

use crate::ast::{ArgInstruction, Header, Instruction};
use crate::diagnostic::Diagnostic;
use crate::expand::Expander;
use crate::gateway::GatewayError;
use crate::gotext::quote;
use crate::lint::{Finding, Linter};
use crate::lower::draft::{Draft, Node};
use crate::lower::local::{self, LocalContext, UsedPaths};
use crate::lower::stage::StageState;
use crate::lower::{Input, LowerError, Target};
use crate::options::{BuildOptions, MainContext, NoCache};
use crate::scope::{self, Globals};
use crate::stages::{Naming, StageId, Stages};
use crate::suggest;
use crate::text::{Span, Word};

/// Most bytes that names, histories and environments of all stages may have together: variables
/// that hold each other grow exponentially, and each step repeats them.
pub(crate) const MAX_LOWERED_BYTES: usize = 256 << 20;

/// Set of paths that are used of the main context.
pub(crate) const MAIN_PATHS: usize = 0;

/// The state of a walk.
pub(crate) struct Build<'a> {
    pub(crate) input: Input<'a>,
    /// The platform that is built.
    pub(crate) target_platform: Platform,
    /// Whether nobody asked for it.
    pub(crate) is_implicit_target: bool,
    /// `--build-arg`s.
    pub(crate) given: BTreeMap<String, String>,
    /// Global variables.
    pub(crate) globals: Globals,
    /// How words are expanded.
    pub(crate) rules: Expander,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
    /// The stages.
    pub(crate) stages: Stages<'a>,
    /// Their states, by number.
    pub(crate) states: Vec<StageState>,
    /// The stage that is built.
    pub(crate) target: StageId,
    /// The graph so far.
    pub(crate) draft: Draft,
    /// Paths that are used, of the main context first, then of each stage.
    pub(crate) paths: Vec<UsedPaths>,
    /// Local contexts.
    pub(crate) locals: Vec<LocalContext>,
    /// The main context, once an instruction needed it.
    main: Option<Node>,
    /// Patterns of the ignore file of the main context, once they were asked for.
    excludes: Option<Vec<String>>,
    /// Bytes of names, histories and environments so far.
    spent: usize,
    /// Takes warnings.
    pub(crate) linter: &'a mut Linter,
}

impl<'a> Build<'a> {
    /// Names the stages and finds out what they need. `platform` is none if nobody asked for one.
    pub(crate) fn new(
        input: Input<'a>,
        platform: Option<&Platform>,
        linter: &'a mut Linter,
    ) -> Result<Self, LowerError> {
        let options = input.options;
        refuse_removed(&options.build_args)?;
        let rules = Expander::new(input.dockerfile.directives.escape);
        let target_platform = platform.unwrap_or(&options.build_platform).clone();
        let mut given = options.build_args.clone();
        let platform_args = scope::platform_args(
            &options.build_platform,
            &target_platform,
            target_name(input),
            &given,
        );
        let declared = global_args(input);
        super::resolve::warn_bad_defaults(input, rules, &platform_args, &declared, linter);
        let mut globals = scope::globals(platform_args, rules, &declared, &given)?;
        let epoch = super::epoch::settle(input, rules, &mut given, &mut globals)?;
        let naming =
            Naming { options, target_platform: &target_platform, globals: &globals, rules };
        let mut stages = Stages::collect(input.dockerfile, &naming, linter)?;
        let target = stages.target(options.target.as_deref())?;
        stages.link()?;
        let mut build = Self {
            input,
            target_platform,
            is_implicit_target: platform.is_none(),
            given,
            globals,
            rules,
            epoch,
            stages,
            states: Vec::new(),
            target,
            draft: Draft::default(),
            paths: vec![UsedPaths::default()],
            locals: Vec::new(),
            main: None,
            excludes: None,
            spent: 0,
            linter,
        };
        build.make_states();
        Ok(build)
    }

    /// Gives each stage that has none a state.
    pub(crate) fn make_states(&mut self) {
        for id in self.stages.ids().skip(self.states.len()) {
            let stage = &self.stages[id];
            let ignore_cache = !stage.is_implicit()
                && match &self.input.options.no_cache {
                    NoCache::Never => false,
                    NoCache::All => true,
                    NoCache::Stages(names) => {
                        names.iter().any(|name| name.eq_ignore_ascii_case(&stage.name))
                    }
                };
            let paths = self.paths.len();
            self.paths.push(UsedPaths::default());
            self.states.push(StageState { paths, ignore_cache, ..StageState::default() });
        }
    }

    /// What the caller asked for.
    pub(crate) fn options(&self) -> &'a BuildOptions {
        self.input.options
    }

    /// The state of a stage.
    pub(crate) fn state(&mut self, id: StageId) -> &mut StageState {
        &mut self.states[id.0]
    }

    /// Which stages are lowered, by number.
    pub(crate) fn needed(&self) -> Vec<bool> {
        if self.options().all_stages {
            return vec![true; self.states.len()];
        }
        self.stages.reachable(self.target)
    }

    /// Lowers what is needed and writes it to `graph`.
    pub(crate) fn finish(&mut self, graph: &mut Graph) -> Result<Target, LowerError> {
        let needed = self.needed();
        for id in self.stages.ids() {
            if needed[id.0] && !self.states[id.0].is_done() {
                self.lower_stage(id)?;
            }
        }
        let target = self.target.0;
        let paths = self.states[target].paths;
        self.paths[paths].add("/");
        let mut state = self.states[target].clone();
        state.image.history = self.history();
        state.image.config.labels.extend(self.options().labels.clone());
        if !self.is_implicit_target {
            self.claim_platform(&mut state);
        }
        let platform = Platform {
            os: state.image.os.clone(),
            architecture: state.image.architecture.clone(),
            variant: state.image.variant.clone().unwrap_or_default(),
            os_version: String::new(),
        };
        let platform = platform.normalized();
        state.image.os = platform.os;
        state.image.architecture = platform.architecture;
        state.image.variant = super::stage::some(&platform.variant);
        let (locals, sets) = (&self.locals, &self.paths);
        let draft = std::mem::take(&mut self.draft);
        let edges = draft.finish(graph, &[state.fs], &|number| locals[number].to_op(sets));
        Ok(Target {
            platform: self.target_platform.normalized(),
            edge: edges.into_iter().next().flatten(),
            config: state.image,
            base: state.pinned,
            epoch: self.epoch,
        })
    }

    /// The history of the target: that of its bases, the first one first.
    fn history(&self) -> Vec<History> {
        let mut ids = vec![self.target];
        while let Some(base) = ids.last().and_then(|&id| self.stages[id].base) {
            ids.push(base);
        }
        let histories = ids.iter().rev().map(|id| &self.states[id.0].image.history);
        histories.flatten().cloned().collect()
    }

    /// The image is for the platform that was asked for, whatever its base says.
    fn claim_platform(&self, state: &mut StageState) {
        let platform = &self.target_platform;
        let image = &mut state.image;
        let is_same = platform.os == image.os && platform.architecture == image.architecture;
        image.os.clone_from(&platform.os);
        image.architecture.clone_from(&platform.architecture);
        if !platform.variant.is_empty() || !is_same {
            image.variant = super::stage::some(&platform.variant);
        }
        if !platform.os_version.is_empty() || !is_same {
            image.os_version = super::stage::some(&platform.os_version);
        }
    }

    /// The main context.
    pub(crate) fn main_context(&mut self) -> Result<Node, LowerError> {
        if let Some(main) = self.main {
            return Ok(main);
        }
        let main = match &self.options().context {
            MainContext::Local => {
                let excludes = self.main_excludes()?.to_vec();
                let shown = "[internal] load build context".to_owned();
                self.add_local(local::MAIN, shown, excludes, MAIN_PATHS)
            }
            MainContext::Source { identifier, attrs, unpack } => {
                super::resolve::remote_context(&mut self.draft, identifier, attrs, *unpack)
            }
        };
        self.main = Some(main);
        Ok(main)
    }

    /// Patterns of the ignore file of the main context; none where it is not local.
    pub(crate) fn main_excludes(&mut self) -> Result<&[String], LowerError> {
        if self.excludes.is_none() {
            let options = self.options();
            let excludes = match options.context {
                MainContext::Local => local::main_excludes(self.input.gateway, &options.dockerfile)
                    .map_err(of_gateway)?,
                MainContext::Source { .. } => Vec::new(),
            };
            self.excludes = Some(excludes);
        }
        Ok(self.excludes.as_deref().unwrap_or_default())
    }

    /// A local source; one for all users of the same context.
    pub(crate) fn add_local(
        &mut self,
        source: &str,
        shown: String,
        excludes: Vec<String>,
        paths: usize,
    ) -> Node {
        let known = self.locals.iter().position(|it| it.source == source && it.shown == shown);
        let number = known.unwrap_or_else(|| {
            let source = source.to_owned();
            self.locals.push(LocalContext { source, shown, excludes, paths: Vec::new() });
            self.locals.len() - 1
        });
        self.locals[number].paths.push(paths);
        self.draft.add_local(number)
    }

    /// Counts bytes that stay in memory.
    pub(crate) fn spend(&mut self, n_bytes: usize) {
        self.spent = self.spent.saturating_add(n_bytes);
    }

    /// Refuses to go on if too many bytes are in memory.
    pub(crate) fn check_spent(&self, span: Span) -> Result<(), Diagnostic> {
        if self.spent <= MAX_LOWERED_BYTES {
            return Ok(());
        }
        let message =
            format!("the instructions up to here expand to more than {MAX_LOWERED_BYTES} bytes");
        Err(Diagnostic::new(span, message).with_help("look for variables that hold each other"))
    }

    /// `[stage 2/4] text`; counts a step.
    pub(crate) fn next_step(&mut self, id: StageId, text: &str, is_trigger: bool) -> String {
        self.states[id.0].step += 1;
        self.spend(text.len());
        self.step_name(id, text, is_trigger)
    }

    /// The name of the current step with another text.
    pub(crate) fn step_name(&self, id: StageId, text: &str, is_trigger: bool) -> String {
        let stage = &self.stages[id];
        let state = &self.states[id.0];
        let total = stage.n_steps;
        if total == 0 {
            return text.to_owned();
        }
        let mut prefix = String::from("[");
        if self.options().multi_platform {
            let platform = &state.platform;
            prefix.push_str(&platform.to_string());
            if let Some(target) = scope::platform_from(&state.env, platform) {
                prefix.push_str(&cross_suffix(platform, &target));
            }
            prefix.push(' ');
        }
        if !stage.shown_name.is_empty() {
            prefix.push_str(&stage.shown_name);
            prefix.push(' ');
        }
        let width = total.ilog10() as usize + 1;
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        format!("{prefix}{:width$}/{total}] {trigger}{text}", state.step)
    }

    /// The description of a vertex that an instruction makes.
    pub(crate) fn meta(&self, id: StageId, header: &Header, name: String) -> Meta {
        let command = ("com.docker.dockerfile.v1.command".to_owned(), header.original.clone());
        Meta {
            name,
            location: location(header.span),
            ignore_cache: self.states[id.0].ignore_cache,
            description: BTreeMap::from([command]),
        }
    }

    /// Warns of variables that nobody set. Arguments that the stage declares are not meant.
    pub(crate) fn warn_unset<'n>(
        &mut self,
        id: StageId,
        header: &Header,
        unset: impl IntoIterator<Item = &'n String>,
    ) {
        let state = &self.states[id.0];
        for name in unset {
            if state.build_args.iter().any(|(declared, _)| declared == name)
                || scope::NOT_IN_ENVIRONMENT.contains(&name.as_str())
            {
                continue;
            }
            let suggestion = suggest::nearest(name, state.env.names());
            self.linter.report(header, Finding::undefined_var(name, suggestion));
        }
    }

    /// Expands a piece of an instruction.
    pub(crate) fn expand_with(
        &mut self,
        id: StageId,
        header: &Header,
        rules: Expander,
        text: &str,
        span: Span,
    ) -> Result<String, Diagnostic> {
        let expansion = self.states[id.0]
            .env
            .expand(rules, text)
            .map_err(|error| Diagnostic::new(span, error.to_string()))?;
        self.warn_unset(id, header, &expansion.unmatched);
        self.spend(expansion.text.len());
        self.check_spent(span)?;
        Ok(expansion.text)
    }

    /// Expands a word by the rules of most instructions.
    pub(crate) fn expand(
        &mut self,
        id: StageId,
        header: &Header,
        word: &Word,
    ) -> Result<String, Diagnostic> {
        let rules = self.rules;
        self.expand_with(id, header, rules, &word.value, word.span)
    }

    /// Expands the value of a flag; empty where it is not given.
    pub(crate) fn expand_flag(
        &mut self,
        id: StageId,
        header: &Header,
        word: Option<&Word>,
    ) -> Result<String, Diagnostic> {
        word.map_or(Ok(String::new()), |word| self.expand(id, header, word))
    }

    /// What progress calls an instruction: its line with variables expanded, if that is possible.
    pub(crate) fn shown_line(&self, id: StageId, header: &Header) -> String {
        let expanded = self.states[id.0].env.expand(self.rules, &header.original);
        upper_keyword(&expanded.map_or_else(|_| header.original.clone(), |it| it.text))
    }
}

/// The line with its first word in capital letters.
pub(crate) fn upper_keyword(line: &str) -> String {
    let (keyword, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
    format!("{}{rest}", keyword.to_uppercase())
}

/// Lines of a span, for error excerpts.
pub(crate) fn location(span: Span) -> Option<Location> {
    (span.first_line > 0).then_some(Location {
        file: 0,
        first: span.first_line,
        last: span.last_line,
    })
}

/// A question to the world failed and no line is to blame.
pub(crate) fn of_gateway(error: GatewayError) -> LowerError {
    let mut diagnostic = Diagnostic::of_file(error.text);
    diagnostic.help = error.hint;
    LowerError { diagnostics: diagnostic.into(), cause: Some(error.kind) }
}

/// `->arm64`, where a stage on `base` builds for another architecture.
fn cross_suffix(base: &Platform, target: &Platform) -> String {
    if target.os != base.os {
        return format!("->{target}");
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    match target.variant.as_str() {
        "" => format!("->{}", target.architecture),
        variant => format!("->{}/{variant}", target.architecture),
    }
}

/// `ARG`s before the first `FROM`.
fn global_args(input: Input<'_>) -> Vec<&ArgInstruction> {
    let instructions = input.dockerfile.instructions.iter();
    instructions
        .map_while(|it| if let Instruction::Arg(arg) = it { Some(arg) } else { None })
        .collect()
}

/// The name of the stage that is built, for `TARGETSTAGE`.
fn target_name(input: Input<'_>) -> &str {
    if let Some(target) = input.options.target.as_deref().filter(|it| !it.is_empty()) {
        return target;
    }
    let mut instructions = input.dockerfile.instructions.iter().rev();
    let last = instructions
        .find_map(|it| if let Instruction::From(from) = it { Some(from) } else { None });
    last.and_then(|from| from.alias.as_ref()).map_or("", |alias| &alias.name)
}

/// Build arguments that BuildKit once knew.
fn refuse_removed(given: &BTreeMap<String, String>) -> Result<(), Diagnostic> {
    const REMOVED: &str = "BUILDKIT_DISABLE_FILEOP";
    match given.get(REMOVED).map(String::as_str) {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Err(Diagnostic::of_file(format!(
            "support for {} build-arg was removed in BuildKit 0.11",
            quote(REMOVED)
        ))),
        Some(_) | None => Ok(()),
    }
}
