//! Listings as bytes.

use rbuild_store::entry::Entry;

/// The file's form.
pub(crate) fn encode(listing: &[Entry]) -> Vec<u8> {
    serde_json::to_vec(listing).unwrap_or_default()
}

/// Reads the file's form.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    serde_json::from_slice(bytes)
}
