//! Splitting of arguments, before anything is expanded.

use std::ops::Range;

/// A word and where it is in the line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RawWord {
    /// The word; quotes and escapes are in it.
    pub(crate) text: String,
    /// Its place.
    pub(crate) range: Range<usize>,
}

/// Characters that separate words, where neither quotes nor escapes count.
pub(crate) fn is_separator(it: char) -> bool {
    matches!(it, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits at blanks; quotes and escapes mean nothing.
pub(crate) fn split_at_blanks(line: &str, range: Range<usize>) -> Vec<RawWord> {
    let mut words = Vec::new();
    let mut at = range.start;
    for text in line[range].split(is_separator) {
        if !text.is_empty() {
            words.push(RawWord { text: text.to_owned(), range: at..at + text.len() });
        }
        at += text.len() + 1;
    }
    words
}

/// Splits at blanks that are neither quoted nor escaped; quotes and escapes stay. An escape
/// character at the end is dropped.
pub(crate) fn split(line: &str, range: Range<usize>, escape: char) -> Vec<RawWord> {
    let mut words = Vec::new();
    let mut word: Option<RawWord> = None;
    let mut quote = None;
    let mut chars = line[range.clone()].char_indices();
    while let Some((offset, next)) = chars.next() {
        let at = range.start + offset;
        if quote.is_none() && next.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_with(|| RawWord { text: String::new(), range: at..at });
        word.range.end = at + next.len_utf8();
        let escapes = next == escape && quote != Some('\'');
        match quote {
            Some(open) if next == open => quote = None,
            None if matches!(next, '\'' | '"') => quote = Some(next),
            _ => {}
        }
        if !escapes {
            word.text.push(next);
            continue;
        }
        // What is escaped neither ends the word nor quotes.
        if let Some((_, escaped)) = chars.next() {
            word.text.push(next);
            word.text.push(escaped);
            word.range.end += escaped.len_utf8();
        }
    }
    words.extend(word);
    words.retain(|it| !it.text.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, want: &[&str]) {
        let words = split(line, 0..line.len(), '\\');
        let got: Vec<&str> = words.iter().map(|it| &it.text[..]).collect();
        assert_eq!(got, want, "{line}");
        for word in words {
            assert!(line[word.range].starts_with(&word.text), "{line}");
        }
    }

    #[test]
    fn splits() {
        check(" a  b\tc\u{a0}d ", &["a", "b", "c", "d"]);
        check("a='b c' d=\"e f\"g", &["a='b c'", "d=\"e f\"g"]);
        check(r"a\ b \' c", &[r"a\ b", r"\'", "c"]);
        check(r#""a\" b" 'c\' d"#, &[r#""a\" b""#, r"'c\'", "d"]);
        check("'open end", &["'open end"]);
        check(r"a\", &["a"]);
        check(r"\", &[]);
        check("'' \"\"", &["''", "\"\""]);
        assert_eq!(split_at_blanks("x a\u{a0}b  'c d'", 2..13).len(), 3);
    }
}
