//! The first half of a build: from the command line to a graph.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_frontend::ast::Dockerfile;
use rbuild_frontend::directives::accept_frontend;
use rbuild_frontend::gateway::GatewayErrorKind;
use rbuild_frontend::lint::answer::Answer;
use rbuild_frontend::lint::{self, Linter, Warning};
use rbuild_frontend::lower::{self, LowerError, Lowered};
use rbuild_frontend::options::{BuildOptions, NamedContext};
use rbuild_frontend::parse;
use rbuild_frontend::text::SourceText;
use rbuild_solver::solve::EventSink;
use rbuild_store::local::Store;

use super::print_json;
use crate::cli::remote;
use crate::cli::request::{Method, Request};
use crate::cli::spec;
use crate::context::{self, Definition, Prepared};
use crate::env::Env;
use crate::gateway::LocalGateway;
use crate::report::{Failure, Kind};
use crate::session::images::{Images, host_platform};
use crate::session::offers::Offers;
use crate::session::remote::Remotes;

/// What a build starts from, before anything is lowered.
#[derive(Debug)]
pub struct Opened {
    /// The Dockerfile's text.
    pub source: SourceText,
    /// Its tree.
    pub dockerfile: Dockerfile,
    /// What the lowering depends on.
    pub options: BuildOptions,
    /// Directories by name of the local source.
    pub directories: BTreeMap<String, Option<PathBuf>>,
    /// Images and registries.
    pub images: Arc<Images>,
    /// Git repositories and web servers.
    pub remotes: Arc<Remotes>,
    context: Prepared,
}

/// A build as a graph.
#[derive(Debug)]
pub struct Planned {
    /// The graph and its targets.
    pub lowered: Lowered,
    /// What the linter says.
    pub warnings: Vec<Warning>,
}

/// Finds context and Dockerfile, and parses it.
///
/// # Errors
///
/// What is wrong with them, with place.
pub async fn open(
    request: &Request,
    env: &Env,
    store: &Arc<Store>,
    events: &EventSink,
) -> Result<Opened, Failure> {
    let task = events.task("[internal] load build definition from Dockerfile");
    let images = Arc::new(Images::new(Arc::clone(store), env.clone(), request.pull));
    let offers = Arc::new(Offers::new(request, env));
    let remotes = Arc::new(Remotes::new(Arc::clone(store), Arc::clone(&images), offers));
    let prepared = task.end(context::prepare(request, &env.cwd, store, &remotes).await)?;
    let source = SourceText::new(&prepared.definition.name, &prepared.definition.text)
        .map_err(|error| Failure::new(Kind::User, error.to_string()))?;
    let (dockerfile, wrong) = parse::parse_partly(&source);
    let asked = request.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    accept_frontend(asked, &dockerfile.directives)
        .map_err(|error| diagnosed(&error.render(&source)))?;
    if !wrong.list.is_empty() {
        let mut failure = diagnosed(&wrong.render(&source));
        let warnings = syntax_warnings(&dockerfile, request);
        if request.call.method == Method::Check && request.call.json {
            print_json(&Answer::new(&source, &warnings, Some(&wrong)))?;
        } else {
            failure.excerpt = shown(&warnings, &source);
        }
        return Err(failure);
    }
    let mut directories = BTreeMap::from([("context".to_owned(), prepared.directory.clone())]);
    let options = options(request, env, &prepared, &mut directories)?;
    Ok(Opened { source, dockerfile, options, directories, images, remotes, context: prepared })
}

/// What the linter says about the right part of a Dockerfile that is wrong elsewhere.
fn syntax_warnings(dockerfile: &Dockerfile, request: &Request) -> Vec<Warning> {
    let asked = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    let Ok(lint) = lint::Options::of_build(dockerfile, asked) else { return Vec::new() };
    let mut linter = Linter::new(lint);
    lint::check_syntax(dockerfile, &mut linter);
    linter.into_sorted()
}

