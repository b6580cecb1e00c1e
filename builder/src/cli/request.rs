//! What a `build` command line means here: everything the run depends on, resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use rbuild_frontend::lower::git_ref::GitRef;
use rbuild_frontend::options::NoCache;
use rbuild_solver::llb::op::{HostIp, NetMode, Ulimit};
use rbuild_solver::sandbox::network::Options;
use rbuild_solver::sandbox::resources::Resources;
use rbuild_store::platform::Platform;
use rbuild_store::reference::Reference;

use super::output::{self, Output};
use super::raw::{Build, Isolation, Progress, Snapshotter};
use super::remote;
use super::{progress, spec};
use crate::env::Env;
use crate::report::Failure;

/// Build argument that the environment gives where the command line does not (as with buildx).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// A build, with nothing left to ask the environment.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the files come from.
    pub context: Context,
    /// The Dockerfile.
    pub file: DockerfileFrom,
    /// Names of the image, as given.
    pub tags: Vec<String>,
    /// Destinations; empty means: only the cache, and the store if there is a name.
    pub outputs: Vec<Output>,
    /// Values of ARGs; `SOURCE_DATE_EPOCH` may be from the environment.
    pub build_args: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--platform`; empty means this machine's.
    pub platforms: Vec<Platform>,
    /// `--build-context`, lower-cased names.
    pub build_contexts: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`, in the form of an output's attributes.
    pub annotations: Vec<(String, String)>,
    /// Which steps ignore the cache.
    pub no_cache: NoCache,
    /// Whether registries are asked even for images that the store has.
    pub pull: bool,
    /// `--secret`.
    pub secrets: BTreeMap<String, SecretFrom>,
    /// `--ssh`.
    pub ssh: BTreeMap<String, SshFrom>,
    /// `--network`.
    pub network: NetMode,
    /// `--network-backend`, and what steps reach beside the outside.
    pub steps_network: Options,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--add-host`.
    pub add_hosts: Vec<HostIp>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--memory`, `--cpus` and the like.
    pub resources: Resources,
    /// `--shm-size`; 0 means the default.
    pub shm_size: u64,
    /// `--allow`.
    pub allow: Vec<String>,
    /// `--iidfile`.
    pub iidfile: Option<PathBuf>,
    /// `--metadata-file`.
    pub metadata_file: Option<PathBuf>,
    /// How progress is shown.
    pub progress: Progress,
    /// Whether only the digest is printed.
    pub quiet: bool,
    /// `--explain`.
    pub explain: bool,
    /// `--snapshotter`.
    pub snapshotter: Snapshotter,
    /// `--isolation`.
    pub isolation: Isolation,
    /// `--require-isolation`.
    pub require_isolation: Option<Isolation>,
    /// What is done: `build`, `check`, `outline`, `targets`, `describe`.
    pub call: Call,
}

/// Where the files come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Context {
    /// A directory.
    Directory(PathBuf),
    /// Standard input: a tar or a Dockerfile.
    Stdin,
    /// A git repository or an http URL, as given.
    Remote(String),
}

/// Where the Dockerfile comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DockerfileFrom {
    /// `Dockerfile` (or `dockerfile`) of the context.
    Default,
    /// A path: of the file system for a local context, of the context for a remote one.
    Path(String),
    /// Standard input.
    Stdin,
}

/// Where a secret's value is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretFrom {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// Where ssh keys are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SshFrom {
    /// An agent's socket.
    Agent(PathBuf),
    /// Private key files.
    Keys(Vec<PathBuf>),
}

/// What is done with the Dockerfile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Whether it prints JSON.
    pub json: bool,
    /// Whether warnings of a check are no failure.
    pub ignore_status: bool,
}

/// Methods of `--call`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Describe,
}

