//! Trees as text, for tests: one entry a line, what is usual left out.
//!
//! ```text
//!  d/  d/f=text  d/l->target  d/h=>d/f  p|  c:c1,3  b:b7,0  !gone      then, apart:
//!  m755 (mode)  o1:2 (owner)  t5 or t5.000000001 (time)  opaque  x.user.name=value
//! ```

use std::fmt::Write as _;

use rbuild_store::digest::Digest;
use rbuild_store::entry::{Entry, Kind, Timestamp};

use super::listing::Listing;
use crate::llb::op::{ChmodOpt, Chown, FileCopy, UserOpt};

/// Reads a listing; lines may come in any order, a `;` is as good as a line, and a `⏎` is a line's
/// end within a text.
#[track_caller]
pub(super) fn listing(text: &str) -> Listing {
    let lines = text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty());
    let mut entries: Vec<Entry> = lines.map(entry).collect();
    entries.sort_by(|left, right| super::listing::compare(&left.path, &right.path));
    Listing::new(entries).expect("the test's listing is one")
}

fn entry(line: &str) -> Entry {
    let mut words = line.split(' ');
    let (path, kind) = kind(words.next().expect("a line has a word"));
    let mut entry = Entry::dir(path, Timestamp::default());
    entry.mode = if matches!(kind, Kind::Dir { .. }) {
        0o755
    } else if matches!(kind, Kind::Symlink { .. }) {
        0o777
    } else {
        0o644
    };
    entry.kind = kind;
    for word in words {
        let (first, rest) = word.split_at(1);
        match first {
            "m" => entry.mode = u32::from_str_radix(rest, 8).expect("m and octal digits"),
            "t" => {
                let (secs, nanos) = rest.split_once('.').unwrap_or((rest, "0"));
                entry.mtime.secs = secs.parse().expect("t and seconds");
                entry.mtime.nanos = nanos.parse().expect("nanoseconds");
            }
            "o" if word == "opaque" => entry.kind = Kind::Dir { opaque: true },
            "o" => {
                let (uid, gid) = rest.split_once(':').expect("o, user, colon, group");
                entry.uid = uid.parse().expect("a number");
                entry.gid = gid.parse().expect("a number");
            }
            "x" => {
                let (name, value) = rest[1..].split_once('=').expect("a name and a value");
                entry.xattrs.insert(name.into(), value.into());
            }
            _ => panic!("{word} means nothing"),
        }
    }
    entry
}

fn kind(word: &str) -> (&str, Kind) {
    let device = |numbers: &str| {
        let (major, minor) = numbers.split_once(',').expect("two numbers");
        (major.parse().expect("a number"), minor.parse().expect("a number"))
    };
    if let Some(path) = word.strip_prefix('!') {
        return (path, Kind::Whiteout);
    }
    if let Some(path) = word.strip_suffix('|') {
        return (path, Kind::Fifo);
    }
    if let Some((path, target)) = word.split_once("->") {
        return (path, Kind::Symlink { target: target.into() });
    }
    if let Some((path, target)) = word.split_once("=>") {
        return (path, Kind::Hardlink { target: target.into() });
    }
    if let Some((path, text)) = word.split_once('=') {
        let text = text.replace('⏎', "\n");
        let digest = Some(Digest::of(text.as_bytes()));
        return (path, Kind::File { size: text.len() as u64, digest: digest.map(Box::new) });
    }
    if let Some((path, numbers)) = word.split_once(":c") {
        let (major, minor) = device(numbers);
        return (path, Kind::Char { major, minor });
    }
    if let Some((path, numbers)) = word.split_once(":b") {
        let (major, minor) = device(numbers);
        return (path, Kind::Block { major, minor });
    }
    (word.strip_suffix('/').expect("a directory ends in a slash"), Kind::Dir { opaque: false })
}

/// Writes an entry as [`listing`] reads it, the content of a file given by the caller.
pub(super) fn show(entry: &Entry, content: &str) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    let bytes = String::from_utf8_lossy;
    let mut usual = 0o644;
    let mut line = match &entry.kind {
        Kind::File { .. } => format!("{path}={content}"),
        Kind::Dir { opaque } => {
            usual = 0o755;
            format!("{path}/{}", if *opaque { " opaque" } else { "" })
        }
        Kind::Symlink { target } => {
            usual = 0o777;
            format!("{path}->{}", bytes(target))
        }
        Kind::Hardlink { target } => format!("{path}=>{}", bytes(target)),
        Kind::Char { major, minor } => format!("{path}:c{major},{minor}"),
        Kind::Block { major, minor } => format!("{path}:b{major},{minor}"),
        Kind::Fifo => format!("{path}|"),
        Kind::Whiteout => return format!("!{path}"),
    };
    if entry.mode != usual {
        write!(line, " m{:o}", entry.mode).expect("writing to a string does not fail");
    }
    if (entry.uid, entry.gid) != (0, 0) {
        write!(line, " o{}:{}", entry.uid, entry.gid).expect("writing to a string does not fail");
    }
    match entry.mtime {
        Timestamp { secs: 0, nanos: 0 } => {}
        Timestamp { secs, nanos: 0 } => {
            write!(line, " t{secs}").expect("writing to a string does not fail");
        }
        Timestamp { secs, nanos } => {
            write!(line, " t{secs}.{nanos:09}").expect("writing to a string does not fail");
        }
    }
    for (name, value) in &entry.xattrs {
        write!(line, " x.{}={}", bytes(name), bytes(value))
            .expect("writing to a string does not fail");
    }
    line
}

/// A copy as the Dockerfile frontend asks for it: `src dest` and options.
pub(super) fn copy(line: &str) -> FileCopy {
    let mut words = line.split(' ');
    let mut next = || words.next().expect("source and destination").to_owned();
    let mut op = FileCopy {
        src: next(),
        dest: next(),
        owner: None,
        mode: None,
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: false,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: None,
        include_patterns: Vec::new(),
        exclude_patterns: Vec::new(),
        always_replace_existing_dest_paths: false,
        required_paths: Vec::new(),
    };
    for word in words {
        match word.split_once(':').unwrap_or((word, "")) {
            ("chown", owner) => {
                let mut parts = owner.split(':').map(|part| match part.parse() {
                    Ok(id) => UserOpt::Id(id),
                    Err(_) => UserOpt::Name(part.to_owned()),
                });
                op.owner = Some(Chown { user: parts.next(), group: parts.next() });
            }
            ("chmod", mode) => {
                op.mode = Some(match u32::from_str_radix(mode, 8) {
                    Ok(bits) => ChmodOpt::Bits(bits),
                    Err(_) => ChmodOpt::Symbolic(mode.to_owned()),
                });
            }
            ("time", seconds) => {
                op.timestamp = Some(seconds.parse::<i64>().expect("seconds") * 1_000_000_000);
            }
            ("include", pattern) => op.include_patterns.push(pattern.to_owned()),
            ("exclude", pattern) => op.exclude_patterns.push(pattern.to_owned()),
            ("unpack", _) => op.attempt_unpack = true,
            ("needs", path) => op.required_paths.push(path.to_owned()),
            ("nofollow", _) => op.follow_symlink = false,
            ("self", _) => op.dir_copy_contents = false,
            ("strict", _) => op.allow_empty_wildcard = false,
            ("exact", _) => op.allow_wildcard = false,
            ("nodest", _) => op.create_dest_path = false,
            ("replace", _) => op.always_replace_existing_dest_paths = true,
            (other, _) => panic!("{other} means nothing"),
        }
    }
    op
}
