//! Patterns of `${x#p}`, `${x%p}` and `${x/p/w}`: `*` is any text, `?` any character (neither
//! crosses a line end), a backslash escapes `*`, `?`, itself, `}` and `/`.
//!
//! Matching is a table of pattern times text, so no pattern is exponential; its size is bounded.

/// Largest table of one match: length of the pattern times length of the text.
pub const MAX_CELLS: usize = 1 << 26;

/// Largest result of a replacement, in bytes.
const MAX_REPLACED_BYTES: usize = crate::expand::MAX_EXPANDED_BYTES;

/// Which of several matches is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Length {
    /// The shortest.
    Shortest,
    /// The longest.
    Longest,
}

/// Removes the prefix of `text` that matches.
///
/// # Errors
///
/// If the pattern is invalid or a limit is passed, as text.
pub fn trim_prefix(pattern: &str, text: &str, length: Length) -> Result<String, String> {
    let text: Vec<char> = text.chars().collect();
    let table = Table::new(parse(pattern)?, &text)?;
    let end = if table.matches_at(0) { table.end_of_match(0, length) } else { 0 };
    Ok(text[end..].iter().collect())
}

/// Removes the suffix of `text` that matches.
///
/// # Errors
///
/// As [`trim_prefix`].
pub fn trim_suffix(pattern: &str, text: &str, length: Length) -> Result<String, String> {
    let mut tokens = parse(pattern)?;
    tokens.reverse();
    let text: Vec<char> = text.chars().rev().collect();
    let table = Table::new(tokens, &text)?;
    let end = if table.matches_at(0) { table.end_of_match(0, length) } else { 0 };
    Ok(text[end..].iter().rev().collect())
}

/// Replaces the first, longest match.
///
/// # Errors
///
/// As [`trim_prefix`].
pub fn replace_first(pattern: &str, text: &str, replacement: &str) -> Result<String, String> {
    let text: Vec<char> = text.chars().collect();
    let table = Table::new(parse(pattern)?, &text)?;
    let Some(start) = (0..=text.len()).find(|&at| table.matches_at(at)) else {
        return Ok(text.iter().collect());
    };
    let end = table.end_of_match(start, Length::Longest);
    let mut replaced: String = text[..start].iter().collect();
    replaced.push_str(replacement);
    replaced.extend(&text[end..]);
    Ok(replaced)
}

/// Replaces each match, from the left, each as long as possible. In the replacement `$0` is what
/// matched, `$$` is a dollar, and other `$name` are empty, as in the library BuildKit uses.
///
/// # Errors
///
/// As [`trim_prefix`].
pub fn replace_all(pattern: &str, text: &str, replacement: &str) -> Result<String, String> {
    let text: Vec<char> = text.chars().collect();
    let table = Table::new(parse(pattern)?, &text)?;
    let mut replaced = String::new();
    let (mut last_end, mut from) = (0, 0);
    while let Some(start) = (from..=text.len()).find(|&at| table.matches_at(at)) {
        let end = table.end_of_match(start, Length::Longest);
        replaced.extend(&text[last_end..start]);
        // An empty match directly behind a match is none.
        if end > last_end || start == 0 {
            replaced.push_str(&fill_in(replacement, &text[start..end]));
        }
        if replaced.len() > MAX_REPLACED_BYTES {
            return Err(format!("the result is longer than {MAX_REPLACED_BYTES} bytes"));
        }
        last_end = end;
        from = end.max(from + 1);
    }
    replaced.extend(&text[last_end..]);
    Ok(replaced)
}

/// Replaces `$0`, `$name`, `${name}` and `$$` of a replacement.
fn fill_in(replacement: &str, matched: &[char]) -> String {
    let mut filled = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let name_on = braced.unwrap_or(rest);
        let n_name = name_on.find(|it: char| !it.is_alphanumeric() && it != '_');
        let (name, behind) = name_on.split_at(n_name.unwrap_or(name_on.len()));
        let behind = if braced.is_some() { behind.strip_prefix('}') } else { Some(behind) };
        match behind {
            Some(behind) if !name.is_empty() => {
                if name.bytes().all(|it| it == b'0') && name.len() == 1 {
                    filled.extend(matched);
                }
                rest = behind;
            }
            _ => filled.push('$'),
        }
    }
    filled.push_str(rest);
    filled
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    Char(char),
    AnyChar,
    AnyText,
}

