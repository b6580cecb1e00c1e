//! Durations of `HEALTHCHECK`: `1m30s`, `1.5h`, in Go's syntax.

use crate::gotext::quote;

/// Longest duration in nanoseconds that the image config can hold.
const MAX_NANOSECONDS: u128 = i64::MAX as u128;

/// Nanoseconds of a duration, with sign.
///
/// # Errors
///
/// What is wrong with it, as Go says it: no unit, an unknown one, or no duration at all.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let n_number = rest.find(|it: char| !it.is_ascii_digit() && it != '.');
        let (number, behind) = rest.split_at(n_number.unwrap_or(rest.len()));
        if !number.contains(|it: char| it.is_ascii_digit()) {
            return Err(invalid());
        }
        let n_unit = behind.find(|it: char| it.is_ascii_digit() || it == '.');
        let (unit, behind) = behind.split_at(n_unit.unwrap_or(behind.len()));
        let scale = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            unit => scale(unit).ok_or_else(|| {
                format!("time: unknown unit {} in duration {}", quote(unit), quote(text))
            })?,
        };
        let sum = part(number, scale).and_then(|it| nanoseconds.checked_add(it));
        nanoseconds = sum.filter(|it| *it <= MAX_NANOSECONDS).ok_or_else(invalid)?;
        rest = behind;
    }
    let nanoseconds = i64::try_from(nanoseconds).map_err(|_| invalid())?;
    Ok(if negative { -nanoseconds } else { nanoseconds })
}

/// Nanoseconds of a unit.
fn scale(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Nanoseconds of one number of units.
fn part(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanoseconds = whole.checked_mul(scale)?;
    let mut step = scale;
    // Digits that are worth less than a nanosecond are checked, but count nothing.
    for digit in fraction.chars() {
        step /= 10;
        nanoseconds += u128::from(digit.to_digit(10)?) * step;
    }
    Some(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn parses_like_go() {
        assert_eq!(parse("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(parse("-.5us"), Ok(-500));
        assert_eq!(parse("3.s"), Ok(3_000_000_000));
        assert_eq!(parse("+0"), Ok(0));
        assert_eq!(parse("1µs2μs"), Ok(3_000));
        for bad in ["", "-", "s", ".s", "1.2.3s", "99999999999999h", " 1s"] {
            assert_eq!(parse(bad), Err(format!("time: invalid duration {bad:?}")));
        }
        for (bad, want) in [
            ("1", r#"missing unit in duration "1""#),
            ("5s1", r#"missing unit in duration "5s1""#),
            ("1d", r#"unknown unit "d" in duration "1d""#),
            ("1s ", r#"unknown unit "s " in duration "1s ""#),
        ] {
            assert_eq!(parse(bad), Err(format!("time: {want}")));
        }
    }
}
