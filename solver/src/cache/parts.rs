//! A key that can explain itself.

use std::collections::BTreeMap;
use std::fmt;

use rbuild_store::digest::{Digest, Hasher};
use serde::{Deserialize, Serialize};

/// Bump when the meaning of a part changes: every record of an older version is then a miss.
const KEY_VERSION: u64 = 1;

/// Identity of a step's result: the digest of its parts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CacheKey(pub Digest);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything that decides a result, by name: `argv`, `env.PATH`, `input.0`, `context./src/a.c`.
///
/// The key is the digest of the parts; the explanation is their difference. Both come from this
/// one value, so they cannot disagree.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct KeyParts(BTreeMap<String, Digest>);

impl KeyParts {
    /// Adds a part. A name that is there already gets a number, so that no part is lost.
    pub fn add(&mut self, name: impl Into<String>, digest: Digest) {
        let name = name.into();
        let mut unique = name.clone();
        let mut number = 1;
        while self.0.contains_key(&unique) {
            number += 1;
            unique = format!("{name}#{number}");
        }
        self.0.insert(unique, digest);
    }

    /// Adds a part whose value is text or anything else that has a JSON form.
    pub fn add_value(&mut self, name: impl Into<String>, value: &impl Serialize) {
        let json = serde_json::to_vec(value).expect("key parts have only string keys");
        self.add(name, Digest::of(&json));
    }

    /// The key of these parts.
    pub fn key(&self) -> CacheKey {
        let mut hasher = Hasher::new();
        hasher.number(KEY_VERSION);
        for (name, digest) in &self.0 {
            hasher.field(name.as_bytes());
            hasher.field(digest.as_bytes());
        }
        CacheKey(hasher.finish())
    }

    /// Names of the parts that are new, gone or different, sorted.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let mut changed: Vec<String> = self
            .0
            .iter()
            .filter(|(name, digest)| before.0.get(*name) != Some(digest))
            .map(|(name, _)| name.clone())
            .collect();
        changed.extend(before.0.keys().filter(|name| !self.0.contains_key(*name)).cloned());
        changed.sort_unstable();
        changed
    }

    /// Name and digest of each part, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Digest)> {
        self.0.iter().map(|(name, digest)| (name.as_str(), digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> KeyParts {
        let mut parts = KeyParts::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap();
            parts.add_value(name, &value);
        }
        parts
    }

    #[track_caller]
    fn check(last: &str, now: &str, want: &str) {
        let (last, now) = (parts(last), parts(now));
        let changed = now.changed_since(&last);
        assert_eq!(changed.is_empty(), now.key() == last.key(), "explanation and key disagree");
        assert_eq!(changed.join(" "), want);
    }

    #[test]
    fn explains() {
        check("argv=make env.CC=gcc", "argv=make env.CC=gcc", "");
        check("argv=make env.CC=gcc", "argv=make env.CC=clang", "env.CC");
        check("argv=make env.CC=gcc", "argv=make input.0=x", "env.CC input.0");
        check("a=1 a=2", "a=1 a=3", "a#2");
    }
}