impl Request {
    /// Resolves what was typed.
    ///
    /// # Errors
    ///
    /// A usage failure that names the flag.
    pub fn new(raw: &Build, env: &Env) -> Result<Self, Failure> {
        refuse_unsupported(raw)?;
        let mut build_args = build_args(&raw.build_args, env);
        if let Some(epoch) = env.var(EPOCH) {
            build_args.entry(EPOCH.to_owned()).or_insert_with(|| epoch.to_owned());
        }
        let file = match raw.file.as_deref() {
            None => DockerfileFrom::Default,
            Some("-") => DockerfileFrom::Stdin,
            Some(path) => DockerfileFrom::Path(path.to_owned()),
        };
        let context = context(&raw.context, env);
        if context == Context::Stdin && file == DockerfileFrom::Stdin {
            return Err(Failure::usage(
                "standard input cannot be both the context and the Dockerfile",
            ));
        }
        Ok(Self {
            context,
            file,
            tags: raw.tags.clone(),
            outputs: outputs(raw)?,
            target: raw.target.clone(),
            platforms: raw.platform.iter().map(|it| platform(it)).collect::<Result<_, _>>()?,
            build_contexts: raw
                .build_contexts
                .iter()
                .map(|it| {
                    key_value("--build-context", it)
                        .map(|(name, value)| (context_name(&name), value))
                })
                .collect::<Result<_, _>>()?,
            labels: raw.labels.iter().map(|it| label(it)).collect(),
            annotations: raw
                .annotations
                .iter()
                .map(|it| annotation(it))
                .collect::<Result<_, _>>()?,
            no_cache: match (raw.no_cache, raw.no_cache_filter.is_empty()) {
                (true, _) => NoCache::All,
                (false, true) => NoCache::Never,
                (false, false) => NoCache::Stages(raw.no_cache_filter.clone()),
            },
            pull: raw.pull.as_deref().map_or(Ok(false), |it| spec::boolean("--pull", it))?,
            secrets: raw.secrets.iter().map(|it| secret(it, env)).collect::<Result<_, _>>()?,
            ssh: agents(raw, env)?,
            network: network(&raw.network)?,
            steps_network: super::network::options(raw, &build_args),
            dns: raw.dns.clone(),
            add_hosts: raw.add_hosts.iter().map(|it| add_host(it)).collect::<Result<_, _>>()?,
            ulimits: raw.ulimits.iter().map(|it| ulimit(it)).collect::<Result<_, _>>()?,
            resources: super::resources::resources(raw)?,
            shm_size: raw
                .shm_size
                .as_deref()
                .map_or(Ok(0), |it| spec::byte_size("--shm-size", it))?,
            allow: raw.allow.clone(),
            iidfile: raw.iidfile.clone(),
            metadata_file: raw.metadata_file.clone(),
            progress: progress::mode(raw, env)?,
            quiet: raw.quiet,
            explain: raw.explain,
            snapshotter: raw.snapshotter,
            isolation: raw.isolation,
            require_isolation: raw.require_isolation,
            call: call(raw)?,
            build_args,
        })
    }
}

fn refuse_unsupported(raw: &Build) -> Result<(), Failure> {
    let off = |value: &Option<String>| {
        value.as_deref().is_none_or(|it| spec::boolean("", it).is_ok_and(|on| !on))
    };
    let first = |values: &[String]| values.first().cloned().unwrap_or_default();
    if raw.load {
        return Err(Failure::usage("--load is not supported: there is no Docker to load into")
            .hint("--output type=docker,dest=image.tar writes an archive for `docker load`; -t NAME keeps the image in the store"));
    }
    if raw.rm.is_some() && off(&raw.rm) {
        return Err(Failure::usage("--rm=false is not supported: nothing of a step outlives it")
            .hint("--target builds an earlier stage, -o type=local,dest=DIR shows its files"));
    }
    for (flag, values) in [
        ("--cache-from", &raw.cache_from),
        ("--cache-to", &raw.cache_to),
        ("--attest", &raw.attest),
    ] {
        if !values.is_empty() {
            return Err(Failure::usage(format!("{flag} {} is not supported", first(values))));
        }
    }
    for (flag, value) in [("--provenance", &raw.provenance), ("--sbom", &raw.sbom)] {
        if !off(value) {
            return Err(Failure::usage(format!("{flag} is not supported"))
                .hint(format!("{flag}=false is accepted")));
        }
    }
    Ok(())
}

