//! Where the solver writes its event log.

use std::sync::mpsc::Sender;
use std::time::Instant;

use rbuild_store::digest::Digest;

use crate::event::{Event, EventKind};
use crate::llb::{Graph, VertexId};

/// Writes the event log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventSink {
    began: Instant,
    log: Sender<Event>,
}

impl EventSink {
    /// Writes to `log`; times count from now.
    pub fn new(log: Sender<Event>) -> Self {
        Self { began: Instant::now(), log }
    }

    /// Something happened to a vertex. A log that nobody reads any more takes nothing.
    pub fn send(&self, vertex: Digest, kind: EventKind) {
        drop(self.log.send(Event { at: self.began.elapsed(), vertex, kind }));
    }

    /// Declares a vertex of the graph.
    pub fn declare(&self, graph: &Graph, id: VertexId) {
        let vertex = &graph[id];
        let inputs = vertex.inputs.iter().map(|edge| graph[edge.vertex].digest).collect();
        self.send(vertex.digest, EventKind::Declared { name: vertex.meta.name.clone(), inputs });
    }

    /// A step of the build that is no vertex of the graph (loading the Dockerfile, exporting):
    /// declares and starts it.
    pub fn task(&self, name: &str) -> Task {
        let vertex = Digest::of(name.as_bytes());
        self.send(vertex, EventKind::Declared { name: name.to_owned(), inputs: Vec::new() });
        self.send(vertex, EventKind::Started);
        Task { sink: self.clone(), vertex }
    }
}

/// A step of the build that is no vertex of the graph. It ends when it is told to.
#[derive(Clone, Debug)]
pub struct Task {
    sink: EventSink,
    vertex: Digest,
}

impl Task {
    /// Progress of a part.
    pub fn status(&self, id: &str, current: u64, total: u64, done: bool) {
        self.sink.send(self.vertex, EventKind::Status { id: id.to_owned(), current, total, done });
    }

    /// A part that has no size: done.
    pub fn done_part(&self, id: &str) {
        self.status(id, 0, 0, true);
    }

    /// Something the user should know of it.
    pub fn warn(&self, text: String) {
        let kind = EventKind::Warning { rule: String::new(), text, location: None };
        self.sink.send(self.vertex, kind);
    }

    /// Its result was there already.
    pub fn cached(&self) {
        self.sink.send(self.vertex, EventKind::Cached);
    }

    /// It ended; passes the result through.
    ///
    /// # Errors
    ///
    /// The result's own.
    pub fn end<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        let error = result.as_ref().err().map(ToString::to_string);
        self.sink.send(self.vertex, EventKind::Completed { error });
        result
    }
}
