//! The operations of the graph: one Rust type per BuildKit operation, fields one to one.
//!
//! Field names and meanings follow BuildKit's `pb.Op` (see `docs/llb.md`). What only describes a
//! vertex (its name, its Dockerfile lines) is in [`super::Meta`] and never part of its identity.
//! Paths and arguments are UTF-8 here, as they are on BuildKit's wire.

use std::collections::BTreeMap;

use rbuild_store::digest::Digest;
use rbuild_store::platform::Platform;
use serde::Serialize;

#[expect(clippy::large_enum_variant, reason = "operations are few, and most are processes")]
/// One operation. A closed set: a new one breaks every `match`, on purpose.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum Op {
    /// Something from outside: an image, local files, a URL, a git tree, an OCI layout.
    Source(SourceOp),
    /// A process.
    Exec(ExecOp),
    /// File operations, without a process.
    File(FileOp),
    /// The layers of the inputs on top of each other, in order.
    Merge(MergeOp),
    /// What the upper input adds to the lower one.
    Diff(DiffOp),
    /// A graph found in a file of an input.
    Build(BuildOp),
}

impl Op {
    /// The source, if it is one.
    pub fn source(&self) -> Option<&SourceOp> {
        match self {
            Self::Source(source) => Some(source),
            Self::Exec(_) | Self::File(_) | Self::Merge(_) | Self::Diff(_) | Self::Build(_) => None,
        }
    }
}

/// `SourceOp`: `identifier` is a URL-like text whose scheme tells the kind.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SourceOp {
    /// `docker-image://docker.io/library/busybox:latest@sha256:…`, `local://context`,
    /// `git://host/path#ref:subdir`, `https://…`, `oci-layout://name@sha256:…`.
    pub identifier: String,
    /// Attributes by BuildKit's keys: `local.followpaths` (a JSON array), `http.checksum`, …
    pub attrs: BTreeMap<String, String>,
    /// The platform asked for, where the source depends on it.
    pub platform: Option<Platform>,
}

/// `ExecOp`: a process with its mounts.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ExecOp {
    /// The process.
    pub meta: ExecMeta,
    /// Mounts; exactly one has the destination `/`.
    pub mounts: Vec<Mount>,
    /// Which network it sees.
    pub network: NetMode,
    /// Whether the sandbox is relaxed.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// The platform it runs on.
    pub platform: Option<Platform>,
}

/// The process of an [`ExecOp`].
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ExecMeta {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// Working directory; made if missing.
    pub cwd: String,
    /// `USER` as written: name or number, with an optional group. Empty means root.
    pub user: String,
    /// Proxy settings: given to the process, never part of a key.
    pub proxy_env: Option<ProxyEnv>,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name; empty means `buildkitsandbox`.
    pub hostname: String,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Parent control group; empty means the caller's.
    pub cgroup_parent: String,
    /// Whether parents of mount points that were made for the step are removed after it.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that count as success; empty means only 0.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy settings; set in upper and lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is the variable of its name")]
pub struct ProxyEnv {
    pub http_proxy: String,
    pub https_proxy: String,
    pub ftp_proxy: String,
    pub no_proxy: String,
    pub all_proxy: String,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct HostIp {
    /// Name.
    pub host: String,
    /// Address.
    pub ip: String,
}

/// A resource limit: `nofile`, soft, hard.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[expect(missing_docs, reason = "setrlimit(2)'s own terms")]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// A mount of an [`ExecOp`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Mount {
    /// Index into the vertex's inputs; none means an empty tree.
    pub input: Option<usize>,
    /// Path in the input that is mounted; empty means its root.
    pub selector: String,
    /// Where it appears.
    pub dest: String,
    /// Number of the vertex's output that holds what the process wrote; none throws it away.
    pub output: Option<usize>,
    /// Whether the process cannot write to it.
    pub readonly: bool,
    /// What kind of mount.
    pub kind: MountKind,
}

/// Kinds of mounts.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum MountKind {
    /// The input itself.
    Bind,
    /// A directory that outlives the build, keyed by `id` and the input.
    Cache {
        /// Name of the directory.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
        /// Mode, owner and group that a new directory gets: `--mount=type=cache,mode=,uid=,gid=`.
        /// (BuildKit expresses them by an input that makes the directory; here they are data.)
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Bytes; 0 means the kernel's default.
        size: u64,
    },
    /// A file with a secret's value.
    Secret {
        /// Name of the secret.
        id: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
        /// Whether a missing secret is no error (then nothing is mounted).
        optional: bool,
    },
    /// A socket that leads to an ssh agent.
    Ssh {
        /// Name of the agent.
        id: String,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
        /// Whether a missing agent is no error.
        optional: bool,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum CacheSharing {
    /// Everybody.
    Shared,
    /// One each: a second user gets a directory of its own.
    Private,
    /// One at a time: a second user waits.
    Locked,
}

/// A secret as an environment variable.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SecretEnv {
    /// Name of the secret.
    pub id: String,
    /// Name of the variable.
    pub name: String,
    /// Whether a missing secret is no error.
    pub optional: bool,
}

/// Network of a process.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum NetMode {
    /// The build's own network.
    #[default]
    Sandbox,
    /// The caller's network.
    Host,
    /// Only a loopback.
    None,
}

