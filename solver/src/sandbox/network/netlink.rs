//! Messages to and from the kernel's netlink families, as bytes. Pure.
//!
//! Layout: netlink(7). All attributes are a length, a kind and a payload padded to four bytes.

/// `NLM_F_REQUEST`: a question to the kernel.
const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`: an answer is wanted whatever comes of it.
const ACK: u16 = 0x04;
/// `NLM_F_CREATE`: make it if it is missing.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: behind what is there.
pub(super) const APPEND: u16 = 0x800;
/// `NLA_F_NESTED`: the payload is attributes.
const NESTED: u16 = 0x8000;
/// `NLMSG_ERROR`: an error, or with number 0 an acknowledgement.
const ERROR: u16 = 2;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A list of attributes under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Raw bytes.
    pub(super) fn bytes(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number in network order, as netfilter has them.
    pub(super) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A number in the processor's order, as routing has them.
    pub(super) fn ne32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A text, which ends with a zero byte.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let bytes: Vec<u8> = value.bytes().chain([0]).collect();
        self.bytes(kind, &bytes)
    }

    /// Attributes in an attribute.
    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Adds a message to `out`. `body` is the family's own header.
pub(super) fn message(
    out: &mut Vec<u8>,
    (kind, flags): (u16, u16),
    sequence: u32,
    body: &[u8],
    attributes: &Attributes,
) {
    let length = HEADER + body.len().next_multiple_of(4) + attributes.0.len();
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | REQUEST).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(&attributes.0);
}

/// As [`message`], with an acknowledgement asked for.
pub(super) fn command(
    out: &mut Vec<u8>,
    (kind, flags): (u16, u16),
    sequence: u32,
    body: &[u8],
    attributes: &Attributes,
) {
    message(out, (kind, flags | ACK), sequence, body, attributes);
}

/// A message from the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Received<'a> {
    /// The error number that answers message `sequence`; 0 for none.
    Result {
        /// Number of the message.
        sequence: u32,
        /// As in errno(3).
        errno: i32,
    },
    /// Anything else: its kind, and what follows the header.
    Message {
        /// Kind.
        kind: u16,
        /// The family's header and the attributes.
        body: &'a [u8],
    },
}

/// The messages in what one read yielded. What is cut off is left out.
pub(super) fn received(mut bytes: &[u8]) -> Vec<Received<'_>> {
    let mut all = Vec::new();
    while let (Some(length), Some(kind), Some(sequence)) =
        (word(bytes, 0), half(bytes, 4), word(bytes, 8))
    {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else {
            break;
        };
        if kind == ERROR {
            let errno = word(body, 0).map_or(libc::EPROTO, |it| it.cast_signed().wrapping_neg());
            all.push(Received::Result { sequence, errno });
        } else {
            all.push(Received::Message { kind, body });
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// The payload of the first attribute of `kind`.
pub(super) fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let (Some(length), Some(found)) = (half(attributes, 0), half(attributes, 2)) {
        let length = usize::from(length);
        let payload = attributes.get(4..length)?;
        if found & !NESTED == kind {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Bytes as lines of hexadecimal words, for tests.
#[cfg(test)]
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for line in bytes.chunks(16) {
        for word in line.chunks(4) {
            for byte in word {
                let _ = write!(text, "{byte:02x}");
            }
            text.push(' ');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_message() {
        let inner = Attributes::new().text(1, "abcd").be32(2, 7);
        let attributes = Attributes::new().nest(4, &inner).bytes(9, &[1, 2, 3]);
        let mut bytes = Vec::new();
        command(&mut bytes, (0x0a06, CREATE), 5, &[2, 0, 0, 0], &attributes);
        expect![[r#"
            34000000 060a0504 05000000 00000000
            02000000 18000480 09000100 61626364
            00000000 08000200 00000007 07000900
            01020300
        "#]]
        .assert_eq(&hex(&bytes));
    }

    #[test]
    fn answers_are_read_as_far_as_they_are_whole() {
        let mut bytes = Vec::new();
        message(&mut bytes, (ERROR, 0), 3, &(-libc::EPERM).to_ne_bytes(), &Attributes::new());
        message(&mut bytes, (ERROR, 0), 4, &0_i32.to_ne_bytes(), &Attributes::new());
        let attributes = Attributes::new().ne32(1, 2).text(7, "x");
        message(&mut bytes, (24, 0), 5, &[], &attributes);
        let whole = received(&bytes);
        assert_eq!(whole[0], Received::Result { sequence: 3, errno: libc::EPERM });
        assert_eq!(whole[1], Received::Result { sequence: 4, errno: 0 });
        let Received::Message { kind: 24, body } = whole[2] else {
            panic!("{whole:?}");
        };
        assert_eq!(attribute(body, 7), Some(&b"x\0"[..]));
        assert_eq!(attribute(body, 8), None);
        for end in 0..bytes.len() {
            assert!(received(&bytes[..end]).len() < 3);
        }
        for end in 0..body.len() {
            assert_eq!(attribute(&body[..end], 8), None);
        }
    }
}
