//! Results of earlier builds: looked up by key, waited for, kept.

use std::collections::HashMap;
use std::sync::Arc;

use rbuild_store::records::{Made, Record as StoredRecord, Tree};

use super::build::{Build, Outcome};
use super::error::SolveError;
use super::keys::Selections;
use super::needs::Need;
use crate::cache::{CacheKey, KeyParts, Record};
use crate::llb::VertexId;
use crate::llb::op::Op;

/// What is known of a result.
pub(super) enum Recalled {
    /// All that is needed.
    Here(Outcome),
    /// A result whose files cannot be had: they are torn, or of ids that this build has not.
    OutOfReach,
    /// Nothing.
    Unknown,
}

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
            if let Some(outcome) = self.recalled(&stored) {
                found.insert(*id, outcome);
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

    /// The result that a record tells of; none if it is of another version.
    fn recalled(&self, stored: &StoredRecord) -> Option<Outcome> {
        let Record { real_key, planned_only, .. } = Record::from_json(stored.value.as_bytes())?;
        let outputs = stored.trees.iter().map(|tree| self.trees.chain(tree)).collect();
        Some(Outcome { outputs, key: real_key, planned_only })
    }

    /// Whether a known result is enough for what is needed of it: that its layers are in the store,
    /// or can be pulled. Of one that was only planned nothing is there; it serves whoever asks for
    /// no more than that it can be made.
    pub(super) fn serves(&self, outcome: &Outcome, need: Need) -> bool {
        if outcome.planned_only {
            return !(need.exported || need.files || need.listing);
        }
        outcome.outputs.iter().flatten().all(|layer| self.layers.is_here(layer))
    }

    /// Whether the files of a known result can be had, if they are needed.
    pub(super) async fn in_reach(&self, outcome: &Outcome, need: Need) -> Result<bool, SolveError> {
        if !(need.exported || need.files) {
            return Ok(true);
        }
        let layers = outcome.outputs.iter().flatten();
        let all = layers.map(|layer| self.layers.in_reach(layer));
        Ok(futures_util::future::try_join_all(all).await?.into_iter().all(|it| it))
    }

    /// Of the results that were found and that nothing makes again, those whose files are needed and
    /// out of reach.
    pub(super) async fn out_of_reach(
        &self,
        found: &HashMap<VertexId, Outcome>,
        (needs, runs): (&[Need], &[bool]),
    ) -> Result<Vec<VertexId>, SolveError> {
        let mut lost = Vec::new();
        for id in
            self.request.graph.ids().filter(|it| needs[it.index()].wanted && !runs[it.index()])
        {
            if let Some(outcome) = found.get(&id)
                && !self.in_reach(outcome, needs[id.index()]).await?
            {
                lost.push(id);
            }
        }
        Ok(lost)
    }

    /// A result by key, if it is whole and of use.
    pub(super) async fn cached(&self, key: CacheKey, id: VertexId) -> Result<Recalled, SolveError> {
        let record = self.solver.store.db()?.records(&[key.0])?.into_iter().next().flatten();
        let outcome = record.and_then(|it| self.recalled(&it));
        let need = self.needs[id.index()];
        match outcome.filter(|it| self.serves(it, need)) {
            Some(outcome) if self.in_reach(&outcome, need).await? => Ok(Recalled::Here(outcome)),
            Some(_) => Ok(Recalled::OutOfReach),
            None => Ok(Recalled::Unknown),
        }
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
        let record = Record::new(outcome.key, outcome.planned_only);
        let value = String::from_utf8(record.to_json()).expect("JSON is UTF-8");
        let trees: Vec<Tree> = outcome.outputs.iter().map(|chain| self.trees.of(chain)).collect();
        let stored = |key: CacheKey| StoredRecord {
            key: key.0,
            real_key: Some(outcome.key.0),
            value: value.clone(),
            trees: trees.clone(),
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
