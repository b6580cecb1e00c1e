//! What is known of each vertex: a fold over the event log.

use std::collections::HashMap;
use std::time::Duration;

use rbuild_store::digest::Digest;

/// What is known of one vertex.
#[derive(Clone, Debug, Default)]
pub struct VertexView {
    /// Number shown to the user: 1 for the first vertex that was shown.
    pub number: usize,
    /// `[build 2/4] RUN make`.
    pub name: String,
    /// When work began.
    pub started: Option<Duration>,
    /// Whether it was shown before.
    pub shown: bool,
    /// Whether its result was found in the cache.
    pub cached: bool,
    /// Whether it has ended.
    pub ended: bool,
}

/// All vertices that were declared.
#[derive(Debug, Default)]
pub struct View {
    vertices: HashMap<Digest, VertexView>,
    numbered: usize,
}

impl View {
    /// A vertex became known.
    pub fn declare(&mut self, vertex: Digest, name: &str) {
        let view = self.vertices.entry(vertex).or_default();
        if view.name.is_empty() {
            name.clone_into(&mut view.name);
        }
    }

    /// The vertex, with a number from now on.
    pub fn number(&mut self, vertex: Digest) -> &mut VertexView {
        let view = self.vertices.entry(vertex).or_default();
        if view.number == 0 {
            self.numbered += 1;
            view.number = self.numbered;
        }
        view
    }
}
