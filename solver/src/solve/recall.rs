//! Results of earlier builds: looked up by key, waited for, kept.

use std::collections::HashMap;
use std::sync::Arc;

use rbuild_store::records::{Made, Record as StoredRecord};

use super::build::{Build, Outcome};
use super::error::SolveError;
use super::keys::Selections;
use crate::cache::{CacheKey, KeyParts, Record};
use crate::llb::VertexId;
use crate::llb::op::Op;

impl Build {
    /// Looks all definition keys up at once. Images have results without a record.
    pub(super) fn look_up(
        &self,
        needed: &[VertexId],
    ) -> Result<HashMap<VertexId, Outcome>, SolveError> {
        let mut found: HashMap<VertexId, Outcome> = HashMap::new();
        let asked: Vec<VertexId> = needed
            .iter()
            .copied()
            .filter(|id| {
                !matches!(self.request.graph[*id].op, Op::Source(_))
                    && !self.request.graph[*id].meta.ignore_cache
            })
            .collect();
        let keys: Vec<_> = asked.iter().map(|id| self.definition[id].key().0).collect();
        let records =
            if keys.is_empty() { Vec::new() } else { self.solver.store.db()?.records(&keys)? };
        let mut used = Vec::new();
        for (id, record) in asked.iter().zip(records) {
            let Some(stored) = record else { continue };
            if let Some(record) = Record::from_json(stored.value.as_bytes()) {
                let Record { real_key, outputs, planned_only, .. } = record;
                found.insert(*id, Outcome { outputs, key: real_key, planned_only });
                used.push(stored);
            }
        }
        let used: Vec<&StoredRecord> = used.iter().collect();
        if !used.is_empty() {
            self.solver.store.db()?.touch(&used, self.request.now)?;
        }
        found.extend(self.images.iter().map(|(&id, chain)| {
            (
                id,
                Outcome {
                    outputs: vec![chain.clone()],
                    key: self.definition_key(id),
                    planned_only: false,
                },
            )
        }));
        Ok(found)
    }

    /// Whether all layers of a result are in the store, or can be pulled.
    pub(super) fn is_whole(&self, outcome: &Outcome) -> bool {
        outcome.outputs.iter().flatten().all(|layer| self.layers.is_here(layer))
    }

    /// A result by key, if it is whole and of use.
    pub(super) fn cached(
        &self,
        key: CacheKey,
        id: VertexId,
    ) -> Result<Option<Outcome>, SolveError> {
        let record = self.solver.store.db()?.records(&[key.0])?.into_iter().next().flatten();
        let Some(record) = record.and_then(|it| Record::from_json(it.value.as_bytes())) else {
            return Ok(None);
        };
        let Record { real_key, outputs, planned_only, .. } = record;
        let outcome = Outcome { outputs, key: real_key, planned_only };
        let need = self.needs[id.index()];
        let used = need.exported || need.files || need.listing;
        Ok(Some(outcome).filter(|it| !(it.planned_only && used) && self.is_whole(it)))
    }

    /// Waits for the right to make the result of `key`.
    pub(super) async fn lock(
        &self,
        key: CacheKey,
    ) -> Result<rbuild_store::lock::KeyLock, SolveError> {
        if let Some(lock) = self.solver.store.try_lock_key(&key.0)? {
            return Ok(lock);
        }
        let store = Arc::clone(&self.solver.store);
        let wait = super::blocking(move || Ok(store.lock_key(&key.0)?));
        tokio::select! {
            lock = wait => lock,
            () = self.solver.cancel.cancelled() => Err(SolveError::cancelled()),
        }
    }

    /// Keeps a result for later builds, under both of its keys, with the layers that were `written`
    /// for it and the named parts of its key.
    pub(super) fn remember(
        &self,
        id: VertexId,
        definition: Option<CacheKey>,
        outcome: &Outcome,
        written: Vec<(String, u64)>,
        explained: Option<(&KeyParts, &Selections)>,
    ) -> Result<(), SolveError> {
        let key = outcome.key;
        let record = Record::new(outcome.key, outcome.outputs.clone(), outcome.planned_only);
        let value = String::from_utf8(record.to_json()).expect("JSON is UTF-8");
        let mut layers: Vec<String> =
            outcome.outputs.iter().flatten().map(|layer| layer.0.clone()).collect();
        layers.sort_unstable();
        layers.dedup();
        let stored = |key: CacheKey| StoredRecord {
            key: key.0,
            real_key: Some(outcome.key.0),
            value: value.clone(),
            layers: layers.clone(),
            blobs: Vec::new(),
            created: self.request.now,
            last_used: self.request.now,
        };
        let mut records = vec![stored(key)];
        if let Some(definition) = definition.filter(|it| *it != key) {
            records.push(stored(definition));
        }
        let parts = explained.map(|(parts, selections)| {
            let explained = self.explained(id, parts, selections);
            let text = serde_json::to_string(&explained).expect("parts have only string keys");
            (self.step_identity(id), text)
        });
        let made = Made { layers: written, records, parts };
        Ok(self.solver.store.db()?.put_made(&made, self.request.now)?)
    }

    /// Keeps a result that was planned only until its layer was written.
    pub(super) fn remember_written(
        &self,
        id: VertexId,
        outcome: &Outcome,
    ) -> Result<(), SolveError> {
        let definition = self.definition.get(&id).map(KeyParts::key);
        let outcome = Outcome { planned_only: false, ..outcome.clone() };
        self.remember(id, definition, &outcome, Vec::new(), None)
    }
}
