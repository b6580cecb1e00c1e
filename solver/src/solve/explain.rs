//! Why a step was not found in the cache.

use rbuild_store::digest::{Digest, Hasher};

use super::build::Build;
use super::error::SolveError;
use super::keys::Selections;
use crate::cache::KeyParts;
use crate::llb::VertexId;

impl Build {
    /// What a step's last key is kept under: its name in the scope of this Dockerfile.
    pub(super) fn step_identity(&self, id: VertexId) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(self.request.scope.as_bytes());
        hasher.field(self.request.graph[id].meta.name.as_bytes());
        hasher.finish()
    }

    /// The parts of a key with selections opened up: one part for each selected path.
    pub(super) fn explained(
        &self,
        id: VertexId,
        parts: &KeyParts,
        selections: &Selections,
    ) -> KeyParts {
        let mut opened = parts.clone();
        let own = self.selections_of(id).into_iter().chain(selections.values());
        for selection in own {
            for (path, digest) in &selection.paths {
                opened.add(format!("file./{}", path.trim_start_matches('/')), *digest);
            }
        }
        opened
    }

    /// Names of what changed since the step last ran; empty if it never did. A selection whose
    /// changed paths are known is told by these.
    pub(super) fn explain(
        &self,
        id: VertexId,
        parts: &KeyParts,
        selections: &Selections,
    ) -> Result<Vec<String>, SolveError> {
        let before = self
            .solver
            .store
            .db()?
            .step_parts(&[self.step_identity(id)])?
            .into_iter()
            .next()
            .flatten();
        let Some(before) = before.and_then(|text| serde_json::from_str::<KeyParts>(&text).ok())
        else {
            return Ok(Vec::new());
        };
        let changed = self.explained(id, parts, selections).changed_since(&before);
        let has_files = changed.iter().any(|name| name.starts_with("file./"));
        let changed = changed
            .into_iter()
            .filter(|name| !(has_files && name.starts_with("content.")))
            .collect();
        Ok(changed)
    }
}
