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
        let mut name = name.into();
        if self.0.contains_key(&name) {
            name = self.next(&name);
        }
        self.0.insert(name, digest);
    }

    /// The first numbered name that is free. Numbers are given without gaps, so that few have to be
    /// looked at: a thousand sources of one `COPY` have one name.
    fn next(&self, name: &str) -> String {
        let numbered = |number: usize| format!("{name}#{number}");
        let is_taken = |number: usize| self.0.contains_key(&numbered(number));
        let (mut taken, mut free) = (1, 2);
        while is_taken(free) {
            (taken, free) = (free, free * 2);
        }
        while free - taken > 1 {
            let middle = taken.midpoint(free);
            if is_taken(middle) { taken = middle } else { free = middle }
        }
        numbered(free)
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
    fn names_are_numbered_without_gaps() {
        let mut all = KeyParts::default();
        (0..40).for_each(|number| all.add_value("a", &number));
        let mut names: Vec<&str> = all.iter().map(|(name, _)| name).collect();
        names.sort_by_key(|name| name.len());
        assert_eq!(names.len(), 40);
        assert_eq!((names[0], names[1], names[39]), ("a", "a#2", "a#40"));
    }

    #[test]
    fn explains() {
        check("argv=make env.CC=gcc", "argv=make env.CC=gcc", "");
        check("argv=make env.CC=gcc", "argv=make env.CC=clang", "env.CC");
        check("argv=make env.CC=gcc", "argv=make input.0=x", "env.CC input.0");
        check("a=1 a=2", "a=1 a=3", "a#2");
    }
}
