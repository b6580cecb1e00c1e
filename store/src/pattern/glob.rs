//! Go's `path.Match`: one pattern, one whole path.

use super::PatternError;

/// A compiled pattern of Go's `path.Match`.
///
/// `*` is any run of bytes without `/`, `?` one character but `/`, `[a-z]` one character of a
/// class (also `/`, as in Go), `[^a-z]` one outside of it, `\` takes the next byte as it is.
/// `**`, `{a,b}` and `[!a]` mean nothing special.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Byte(u8),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Whether a text has one of `*`, `?`, `[` that no backslash precedes.
pub fn has_wildcards(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If a bracket or backslash does not end.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let error = || PatternError::Syntax { pattern: pattern.to_owned() };
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some(&byte) = rest.as_bytes().first() {
            match byte {
                b'*' => {
                    if tokens.last() != Some(&Token::Star) {
                        tokens.push(Token::Star);
                    }
                    rest = &rest[1..];
                }
                b'?' => {
                    tokens.push(Token::Any);
                    rest = &rest[1..];
                }
                b'[' => {
                    let (class, after) = class(&rest[1..]).ok_or_else(error)?;
                    tokens.push(class);
                    rest = after;
                }
                b'\\' => {
                    let escaped = rest[1..].chars().next().ok_or_else(error)?;
                    let after = &rest[1 + escaped.len_utf8()..];
                    tokens.extend(rest[1..rest.len() - after.len()].bytes().map(Token::Byte));
                    rest = after;
                }
                _ => {
                    let end = rest.find(['*', '?', '[', '\\']).unwrap_or(rest.len());
                    tokens.extend(rest[..end].bytes().map(Token::Byte));
                    rest = &rest[end..];
                }
            }
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern matches the whole path.
    pub fn matches(&self, path: &[u8]) -> bool {
        // Where to go on when the tokens after the last star do not match: one byte later.
        let mut retry: Option<(usize, usize)> = None;
        let (mut token, mut at) = (0, 0);
        loop {
            if token == self.tokens.len() && at == path.len() {
                return true;
            }
            let step = match self.tokens.get(token) {
                Some(Token::Star) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                Some(token) => token.width(&path[at..]),
                None => None,
            };
            if let Some(width) = step {
                token += 1;
                at += width;
                continue;
            }
            // A star takes one byte more, but never a `/`.
            match retry {
                Some((after_star, from)) if path.get(from).is_some_and(|&byte| byte != b'/') => {
                    retry = Some((after_star, from + 1));
                    (token, at) = (after_star, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    /// How many bytes of the front of `text` the token matches.
    fn width(&self, text: &[u8]) -> Option<usize> {
        let &first = text.first()?;
        match self {
            Self::Byte(byte) => (first == *byte).then_some(1),
            Self::Any => (first != b'/').then(|| decode(text).1),
            Self::Class { negated, ranges } => {
                let (found, width) = decode(text);
                let inside = ranges.iter().any(|&(low, high)| low <= found && found <= high);
                (inside != *negated).then_some(width)
            }
            Self::Star => None,
        }
    }
}

/// The rest of a class after its `[`, and what follows its `]`.
fn class(mut rest: &str) -> Option<(Token, &str)> {
    let negated = rest.starts_with('^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty()
            && let Some(after) = rest.strip_prefix(']')
        {
            return Some((Token::Class { negated, ranges }, after));
        }
        let (low, after) = class_char(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix('-') {
            (high, rest) = class_char(after)?;
        }
        ranges.push((low, high));
    }
}

/// One possibly escaped character of a class; more must follow.
fn class_char(rest: &str) -> Option<(char, &str)> {
    let mut chars = rest.chars();
    let found = match chars.next()? {
        '-' | ']' => return None,
        '\\' => chars.next()?,
        other => other,
    };
    let rest = chars.as_str();
    (!rest.is_empty()).then_some((found, rest))
}

/// The first character and its width; a byte that is not UTF-8 counts as U+FFFD, as in Go.
pub(super) fn decode(text: &[u8]) -> (char, usize) {
    let first = text[0];
    if first < 0x80 {
        return (char::from(first), 1);
    }
    let width = match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    text.get(..width)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.chars().next())
        .map_or((char::REPLACEMENT_CHARACTER, 1), |found| (found, width))
}
