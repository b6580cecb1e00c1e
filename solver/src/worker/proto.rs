//! What the build process and the worker say to each other.
//!
//! One message is a 4-byte little-endian length, that many bytes of JSON, and the file descriptors
//! that the message names by index (`SCM_RIGHTS`, sent with the first byte). A request carries a
//! number that its answer repeats; answers come in any order. Descriptors are given up by the
//! sender once sent.

use std::path::PathBuf;
use std::sync::Arc;

pub use rbuild_store::compress::Compression;
use rbuild_store::digest::{BlobId, DiffId, Digest};
use rbuild_store::entry::Entry;
use serde::{Deserialize, Serialize};

use super::contents::ContentList;
use crate::sandbox::resources::Resources;

/// Name of a layer in the store: hex digits. Layers of pulled images are named after their diff
/// id (so that images share them), layers made by a build get a random name.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LayerId(pub Arc<str>);

/// A tree: layers on top of each other, lowest first. Empty means an empty tree.
pub type Chain = Vec<LayerId>;

/// Index into the descriptors that came with the message.
pub type FdIndex = usize;

/// What the worker can be asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Request {
    /// Unpack a layer into the store, from a stream of (compressed) bytes. Answer: [`Answer::Unpacked`].
    Unpack {
        /// Name of the new layer.
        layer: LayerId,
        /// Descriptor that yields the blob's bytes as they are in the blob.
        stream: FdIndex,
        /// What the tar inside must hash to; the layer appears only if it does.
        diff_id: DiffId,
        /// The layers below it in its image, lowest first. They need not be on disk unless the
        /// archive links to their files: then the answer is [`Answer::NeedsBelow`].
        below: Chain,
    },
    /// Make the listing of a layer, from a stream as in `Unpack`, and of its files those that will
    /// probably be read. Answer: [`Answer::Done`].
    List {
        /// Name of the layer.
        layer: LayerId,
        /// As in `Unpack`.
        stream: FdIndex,
        /// As in `Unpack`.
        diff_id: DiffId,
        /// As in `Unpack`, but only their listings are asked for.
        below: Chain,
        /// Which files to write, by parts of their paths, and below which directory as in `Extract`.
        like: Option<(Vec<Vec<u8>>, PathBuf)>,
    },
    /// Write some files of a layer that has a listing below a directory, from a stream as in
    /// `Unpack`. Answer: [`Answer::Done`]; [`Answer::NeedsBelow`] if not all of them are in it.
    Extract {
        /// Name of the layer.
        layer: LayerId,
        /// As in `Unpack`.
        stream: FdIndex,
        /// As in `Unpack`.
        diff_id: DiffId,
        /// Paths of regular files, in the form of [`Entry::path`].
        files: Vec<Vec<u8>>,
        /// Path of the directory below the store's root.
        to: PathBuf,
    },
    /// Make a planned layer visible on disk. Answer: [`Answer::Done`].
    Materialise {
        /// Name of the layer, whose listing is in the store already.
        layer: LayerId,
        /// Where the file contents come from, one for each [`Content::Tree`] root number.
        roots: Vec<Root>,
        /// Content of each regular file, in the order of the listing's regular files.
        contents: ContentList,
    },
    /// See to it that the files of a layer are on disk. Answer: [`Answer::Had`].
    Have {
        /// The layer.
        layer: LayerId,
    },
    /// A process is to be run later: make ready what it will need. Answer: [`Answer::Done`].
    Expect(Expected),
    /// Run a process. Answer: [`Answer::Exited`].
    Exec(Box<ExecRequest>),
    /// Write a layer as a blob. Answer: [`Answer::Sealed`].
    Seal {
        /// The layer.
        layer: LayerId,
        /// As in `Materialise`; empty when the layer is on disk.
        roots: Vec<Root>,
        /// As in `Materialise`; empty when the layer is on disk.
        contents: ContentList,
        /// How to write it.
        compression: Compression,
        /// All later times become this one (`rewrite-timestamp`), in seconds.
        clamp_mtime: Option<i64>,
        /// An empty file below the store's root in which the blob is written, for somebody who reads
        /// it while it grows. None: the worker makes one.
        blob: Option<PathBuf>,
    },
    /// Digests of files' contents. Answer: [`Answer::Hashes`].
    HashFiles {
        /// The layers that hold them, and the paths.
        files: Vec<(LayerId, Vec<u8>)>,
    },
    /// The bytes of one file. Answer: [`Answer::Bytes`].
    ReadFile {
        /// The layer that holds it.
        layer: LayerId,
        /// Its path, in the form of [`Entry::path`].
        path: Vec<u8>,
        /// More bytes than this are an error.
        limit: u64,
    },
    /// Write a merged tree below a directory (`--output type=local`). Answer:
    /// [`Answer::Exported`].
    ExportDir {
        /// The tree.
        chain: Chain,
        /// Directory, open.
        dest: FdIndex,
        /// The time of everything, in seconds; none keeps the times.
        mtime: Option<i64>,
    },
    /// Write merged trees as a tar (`--output type=tar`). Answer: [`Answer::Done`].
    ExportTar {
        /// The trees, each with the directory it is in; that may be empty.
        trees: Vec<(String, Chain)>,
        /// Where the tar goes.
        dest: FdIndex,
        /// As in `ExportDir`.
        mtime: Option<i64>,
    },
    /// Remove directories of the store that the caller may not be able to remove. Answer: `Done`.
    Remove {
        /// Paths below the store's root.
        paths: Vec<PathBuf>,
    },
    /// Kill the process of request `number`. No answer of its own: the process's answer comes.
    Cancel {
        /// Number of the `Exec` request.
        number: u64,
    },
}