fn parse(pattern: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(next) = chars.next() {
        tokens.push(match next {
            '*' => Token::AnyText,
            '?' => Token::AnyChar,
            '\\' => match chars.next() {
                // The pattern ends where these are not escaped, so their escape is not part of it.
                Some(literal @ ('}' | '/' | '*' | '?' | '\\')) => Token::Char(literal),
                Some(other) => return Err(format!("invalid escape '\\{other}'")),
                None => return Err("invalid escape at its end".to_owned()),
            },
            literal => Token::Char(literal),
        });
    }
    Ok(tokens)
}

/// For each rest of the pattern and each position of the text: whether the text matches there.
struct Table<'a> {
    tokens: Vec<Token>,
    text: &'a [char],
    cells: Vec<bool>,
}

impl<'a> Table<'a> {
    fn new(tokens: Vec<Token>, text: &'a [char]) -> Result<Self, String> {
        let n_columns = text.len() + 1;
        let n_cells = n_columns.checked_mul(tokens.len() + 1).filter(|&it| it <= MAX_CELLS);
        let Some(n_cells) = n_cells else {
            return Err("pattern and value are too long".to_owned());
        };
        let n_rows = tokens.len();
        let mut table = Self { tokens, text, cells: vec![false; n_cells] };
        table.cells[n_rows * n_columns..].fill(true);
        for row in (0..n_rows).rev() {
            for at in (0..n_columns).rev() {
                let next = text.get(at).copied();
                table.cells[row * n_columns + at] = match table.tokens[row] {
                    Token::Char(want) => next == Some(want) && table.cell(row + 1, at + 1),
                    Token::AnyChar => is_any(next) && table.cell(row + 1, at + 1),
                    Token::AnyText => {
                        table.cell(row + 1, at) || (is_any(next) && table.cell(row, at + 1))
                    }
                };
            }
        }
        Ok(table)
    }

    fn cell(&self, row: usize, at: usize) -> bool {
        self.cells[row * (self.text.len() + 1) + at]
    }

    fn matches_at(&self, start: usize) -> bool {
        self.cell(0, start)
    }

    /// Where the match ends that begins at `start`, which must match.
    fn end_of_match(&self, start: usize, length: Length) -> usize {
        let mut at = start;
        for (row, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Char(_) | Token::AnyChar => at += 1,
                Token::AnyText => {
                    let n_any = self.text[at..].iter().take_while(|&&it| it != '\n').count();
                    let mut ends = (at..=at + n_any).filter(|&end| self.cell(row + 1, end));
                    let end = match length {
                        Length::Shortest => ends.next(),
                        Length::Longest => ends.next_back(),
                    };
                    at = end.unwrap_or(at);
                }
            }
        }
        at
    }
}

/// Whether a wildcard may stand for it.
fn is_any(next: Option<char>) -> bool {
    next.is_some_and(|it| it != '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims() {
        let prefix = |pattern, length| trim_prefix(pattern, "foobarfoo/x", length).unwrap();
        assert_eq!(prefix("*o", Length::Shortest), "obarfoo/x");
        assert_eq!(prefix("*o", Length::Longest), "/x");
        assert_eq!(prefix("?oo", Length::Longest), "barfoo/x");
        assert_eq!(prefix("bar", Length::Longest), "foobarfoo/x");
        let suffix = |pattern, length| trim_suffix(pattern, "a.b*c.d", length).unwrap();
        assert_eq!(suffix(".*", Length::Shortest), "a.b*c");
        assert_eq!(suffix(".*", Length::Longest), "a");
        assert_eq!(suffix("\\*c.?", Length::Shortest), "a.b");
    }

    #[test]
    fn replaces() {
        let all = |pattern, replacement| replace_all(pattern, "abcabc", replacement).unwrap();
        assert_eq!(all("b", "-"), "a-ca-c");
        assert_eq!(all("b*", "-"), "a-");
        assert_eq!(all("", "-"), "-a-b-c-a-b-c-");
        assert_eq!(all("*", "-"), "-");
        assert_eq!(all("b", "[$0$$$1${x}$.]"), "a[b$$.]ca[b$$.]c");
        assert_eq!(replace_first("b?", "abcabc", "$0").unwrap(), "a$0abc");
        assert_eq!(replace_first("x", "abc", "y").unwrap(), "abc");
    }

    #[test]
    fn refuses() {
        assert_eq!(parse("a\\b").unwrap_err(), "invalid escape '\\b'");
        assert_eq!(parse("a\\").unwrap_err(), "invalid escape at its end");
        let long = "a".repeat(20_000);
        assert!(trim_prefix(&long, &long, Length::Longest).is_err());
    }
}
