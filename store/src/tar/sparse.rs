//! Sparse files: which parts of the file are in the archive.
//!
//! Four ways of saying it: GNU's own header type `S`, and PAX records in the versions 0.0, 0.1 and
//! 1.0 (GNU tar's manual, "Storing Sparse Files"). `GNU.sparse.*` records that fit none of them are
//! refused.

use super::header::{BLOCK_BYTES, number};
use super::pax::{self, Record};

/// More parts than this are refused.
pub(super) const MAX_EXTENTS: usize = 1 << 16;

/// Why a map makes no sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SparseError {
    /// Not numbers, or not as many as there should be.
    #[error("its map of holes is malformed")]
    Malformed,
    /// Parts overlap, are out of order, or go beyond the end; or the archive holds more or fewer
    /// bytes than they need.
    #[error("its map of holes contradicts its size")]
    Contradiction,
    /// More parts than [`MAX_EXTENTS`].
    #[error("its map of holes has more than {MAX_EXTENTS} parts")]
    TooMany,
}

/// One part of a file, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Segment {
    /// That many zeros that are not in the archive.
    Hole(u64),
    /// That many bytes of the archive.
    Data(u64),
}

/// Turns (offset, length) pairs into segments of a file of `size` bytes, of which `stored` are in
/// the archive.
pub(super) fn segments(
    extents: &[(u64, u64)],
    size: u64,
    stored: u64,
) -> Result<Vec<Segment>, SparseError> {
    let contradiction = SparseError::Contradiction;
    let (mut all, mut at, mut sum) = (Vec::new(), 0u64, 0u64);
    for (offset, length) in extents {
        let hole = offset.checked_sub(at).ok_or(contradiction)?;
        if hole > 0 {
            all.push(Segment::Hole(hole));
        }
        if *length > 0 {
            all.push(Segment::Data(*length));
        }
        at = offset.checked_add(*length).ok_or(contradiction)?;
        sum = sum.checked_add(*length).ok_or(contradiction)?;
    }
    let rest = size.checked_sub(at).ok_or(contradiction)?;
    if rest > 0 {
        all.push(Segment::Hole(rest));
    }
    if sum == stored { Ok(all) } else { Err(contradiction) }
}

/// What PAX records say about a sparse file.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum PaxSparse {
    /// The map is here (0.0, 0.1).
    Here(Vec<(u64, u64)>),
    /// The map is at the start of the body (1.0).
    InBody,
}

/// Reads the `GNU.sparse.*` records; gives the map and the real size. None where there are none.
pub(super) fn from_pax(records: &[Record]) -> Result<Option<(PaxSparse, u64)>, SparseError> {
    let find = |key: &str| {
        let found = records.iter().rev().find(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice())
    };
    if !records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
        return Ok(None);
    }
    let parse = |value: &[u8]| pax::number(value).map_err(|_| SparseError::Malformed);
    let size = find("GNU.sparse.realsize")
        .or_else(|| find("GNU.sparse.size"))
        .ok_or(SparseError::Malformed)
        .and_then(parse)?;
    let map = match (find("GNU.sparse.major"), find("GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => PaxSparse::InBody,
        (None | Some(b"0"), None | Some(b"0" | b"1")) => {
            let numbers = match find("GNU.sparse.map") {
                Some(map) => map.split(|byte| *byte == b',').map(parse).collect(),
                None => scattered(records).map(parse).collect::<Result<Vec<_>, _>>(),
            };
            PaxSparse::Here(pairs(&numbers?)?)
        }
        (_, _) => return Err(SparseError::Malformed),
    };
    Ok(Some((map, size)))
}

/// Version 0.0: one record for each number, in order.
fn scattered(records: &[Record]) -> impl Iterator<Item = &[u8]> {
    records
        .iter()
        .filter(|(key, _)| matches!(key.as_slice(), b"GNU.sparse.offset" | b"GNU.sparse.numbytes"))
        .map(|(_, value)| value.as_slice())
}

fn pairs(numbers: &[u64]) -> Result<Vec<(u64, u64)>, SparseError> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(SparseError::Malformed);
    }
    if pairs.len() > MAX_EXTENTS {
        return Err(SparseError::TooMany);
    }
    Ok(pairs.iter().map(|[offset, length]| (*offset, *length)).collect())
}

/// A map at the start of the body (1.0): decimal numbers, one a line; how many pairs, then the
/// pairs. `block` yields the next block. Gives the map and the number of blocks it took.
pub(super) fn from_body<E: From<SparseError>>(
    mut block: impl FnMut() -> Result<[u8; BLOCK_BYTES], E>,
) -> Result<(Vec<(u64, u64)>, u64), E> {
    let (mut numbers, mut current, mut digits, mut blocks) = (Vec::new(), 0u64, 0u32, 0);
    let mut wanted = None;
    while wanted != Some(numbers.len()) {
        blocks += 1;
        for byte in block()? {
            match byte {
                b'0'..=b'9' if digits < 19 => {
                    current = current * 10 + u64::from(byte - b'0');
                    digits += 1;
                }
                b'\n' if digits > 0 => {
                    numbers.push(current);
                    (current, digits) = (0, 0);
                    if wanted.is_none() {
                        let pairs = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
                        if pairs > MAX_EXTENTS {
                            return Err(SparseError::TooMany.into());
                        }
                        wanted = Some(1 + 2 * pairs);
                    }
                    if wanted == Some(numbers.len()) {
                        break;
                    }
                }
                _ => return Err(SparseError::Malformed.into()),
            }
        }
    }
    Ok((pairs(&numbers[1..])?, blocks))
}

