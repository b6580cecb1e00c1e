//! Values of flags that have a grammar of their own.

use crate::report::Failure;

/// Splits `key=value,key=value` as Go's CSV reader does: a field in double quotes may hold commas,
/// and a double quote inside is written twice.
///
/// # Errors
///
/// If a quote is not closed.
pub fn csv(flag: &str, text: &str) -> Result<Vec<String>, Failure> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        let field = fields.last_mut().expect("there is always a field");
        match character {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            it => field.push(it),
        }
    }
    if quoted {
        return Err(Failure::usage(format!("{flag}: the quote in `{text}` is not closed")));
    }
    Ok(fields)
}

/// `key=value` pairs of a comma-separated list; keys in lower case, a key alone has no value.
///
/// # Errors
///
/// As [`csv`].
pub fn pairs(flag: &str, text: &str) -> Result<Vec<(String, Option<String>)>, Failure> {
    Ok(csv(flag, text)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_lowercase(), None),
        })
        .collect())
}

/// A number of bytes: `64m`, `1.5GB`, `2GiB`, `4096`; k, m, g, t are powers of 1024 (as Docker's
/// `--shm-size` has them).
///
/// # Errors
///
/// If it is not a number with one of those units.
pub fn byte_size(flag: &str, text: &str) -> Result<u64, Failure> {
    let wrong =
        || Failure::usage(format!("{flag}: `{text}` is not a number of bytes, like 64m or 1gb"));
    let lower = text.trim().to_lowercase();
    let digits = lower.trim_end_matches(|it: char| it.is_ascii_alphabetic()).trim_end();
    let shift = match lower[digits.len()..].trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let value: f64 = digits.parse().map_err(|_| wrong())?;
    if !(0.0..=1e15).contains(&value) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range"
    )]
    let scaled = (value * 2f64.powi(shift)) as u64;
    Ok(scaled)
}

/// A duration: `90s`, `12h`, `7d`, `1h30m`; in seconds.
///
/// # Errors
///
/// If a number or a unit is missing.
pub fn duration(flag: &str, text: &str) -> Result<u64, Failure> {
    let wrong =
        || Failure::usage(format!("{flag}: `{text}` is not a duration, like 90s, 12h or 7d"));
    let mut seconds = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(wrong()),
        };
        seconds =
            number.checked_mul(factor).and_then(|it| seconds.checked_add(it)).ok_or_else(wrong)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    Ok(seconds)
}

/// A Go boolean: `1`, `t`, `true`, … .
///
/// # Errors
///
/// If it is neither.
pub fn boolean(flag: &str, text: &str) -> Result<bool, Failure> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Failure::usage(format!("{flag}: `{text}` is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields() {
        assert_eq!(
            csv("-o", r#"type=oci,"dest=a,b","say ""x""""#).unwrap(),
            ["type=oci", "dest=a,b", r#"say "x""#]
        );
        assert!(csv("-o", "\"open").is_err());
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(byte_size("x", "64m").unwrap(), 64 << 20);
        assert_eq!(byte_size("x", "1.5GB").unwrap(), 3 << 29);
        assert!(byte_size("x", "lots").is_err());
        assert!(byte_size("x", "-1").is_err());
        assert_eq!(duration("x", "1h30m").unwrap(), 5400);
        assert!(duration("x", "5").is_err());
    }
}
