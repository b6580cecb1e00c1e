//! POSIX access control lists as a place with one id can hold them. Pure.
//!
//! The kernel takes no list that names ids which are not mapped. Lists are in no layer; what of them is,
//! the permission bits that go with one, the rest of the list gives as well.

/// Where lists are kept.
pub(super) const NAMES: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Longest list that is looked at: a name for each of 1,000 users.
pub(super) const MAX_BYTES: usize = 8192;

/// Bytes of the version before all entries, and of each entry.
const HEADER: usize = 4;
const ENTRY: usize = 8;

/// `ACL_USER` and `ACL_GROUP`: entries that name an id.
const NAMED: [u16; 2] = [0x02, 0x08];

/// A list without those who cannot be named where all but id 0 are unknown; none if it names nobody
/// else, or is no list.
pub(super) fn without_strangers(list: &[u8]) -> Option<Vec<u8>> {
    let (header, entries) = list.split_at_checked(HEADER)?;
    let mut kept = header.to_vec();
    let entries = entries.chunks(ENTRY);
    for entry in entries {
        let (tag, id) = (entry.first_chunk::<2>()?, entry.last_chunk::<4>()?);
        let stranger = NAMED.contains(&u16::from_le_bytes(*tag)) && u32::from_le_bytes(*id) != 0;
        if entry.len() != ENTRY {
            return None;
        }
        if !stranger {
            kept.extend_from_slice(entry);
        }
    }
    (kept.len() < list.len()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn strangers_go_and_the_mask_stays() {
        let (owner, group, mask, other) =
            ((1, 6, u32::MAX), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 4, u32::MAX));
        let all = [owner, (2, 7, 5), (2, 6, 0), group, (8, 7, 6), mask, other];
        let rest = [owner, (2, 6, 0), group, mask, other];
        assert_eq!(without_strangers(&list(&all)), Some(list(&rest)));
        assert_eq!(without_strangers(&list(&rest)), None);
        assert_eq!(without_strangers(b""), None);
        assert_eq!(without_strangers(&list(&all)[..17]), None);
    }
}
