//! PAX extended header records: `<length> <key>=<value>\n`.
//!
//! The length counts itself, so a value may hold any byte, newlines included: `security.capability`
//! does. POSIX.1-2017, pax, "pax Extended Header".

use std::collections::BTreeMap;

use crate::entry::Timestamp;

/// Key and value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Records that are to be written, sorted by key.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Prefix of the keys of extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Why extended header records make no sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PaxError {
    /// A length is missing, wrong, or leads beyond the end.
    #[error("an extended header record has a wrong length")]
    Length,
    /// There is no `=`, or nothing in front of it.
    #[error("an extended header record has no key")]
    Key,
    /// A value is not a number.
    #[error("an extended header record is not a number")]
    Number,
    /// A name holds a NUL.
    #[error("an extended header record holds a NUL where a name belongs")]
    Nul,
}

/// Adds a record.
pub(super) fn append(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A space, an equals sign, a newline.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if digits(length) != digits(rest) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Reads all records of an extended header, in their order.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Vec<Record>, PaxError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or(PaxError::Length)?;
        let digits = std::str::from_utf8(&bytes[..space]).map_err(|_| PaxError::Length)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PaxError::Length);
        }
        let length: usize = digits.parse().map_err(|_| PaxError::Length)?;
        if length <= space || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(PaxError::Length);
        }
        let record = bytes.get(space + 1..length - 1).ok_or(PaxError::Length)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(PaxError::Key)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        check(key, value)?;
        records.push((key.to_vec(), value.to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// Refuses NULs where a name or a number belongs: other programs would see another name.
fn check(key: &[u8], value: &[u8]) -> Result<(), PaxError> {
    if key.is_empty() {
        return Err(PaxError::Key);
    }
    let is_name = matches!(key, b"path" | b"linkpath") || key.starts_with(b"GNU.sparse.");
    if key.contains(&0) || (is_name && value.contains(&0)) {
        return Err(PaxError::Nul);
    }
    Ok(())
}

/// A decimal number.
pub(super) fn number(value: &[u8]) -> Result<u64, PaxError> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or(PaxError::Number)
}

/// Decimal seconds with an optional sign and fraction. Digits after the ninth are dropped.
pub(super) fn time(value: &[u8]) -> Result<Timestamp, PaxError> {
    let text = std::str::from_utf8(value).map_err(|_| PaxError::Number)?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|it| it.is_ascii_digit()) {
        return Err(PaxError::Number);
    }
    let secs: i64 = whole.parse().map_err(|_| PaxError::Number)?;
    let fraction = &fraction[..fraction.len().min(9)];
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| PaxError::Number)?;
    Ok(match (negative, nanos) {
        (false, nanos) => Timestamp { secs, nanos },
        (true, 0) => Timestamp { secs: -secs, nanos },
        (true, nanos) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, key.as_bytes(), value);
        out
    }

    #[test]
    fn the_length_counts_itself() {
        assert_eq!(record("path", b"a"), b"9 path=a\n");
        assert_eq!(record("path", b""), b"8 path=\n");
        assert_eq!(record("k", &[b'v'; 93])[..3], *b"99 ");
        assert_eq!(record("k", &[b'v'; 94])[..4], *b"101 ");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x", "5 a=b", "6 a=bc", "99 a=b\n", "1 a=b\n", "4 ab\n", "5 =ab\n", "-5 a=\n"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert_eq!(parse(b"12 path=a\0b\n"), Err(PaxError::Nul));
    }

    #[test]
    fn times() {
        let check = |text: &str, secs, nanos| {
            assert_eq!(time(text.as_bytes()), Ok(Timestamp { secs, nanos }), "{text}");
        };
        check("5", 5, 0);
        check("5.25", 5, 250_000_000);
        check("5.1234567899", 5, 123_456_789);
        check("-1.5", -2, 500_000_000);
        check("-1", -1, 0);
        assert!(time(b"").is_err() && time(b"1e5").is_err() && time(b"--1").is_err());
    }

    proptest! {
        #[test]
        fn any_value_survives(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [record("SCHILY.xattr.a", &value), record("uid", b"7")].concat();
            let expected =
                vec![(b"SCHILY.xattr.a".to_vec(), value), (b"uid".to_vec(), b"7".to_vec())];
            prop_assert_eq!(parse(&bytes), Ok(expected));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
            prop_assert!(time(&bytes).map_or(true, |time| time.nanos < 1_000_000_000));
        }
    }
}
