//! Lowering: a Dockerfile to a graph and image configurations.
//!
//! ```text
//! stages and their names -> what the target reaches -> images asked for, all at once
//!   -> triggers of the bases (which may need more) -> each stage, instruction by instruction
//!   -> the graph, with the paths that are used of each local context
//! ```
//!
//! Nothing is lowered, and no image asked for, that the target does not need. Several platforms
//! are several walks into one graph, whose equal vertices are one.

mod build;
mod config;
mod copy;
mod dispatch;
mod draft;
mod epoch;
pub(crate) mod expose;
pub mod git_ref;
mod local;
mod mode;
pub(crate) mod mount;
mod outline;
pub(crate) mod paths;
mod resolve;
mod run;
mod stage;

use rbuild_solver::llb::{Edge, Graph, SourceFile};
use rbuild_store::image::config::ImageConfig;
use rbuild_store::platform::Platform;

use crate::ast::{Dockerfile, Instruction};
use crate::call::Outline;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::gateway::{Gateway, GatewayErrorKind, ImageRequest};
use crate::lint::{Linter, check_syntax};
use crate::options::BuildOptions;
use crate::stages::Command;
use crate::text::SourceText;

use build::Build;

/// What a Dockerfile means.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// What is to be done.
    pub graph: Graph,
    /// The images, one for each platform.
    pub targets: Vec<Target>,
}

/// One image.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its platform in normal form.
    pub platform: Platform,
    /// Its files; none means an empty tree.
    pub edge: Option<Edge>,
    /// Its configuration with all the history. Layers (`rootfs`), `created` and, where there is
    /// no epoch, the times in the history are left to the exporter.
    pub config: ImageConfig,
    /// The image that its files begin with, pinned; none if it is `FROM scratch`.
    pub base: Option<String>,
    /// `SOURCE_DATE_EPOCH` in seconds, if there is one.
    pub epoch: Option<i64>,
}

/// A Dockerfile cannot be lowered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{diagnostics}")]
pub struct LowerError {
    /// What is wrong and where.
    pub diagnostics: Diagnostics,
    /// What the world answered, if that was the cause.
    pub cause: Option<GatewayErrorKind>,
}

impl From<Diagnostic> for LowerError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: diagnostic.into(), cause: None }
    }
}

impl From<Diagnostics> for LowerError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { diagnostics, cause: None }
    }
}

/// What all platforms have in common.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) options: &'a BuildOptions,
    pub(crate) gateway: &'a dyn Gateway,
}

/// Lowers a Dockerfile for the platforms of `options`. All rules of the linter run; what they find
/// before an error is in `linter`, too.
///
/// # Errors
///
/// What is wrong with the Dockerfile or with what it names, with its lines. Also if there are
/// warnings and the options of the linter make them errors.
pub fn lower(
    dockerfile: &Dockerfile,
    source: &SourceText,
    options: &BuildOptions,
    gateway: &dyn Gateway,
    linter: &mut Linter,
) -> Result<Lowered, LowerError> {
    check_syntax(dockerfile, linter);
    let lowered = lower_with(Input { dockerfile, options, gateway }, source, linter)?;
    match linter.failure() {
        Some(message) => Err(Diagnostic::of_file(message).into()),
        None => Ok(lowered),
    }
}

/// Parameters of the target: what `--call=outline` answers. Of several platforms the first.
///
/// # Errors
///
/// As [`lower`].
pub fn outline(
    dockerfile: &Dockerfile,
    source: &SourceText,
    options: &BuildOptions,
    gateway: &dyn Gateway,
) -> Result<Outline, LowerError> {
    let mut linter = Linter::default();
    let input = Input { dockerfile, options, gateway };
    let mut build = Build::new(input, options.platforms.first(), &mut linter)?;
    resolve_all(gateway, std::slice::from_mut(&mut build))?;
    build.finish(&mut Graph::default())?;
    Ok(build.outline(source))
}

/// Whether the target has a `RUN`, or takes from a stage that has one; as far as the Dockerfile
/// alone tells, without the triggers of its images. False if that cannot be told.
pub fn has_run(dockerfile: &Dockerfile, options: &BuildOptions, gateway: &dyn Gateway) -> bool {
    let mut linter = Linter::default();
    let input = Input { dockerfile, options, gateway };
    Build::new(input, options.platforms.first(), &mut linter).is_ok_and(|build| {
        let reached = build.stages.reachable(build.target);
        let mut reached = build.stages.ids().zip(reached).filter(|it| it.1);
        let runs = |it: &Command<'_>| matches!(it.instruction.as_ref(), Instruction::Run(_));
        reached.any(|(id, _)| build.stages[id].commands.iter().any(runs))
    })
}

/// Several targets may be one platform if the user says so twice; then they are equal.
fn lower_with(
    input: Input<'_>,
    source: &SourceText,
    linter: &mut Linter,
) -> Result<Lowered, LowerError> {
    let platforms: Vec<Option<&Platform>> = match &input.options.platforms[..] {
        [] => vec![None],
        platforms => platforms.iter().map(Some).collect(),
    };
    // All platforms find the same; BuildKit, too, reports what the first one finds.
    let mut unheard = vec![Linter::default(); platforms.len() - 1];
    let linters = std::iter::once(linter).chain(&mut unheard);
    let mut builds = Vec::with_capacity(platforms.len());
    for (platform, linter) in platforms.into_iter().zip(linters) {
        builds.push(Build::new(input, platform, linter)?);
    }
    lower_all(input, source, &mut builds)
}

fn lower_all(
    input: Input<'_>,
    source: &SourceText,
    builds: &mut [Build<'_>],
) -> Result<Lowered, LowerError> {
    resolve_all(input.gateway, builds)?;
    let mut graph = Graph::default();
    graph.files.push(SourceFile { name: source.name().to_owned(), text: source.text().to_owned() });
    let mut targets = Vec::with_capacity(builds.len());
    for build in builds {
        targets.push(build.finish(&mut graph)?);
    }
    Ok(Lowered { graph, targets })
}

/// Asks for images until no trigger of an image needs another one.
fn resolve_all(gateway: &dyn Gateway, builds: &mut [Build<'_>]) -> Result<(), LowerError> {
    loop {
        let mut requests: Vec<ImageRequest> = Vec::new();
        let mut askers = Vec::new();
        for (index, build) in builds.iter_mut().enumerate() {
            for (stage, request) in build.pending()? {
                let known = requests.iter().position(|it| *it == request);
                askers.push((index, stage, known.unwrap_or(requests.len())));
                if known.is_none() {
                    requests.push(request);
                }
            }
        }
        let answers =
            if requests.is_empty() { Vec::new() } else { gateway.resolve_images(&requests) };
        for (index, stage, number) in askers {
            builds[index].resolved(stage, answers.get(number))?;
        }
        let mut again = false;
        for build in builds.iter_mut() {
            again |= build.add_triggers()?;
        }
        if !again {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