/// `NAME=VALUE` as given; `NAME` alone takes the environment's value, and is dropped if unset.
fn build_args(given: &[String], env: &Env) -> BTreeMap<String, String> {
    given
        .iter()
        .filter_map(|it| match it.split_once('=') {
            Some((name, value)) => Some((name.to_owned(), value.to_owned())),
            None => Some((it.clone(), env.vars.get(it)?.clone())),
        })
        .collect()
}

fn context(text: &str, env: &Env) -> Context {
    match text {
        "-" => Context::Stdin,
        text if remote::is_remote(text) && !env.cwd.join(text).is_dir() => {
            Context::Remote(text.to_owned())
        }
        path => Context::Directory(env.cwd.join(path)),
    }
}

fn outputs(raw: &Build) -> Result<Vec<Output>, Failure> {
    let mut outputs: Vec<Output> =
        raw.outputs.iter().map(|it| output::parse(it)).collect::<Result<_, _>>()?;
    if raw.push {
        let image = outputs.iter_mut().find_map(|it| match &mut it.kind {
            output::OutputKind::Image { push } => Some(push),
            output::OutputKind::Oci { .. }
            | output::OutputKind::Docker { .. }
            | output::OutputKind::Tar
            | output::OutputKind::Local
            | output::OutputKind::CacheOnly => None,
        });
        match image {
            Some(push) => *push = true,
            None => outputs.push(Output::image(true)),
        }
    }
    if outputs.is_empty() && !raw.tags.is_empty() {
        outputs.push(Output::image(false));
    }
    let stdout = outputs.iter().filter(|it| it.dest == output::Dest::Stdout).count();
    if stdout > 1 {
        return Err(Failure::usage("--output: only one output can go to standard output"));
    }
    Ok(outputs)
}

fn platform(text: &str) -> Result<Platform, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("--platform `{text}`: {error}")))
}

fn key_value(flag: &str, text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(Failure::usage(format!("{flag} `{text}`: expected NAME=VALUE"))),
    }
}

/// The name that `FROM` and `--from` are compared with: an image's in its short form, without
/// `latest` (as buildx has it); any other in lower case.
fn context_name(name: &str) -> String {
    let lower = name.to_lowercase();
    match lower.parse::<Reference>() {
        Ok(image) => {
            let short = image.familiar();
            short.strip_suffix(":latest").map_or(short.clone(), str::to_owned)
        }
        Err(_) => lower,
    }
}

fn label(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// `[TYPE[,TYPE]:]NAME=VALUE` becomes `annotation-TYPE.NAME`.
fn annotation(text: &str) -> Result<(String, String), Failure> {
    let (key, value) = key_value("--annotation", text)?;
    match key.split_once(':') {
        Some((kind, name))
            if ["manifest", "index", "manifest-descriptor", "index-descriptor"].contains(&kind) =>
        {
            Ok((format!("annotation-{kind}.{name}"), value))
        }
        Some(_) | None => Ok((format!("annotation.{key}"), value)),
    }
}

fn network(text: &str) -> Result<NetMode, Failure> {
    match text {
        "" | "default" => Ok(NetMode::Sandbox),
        "host" => Ok(NetMode::Host),
        "none" => Ok(NetMode::None),
        other => Err(Failure::usage(format!("--network: there is no mode `{other}`"))
            .hint("modes: default, host, none")),
    }
}

fn add_host(text: &str) -> Result<HostIp, Failure> {
    let (host, ip) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| Failure::usage(format!("--add-host `{text}`: expected NAME:ADDRESS")))?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || (ip != "host-gateway" && ip.parse::<IpAddr>().is_err()) {
        return Err(Failure::usage(format!("--add-host `{text}`: `{ip}` is not an address")));
    }
    Ok(HostIp { host: host.to_owned(), ip: ip.to_owned() })
}

