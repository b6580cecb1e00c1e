//! What was typed. Nothing here looks at the system.
//!
//! Flags have the names and meanings of `docker buildx build`; what rbuild adds is under headings
//! of its own.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds container images from Dockerfiles, without root, daemon or privileges.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// Directory of the store [default: $`RBUILD_ROOT`, else rbuild in the user's data directory,
    /// else one of the user's own among the temporary directories]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one value, and it lives as long as the process"
)]
pub enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<Build>),
    /// List the images of the store
    Images(Images),
    /// Show what the store holds and how much
    Du(Du),
    /// Remove what is not needed, after showing it
    Prune(Prune),
    /// Remove the name of an image
    Rmi(Rmi),
    /// Push an image of the store to its registry
    Push(Push),
    /// Explain what this place allows, and what would allow more
    Doctor(Doctor),
    /// Print what rbuild makes of a Dockerfile
    Debug(Debug),
    /// Explain a lint rule
    ExplainRule(ExplainRule),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// `rbuild build`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "fields have the names of the flags")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Build {
    /// Build context: a directory, `-` (a tar or a Dockerfile on standard input), a git or an http URL
    #[arg(value_name = "CONTEXT")]
    pub context: String,
    /// Dockerfile [default: Dockerfile in the context]; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Name of the image, with an optional tag
    #[arg(short, long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,
    /// Destination: type=image|oci|docker|tar|local|registry,dest=…,compression=…; or a directory
    #[arg(short, long = "output", value_name = "SPEC")]
    pub outputs: Vec<String>,
    /// Push the image to its registry: short for --output type=registry
    #[arg(long)]
    pub push: bool,
    /// Load the image into a local Docker: rbuild has none to load into, see --output type=docker
    #[arg(long)]
    pub load: bool,
    /// Value of an ARG; without `=VALUE`, the environment's
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Platforms to build for
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Additional build context: a directory, docker-image://, oci-layout://, a git or http URL
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub build_contexts: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Annotation of the manifest; `index:NAME=VALUE` for the index
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Do not use the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Do not use the cache for these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Ask the registry even for images that the store has
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub pull: Option<String>,
    /// Secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "SPEC")]
    pub secrets: Vec<String>,
    /// SSH agent or keys: `default`, or NAME with =SOCKET or =KEY,KEY
    #[arg(long = "ssh", value_name = "SPEC")]
    pub ssh: Vec<String>,
    /// Network of RUN
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Who makes the network of RUN
    #[arg(long, value_name = "BACKEND", default_value = "auto", help_heading = "rbuild")]
    pub network_backend: NetworkBackend,
    /// Name server of RUN, instead of those of this host
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<std::net::IpAddr>,
    /// Additional line of /etc/hosts: NAME:ADDRESS; `host-gateway` is this host
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub add_hosts: Vec<String>,
    /// Resource limit of RUN: NAME=SOFT or NAME=SOFT:HARD
    #[arg(long = "ulimit", value_name = "SPEC")]
    pub ulimits: Vec<String>,
    /// Size of /dev/shm in RUN
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Memory of each RUN, for example 512m or 2g
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory and swap of each RUN together; -1 is no limit [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Processors of each RUN, for example 1.5
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["cpu_quota", "cpu_period"])]
    pub cpus: Option<String>,
    /// Microseconds of processor time of each RUN in every period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Length of a period of --cpu-quota [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// Weight of each RUN against others; 1024 is what everybody has
    #[arg(short, long, value_name = "SHARES")]
    pub cpu_shares: Option<u64>,
    /// Processors that RUN may use: 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Processes and threads of each RUN; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Grant an entitlement: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Write the image's digest to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built, as JSON, to a file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How progress is shown
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub progress: Progress,
    /// Print only the image's digest
    #[arg(short, long)]
    pub quiet: bool,
    // Scripts for `docker build` carry these three. They ask for what is so here: nothing of a step outlives it, and a
    // context is read where it lies.
    /// Remove intermediate containers
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rm: Option<String>,
    /// Always remove intermediate containers
    #[arg(long, hide = true)]
    pub force_rm: bool,
    /// Compress the context on its way
    #[arg(long, hide = true)]
    pub compress: bool,
    /// Check the Dockerfile instead of building: short for --call=check
    #[arg(long)]
    pub check: bool,
    /// Do something else than building: check, outline, targets, describe; `,format=json`
    #[arg(long, value_name = "METHOD", default_value = "build")]
    pub call: String,
    /// Cache sources of other builders
    #[arg(long, value_name = "SPEC")]
    pub cache_from: Vec<String>,
    /// Cache destinations for other builders
    #[arg(long, value_name = "SPEC")]
    pub cache_to: Vec<String>,
    /// Attestations
    #[arg(long, value_name = "SPEC")]
    pub attest: Vec<String>,
    /// Short for --attest type=provenance
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<String>,
    /// Short for --attest type=sbom
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sbom: Option<String>,

    /// Say for each step that ran which part of its key had changed
    #[arg(long, help_heading = "rbuild")]
    pub explain: bool,
    /// How layers are kept on disk
    #[arg(long, value_name = "DRIVER", default_value = "auto", help_heading = "rbuild")]
    pub snapshotter: Snapshotter,
    /// How RUN is isolated
    #[arg(long, value_name = "RUNG", default_value = "auto", help_heading = "rbuild")]
    pub isolation: Isolation,
    /// Refuse a weaker isolation than this
    #[arg(long, value_name = "RUNG", help_heading = "rbuild")]
    pub require_isolation: Option<Isolation>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Progress {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// Lines
    Plain,
    /// Lines, and below them what runs now, drawn over and over
    Tty,
    /// Nothing but errors
    Quiet,
    /// One JSON object a line
    Rawjson,
}

