//! Everything a lowering depends on, besides the Dockerfile and the gateway's answers.

use std::collections::BTreeMap;

use rbuild_solver::llb::op::{HostIp, NetMode, Ulimit};
use rbuild_store::platform::Platform;

/// Options of one build: BuildKit's frontend attributes as types.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// `--target`; none means the last stage.
    pub target: Option<String>,
    /// `--build-arg`, in order of their names.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--platform`; empty means the build platform.
    pub platforms: Vec<Platform>,
    /// The platform this process runs on.
    pub build_platform: Platform,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--build-context NAME=VALUE`: lower-cased name to what it stands for.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// The main context.
    pub context: MainContext,
    /// `--network`.
    pub network: NetMode,
    /// `--add-host`.
    pub add_hosts: Vec<HostIp>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `BUILDKIT_SANDBOX_HOSTNAME` or the default.
    pub hostname: String,
    /// Time of the build, seconds since the epoch: `created` where there is no epoch.
    pub now: i64,
    /// Entitlements granted with `--allow`: `network.host`, `security.insecure`.
    pub allow: Vec<String>,
    /// Whether more than one platform is built, or `--build-arg BUILDKIT_MULTI_PLATFORM=1`: the
    /// names of steps begin with the platform then.
    pub multi_platform: bool,
    /// Name of the Dockerfile as the user gave it, relative to its directory: for messages and
    /// for `<Dockerfile>.dockerignore`.
    pub dockerfile: String,
    /// Whether stages that the target does not need are looked at, too (`--check` without
    /// `--target`).
    pub all_stages: bool,
    /// `--shm-size` in bytes; 0 means the default.
    pub shm_size: u64,
    /// `--cgroup-parent`; empty means the caller's.
    pub cgroup_parent: String,
}

impl BuildOptions {
    /// The options of `rbuild build .` with nothing else said, for `build_platform`.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            build_platform,
            no_cache: NoCache::Never,
            named_contexts: BTreeMap::new(),
            context: MainContext::Local,
            network: NetMode::Sandbox,
            add_hosts: Vec::new(),
            ulimits: Vec::new(),
            hostname: String::new(),
            now: 0,
            allow: Vec::new(),
            multi_platform: false,
            dockerfile: "Dockerfile".to_owned(),
            all_stages: false,
            shm_size: 0,
            cgroup_parent: String::new(),
        }
    }
}

/// Which steps ignore the cache.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoCache {
    /// None.
    Never,
    /// All.
    All,
    /// Those of the named stages.
    Stages(Vec<String>),
}

/// What a named context stands for. The builder has made git, http and archive contexts into
/// graph sources already.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NamedContext {
    /// A directory: source `local://NAME`.
    Local {
        /// Name of the local source.
        source: String,
    },
    /// `docker-image://…` or `oci-layout://…`: full reference.
    Image(String),
    /// `target:NAME` is for bake; here: git or http, as identifier and attributes of a source.
    Source {
        /// LLB identifier.
        identifier: String,
        /// LLB attributes.
        attrs: BTreeMap<String, String>,
    },
}

/// The main context.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MainContext {
    /// Source `local://context`; it has no files if the Dockerfile came on standard input.
    Local,
    /// A git or http source.
    Source {
        /// LLB identifier.
        identifier: String,
        /// LLB attributes.
        attrs: BTreeMap<String, String>,
        /// Whether it is an archive that must be unpacked first.
        unpack: bool,
    },
}
