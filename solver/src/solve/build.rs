//! What one build knows while it runs, and the keys that follow from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::keys::{self, InputKey, Selection, Selections};
use super::layers::Layers;
use super::needs::Need;
use super::outside::Outside;
use super::trees::Trees;
use super::{SolveRequest, Solver};
use crate::cache::{CacheKey, KeyParts};
use crate::llb::VertexId;
use crate::worker::proto::Chain;

/// The result of a vertex.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The tree of each output.
    pub outputs: Vec<Chain>,
    /// Key that users' keys are made of.
    pub key: CacheKey,
    /// Whether the last layer was planned and never written.
    pub planned_only: bool,
}

/// Results of a vertex's inputs, in their order; none for a tree from outside.
#[derive(Clone, Debug)]
pub struct StepInputs {
    /// The results.
    pub outcomes: Vec<Option<Outcome>>,
}

/// What one build knows while it runs. Shared by its steps.
#[derive(Debug)]
pub struct Build {
    /// What it works with.
    pub solver: Solver,
    /// What is to be built.
    pub request: SolveRequest,
    /// Its layers.
    pub layers: Arc<Layers>,
    /// Layers of images.
    pub images: HashMap<VertexId, Chain>,
    /// Trees from outside.
    pub outside: HashMap<VertexId, Outside>,
    /// What is needed of each vertex.
    pub needs: Vec<Need>,
    /// How many processes are still to be run; fewer where results turn up meanwhile.
    pub steps_left: AtomicUsize,
    pub(super) trees: Trees,
    pub(super) selections: Selections,
    pub(super) definition: HashMap<VertexId, KeyParts>,
}

impl Build {
    /// What is known of the inputs of a vertex that is about to run.
    pub(super) fn inputs(&self, id: VertexId, found: &HashMap<VertexId, Outcome>) -> StepInputs {
        let vertex = &self.request.graph[id];
        StepInputs {
            outcomes: vertex.inputs.iter().map(|edge| found.get(&edge.vertex).cloned()).collect(),
        }
    }

    pub(super) fn definition_keys(&self, needed: &[VertexId]) -> HashMap<VertexId, KeyParts> {
        let graph = &self.request.graph;
        let mut keys: HashMap<VertexId, CacheKey> = HashMap::new();
        let mut all = HashMap::new();
        for &id in needed {
            let input = |id: VertexId| match keys.get(&id) {
                Some(key) if !self.outside.contains_key(&id) => InputKey::Key(*key),
                Some(_) | None => InputKey::Outside,
            };
            let parts = keys::parts(graph, id, &input, &self.selections);
            keys.insert(id, parts.key());
            all.insert(id, parts);
        }
        all
    }

    /// The key by definition of a vertex.
    pub fn definition_key(&self, id: VertexId) -> CacheKey {
        self.definition[&id].key()
    }

    /// What is selected from trees outside by a vertex.
    pub(super) fn selections_of(&self, id: VertexId) -> Vec<&Selection> {
        self.selections.iter().filter(|((it, _), _)| *it == id).map(|(_, it)| it).collect()
    }

    /// The key by content of a vertex whose inputs are there.
    pub(super) fn real_key(
        &self,
        id: VertexId,
        inputs: &StepInputs,
        selections: &Selections,
    ) -> (KeyParts, CacheKey) {
        let graph = &self.request.graph;
        let keys: HashMap<VertexId, CacheKey> = graph[id]
            .inputs
            .iter()
            .zip(&inputs.outcomes)
            .filter_map(|(edge, outcome)| Some((edge.vertex, outcome.as_ref()?.key)))
            .collect();
        let input =
            |id: VertexId| keys.get(&id).map_or(InputKey::Outside, |key| InputKey::Key(*key));
        let mut all: Selections = self
            .selections
            .iter()
            .filter(|((it, _), _)| *it == id)
            .map(|(key, it)| (*key, it.clone()))
            .collect();
        all.extend(selections.iter().map(|(key, it)| (*key, it.clone())));
        let parts = keys::parts(graph, id, &input, &all);
        let key = parts.key();
        (parts, key)
    }

    #[expect(clippy::iter_over_hash_type, reason = "each cache is a file of its own")]
    pub(super) fn save_stat_caches(&self) {
        for outside in self.outside.values() {
            let mut cache =
                outside.digests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // A cache that cannot be kept costs time, not correctness.
            drop(cache.save());
        }
    }
}