/// Pairs of an old GNU header or of one of its extension blocks, and whether another block
/// follows. `count` is 4 for the header, 21 for a block.
fn from_table(table: &[u8], extents: &mut Vec<(u64, u64)>) -> Result<(), SparseError> {
    for pair in table.as_chunks::<24>().0 {
        if pair[0] == 0 {
            return Ok(());
        }
        let parse = |field: &[u8]| {
            number(field).and_then(|it| u64::try_from(it).ok()).ok_or(SparseError::Malformed)
        };
        extents.push((parse(&pair[..12])?, parse(&pair[12..])?));
        if extents.len() > MAX_EXTENTS {
            return Err(SparseError::TooMany);
        }
    }
    Ok(())
}

/// The map of an old GNU header (type `S`) and of the blocks that continue it; `block` yields the
/// next one. Gives the map and the real size.
pub(super) fn from_gnu<E: From<SparseError>>(
    header: &[u8; BLOCK_BYTES],
    mut block: impl FnMut() -> Result<[u8; BLOCK_BYTES], E>,
) -> Result<(Vec<(u64, u64)>, u64), E> {
    let mut extents = Vec::new();
    from_table(&header[386..482], &mut extents)?;
    let size = number(&header[483..495])
        .and_then(|size| u64::try_from(size).ok())
        .ok_or(SparseError::Malformed)?;
    let mut more = header[482] != 0;
    while more {
        let block = block()?;
        let before = extents.len();
        from_table(&block[..504], &mut extents)?;
        more = block[504] != 0;
        if more && extents.len() == before {
            return Err(SparseError::Malformed.into());
        }
    }
    Ok((extents, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_become_segments() {
        use Segment::{Data, Hole};
        let check = |extents: &[(u64, u64)], size, stored| segments(extents, size, stored);
        assert_eq!(check(&[(2, 3)], 10, 3), Ok(vec![Hole(2), Data(3), Hole(5)]));
        assert_eq!(check(&[(0, 3), (10, 0)], 10, 3), Ok(vec![Data(3), Hole(7)]));
        assert_eq!(check(&[], 0, 0), Ok(vec![]));
        for (extents, size, stored) in [
            (&[(0, 5), (4, 1)][..], 10, 6),
            (&[(0, 11)], 10, 11),
            (&[(0, 5)], 10, 6),
            (&[(u64::MAX, 2)], 10, 2),
        ] {
            assert_eq!(check(extents, size, stored), Err(SparseError::Contradiction));
        }
    }

    #[test]
    fn pax_versions() {
        let read = |text: &str| {
            let records: Vec<_> = text
                .split_whitespace()
                .filter_map(|record| record.split_once('='))
                .map(|(key, value)| (format!("GNU.sparse.{key}").into(), value.into()))
                .collect();
            from_pax(&records)
        };
        let map = || PaxSparse::Here(vec![(0, 5), (9, 1)]);
        assert_eq!(read("major=1 minor=0 realsize=10"), Ok(Some((PaxSparse::InBody, 10))));
        assert_eq!(read("map=0,5,9,1 size=10"), Ok(Some((map(), 10))));
        let scattered = "size=10 numblocks=2 offset=0 numbytes=5 offset=9 numbytes=1";
        assert_eq!(read(scattered), Ok(Some((map(), 10))));
        assert_eq!(read("major=2 minor=0 realsize=10"), Err(SparseError::Malformed));
        assert_eq!(read("map=0,5,9 size=10"), Err(SparseError::Malformed));
        assert_eq!(read("name=x"), Err(SparseError::Malformed));
        assert_eq!(from_pax(&[]), Ok(None));
    }

    #[test]
    fn map_in_the_body() {
        let read = |text: &str| {
            let mut blocks = text.as_bytes().chunks(BLOCK_BYTES).map(|chunk| {
                let mut block = [0; BLOCK_BYTES];
                block[..chunk.len()].copy_from_slice(chunk);
                block
            });
            from_body::<SparseError>(|| blocks.next().ok_or(SparseError::Malformed))
        };
        assert_eq!(read("2\n0\n5\n9\n1\n"), Ok((vec![(0, 5), (9, 1)], 1)));
        assert_eq!(read("0\n"), Ok((vec![], 1)));
        for bad in ["2\n0\n5\n", "x\n", "\n", "99999999\n", "1\n-1\n5\n"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
