//! The JSON form of arguments: `["program", "argument"]`.

use serde_json::Value;

/// What a text is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum JsonForm {
    /// An array of texts.
    Texts(Vec<String>),
    /// An array that holds something else, which is an error.
    NotTexts,
    /// Anything else, which is read in another way: a missing bracket or single quotes make it so.
    No,
}

/// Reads `text`.
pub(crate) fn read(text: &str) -> JsonForm {
    if !text.trim_start().starts_with('[') {
        return JsonForm::No;
    }
    let Ok(Value::Array(values)) = serde_json::from_str(text.trim_start()) else {
        return JsonForm::No;
    };
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        let Value::String(text) = value else { return JsonForm::NotTexts };
        texts.push(text);
    }
    JsonForm::Texts(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_back() {
        let texts =
            |texts: &[&str]| JsonForm::Texts(texts.iter().map(ToString::to_string).collect());
        assert_eq!(read(r#"[ "a" , "b\u0041\t" ] "#), texts(&["a", "bA\t"]));
        assert_eq!(read("[]"), texts(&[]));
        assert_eq!(read(r#"["a", 1]"#), JsonForm::NotTexts);
        assert_eq!(read(r#"["a", ["b"]]"#), JsonForm::NotTexts);
        for other in [r#"["a""#, "['a']", r#"["a"] b"#, r#"["a",]"#, "[ -e x ]", "{}", "\"a\""] {
            assert_eq!(read(other), JsonForm::No, "{other}");
        }
        assert_eq!(read(&"[".repeat(60_000)), JsonForm::No);
    }
}
