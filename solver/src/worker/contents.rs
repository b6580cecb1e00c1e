//! Where the bytes of many files are: small in memory and in messages.
//!
//! ```text
//!  content := 0 length:varint bytes                      inline
//!           | root+1:varint shared:varint rest:bytes     in a file: so much of the previous one's path, then the rest
//! ```
//!
//! The first of each [`BLOCK`] contents shares nothing, so that one can be found without reading
//! all that come before. In a message it is one string, base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::proto::Content;

/// Contents from one that shares nothing to the next.
const BLOCK: usize = 64;

/// The contents of a planned layer's regular files, in the order of its listing.
#[derive(Clone, Debug, Default)]
pub struct ContentList {
    bytes: Vec<u8>,
    count: usize,
    /// Where each block starts.
    blocks: Vec<usize>,
    /// The path of the last one that was added.
    last: Vec<u8>,
}

impl ContentList {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one.
    pub fn push(&mut self, content: &Content) {
        if self.count.is_multiple_of(BLOCK) {
            self.blocks.push(self.bytes.len());
            self.last.clear();
        }
        self.count += 1;
        match content {
            Content::Inline(bytes) => {
                put(&mut self.bytes, 0);
                put(&mut self.bytes, bytes.len());
                self.bytes.extend_from_slice(bytes);
            }
            Content::Tree { root, path } => {
                let pairs = path.iter().zip(&self.last);
                let shared = pairs.take_while(|(left, right)| left == right).count();
                put(&mut self.bytes, root + 1);
                put(&mut self.bytes, shared);
                put(&mut self.bytes, path.len() - shared);
                self.bytes.extend_from_slice(&path[shared..]);
                self.last.clone_from(path);
            }
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.bytes, last: Vec::new(), at: 0 }
    }

    /// One of them.
    pub fn get(&self, at: usize) -> Option<Content> {
        let start = *self.blocks.get(at / BLOCK)?;
        Iter { rest: &self.bytes[start..], last: Vec::new(), at: 0 }.nth(at % BLOCK)
    }
}

impl FromIterator<Content> for ContentList {
    fn from_iter<I: IntoIterator<Item = Content>>(contents: I) -> Self {
        let mut list = Self::default();
        contents.into_iter().for_each(|content| list.push(&content));
        list
    }
}

impl<'a> IntoIterator for &'a ContentList {
    type Item = Content;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Yields contents in order; ends at what is none.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
    last: Vec<u8>,
    at: usize,
}

impl Iterator for Iter<'_> {
    type Item = Content;

    fn next(&mut self) -> Option<Content> {
        if self.at.is_multiple_of(BLOCK) {
            self.last.clear();
        }
        let content = match take(&mut self.rest)?.checked_sub(1) {
            None => Content::Inline(bytes(&mut self.rest)?.to_vec()),
            Some(root) => {
                let shared = take(&mut self.rest)?;
                let rest = bytes(&mut self.rest)?;
                if shared > self.last.len() {
                    return None;
                }
                self.last.truncate(shared);
                self.last.extend_from_slice(rest);
                Content::Tree { root, path: self.last.clone() }
            }
        };
        self.at += 1;
        Some(content)
    }
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take(input: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(input)?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

impl Serialize for ContentList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(&self.bytes, &BASE64))
    }
}

impl<'de> Deserialize<'de> for ContentList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let mut list = Self { bytes, ..Self::default() };
        let mut iter = list.iter();
        let (mut blocks, mut count) = (Vec::new(), 0);
        while !iter.rest.is_empty() {
            if count % BLOCK == 0 {
                blocks.push(list.bytes.len() - iter.rest.len());
            }
            iter.next().ok_or_else(|| D::Error::custom("a list of contents is cut off"))?;
            count += 1;
        }
        (list.count, list.blocks, list.last) = (count, blocks, iter.last);
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let content = |number: usize| match number % 7 {
            0 => Content::Inline(vec![b'x'; number]),
            _ => Content::Tree { root: number % 3, path: format!("src/dir/f{number}").into() },
        };
        for count in [0, 1, BLOCK, 1000] {
            let list: ContentList = (0..count).map(content).collect();
            let json = serde_json::to_string(&list).unwrap();
            let mut again: ContentList = serde_json::from_str(&json).unwrap();
            for list in [&list, &again] {
                assert_eq!(list.len(), count);
                assert!(list.iter().eq((0..count).map(content)));
                assert!((0..count).all(|at| list.get(at) == Some(content(at))));
                assert_eq!(list.get(count), None);
            }
            again.push(&content(count));
            assert!(again.iter().eq((0..=count).map(content)));
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let list: ContentList = [Content::Inline(b"bytes".into())].into_iter().collect();
        let json = serde_json::to_string(&BASE64.encode(&list.bytes[..3])).unwrap();
        assert!(serde_json::from_str::<ContentList>(&json).is_err());
        assert!(serde_json::from_str::<ContentList>("\"*\"").is_err());
    }

    #[test]
    fn many_files_take_little() {
        let path = |number: usize| format!("src/d{}/f{}.txt", number / 100, number % 100);
        let contents = (0..10_000).map(|it| Content::Tree { root: 0, path: path(it).into() });
        let list: ContentList = contents.collect();
        assert!(list.bytes.len() + list.blocks.len() * size_of::<usize>() < 12 * list.len());
    }
}
