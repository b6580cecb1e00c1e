//! Hard links and symbolic links within one layer: pure functions over its entries.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rbuild_store::entry::{Entry, Kind};

use crate::tree::listing::{compare, is_below, join};

/// A path that sorts as listings do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PathKey(pub(crate) Vec<u8>);

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where `link/rest` leads if `link` is a symbolic link to `target`: `..` is resolved, and stops at
/// the root.
pub(crate) fn resolve(link: &[u8], target: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut path = match target.first() {
        Some(b'/') => Vec::new(),
        Some(_) | None => super::dir::split(link).0.to_vec(),
    };
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => path = super::dir::split(&path).0.to_vec(),
            name => path = join(&path, name),
        }
    }
    join(&path, rest)
}

/// The paths strictly below `dir`.
pub(crate) fn below(entries: &BTreeMap<PathKey, Entry>, dir: &[u8]) -> Vec<PathKey> {
    let from = PathKey(dir.to_vec());
    entries
        .range(from..)
        .map(|(key, _)| key)
        .skip_while(|key| key.0 == dir)
        .take_while(|key| is_below(&key.0, dir))
        .cloned()
        .collect()
}

/// `gone` has been removed or replaced. If it was the first name of an inode, the next name becomes
/// the first.
pub(crate) fn detach(entries: &mut BTreeMap<PathKey, Entry>, gone: &Entry) {
    let mut first: Option<Vec<u8>> = None;
    for (key, entry) in entries.iter_mut() {
        let Kind::Hardlink { target } = &mut entry.kind else { continue };
        if *target != gone.path {
            continue;
        }
        if let Some(first) = &first {
            target.clone_from(first);
        } else {
            entry.kind = gone.kind.clone();
            first = Some(key.0.clone());
        }
    }
}

/// Makes the name that comes first in the listing the one that the others link to.
pub(crate) fn settle(entries: &mut BTreeMap<PathKey, Entry>) {
    let mut firsts: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (key, entry) in &*entries {
        if let Kind::Hardlink { target } = &entry.kind {
            firsts.entry(target.clone()).or_insert_with(|| key.0.clone());
        }
    }
    firsts.retain(|target, first| PathKey(first.clone()) < PathKey(target.clone()));
    for (target, first) in &firsts {
        let link = Kind::Hardlink { target: first.clone() };
        let Some(kind) = entries
            .get_mut(&PathKey(target.clone()))
            .map(|entry| std::mem::replace(&mut entry.kind, link))
        else {
            continue;
        };
        if let Some(entry) = entries.get_mut(&PathKey(first.clone())) {
            entry.kind = kind;
        }
    }
    if firsts.is_empty() {
        return;
    }
    for (key, entry) in entries.iter_mut() {
        if let Kind::Hardlink { target } = &mut entry.kind
            && let Some(first) = firsts.get(target)
            && *first != key.0
        {
            target.clone_from(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_store::entry::Timestamp;

    use super::*;

    /// `a` a file, `b=a` a link to it.
    fn entries(text: &str) -> BTreeMap<PathKey, Entry> {
        let entry = |word: &str| {
            let (path, kind) = match word.split_once('=') {
                Some((path, target)) => (path, Kind::Hardlink { target: target.into() }),
                None => (word, Kind::File { size: 1, digest: None }),
            };
            (PathKey(path.into()), Entry { kind, ..Entry::dir(path, Timestamp::default()) })
        };
        text.split_whitespace().map(entry).collect()
    }

    #[track_caller]
    fn check(entries: &BTreeMap<PathKey, Entry>, want: &str) {
        let show = |entry: &Entry| {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            if let Kind::Hardlink { target } = &entry.kind {
                return format!("{path}={}", String::from_utf8_lossy(target));
            }
            path
        };
        assert_eq!(entries.values().map(show).collect::<Vec<_>>().join(" "), want);
    }

    #[test]
    fn first_in_the_listing_is_the_file() {
        let mut list = entries("z b=z c=z d");
        settle(&mut list);
        check(&list, "b c=b d z=b");
        settle(&mut list);
        check(&list, "b c=b d z=b");
    }

    #[test]
    fn links_survive_their_first_name() {
        let mut list = entries("a b=a c=a");
        let gone = list.remove(&PathKey(b"a".to_vec())).expect("is there");
        detach(&mut list, &gone);
        check(&list, "b c=b");
    }

    #[test]
    fn symbolic_links_stay_inside() {
        let resolve = |link: &str, target: &str| {
            String::from_utf8(resolve(link.as_bytes(), target.as_bytes(), b"f")).expect("text")
        };
        assert_eq!(resolve("a/l", "b/../c"), "a/c/f");
        assert_eq!(resolve("a/l", "../../../etc"), "etc/f");
        assert_eq!(resolve("a/l", "/usr//lib/."), "usr/lib/f");
    }
}
