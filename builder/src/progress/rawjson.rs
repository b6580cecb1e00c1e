//! Progress as one JSON object a line, in the shape of BuildKit's `SolveStatus`.

use std::collections::HashMap;
use std::io::Write;

use rbuild_solver::event::{Event, EventKind, Stream};
use rbuild_store::digest::Digest;
use serde_json::{Map, Value, json};

use super::Renderer;

/// The renderer.
pub struct RawJson<'a> {
    out: &'a mut dyn Write,
    vertices: HashMap<Digest, Map<String, Value>>,
}

impl<'a> RawJson<'a> {
    /// Lines go to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, vertices: HashMap::new() }
    }
}

impl Renderer for RawJson<'_> {
    fn flush(&mut self) {
        // A closed terminal does not stop a build.
        drop(self.out.flush());
    }

    fn event(&mut self, event: &Event) {
        let at = event.at.as_secs_f64();
        let digest = event.vertex.to_string();
        let vertex = self
            .vertices
            .entry(event.vertex)
            .or_insert_with(|| Map::from_iter([("digest".to_owned(), json!(digest))]));
        let line = match &event.kind {
            EventKind::Declared { name, inputs } => {
                vertex.insert("name".to_owned(), json!(name));
                vertex.insert("inputs".to_owned(), json!(inputs));
                json!({"vertexes": [vertex]})
            }
            EventKind::Started => {
                vertex.insert("started".to_owned(), json!(at));
                json!({"vertexes": [vertex]})
            }
            EventKind::Cached => {
                vertex.insert("cached".to_owned(), json!(true));
                return;
            }
            EventKind::Missed { changed, out_of_reach } => {
                let missed =
                    json!({"vertex": digest, "changed": changed, "outOfReach": out_of_reach});
                json!({"missed": [missed]})
            }
            EventKind::Completed { error } => {
                vertex.insert("completed".to_owned(), json!(at));
                if let Some(error) = error {
                    vertex.insert("error".to_owned(), json!(error));
                }
                json!({"vertexes": [vertex]})
            }
            // Comes with the end.
            EventKind::Took { cpu, peak_memory } => {
                let usage = json!({"cpuSeconds": cpu.as_secs_f64(), "peakMemory": peak_memory});
                vertex.insert("usage".to_owned(), usage);
                return;
            }
            EventKind::Status { id, current, total, done } => {
                let completed = done.then_some(at);
                json!({"statuses": [{"id": id, "vertex": digest, "current": current, "total": total, "timestamp": at, "completed": completed}]})
            }
            EventKind::Log { stream, data } => {
                let stream = match stream {
                    Stream::Stdout => 1,
                    Stream::Stderr => 2,
                };
                json!({"logs": [{"vertex": digest, "stream": stream, "data": String::from_utf8_lossy(data), "timestamp": at}]})
            }
            EventKind::Warning { rule, text, location } => {
                let line = location.as_ref().map(|it| it.first);
                json!({"warnings": [{"vertex": digest, "rule": rule, "short": text, "line": line}]})
            }
        };
        // A closed reader does not stop a build.
        drop(writeln!(self.out, "{line}"));
    }
}
