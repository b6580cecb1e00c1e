//! Reader against writer, against the `tar` crate, and against what nobody should send.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::tar::write::{TarWriter, WriteError};

fn file(path: &str, size: u64) -> Entry {
    Entry {
        kind: Kind::File { size, digest: None },
        mode: 0o644,
        ..Entry::dir(path, Timestamp::from_secs(5))
    }
}

fn of_kind(path: &str, kind: Kind) -> Entry {
    Entry { kind, ..file(path, 0) }
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new(), None);
    for (entry, body) in entries {
        writer.append(entry, body.as_slice()).expect("writes");
    }
    writer.finish().expect("finishes")
}

/// Items with their bodies.
fn read(tar: &[u8]) -> Result<Vec<(Item, Vec<u8>)>, ReadError> {
    let mut reader = TarReader::new(tar);
    let mut all = Vec::new();
    while let Some(item) = reader.next()? {
        let mut body = Vec::new();
        reader.read_to_end(&mut body).map_err(ReadError::Io)?;
        all.push((item, body));
    }
    Ok(all)
}

fn listing(tar: &[u8]) -> String {
    let items = match read(tar) {
        Ok(items) => items,
        Err(error) => return format!("error: {error}\n"),
    };
    let mut text = String::new();
    for (item, body) in items {
        match item {
            Item::Entry(entry) => {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                let Entry { kind, mode, uid, gid, mtime, xattrs, .. } = entry;
                write!(text, "{path} {kind:?} {mode:o} {uid}:{gid} {}.{}", mtime.secs, mtime.nanos)
                    .expect("writes");
                for (name, value) in xattrs {
                    write!(text, " {}={value:?}", String::from_utf8_lossy(&name)).expect("writes");
                }
                if !body.is_empty() {
                    write!(text, " {:?}", String::from_utf8_lossy(&body)).expect("writes");
                }
                text.push('\n');
            }
            Item::Opaque(dir) => {
                writeln!(text, "{} opaque", String::from_utf8_lossy(&dir)).expect("writes");
            }
        }
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "expectations are written in place")]
fn check(tar: &[u8], expected: Expect) {
    expected.assert_eq(&listing(tar));
}

