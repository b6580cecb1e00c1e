//! Durations of `HEALTHCHECK`: `1m30s`, `1.5h`, in Go's syntax.

/// Longest duration in nanoseconds that the image config can hold.
const MAX_NANOSECONDS: u128 = i64::MAX as u128;

/// Nanoseconds of a duration, with sign; none if it is not one.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u128 = 0;
    while !rest.is_empty() {
        let n_number = rest.find(|it: char| !it.is_ascii_digit() && it != '.');
        let (number, behind) = rest.split_at(n_number?);
        let n_unit = behind.find(|it: char| it.is_ascii_digit() || it == '.');
        let (unit, behind) = behind.split_at(n_unit.unwrap_or(behind.len()));
        nanoseconds = nanoseconds.checked_add(part(number, unit)?)?;
        if nanoseconds > MAX_NANOSECONDS {
            return None;
        }
        rest = behind;
    }
    let nanoseconds = i64::try_from(nanoseconds).ok()?;
    Some(if negative { -nanoseconds } else { nanoseconds })
}

/// Nanoseconds of one number with its unit.
fn part(number: &str, unit: &str) -> Option<u128> {
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
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
        assert_eq!(parse("1m30s"), Some(90_000_000_000));
        assert_eq!(parse("1.5h"), Some(5_400_000_000_000));
        assert_eq!(parse("-.5us"), Some(-500));
        assert_eq!(parse("3.s"), Some(3_000_000_000));
        assert_eq!(parse("+0"), Some(0));
        assert_eq!(parse("1µs2μs"), Some(3_000));
        for bad in ["", "-", "1", "s", "1x", ".s", "1.2.3s", "99999999999999h", "1s ", " 1s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