/// Security of a process.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum SecurityMode {
    /// The default.
    #[default]
    Sandbox,
    /// All capabilities that the sandbox has, no filter.
    Insecure,
}

/// `FileOp`: actions in order. An action's input is one of the vertex's inputs or the result of an
/// earlier action.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FileOp {
    /// The actions.
    pub actions: Vec<FileAction>,
    /// The platform (names the image it belongs to; no influence on the files).
    pub platform: Option<Platform>,
}

/// Where an action's tree comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum FileInput {
    /// An empty tree.
    Scratch,
    /// Input of the vertex, by index.
    Input(usize),
    /// Result of an earlier action, by index.
    Action(usize),
}

/// One action of a [`FileOp`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FileAction {
    /// The tree that is changed.
    pub input: FileInput,
    /// The tree that is read, for a copy.
    pub secondary: Option<FileInput>,
    /// Number of the vertex's output; none for an intermediate result.
    pub output: Option<usize>,
    /// What is done.
    pub kind: FileActionKind,
}

/// What a file action does.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum FileActionKind {
    /// Copies from the secondary input.
    Copy(FileCopy),
    /// Makes a file.
    Mkfile {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Content.
        data: Vec<u8>,
        /// Owner; none means root.
        owner: Option<Chown>,
        /// Nanoseconds since the epoch; none means now.
        timestamp: Option<i64>,
    },
    /// Makes a directory.
    Mkdir {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Whether missing parents are made and an existing directory is left as it is.
        make_parents: bool,
        /// Owner; none means root.
        owner: Option<Chown>,
        /// Nanoseconds since the epoch; none means now.
        timestamp: Option<i64>,
    },
    /// Removes a path.
    Rm {
        /// Absolute path.
        path: String,
        /// Whether a missing path is no error.
        allow_not_found: bool,
        /// Whether the path is a pattern.
        allow_wildcard: bool,
    },
    /// Makes a symbolic link.
    Symlink {
        /// Where it points.
        oldpath: String,
        /// Where it is.
        newpath: String,
        /// Owner; none means root.
        owner: Option<Chown>,
        /// Nanoseconds since the epoch; none means now.
        timestamp: Option<i64>,
    },
}

/// A copy: BuildKit's `FileActionCopy`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one to one with BuildKit's operation")]
pub struct FileCopy {
    /// Path or pattern in the secondary input.
    pub src: String,
    /// Destination; a trailing `/` means a directory.
    pub dest: String,
    /// Owner of what is copied; none means root.
    pub owner: Option<Chown>,
    /// Mode of what is copied.
    pub mode: Option<ChmodOpt>,
    /// Whether a symbolic link at the source is followed.
    pub follow_symlink: bool,
    /// Whether a directory's content is copied rather than the directory.
    pub dir_copy_contents: bool,
    /// Whether an archive is unpacked instead of copied (`ADD`).
    pub attempt_unpack: bool,
    /// Whether the destination's parents are made.
    pub create_dest_path: bool,
    /// Whether the source is a pattern.
    pub allow_wildcard: bool,
    /// Whether a pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// Time given to what is copied, nanoseconds; none keeps it.
    pub timestamp: Option<i64>,
    /// Only what matches (`--parents` uses it).
    pub include_patterns: Vec<String>,
    /// Not what matches (`--exclude`, `.dockerignore`).
    pub exclude_patterns: Vec<String>,
    /// Whether a destination of another type is replaced.
    pub always_replace_existing_dest_paths: bool,
    /// Paths that must exist in the source, else the copy fails.
    pub required_paths: Vec<String>,
}

/// A mode for copied files.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum ChmodOpt {
    /// Octal: these bits exactly.
    Bits(u32),
    /// Symbolic: `u+rwX,go-w`.
    Symbolic(String),
}

/// An owner. Names are looked up in the tree's `/etc/passwd` and `/etc/group`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Chown {
    /// User; none means root.
    pub user: Option<UserOpt>,
    /// Group; none means the user's number.
    pub group: Option<UserOpt>,
}

/// A user or group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum UserOpt {
    /// By name, looked up in the tree of the given input.
    Name(String),
    /// By number.
    Id(u32),
}

/// `MergeOp`: all inputs of the vertex, lowest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct MergeOp;

/// `DiffOp`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct DiffOp {
    /// Index of the lower input; none means an empty tree.
    pub lower: Option<usize>,
    /// Index of the upper input; none means an empty tree.
    pub upper: Option<usize>,
}

/// `BuildOp`: solves the graph that the first input holds in a file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BuildOp {
    /// Attributes: `llbbuild.filename`.
    pub attrs: BTreeMap<String, String>,
    /// Digest of an inline definition, where there is one.
    pub definition: Option<Digest>,
}
