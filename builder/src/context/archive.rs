//! The Dockerfile in a context that is an archive, and the archive's age. Nothing is unpacked for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use rbuild_store::compress::{self, Format};
use rbuild_store::entry::{Entry, Kind as EntryKind};
use rbuild_store::tar::read::{Item, ReadError, TarReader};

use crate::report::{Failure, Kind};

/// Bytes that tell whether something is an archive.
pub(super) const START_BYTES: u64 = 1024;

/// Most links on the way to a Dockerfile.
const MAX_LINKS: usize = 40;

/// Most entries that are looked at for links.
const MAX_ENTRIES: usize = 4 << 20;

/// Whether a file that begins so is a tar, compressed or not.
pub(super) fn is_archive(start: &[u8]) -> bool {
    Format::detect(start) != Format::Plain || matches!(TarReader::plain(start).next(), Ok(Some(_)))
}

/// The first of `names` that is a file in the archive; symbolic links are followed inside of it.
///
/// # Errors
///
/// `User` if the archive is broken or the file has more than `limit` bytes; `Host` if the disk
/// fails.
pub(super) fn read(path: &Path, names: &[&str], limit: u64) -> Result<Option<Vec<u8>>, Failure> {
    let mut entries = Entries::default();
    each(path, |entry, _| entries.add(&entry.path, &entry.kind))?;
    let Some(wanted) = names.iter().find_map(|name| entries.resolve(name.as_bytes())) else {
        return Ok(None);
    };
    let mut found = None;
    each(path, |entry, body| {
        if entry.path == wanted && matches!(entry.kind, EntryKind::File { .. }) {
            let mut bytes = Vec::new();
            body.take(limit + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
            found = Some(bytes);
        }
        Ok(())
    })?;
    if found.as_ref().is_some_and(|bytes: &Vec<u8>| bytes.len() as u64 > limit) {
        let text = format!("the Dockerfile in the context is larger than {limit} bytes");
        return Err(Failure::new(Kind::User, text));
    }
    Ok(found)
}

/// When the newest regular file of an archive was changed, in seconds; none if there is none, or
/// if it is no archive.
pub fn newest(path: &Path) -> Option<i64> {
    let mut newest = None;
    let read = each(path, |entry, _| {
        if matches!(entry.kind, EntryKind::File { .. }) {
            newest = newest.max(Some(entry.mtime.secs));
        }
        Ok(())
    });
    read.ok().and(newest)
}

/// Calls `visit` for each entry: what the header says, the body.
fn each(
    path: &Path,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), ReadError>,
) -> Result<(), Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::host(&format!("read {}", path.display()), &error))?;
    let read = || {
        let (_, stream) = compress::decoder(BufReader::new(file)).map_err(ReadError::Io)?;
        let mut tar = TarReader::plain(BufReader::new(stream));
        while let Some(item) = tar.next()? {
            if let Item::Entry(entry) = item {
                visit(&entry, &mut tar)?;
            }
        }
        Ok(())
    };
    read().map_err(|error: ReadError| {
        let text =
            format!("the context is not a readable archive: {}", crate::report::chain(&error));
        Failure::new(Kind::User, text)
    })
}

/// What the archive has, as far as it matters where names lead.
#[derive(Debug, Default)]
struct Entries {
    /// Targets of links; none for what is no link.
    links: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Entries {
    fn add(&mut self, path: &[u8], kind: &EntryKind) -> Result<(), ReadError> {
        if self.links.len() == MAX_ENTRIES {
            return Err(ReadError::TooMany);
        }
        let target = match kind {
            EntryKind::Symlink { target } => Some(target.clone()),
            EntryKind::Hardlink { target } => Some([b"/", &target[..]].concat()),
            EntryKind::File { .. }
            | EntryKind::Dir { .. }
            | EntryKind::Char { .. }
            | EntryKind::Block { .. }
            | EntryKind::Fifo
            | EntryKind::Whiteout => None,
        };
        self.links.insert(path.to_owned(), target);
        Ok(())
    }

    /// The path that a name leads to, if something is there. `..` ends at the root.
    fn resolve(&self, name: &[u8]) -> Option<Vec<u8>> {
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|it| *it == b'/').rev().map(<[u8]>::to_owned).collect()
        };
        let mut path: Vec<u8> = Vec::new();
        let mut rest = parts(name);
        let mut n_links = 0;
        while let Some(part) = rest.pop() {
            let parent = path.len();
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    path.truncate(path.iter().rposition(|it| *it == b'/').unwrap_or(0));
                    continue;
                }
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend(name);
                }
            }
            if let Some(Some(target)) = self.links.get(&path) {
                n_links += 1;
                if n_links > MAX_LINKS {
                    return None;
                }
                path.truncate(if target.starts_with(b"/") { 0 } else { parent });
                rest.extend(parts(target));
            }
        }
        self.links.contains_key(&path).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(links: &[(&str, Option<&str>)]) -> Entries {
        let links = links.iter().map(|(path, target)| {
            (path.as_bytes().to_owned(), target.map(|it| it.as_bytes().to_owned()))
        });
        Entries { links: links.collect() }
    }

    #[test]
    fn names_lead_through_links() {
        let all = entries(&[
            ("Dockerfile", Some("build/Dockerfile.web")),
            ("build", Some("/real/")),
            ("real/Dockerfile.web", None),
            ("up", Some("../../../real/Dockerfile.web")),
            ("loop", Some("loop")),
            ("dangling", Some("nowhere")),
        ]);
        let resolve =
            |name: &str| all.resolve(name.as_bytes()).map(|it| String::from_utf8(it).unwrap());
        let real = Some("real/Dockerfile.web".to_owned());
        for name in
            ["Dockerfile", "./Dockerfile", "/build/../Dockerfile", "up", "real//Dockerfile.web"]
        {
            assert_eq!(resolve(name), real, "{name}");
        }
        for name in ["loop", "dangling", "missing"] {
            assert_eq!(resolve(name), None, "{name}");
        }
    }

    #[test]
    fn a_dockerfile_is_no_archive() {
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[b'x'; 1024]));
        assert!(!is_archive(b""));
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_old();
        header.set_size(0);
        header.set_path("Dockerfile").unwrap();
        header.set_cksum();
        tar.append(&header, &b""[..]).unwrap();
        assert!(is_archive(&tar.into_inner().unwrap()[..1024]));
    }
}