/// How layers are kept on disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Snapshotter {
    Auto,
    Overlay,
    FuseOverlayfs,
    Plain,
}

/// Who makes the network of RUN.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum NetworkBackend {
    Auto,
    Embedded,
    Pasta,
    Slirp4netns,
}

/// How RUN is isolated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Isolation {
    Auto,
    Userns,
    UsernsSingle,
    Chroot,
    Ptrace,
}

/// `rbuild images`.
#[derive(Args, Debug)]
pub struct Images {
    /// Print one JSON object a line
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Print only digests
    #[arg(short, long)]
    pub quiet: bool,
}

/// Output formats.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// `rbuild du`.
#[derive(Args, Debug)]
pub struct Du {
    /// Print JSON
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
}

/// `rbuild prune`.
#[derive(Args, Debug)]
pub struct Prune {
    /// Remove the images' names too, and so everything
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long, visible_alias = "yes")]
    pub force: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Keep what was used within this time: 12h, 7d
    #[arg(long, value_name = "DURATION")]
    pub keep_duration: Option<String>,
    /// Remove the oldest until the store is no larger than this: 10gb
    #[arg(long, value_name = "BYTES")]
    pub max_used_space: Option<String>,
}

/// `rbuild rmi`.
#[derive(Args, Debug)]
pub struct Rmi {
    /// Names of images
    #[arg(required = true)]
    pub names: Vec<String>,
}

/// `rbuild push`.
#[derive(Args, Debug)]
pub struct Push {
    /// Name of an image of the store
    pub name: String,
}

/// `rbuild doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print JSON
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
}

/// `rbuild debug`.
#[derive(Args, Debug)]
pub struct Debug {
    /// What to print
    pub what: DebugWhat,
    /// The graph in the language of Graphviz
    #[arg(long)]
    pub dot: bool,
    /// The build that is looked at
    #[command(flatten)]
    pub build: Build,
}

/// What `rbuild debug` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum DebugWhat {
    /// The Dockerfile as a tree
    Ast,
    /// The graph of operations
    Graph,
    /// The named parts of each step's key
    Keys,
    /// Which steps would run
    Plan,
}

/// `rbuild explain-rule`.
#[derive(Args, Debug)]
pub struct ExplainRule {
    /// Name of the rule; without it all rules are listed
    pub name: Option<String>,
}