/// Warnings with their lines, to be shown before an error.
fn shown(warnings: &[Warning], source: &SourceText) -> String {
    let shown: Vec<String> = warnings.iter().map(|it| it.render(source)).collect();
    shown.join("\n")
}

/// A failure whose text is a rendered diagnostic.
fn diagnosed(text: &str) -> Failure {
    let text = text.trim_end();
    Failure::new(Kind::User, text.strip_prefix("error: ").unwrap_or(text))
}

/// Directory of the Dockerfile for the frontend's question after `<Dockerfile>.dockerignore`.
impl Opened {
    /// The gateway that the frontend asks.
    pub fn gateway(&self, runtime: tokio::runtime::Handle, events: EventSink) -> LocalGateway {
        let Definition { name, ignore, .. } = &self.context.definition;
        LocalGateway {
            images: Arc::clone(&self.images),
            remotes: Arc::clone(&self.remotes),
            runtime,
            events,
            directories: self.directories.clone(),
            own_ignore: ignore.clone().map(|bytes| (format!("{name}.dockerignore"), bytes)),
        }
    }
}

/// A Dockerfile that cannot be lowered, and what the linter had found until then.
pub struct NotLowered {
    /// What is wrong.
    pub error: LowerError,
    /// The warnings before it.
    pub warnings: Vec<Warning>,
}

impl NotLowered {
    /// The failure to show, with the warnings before it.
    pub fn failure(&self, source: &SourceText) -> Failure {
        let mut failure = lower_failure(&self.error, source);
        failure.excerpt = shown(&self.warnings, source);
        failure
    }
}

/// Makes the graph. Called on a thread that may block.
///
/// # Errors
///
/// What is wrong with the Dockerfile or with what it names.
pub fn lower(opened: &Opened, gateway: &LocalGateway) -> Result<Planned, Failure> {
    let lowered = lower_with(opened, gateway, linter(opened)?);
    lowered.map_err(|error| error.failure(&opened.source))
}

/// The linter with the options of a build.
///
/// # Errors
///
/// If they cannot be read.
pub fn linter(opened: &Opened) -> Result<Linter, Failure> {
    let asked = opened.options.build_args.get("BUILDKIT_DOCKERFILE_CHECK").map(String::as_str);
    let options = lint::Options::of_build(&opened.dockerfile, asked);
    options.map(Linter::new).map_err(|error| Failure::new(Kind::User, error.to_string()))
}

/// As [`lower()`], the failure apart from the warnings.
///
/// # Errors
///
/// As [`lower()`].
pub fn lower_with(
    opened: &Opened,
    gateway: &LocalGateway,
    mut linter: Linter,
) -> Result<Planned, Box<NotLowered>> {
    let lowered =
        lower::lower(&opened.dockerfile, &opened.source, &opened.options, gateway, &mut linter);
    let warnings = linter.into_sorted();
    match lowered {
        Ok(lowered) => Ok(Planned { lowered, warnings }),
        Err(error) => Err(Box::new(NotLowered { error, warnings })),
    }
}

/// Whether the target runs something, as far as that is known before anything is pulled.
pub fn has_run(opened: &Opened, events: &EventSink) -> bool {
    // Nothing is asked of it.
    let gateway = opened.gateway(tokio::runtime::Handle::current(), events.clone());
    lower::has_run(&opened.dockerfile, &opened.options, &gateway)
}

/// A lowering's failure, with the exit code of its cause.
pub fn lower_failure(error: &LowerError, source: &SourceText) -> Failure {
    let mut failure = diagnosed(&error.diagnostics.render(source));
    failure.kind = match error.cause {
        None => Kind::User,
        Some(GatewayErrorKind::Host) => Kind::Host,
        Some(GatewayErrorKind::NotFound | GatewayErrorKind::Remote) => Kind::Remote,
    };
    failure
}

