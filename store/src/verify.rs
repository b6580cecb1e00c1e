//! A reader that fails at its end unless size and digest are those that were announced.

use std::io::{self, Read};

use crate::digest::{Digest, Hasher};

/// Why the bytes of a stream are not those that were announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// There are more or fewer bytes.
    #[error("expected {expected} bytes, found {found}")]
    Size {
        /// Bytes announced.
        expected: u64,
        /// Bytes found; where there are more than announced, one too many.
        found: u64,
    },
    /// There are as many bytes, but others.
    #[error("expected {expected}, but the bytes hash to {found}")]
    Digest {
        /// Digest announced.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
}

/// Passes on what `inner` yields, and fails at the end (never before) if it was something else
/// than announced; more bytes than announced are never passed on.
///
/// Whoever does not read to the end has verified nothing.
#[derive(Debug)]
pub struct VerifyReader<R> {
    inner: R,
    hasher: Hasher,
    expected: Digest,
    size: u64,
    seen: u64,
}

impl<R: Read> VerifyReader<R> {
    /// Expects `size` bytes that hash to `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Self { inner, hasher: Hasher::new(), expected, size, seen: 0 }
    }

    fn at_end(&self) -> io::Result<()> {
        if self.seen != self.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                Mismatch::Size { expected: self.size, found: self.seen },
            ));
        }
        let found = self.hasher.clone().finish();
        if found == self.expected {
            Ok(())
        } else {
            let mismatch = Mismatch::Digest { expected: self.expected, found };
            Err(io::Error::new(io::ErrorKind::InvalidData, mismatch))
        }
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let found = self.inner.read(buffer)?;
        self.seen += found as u64;
        if found == 0 {
            self.at_end()?;
        } else if self.seen > self.size {
            let mismatch = Mismatch::Size { expected: self.size, found: self.size + 1 };
            return Err(io::Error::new(io::ErrorKind::InvalidData, mismatch));
        }
        self.hasher.update(&buffer[..found]);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], announced: &[u8]) -> Result<Vec<u8>, String> {
        let size = announced.len() as u64;
        let mut reader = VerifyReader::new(bytes, Digest::of(announced), size);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map_err(|error| error.to_string())?;
        Ok(all)
    }

    #[test]
    fn passes_on_what_was_announced() {
        assert_eq!(read(b"layer", b"layer"), Ok(b"layer".to_vec()));
        assert_eq!(read(b"", b""), Ok(Vec::new()));
    }

    #[test]
    fn fails_on_anything_else() {
        assert_eq!(read(b"laye", b"layer"), Err("expected 5 bytes, found 4".to_owned()));
        assert_eq!(read(b"layers", b"layer"), Err("expected 5 bytes, found 6".to_owned()));
        let error = read(b"lover", b"layer").expect_err("other bytes");
        assert!(error.starts_with("expected sha256:"), "{error}");
    }
}
