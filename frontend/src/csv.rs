//! Comma-separated fields of `--mount` and `--device`: a field in double quotes may hold commas,
//! and quotes that are doubled.

/// Splits one line into its fields.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, String> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("there are no fields".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, behind) = rest.split_once(',').map_or((rest, None), |(a, b)| (a, Some(b)));
            if field.contains('"') {
                return Err(format!("bare \" in non-quoted field `{field}`"));
            }
            fields.push(field.to_owned());
            match behind {
                Some(behind) => rest = behind,
                None => return Ok(fields),
            }
            continue;
        };
        let (field, behind) = quoted_field(quoted)?;
        fields.push(field);
        match behind.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if behind.is_empty() => return Ok(fields),
            None => return Err("extraneous or missing \" in quoted field".to_owned()),
        }
    }
}

/// A field behind its opening quote, and what follows its closing one.
fn quoted_field(quoted: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = quoted;
    while let Some((before, behind)) = rest.split_once('"') {
        field.push_str(before);
        let Some(behind_quote) = behind.strip_prefix('"') else { return Ok((field, behind)) };
        field.push('"');
        rest = behind_quote;
    }
    Err("extraneous or missing \" in quoted field".to_owned())
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn splits() {
        assert_eq!(fields("a=1,b,,c").unwrap(), ["a=1", "b", "", "c"]);
        assert_eq!(fields("\"a,\"\"b\"\"\",c,").unwrap(), ["a,\"b\"", "c", ""]);
        for bad in ["", "a\"b", "\"a", "\"a\"b"] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
