//! SHA-256 digests and the identities made of them.
//!
//! Every digest that means something else has a type of its own, so that the digest of a
//! compressed blob can never be taken for that of the tar inside it. A digest prints in exactly
//! one way: `sha256:` and 64 lowercase hex digits (OCI image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A SHA-256 value: 32 bytes, printed as `sha256:` and 64 lowercase hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Wraps 32 bytes that are known to be a SHA-256 value.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lowercase hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseDigestError {
    /// The text does not start with `sha256:`.
    #[error("expected a digest that starts with `sha256:`")]
    Algorithm,
    /// The part after the colon is not 64 lowercase hex digits.
    #[error("expected 64 lowercase hex digits after `sha256:`, found {found} characters")]
    Hex {
        /// Number of characters found after the colon.
        found: usize,
    },
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(ParseDigestError::Algorithm)?;
        let error = ParseDigestError::Hex { found: hex.chars().count() };
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return Err(error);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_chunks::<2>().0) {
            *byte = nibble(pair[0])
                .zip(nibble(pair[1]))
                .map(|(high, low)| high << 4 | low)
                .ok_or(error)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A SHA-256 computation in progress.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes` as they are: the caller sees to it that fields cannot run into each other.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a field: its length as 8 little-endian bytes, then its bytes.
    pub fn field(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_le_bytes());
        self.update(bytes);
    }

    /// Adds a number as 8 little-endian bytes.
    pub fn number(&mut self, number: u64) {
        self.update(&number.to_le_bytes());
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                text.parse().map(Self)
            }
        }
    };
}

id_type! {
    /// Digest of an uncompressed layer tar, as listed in the image config.
    DiffId
}
id_type! {
    /// Digest of a blob as stored and transferred, compressed or not.
    BlobId
}
id_type! {
    /// Digest of a chain of layers (OCI image-spec, config.md, "Layer `ChainID`").
    ChainId
}

impl ChainId {
    /// The chain id of `layers`, lowest first; none for an empty chain.
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        let (first, rest) = layers.split_first()?;
        Some(Self(
            rest.iter()
                .fold(first.0, |chain, layer| Digest::of(format!("{chain} {layer}").as_bytes())),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        assert_eq!("md5:abc".parse::<Digest>(), Err(ParseDigestError::Algorithm));
        assert_eq!("sha256:abc".parse::<Digest>(), Err(ParseDigestError::Hex { found: 3 }));
        let upper = format!("sha256:{}", "A".repeat(64));
        assert_eq!(upper.parse::<Digest>(), Err(ParseDigestError::Hex { found: 64 }));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let digest = |fields: &[&[u8]]| {
            let mut hasher = Hasher::new();
            for field in fields {
                hasher.field(field);
            }
            hasher.finish()
        };
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    #[test]
    fn chain_of_one_is_the_layer() {
        let one = DiffId(Digest::of(b"1"));
        assert_eq!(ChainId::of(&[one]), Some(ChainId(one.0)));
        assert_eq!(ChainId::of(&[]), None);
    }
}