/// A directory that contents are read from.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Root {
    /// A directory outside of the store, open (a build context).
    Fd(FdIndex),
    /// A layer on disk.
    Layer(LayerId),
    /// A path below the store's root (downloads, git trees, unpacked archives).
    Store(PathBuf),
}

/// Where the bytes of a regular file are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// Here.
    Inline(Vec<u8>),
    /// In a file.
    Tree {
        /// Index into the roots.
        root: usize,
        /// Path below it.
        path: Vec<u8>,
    },
}

/// What is known of a process before it is its turn.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Expected {
    /// Network.
    pub network: Network,
    /// All capabilities the sandbox has, no filter.
    pub insecure: bool,
    /// As [`ExecRequest::shm_size`].
    pub shm_size: u64,
}

/// A process to run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`; complete: nothing is added but what the step's root decides (`HOME`).
    pub env: Vec<String>,
    /// Absolute; made if missing.
    pub cwd: String,
    /// `USER` as written, resolved in the step's root. Empty means root.
    pub user: String,
    /// Host name.
    pub hostname: String,
    /// Additional lines of `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers, search domains and options; empty means those of the host.
    pub resolv_conf: Option<String>,
    /// Resource limits: name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Bytes of `/dev/shm`; 0 means 64 MiB.
    pub shm_size: u64,
    /// What it may take of the machine.
    pub resources: Resources,
    /// Network.
    pub network: Network,
    /// All capabilities the sandbox has, no filter.
    pub insecure: bool,
    /// Whether another step is to come, so that its process may be started already.
    pub another: bool,
    /// Mounts in order; the one for `/` is among them.
    pub mounts: Vec<ExecMount>,
    /// Whether parents of mount points that were made for the step are removed after it.
    pub remove_stub_parents: bool,
    /// Where standard output goes.
    pub stdout: FdIndex,
    /// Where standard error goes.
    pub stderr: FdIndex,
}

/// Network of a process.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Network {
    /// The build's own network, or the caller's where there is none.
    Default,
    /// The caller's.
    Host,
    /// Only a loopback.
    None,
}

/// A mount of a process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExecMount {
    /// Absolute path in the step.
    pub dest: String,
    /// Whether the process cannot write to it.
    pub readonly: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum MountSource {
    /// A tree, or a path in it.
    Tree {
        /// The tree.
        chain: Chain,
        /// Path in the tree; empty means its root.
        selector: String,
        /// Name of the layer that keeps what the process wrote; none throws it away.
        commit: Option<LayerId>,
    },
    /// A directory that outlives the build.
    Cache {
        /// Path below the store's root; made if missing, with the owner and mode below.
        dir: PathBuf,
        /// Content of a new directory.
        base: Chain,
        /// Path in `base`.
        selector: String,
        /// Permission bits of a new directory.
        mode: u32,
        /// Owner of a new directory.
        uid: u32,
        /// Group of a new directory.
        gid: u32,
    },
    /// An empty file system in memory; 0 bytes means the kernel's default size.
    Tmpfs {
        /// Bytes.
        size: u64,
    },
    /// A file with the bytes that the descriptor yields, in memory only.
    Secret {
        /// A memory file.
        value: FdIndex,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A listening socket's path in the host (an ssh agent); connections are relayed.
    Socket {
        /// Path of the agent's socket on the host.
        path: PathBuf,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
}

/// What the worker answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Answer {
    /// Done; nothing to tell.
    Done,
    /// A layer is in the store.
    Unpacked {
        /// Bytes of the regular files.
        size: u64,
    },
    /// The layer cannot be unpacked before those below it.
    NeedsBelow,
    /// Whether a layer's files are on disk now.
    Had(bool),
    /// A process ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// What it took.
        usage: Usage,
        /// The layers that were committed (only if the exit code was 0): name, bytes, entries.
        layers: Vec<Committed>,
        /// What a person should know beside: about its network, for example. Lines without an end.
        notes: Vec<String>,
    },
    /// A layer is a blob of the store.
    Sealed(Sealed),
    /// A tree is in its directory.
    Exported {
        /// Device nodes that the host refused, in words.
        left_out: Vec<String>,
    },
    /// Digests, in the order asked.
    Hashes(Vec<Digest>),
    /// Bytes of a file.
    Bytes(Vec<u8>),
    /// It failed.
    Failed(Failure),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ExitStatus {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By this signal, because memory ran out.
    OutOfMemory,
    /// Because the build was cancelled.
    Cancelled,
}

/// What a process and its children took.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Usage {
    /// Seconds of processor time, user and system.
    pub cpu_seconds: f64,
    /// Most memory, bytes: of all processes at a time where a cgroup counts that, else of the
    /// largest one.
    pub peak_memory: u64,
}

/// A layer that a process wrote.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Committed {
    /// Its name.
    pub layer: LayerId,
    /// Bytes of its regular files.
    pub size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// A layer as a blob.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sealed {
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Digest of the blob.
    pub blob: BlobId,
    /// Bytes of the blob.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// Why a request failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Which kind: decides the exit code and the hint.
    pub kind: FailureKind,
    /// What could not be done, with its subject; the cause after a colon.
    pub text: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FailureKind {
    /// The Dockerfile asks for something impossible (a missing user, a program that is not there).
    User,
    /// The host refuses or is full.
    Host,
    /// What came from outside is not what it should be (digest mismatch, broken archive).
    Remote,
    /// An invariant broke.
    Bug,
}

/// A listing entry as it goes over the wire, with the index of its content if it is a file.
pub type ListingEntry = Entry;
