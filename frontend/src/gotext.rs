//! Texts as Go's `fmt` prints them: BuildKit writes values of instructions into the history so.

use std::fmt::Write as _;
use std::time::Duration;

use rbuild_store::image::config::Healthcheck;

/// `["a" "b c"]`: a list of strings under `%q`.
pub(crate) fn quoted_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `[a b c]`: a list of strings under `%v`.
pub(crate) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// A string under `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            _ if is_printable(char) => out.push(char),
            '\0'..' ' | '\x7f' => push(&mut out, format_args!("\\x{:02x}", char as u32)),
            '\u{80}'..='\u{ffff}' => push(&mut out, format_args!("\\u{:04x}", char as u32)),
            _ => push(&mut out, format_args!("\\U{:08x}", char as u32)),
        }
    }
    out.push('"');
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string");
}

/// Letters, marks, numbers, punctuation, symbols, and the ASCII space: what Rust prints as it is
/// inside of a debug string.
fn is_printable(char: char) -> bool {
    match char {
        '\'' => true,
        ' '..='~' => true,
        '\0'..='\x7f' => false,
        // A leading letter: a combining mark is escaped only where a string begins with it.
        _ => String::from_iter(['a', char]).escape_debug().count() == 2,
    }
}

/// A duration of `nanos` nanoseconds: `1h5m0s`, `1.5s`, `10ms`, `0s`.
pub(crate) fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let rest = value % unit;
        if rest == 0 {
            return String::new();
        }
        let width = unit.ilog10() as usize;
        format!(".{rest:0width$}").trim_end_matches('0').to_owned()
    };
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, next, name) in
        [(1, 1_000, "ns"), (1_000, 1_000_000, "µs"), (1_000_000, 1_000_000_000, "ms")]
    {
        if nanos < next {
            return format!("{sign}{}{}{name}", nanos / unit, fraction(nanos, unit));
        }
    }
    let unit = 1_000_000_000;
    let seconds = nanos / unit;
    let tail = format!("{}{}s", seconds % 60, fraction(nanos, unit));
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{sign}{tail}"),
        (0, minutes) => format!("{sign}{minutes}m{tail}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{tail}"),
    }
}

/// A health check under `%+v`.
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Nanoseconds of a duration, at most the largest number there is.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// `seconds` since the epoch in RFC 3339, as Go writes times in JSON.
pub(crate) fn rfc3339(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Civil date from days, by eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(quote("a \"b\" \\ é\n\u{1}\u{301}"), "\"a \\\"b\\\" \\\\ é\\n\\x01\u{301}\"");
        assert_eq!(quote("\u{a0}\u{200b}\u{e000}\u{f0000}"), r#""\u00a0\u200b\ue000\U000f0000""#);
        assert_eq!(quote("it's \u{7f}"), r#""it's \x7f""#);
        assert_eq!(quoted_list(&["a".to_owned(), String::new()]), r#"["a" ""]"#);
    }

    #[test]
    fn durations() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_900_000_000_000, "1h5m0s"),
        ] {
            assert_eq!(duration(nanos), want);
        }
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
    }
}