/// An archive as the `tar` crate writes it.
fn foreign(build: impl FnOnce(&mut ::tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().expect("finishes")
}

fn foreign_header(kind: ::tar::EntryType, size: u64) -> ::tar::Header {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    header.set_size(size);
    header
}

#[test]
fn every_kind_comes_back() {
    let mut capable = file("bin/ping", 3);
    capable.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, b'\n', 0, b'=']);
    let entries = [
        (Entry::dir("bin", Timestamp { secs: -7, nanos: 5 }), vec![]),
        (capable, b"abc".to_vec()),
        (of_kind("bin/p", Kind::Hardlink { target: b"bin/ping".to_vec() }), vec![]),
        (of_kind("dev/null", Kind::Char { major: 1, minor: 3 }), vec![]),
        (of_kind("dev/sda", Kind::Block { major: 8, minor: 0 }), vec![]),
        (Entry { uid: u32::MAX - 1, gid: 70_000, ..of_kind("fifo", Kind::Fifo) }, vec![]),
        (of_kind("gone", Kind::Whiteout), vec![]),
        (of_kind("h/\u{e4}", Kind::Symlink { target: b"../x//y".to_vec() }), vec![]),
        (of_kind("var", Kind::Dir { opaque: true }), vec![]),
    ];
    check(
        &write(&entries),
        expect![[r#"
        bin Dir { opaque: false } 755 0:0 -7.0
        bin/ping File { size: 3, digest: None } 644 0:0 5.0 security.capability=[1, 0, 0, 2, 10, 0, 61] "abc"
        bin/p Hardlink { target: [98, 105, 110, 47, 112, 105, 110, 103] } 644 0:0 5.0
        dev/null Char { major: 1, minor: 3 } 644 0:0 5.0
        dev/sda Block { major: 8, minor: 0 } 644 0:0 5.0
        fifo Fifo 644 4294967294:70000 5.0
        gone Whiteout 0 0:0 0.0
        h/ä Symlink { target: [46, 46, 47, 120, 47, 47, 121] } 644 0:0 5.0
        var Dir { opaque: false } 644 0:0 5.0
        var opaque
    "#]],
    );
}

#[test]
fn only_what_needs_it_has_an_extended_header() {
    let plain = write(&[(file("a", 0), vec![])]);
    assert_eq!(plain.len(), 3 * BLOCK_BYTES);
    assert_eq!(&plain[257..265], b"ustar\x0000");
    let long = write(&[(file(&["d"; 80].join("/"), 0), vec![])]);
    assert_eq!(long.len(), 3 * BLOCK_BYTES);
    let longer = write(&[(file(&"f".repeat(101), 0), vec![])]);
    assert_eq!(longer.len(), 5 * BLOCK_BYTES);
}

#[test]
fn times_are_cut_and_clamped() {
    let entry = |secs, nanos| Entry { mtime: Timestamp { secs, nanos }, ..file("f", 0) };
    let mut writer = TarWriter::new(Vec::new(), Some(100));
    for (secs, nanos) in [(99, 999_999_999), (100, 1), (101, 0), (-1, 500_000_000)] {
        writer.append_bodiless(&entry(secs, nanos)).expect("writes");
    }
    check(
        &writer.finish().expect("finishes"),
        expect![[r#"
        f File { size: 0, digest: None } 644 0:0 99.0
        f File { size: 0, digest: None } 644 0:0 100.0
        f File { size: 0, digest: None } 644 0:0 100.0
        f File { size: 0, digest: None } 644 0:0 -1.0
    "#]],
    );
}

#[test]
fn a_file_that_changes_is_an_error() {
    for (size, body) in [(3, &b"ab"[..]), (3, b"abcd"), (300_000, b"x"), (1, b"")] {
        let result = TarWriter::new(Vec::new(), None).append(&file("f", size), body);
        assert!(matches!(result, Err(WriteError::Changed { .. })), "{size}");
    }
    let large = vec![7; (256 << 10) + 1];
    let result = TarWriter::new(Vec::new(), None).append(&file("f", 256 << 10), large.as_slice());
    assert!(matches!(result, Err(WriteError::Changed { .. })));
}

#[test]
fn the_tar_crate_reads_what_is_written() {
    let long = "d/".repeat(90) + &"n".repeat(120);
    let entries = [
        (file("a", 5), b"hello".to_vec()),
        (file(&long, 1), b"x".to_vec()),
        (file("z", 0), vec![]),
    ];
    let tar = write(&entries);
    let mut archive = ::tar::Archive::new(tar.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().expect("starts") {
        let mut entry = entry.expect("reads");
        let mut body = Vec::new();
        entry.read_to_end(&mut body).expect("reads");
        found.push((entry.path_bytes().into_owned(), body));
    }
    let expected: Vec<_> =
        entries.iter().map(|(entry, body)| (entry.path.clone(), body.clone())).collect();
    assert_eq!(found, expected);
}

#[test]
fn gnu_long_names_and_links() {
    let tar = foreign(|builder| {
        let mut header = foreign_header(::tar::EntryType::Regular, 2);
        builder.append_data(&mut header, "n".repeat(150), &b"ok"[..]).expect("writes");
        let mut header = foreign_header(::tar::EntryType::Symlink, 0);
        builder.append_link(&mut header, "l", "t".repeat(120)).expect("writes");
    });
    let items = read(&tar).expect("reads");
    assert!(matches!(&items[0], (Item::Entry(entry), body)
        if entry.path == [b'n'; 150] && body == b"ok"));
    assert!(matches!(&items[1].0, Item::Entry(Entry { kind: Kind::Symlink { target }, .. })
        if *target == [b't'; 120]));
}

/// A single entry with these PAX records and this body.
fn with_pax(records: &[(&str, &[u8])], name: &str, body: &[u8]) -> Vec<u8> {
    let mut extension = Vec::new();
    for (key, value) in records {
        pax::append(&mut extension, key.as_bytes(), value);
    }
    foreign(|builder| {
        let size = extension.len() as u64;
        let mut header = foreign_header(::tar::EntryType::XHeader, size);
        builder.append_data(&mut header, "pax", extension.as_slice()).expect("writes");
        let mut header = foreign_header(::tar::EntryType::Regular, body.len() as u64);
        builder.append_data(&mut header, name, body).expect("writes");
    })
}

#[test]
fn pax_records_win_over_the_header() {
    let records: [(&str, &[u8]); 6] = [
        ("path", b"from/pax"),
        ("uid", b"3000000"),
        ("mtime", b"7.5"),
        ("size", b"2"),
        ("atime", b"9"),
        ("SCHILY.xattr.user.a", b"\n"),
    ];
    check(
        &with_pax(&records, "short", b"ok"),
        expect![[r#"
        from/pax File { size: 2, digest: None } 755 3000000:2 7.500000000 user.a=[10] "ok"
    "#]],
    );
}

#[test]
fn sparse_files_are_filled() {
    let mut body = b"2\n0\n2\n5\n1\n".to_vec();
    body.resize(512, 0);
    body.extend_from_slice(b"abc");
    let one = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"8"),
    ];
    check(
        &with_pax(&one, "GNUSparseFile.0/real", &body),
        expect![[r#"
        real File { size: 8, digest: None } 755 1:2 3.0 "ab\0\0\0c\0\0"
    "#]],
    );
    let old = [
        ("GNU.sparse.map", &b"1,2,5,1"[..]),
        ("GNU.sparse.size", b"6"),
        ("GNU.sparse.name", b"real"),
    ];
    check(
        &with_pax(&old, "GNUSparseFile.0/real", b"abc"),
        expect![[r#"
        real File { size: 6, digest: None } 755 1:2 3.0 "\0ab\0\0c"
    "#]],
    );
    let lies = [("GNU.sparse.map", &b"1,2,5,9"[..]), ("GNU.sparse.size", b"6")];
    check(
        &with_pax(&lies, "real", b"abc"),
        expect![[r#"
        error: the layer's entry 1 (`real`) is malformed: its map of holes contradicts its size
    "#]],
    );
}

#[test]
fn paths_stay_below_the_root() {
    let entry = |path: &str| (Entry { mode: 0, ..file(path, 0) }, Vec::new());
    // The writer takes paths as they are.
    let tar = write(&[
        entry("/etc/passwd"),
        entry("../../etc/shadow"),
        entry("a/./b/../c"),
        entry("./"),
        entry(".."),
        entry(".wh..wh.plnk/1"),
        entry("d/.wh..wh..opq"),
        entry(".wh..wh..opq"),
    ]);
    check(
        &tar,
        expect![[r#"
        etc/passwd File { size: 0, digest: None } 0 0:0 5.0
        etc/shadow File { size: 0, digest: None } 0 0:0 5.0
        a/c File { size: 0, digest: None } 0 0:0 5.0
        d opaque
         opaque
    "#]],
    );
}

#[test]
fn what_nobody_should_send() {
    check(
        &write(&[(file("a/.wh...", 0), vec![])]),
        expect![[r#"
        error: the layer's entry 1 (`a/.wh...`) is malformed: it is a whiteout without a name
    "#]],
    );
    check(
        &with_pax(&[("path", b"a\0b")], "x", b""),
        expect![[r#"
            error: the layer's entry 1 (`pax`) is malformed: an extended header record holds a NUL where a name belongs
        "#]],
    );
    check(
        &with_pax(&[("uid", b"99999999999")], "x", b""),
        expect![[r#"
        error: the layer's entry 1 (`x`) is malformed: its uid is out of range
    "#]],
    );
    check(
        &with_pax(&[("size", b"-1")], "x", b""),
        expect![[r#"
        error: the layer's entry 1 (`x`) is malformed: an extended header record is not a number
    "#]],
    );
    let error = read(&with_pax(&[("path", &[b'a'; 5000])], "x", b"")).expect_err("too long");
    assert!(error.to_string().ends_with("its path is too long or holds a NUL"));
    let mut tar = write(&[(file("a", 0), vec![])]);
    tar[0] = b'b';
    check(
        &tar,
        expect![[r#"
            error: the layer's entry 1 (`?`) is malformed: its header has a wrong checksum
        "#]],
    );
    check(
        &foreign(|builder| {
            let mut header = foreign_header(::tar::EntryType::new(b'Q'), 0);
            builder.append_data(&mut header, "odd", &b""[..]).expect("writes");
        }),
        expect![[r#"
            error: the layer's entry 1 (`odd`) is malformed: entries of the type 0x51 are not known
        "#]],
    );
    check(
        &foreign(|builder| {
            let mut header = foreign_header(::tar::EntryType::XHeader, 1 << 30);
            header.set_cksum();
            builder.get_mut().extend_from_slice(header.as_bytes());
        }),
        expect![[r#"
            error: the layer's entry 1 (``) is malformed: its extended headers are repeated, too large, or without an entry
        "#]],
    );
}

#[test]
fn a_cut_archive_is_an_error_and_a_missing_end_is_not() {
    let tar = write(&[(file("a", 600), vec![b'x'; 600])]);
    assert_eq!(read(&tar[..1536]).expect("no end").len(), 1);
    assert_eq!(read(&tar[..2048]).expect("half an end").len(), 1);
    for cut in [100, 512, 700, 1112, 1200, 1535] {
        assert!(read(&tar[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn the_stream_is_read_to_its_end() {
    let mut tar = write(&[(file("a", 1), vec![b'x'])]);
    tar.resize(tar.len() + 20_000, 0);
    let mut rest = tar.as_slice();
    let mut reader = TarReader::new(&mut rest);
    while reader.next().expect("reads").is_some() {}
    assert!(rest.is_empty());
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let component = proptest::collection::vec(
        any::<u8>().prop_filter("a name", |byte| !matches!(byte, 0 | b'/' | b'.')),
        1..120,
    );
    let path = proptest::collection::vec(component, 1..5).prop_map(|parts| parts.join(&b'/'));
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    let xattrs = proptest::collection::btree_map("[a-z.]{1,20}", bytes.clone(), 0..3);
    let secs = prop_oneof![any::<i32>().prop_map(i64::from), -10..(1i64 << 40)];
    (path, 0..7u8, bytes, xattrs, secs, 0..=0o7777u32, any::<(u32, u32)>()).prop_map(
        |(path, kind, body, xattrs, secs, mode, (uid, gid))| {
            let target = path.clone();
            let kind = match kind {
                0 => Kind::Dir { opaque: false },
                1 => Kind::Symlink { target },
                2 => Kind::Hardlink { target },
                3 => Kind::Char { major: uid & 0xfff, minor: gid & 0xf_ffff },
                4 => Kind::Fifo,
                _ => Kind::File { size: body.len() as u64, digest: None },
            };
            let body = if matches!(kind, Kind::File { .. }) { body } else { Vec::new() };
            let xattrs = xattrs.into_iter().map(|(name, value)| (name.into(), value)).collect();
            let mtime = Timestamp::from_secs(secs);
            (Entry { path, kind, mode, uid, gid, mtime, xattrs }, body)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn round_trip(entries in proptest::collection::vec(any_entry(), 0..6)) {
        let found = read(&write(&entries)).expect("reads");
        let expected: Vec<_> =
            entries.into_iter().map(|(entry, body)| (Item::Entry(entry), body)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_input_panics(
        entries in proptest::collection::vec(any_entry(), 0..3),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut tar = write(&entries);
        for (index, byte) in damage {
            let index = index.index(tar.len());
            tar[index] = byte;
        }
        drop(read(&tar));
    }
}
