//! Names of deletions, and what they mean (OCI image-spec, layer.md, "Whiteouts").

/// Prefix of the name of a whiteout: `.wh.gone` removes `gone`.
pub const PREFIX: &[u8] = b".wh.";

/// Prefix of names that mean something to AUFS.
const META_PREFIX: &[u8] = b".wh..wh.";

/// Name of the file that hides everything lower layers have in its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a name in a layer means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// An ordinary name.
    Plain,
    /// The path does not exist from this layer on.
    Whiteout(Vec<u8>),
    /// The directory hides what lower layers have in it.
    Opaque(Vec<u8>),
    /// Bookkeeping of AUFS: belongs to no image.
    Bookkeeping,
    /// A whiteout of nothing, of `.` or of `..`.
    Invalid,
}

/// The meaning of a normalised path.
pub fn meaning(path: &[u8]) -> Meaning {
    // Whatever is below a bookkeeping directory at the root is bookkeeping, too.
    if path.starts_with(META_PREFIX) && path != OPAQUE {
        return Meaning::Bookkeeping;
    }
    let (dir, name) = split(path);
    let Some(target) = name.strip_prefix(PREFIX) else { return Meaning::Plain };
    if name == OPAQUE {
        return Meaning::Opaque(dir.to_vec());
    }
    match target {
        b"" | b"." | b".." => Meaning::Invalid,
        _ => Meaning::Whiteout(join(dir, target)),
    }
}

/// Path of the file that removes `path`.
pub fn of(path: &[u8]) -> Vec<u8> {
    let (dir, name) = split(path);
    join(dir, &[PREFIX, name].concat())
}

/// Path of the file that makes `dir` opaque.
pub fn opaque(dir: &[u8]) -> Vec<u8> {
    join(dir, OPAQUE)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_meanings_are_inverse() {
        for path in [&b"a"[..], b"a/b", b"a/.b"] {
            assert_eq!(meaning(&of(path)), Meaning::Whiteout(path.to_vec()));
            assert_eq!(meaning(&opaque(path)), Meaning::Opaque(path.to_vec()));
            assert_eq!(meaning(path), Meaning::Plain);
        }
        assert_eq!(meaning(OPAQUE), Meaning::Opaque(Vec::new()));
    }

    #[test]
    fn odd_names() {
        assert_eq!(meaning(b".wh."), Meaning::Invalid);
        assert_eq!(meaning(b"a/.wh..."), Meaning::Invalid);
        assert_eq!(meaning(b"a/.wh.."), Meaning::Invalid);
        assert_eq!(meaning(b".wh..wh.plnk/1.2"), Meaning::Bookkeeping);
        assert_eq!(meaning(b".wh..wh.aufs"), Meaning::Bookkeeping);
    }
}
