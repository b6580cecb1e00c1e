//! The text of a Dockerfile and places in it.
//!
//! A Dockerfile is bytes. Decoding never fails: each byte that is not part of UTF-8 becomes one
//! U+FFFD, as BuildKit's own lexer makes of it, and the byte itself is remembered, so that bodies
//! of here-documents go out as they came in ([`SourceText::raw`]) and so that an instruction that
//! cannot hold such bytes is refused with their place.
//!
//! A [`Span`] counts in bytes of the decoded text, without byte order mark, and knows its lines,
//! so that errors, warnings and source maps need nothing else to say where they are.

use std::ops::Range;

/// Largest Dockerfile that is read, in bytes. BuildKit's own bound is the size of one message.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The Dockerfile is larger than [`MAX_SOURCE_BYTES`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` has {size} bytes, more than the {MAX_SOURCE_BYTES} that a Dockerfile may have")]
pub struct SourceTooLarge {
    /// Name of the file.
    pub name: String,
    /// Its size in bytes.
    pub size: usize,
}

/// The decoded text of one Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceText {
    name: String,
    text: String,
    /// Offset in `text` of each replacement character that stands for a byte, and that byte.
    replaced: Vec<(usize, u8)>,
    /// Offset of the first byte of each line; the first is 0.
    line_starts: Vec<usize>,
}

/// A place in a [`SourceText`]: bytes `start..end`, which lie on lines `first_line..=last_line`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte; not before `start`.
    pub end: usize,
    /// Line of the first byte, from 1. 0 means nowhere.
    pub first_line: u32,
    /// Line of the last byte; not before `first_line`.
    pub last_line: u32,
}

impl Span {
    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
            first_line: self.first_line.min(other.first_line),
            last_line: self.last_line.max(other.last_line),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it was written; of a value with continuation lines, from its first to its last byte.
    pub span: Span,
}

/// A piece of an instruction, as written or as far cleaned as its field says.
pub type Word = Spanned<String>;

impl<T> Spanned<T> {
    /// Puts a value and its place together.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl SourceText {
    /// Decodes the bytes of a Dockerfile; `name` is what errors call it. A byte order mark is
    /// left out.
    ///
    /// # Errors
    ///
    /// If there are more than [`MAX_SOURCE_BYTES`].
    pub fn new(name: &str, bytes: &[u8]) -> Result<Self, SourceTooLarge> {
        if bytes.len() > MAX_SOURCE_BYTES {
            return Err(SourceTooLarge { name: name.to_owned(), size: bytes.len() });
        }
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let mut text = String::with_capacity(bytes.len());
        let mut replaced = Vec::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            for &byte in chunk.invalid() {
                replaced.push((text.len(), byte));
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        let line_starts = std::iter::once(0)
            .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1))
            .collect();
        Ok(Self { name: name.to_owned(), text, replaced, line_starts })
    }

    /// What errors call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bytes that a part of the text was decoded from.
    pub fn raw(&self, range: Range<usize>) -> Vec<u8> {
        let mut raw = Vec::with_capacity(range.len());
        let mut at = range.start;
        for &(offset, byte) in self.replaced_in(&range) {
            raw.extend_from_slice(&self.text.as_bytes()[at..offset]);
            raw.push(byte);
            at = offset + char::REPLACEMENT_CHARACTER.len_utf8();
        }
        raw.extend_from_slice(&self.text.as_bytes()[at..range.end.max(at)]);
        raw
    }

    /// Where in `range` the first byte is that is not UTF-8, and that byte.
    pub fn first_invalid(&self, range: Range<usize>) -> Option<(usize, u8)> {
        self.replaced_in(&range).first().copied()
    }

    fn replaced_in(&self, range: &Range<usize>) -> &[(usize, u8)] {
        let first = self.replaced.partition_point(|&(offset, _)| offset < range.start);
        let end = self.replaced.partition_point(|&(offset, _)| offset < range.end);
        &self.replaced[first..end.max(first)]
    }

    /// The span of a part of the text.
    pub fn span(&self, range: Range<usize>) -> Span {
        let last_byte = range.end.saturating_sub(1).max(range.start);
        Span {
            start: range.start,
            end: range.end,
            first_line: self.line_of(range.start),
            last_line: self.line_of(last_byte),
        }
    }

    /// Number of the line, from 1, that holds the byte at `offset`.
    pub fn line_of(&self, offset: usize) -> u32 {
        let n_lines = self.line_starts.partition_point(|&start| start <= offset);
        u32::try_from(n_lines).unwrap_or(u32::MAX)
    }

    /// Column of the byte at `offset`, in characters from 1.
    pub fn column_of(&self, offset: usize) -> usize {
        let line = self.line_of(offset);
        let start = self.line_range(line).start;
        let end = offset.min(self.text.len());
        self.text.get(start..end).map_or(1, |before| before.chars().count() + 1)
    }

    /// Line `number`, from 1, without its line end; empty where there is no such line.
    pub fn line(&self, number: u32) -> &str {
        &self.text[self.content_range(number)]
    }

    /// Where line `number` is, without its line end.
    pub fn content_range(&self, number: u32) -> Range<usize> {
        let range = self.line_range(number);
        let content = self.text[range.clone()].trim_end_matches(['\r', '\n']);
        range.start..range.start + content.len()
    }

    /// How many lines there are; a text that ends with a line end has an empty last one.
    pub fn n_lines(&self) -> u32 {
        u32::try_from(self.line_starts.len()).unwrap_or(u32::MAX)
    }

    /// How many bytes of the file a part of the text was decoded from.
    pub fn n_bytes(&self, range: Range<usize>) -> usize {
        let n_added = char::REPLACEMENT_CHARACTER.len_utf8() - 1;
        range.len() - n_added * self.replaced_in(&range).len()
    }

    /// Where line `number` is, with its line end; empty where there is no such line.
    pub fn line_range(&self, number: u32) -> Range<usize> {
        let index = (number as usize).saturating_sub(1);
        let text_end = self.text.len();
        let start = self.line_starts.get(index).copied().unwrap_or(text_end);
        let end = self.line_starts.get(index + 1).copied().unwrap_or(text_end);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns() {
        let source = SourceText::new("Dockerfile", "ab\r\nhö x\n".as_bytes()).unwrap();
        assert_eq!(source.line(1), "ab");
        assert_eq!(source.line(2), "hö x");
        assert_eq!((source.line(3), source.line(99)), ("", ""));
        let at = source.text().find('x').unwrap();
        assert_eq!((source.line_of(at), source.column_of(at)), (2, 4));
        assert_eq!(source.span(1..at).last_line, 2);
    }

    #[test]
    fn bytes_that_are_not_text_survive() {
        let bytes = b"\xef\xbb\xbfa\xffb\xc3";
        let source = SourceText::new("Dockerfile", bytes).unwrap();
        assert_eq!(source.text(), "a\u{fffd}b\u{fffd}");
        assert_eq!(source.raw(0..source.text().len()), b"a\xffb\xc3");
        assert_eq!(source.first_invalid(0..1), None);
        assert_eq!(source.first_invalid(0..4), Some((1, 0xff)));
    }
}
