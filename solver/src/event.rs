//! What happens in a build, as an append-only log.
//!
//! The fields are those of BuildKit's status stream (`Vertex`, `VertexStatus`, `VertexLog`,
//! `VertexWarning`), so that every renderer, and later the API, folds the same log. Events carry
//! ids and numbers; prose belongs to the renderers.

use std::time::Duration;

use rbuild_store::digest::Digest;

use crate::llb::Location;

/// Time since the build began.
pub type Elapsed = Duration;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Elapsed,
    /// To which vertex.
    pub vertex: Digest,
    /// What.
    pub kind: EventKind,
}

/// What happened to a vertex.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// It became known: sent once, before anything else about it.
    Declared {
        /// `[build 2/4] RUN make`.
        name: String,
        /// Vertices it waits for.
        inputs: Vec<Digest>,
    },
    /// Work on it began.
    Started,
    /// Its result was found; nothing ran.
    Cached,
    /// It ran; which named parts of its key had changed since the last time (`--explain`).
    Missed {
        /// Names of parts: `context./src/main.c`, `env.CC`; empty where it never ran before.
        changed: Vec<String>,
        /// Whether the result is known, but its files cannot be had: they are torn, or of ids that
        /// this build has not.
        out_of_reach: bool,
    },
    /// Work on it ended.
    Completed {
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// Progress of a part, a download for example.
    Status {
        /// Name of the part: `sha256:… `, `extracting sha256:…`, `exporting layers`.
        id: String,
        /// Units done.
        current: u64,
        /// Units in all; 0 where unknown.
        total: u64,
        /// Whether this part has ended.
        done: bool,
    },
    /// Output of a process.
    Log {
        /// Standard output or standard error.
        stream: Stream,
        /// Bytes as they came; not cut at line ends.
        data: Vec<u8>,
    },
    /// What its process took, and all that it started.
    Took {
        /// Processor time.
        cpu: Duration,
        /// Most memory, bytes: see [`crate::worker::proto::Usage`].
        peak_memory: u64,
    },
    /// Something the user should know.
    Warning {
        /// Rule or source of the warning.
        rule: String,
        /// Text.
        text: String,
        /// Where.
        location: Option<Location>,
    },
}

/// Which stream a process wrote to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Stream {
    Stdout,
    Stderr,
}
