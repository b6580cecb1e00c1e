//! What a finished step leaves for the next build.

use serde::{Deserialize, Serialize};

use super::parts::CacheKey;

/// Format of a record; one of another version is a miss.
const RECORD_VERSION: u32 = 2;

/// What a finished step leaves for the next build, besides its trees.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    version: u32,
    /// The key by content, which the keys of the steps above are made of.
    pub real_key: CacheKey,
    /// The last layer was planned and never written: whoever needs its files plans it again.
    pub planned_only: bool,
}

impl Record {
    /// A record of the current version.
    pub const fn new(real_key: CacheKey, planned_only: bool) -> Self {
        Self { version: RECORD_VERSION, real_key, planned_only }
    }

    /// The stored form.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has only string keys")
    }

    /// Reads the stored form; none if it is of another version or damaged: that is a miss.
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version == RECORD_VERSION)
    }
}

#[cfg(test)]
mod tests {
    use rbuild_store::digest::Digest;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_a_miss() {
        let record = Record::new(CacheKey(Digest::of(b"x")), false);
        assert_eq!(Record::from_json(&record.to_json()), Some(record.clone()));
        assert_eq!(Record::from_json(b"{"), None);
        let newer =
            String::from_utf8(record.to_json()).unwrap().replace("\"version\":2", "\"version\":3");
        assert_eq!(Record::from_json(newer.as_bytes()), None);
    }
}
