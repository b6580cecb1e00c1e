//! What the attributes of inodes were found to say: reading one takes longer than all else about an
//! inode, and most are asked for again and again.
//!
//! Writing an attribute gives an inode a new time of change, so what was found counts as long as that
//! time is the same: whoever wrote it, another step that mounts the same cache included. Clocks of
//! file systems have gaps: what has changed shortly before it was read may change again without
//! one noticing, and is read again.

use std::collections::HashMap;

use rustix::fs::Statx;
use rustix::time::{ClockId, clock_gettime};

use super::Inode;
use super::record::inode;
use crate::snapshot::owner::Record;

/// Nanoseconds between two times of a file system at most, and where it counts in seconds.
const GAP: i128 = 50_000_000;
const WIDE_GAP: i128 = 2_000_000_000;

/// Most inodes that are known; then all are read anew.
const MAX_KNOWN: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Attributes {
    known: HashMap<Inode, (i128, Option<Record>)>,
}

impl Attributes {
    /// The record in the attribute of an inode that is on disk like this; `read` tells if it is not
    /// known.
    pub(super) fn of(
        &mut self,
        stat: &Statx,
        read: impl FnOnce() -> Option<Record>,
    ) -> Option<Record> {
        let (key, changed) = (inode(stat), changed(stat));
        if let Some((then, said)) = self.known.get(&key)
            && *then == changed
        {
            return *said;
        }
        // Before it is read: what happens meanwhile is later.
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let said = read();
        let now = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let gap = if stat.stx_ctime.tv_nsec == 0 { WIDE_GAP } else { GAP };
        if now - changed > gap {
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
            self.known.insert(key, (changed, said));
        }
        said
    }

    /// Whether it is known that an inode has no attribute.
    pub(super) fn has_none(&self, stat: &Statx) -> bool {
        self.known.get(&inode(stat)) == Some(&(changed(stat), None))
    }

    /// To be called when it has been written.
    pub(super) fn forget(&mut self, stat: &Statx) {
        self.known.remove(&inode(stat));
    }
}

/// When an inode was changed last, in nanoseconds.
fn changed(stat: &Statx) -> i128 {
    i128::from(stat.stx_ctime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_ctime.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::fs::{AtFlags, StatxFlags};

    use super::*;

    #[test]
    fn what_an_attribute_said_counts_until_the_inode_changes() {
        let file = tempfile::tempfile().unwrap();
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let mut stat = rustix::fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, wanted).unwrap();
        let mut attributes = Attributes::default();
        // It may have changed just now.
        assert_eq!(attributes.of(&stat, || None), None);
        assert!(!attributes.has_none(&stat));
        stat.stx_ctime.tv_sec -= 3600;
        assert_eq!(attributes.of(&stat, || None), None);
        assert!(attributes.has_none(&stat));
        let record = Record::parse(b"1:2:100644:0:0:0:0:644");
        assert_eq!(attributes.of(&stat, || record), None, "it is known");
        stat.stx_ctime.tv_nsec ^= 1;
        assert!(!attributes.has_none(&stat));
        assert_eq!(attributes.of(&stat, || record), record, "it has changed");
        attributes.forget(&stat);
        assert_eq!(attributes.of(&stat, || None), None);
    }
}