fn options(
    request: &Request,
    env: &Env,
    prepared: &Prepared,
    directories: &mut BTreeMap<String, Option<PathBuf>>,
) -> Result<BuildOptions, Failure> {
    let mut options = BuildOptions::new(host_platform());
    options.target.clone_from(&request.target);
    options.build_args.clone_from(&request.build_args);
    options.labels.clone_from(&request.labels);
    options.platforms.clone_from(&request.platforms);
    options.no_cache.clone_from(&request.no_cache);
    options.context.clone_from(&prepared.main);
    options.network = request.network;
    options.add_hosts.clone_from(&request.add_hosts);
    options.ulimits.clone_from(&request.ulimits);
    options.now = env.now;
    options.allow.clone_from(&request.allow);
    let asked = request.build_args.get("BUILDKIT_MULTI_PLATFORM").map(String::as_str);
    check_multi_platform(asked, request.platforms.len())?;
    options.multi_platform = multi_platform(request);
    options.all_stages = request.call.method == Method::Check && request.target.is_none();
    options.dockerfile.clone_from(&prepared.definition.name);
    options.shm_size = request.shm_size;
    for (name, value) in &request.build_contexts {
        let context = named_context(name, value, &env.cwd, directories)?;
        options.named_contexts.insert(name.clone(), context);
    }
    Ok(options)
}

/// Whether the result is an index even for one platform.
pub fn multi_platform(request: &Request) -> bool {
    let asked = request.build_args.get("BUILDKIT_MULTI_PLATFORM");
    request.platforms.len() > 1 || asked.is_some_and(|it| spec::boolean("", it).unwrap_or(false))
}

/// Refuses a `BUILDKIT_MULTI_PLATFORM` that is no truth value, or that cannot be had.
fn check_multi_platform(asked: Option<&str>, n_platforms: usize) -> Result<(), Failure> {
    let Some(value) = asked.filter(|it| !it.is_empty()) else { return Ok(()) };
    match spec::boolean("", value) {
        Err(_) => {
            let text = format!("invalid boolean value for multi-platform: {value}");
            Err(Failure::new(Kind::User, text).hint("BUILDKIT_MULTI_PLATFORM is 1 or 0"))
        }
        Ok(false) if n_platforms > 1 => {
            let text = "BUILDKIT_MULTI_PLATFORM=0: an image of several platforms is an index";
            Err(Failure::new(Kind::User, text).hint("give one --platform"))
        }
        Ok(_) => Ok(()),
    }
}

fn named_context(
    name: &str,
    value: &str,
    cwd: &Path,
    directories: &mut BTreeMap<String, Option<PathBuf>>,
) -> Result<NamedContext, Failure> {
    if let Some(path) = value.strip_prefix("oci-layout://") {
        let path = cwd.join(path);
        return Ok(NamedContext::Image(format!("oci-layout://{}", path.display())));
    }
    if value.starts_with("docker-image://") {
        return Ok(NamedContext::Image(value.to_owned()));
    }
    if value.starts_with("target:") {
        return Err(Failure::usage(format!(
            "--build-context {name}={value}: targets of bake files are not supported"
        )));
    }
    if remote::is_remote(value) {
        let op = remote::source(value)
            .map_err(|text| Failure::usage(format!("--build-context {name}={value}: {text}")))?;
        return Ok(NamedContext::Source { identifier: op.identifier, attrs: op.attrs });
    }
    let directory = cwd.join(value);
    if !directory.is_dir() {
        return Err(Failure::usage(format!(
            "--build-context {name}={value}: {} is not a directory",
            directory.display()
        )));
    }
    let source = format!("context:{name}");
    directories.insert(source.clone(), Some(directory));
    Ok(NamedContext::Local { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_asked_for_with_a_truth_value() {
        let said = |asked, n| check_multi_platform(asked, n).map_err(|failure| failure.text);
        assert_eq!(said(None, 2), Ok(()));
        assert_eq!(said(Some("1"), 1), Ok(()));
        assert_eq!(said(Some("false"), 1), Ok(()));
        assert!(said(Some("0"), 2).is_err());
        let text = "invalid boolean value for multi-platform: maybe";
        assert_eq!(said(Some("maybe"), 1), Err(text.to_owned()));
    }
}