fn ulimit(text: &str) -> Result<Ulimit, Failure> {
    let wrong = || Failure::usage(format!("--ulimit `{text}`: expected NAME=SOFT[:HARD]"));
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |it: &str| it.parse::<i64>().ok().filter(|it| *it >= -1).ok_or_else(wrong);
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

fn secret(text: &str, env: &Env) -> Result<(String, SecretFrom), Failure> {
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for (key, value) in spec::pairs("--secret", text)? {
        match key.as_str() {
            "id" => id = value,
            "src" | "source" => source = value,
            "env" => variable = value,
            "type" => kind = value,
            other => {
                return Err(Failure::usage(format!(
                    "--secret `{text}`: `{other}` is not supported"
                )));
            }
        }
    }
    let id = id
        .filter(|it| !it.is_empty())
        .ok_or_else(|| Failure::usage(format!("--secret `{text}`: id= is missing")))?;
    let from = match (kind.as_deref(), source, variable) {
        (Some("env"), None, None) => SecretFrom::Env(id.clone()),
        (Some("env"), Some(name), None) | (None | Some("env"), None, Some(name)) => {
            SecretFrom::Env(name)
        }
        (None | Some("file"), Some(path), _) => SecretFrom::File(env.cwd.join(path)),
        (None, None, None) if env.vars.contains_key(&id) => SecretFrom::Env(id.clone()),
        (None | Some("file"), None, None) => SecretFrom::File(env.cwd.join(&id)),
        (Some(other), ..) => {
            return Err(Failure::usage(format!("--secret `{text}`: there is no type `{other}`")));
        }
    };
    match &from {
        SecretFrom::File(path) if !path.is_file() => {
            Err(Failure::usage(format!("--secret `{text}`: there is no file {}", path.display())))
        }
        SecretFrom::File(_) | SecretFrom::Env(_) => Ok((id, from)),
    }
}

/// What `--ssh` says. A context that is reached by ssh asks for the default agent by itself.
fn agents(raw: &Build, env: &Env) -> Result<BTreeMap<String, SshFrom>, Failure> {
    let is_ssh = || matches!(GitRef::parse_context(&raw.context), Some(Ok(git)) if git.is_ssh);
    if raw.ssh.is_empty() && env.var("SSH_AUTH_SOCK").is_some() && is_ssh() {
        return Ok(BTreeMap::from([ssh("default", env)?]));
    }
    raw.ssh.iter().map(|it| ssh(it, env)).collect()
}

fn ssh(text: &str, env: &Env) -> Result<(String, SshFrom), Failure> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    if paths.is_empty() {
        let agent = env.var("SSH_AUTH_SOCK").ok_or_else(|| {
            Failure::usage(format!("--ssh {id}: SSH_AUTH_SOCK is not set, so there is no agent"))
        })?;
        return Ok((id.to_owned(), SshFrom::Agent(PathBuf::from(agent))));
    }
    let paths: Vec<PathBuf> = paths.split(',').map(|it| env.cwd.join(it)).collect();
    for path in &paths {
        let kind = path
            .metadata()
            .map_err(|error| {
                Failure::usage(format!("--ssh {id}: cannot look at {}: {error}", path.display()))
            })?
            .file_type();
        if kind.is_socket() && paths.len() == 1 {
            return Ok((id.to_owned(), SshFrom::Agent(path.clone())));
        }
        if !kind.is_file() {
            return Err(Failure::usage(format!(
                "--ssh {id}: {} is neither an agent's socket nor a key",
                path.display()
            )));
        }
    }
    Ok((id.to_owned(), SshFrom::Keys(paths)))
}

fn call(raw: &Build) -> Result<Call, Failure> {
    let mut method = if raw.check { Method::Check } else { Method::Build };
    let (mut json, mut ignore_status) = (false, false);
    for (number, field) in spec::csv("--call", &raw.call)?.iter().enumerate() {
        match (number, field.as_str()) {
            (0, "build") => {}
            (0, "check" | "lint") => method = Method::Check,
            (0, "outline") => method = Method::Outline,
            (0, "targets") => method = Method::Targets,
            (0, "describe" | "subrequests.describe") => method = Method::Describe,
            (_, "format=json") => json = true,
            (_, "format=text") => json = false,
            (_, "ignorestatus=true") => ignore_status = true,
            (_, "ignorestatus=false") => ignore_status = false,
            (_, other) => {
                return Err(Failure::usage(format!("--call: `{other}` is not supported")).hint(
                    "methods: build, check, outline, targets, describe; `,format=json` prints JSON, \
                     and with `,ignorestatus=true` warnings are no failure",
                ));
            }
        }
    }
    Ok(Call { method, json, ignore_status })
}
