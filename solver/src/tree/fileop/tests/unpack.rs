//! Archives.

use expect_test::{Expect, expect};

use super::*;

/// An archive of entries, in this order.
fn archive(lines: &[&str]) -> Vec<u8> {
    let mut tar = rbuild_store::tar::write::TarWriter::new(Vec::new(), None);
    for line in lines {
        let (word, options) = line.split_once(' ').unwrap_or((line, ""));
        // A hard link alone is no listing.
        let (path, target) = word.split_once("=>").unwrap_or((word, ""));
        let text =
            if target.is_empty() { (*line).to_owned() } else { format!("{path}-> {options}") };
        let mut entry = listing(&text).into_entries().remove(0);
        let content =
            word.split_once('=').filter(|_| target.is_empty()).map_or("", |(_, text)| text);
        if !target.is_empty() {
            entry.kind = Kind::Hardlink { target: target.into() };
        }
        if let Kind::File { .. } = entry.kind {
            tar.append(&entry, content.as_bytes()).unwrap();
        } else {
            tar.append_bodiless(&entry).unwrap();
        }
    }
    tar.finish().unwrap()
}

#[track_caller]
fn check_archive(base: &str, bytes: Vec<u8>, lines: &[&str], want: &Expect) {
    let mut world = World::new(&[base]);
    world.push_file("a.tar", bytes);
    want.assert_eq(&world.run(lines.iter().map(|line| copy(line)).collect()));
}

#[test]
fn archives_are_unpacked() {
    let tar = archive(&[
        "d/ m1777 o5:6 t5",
        "d/x=xx o5:6 t5",
        "one=1 m4711 o5:6 t5",
        "three=>one m4711 o7:8 t6",
        "two->one o5:6 t5",
    ]);
    check_archive(
        "",
        tar.clone(),
        &["/a.tar /plain/ unpack:"],
        &expect![[r#"
        plain/ t99
        plain/d/ m1777 o5:6 t5
        plain/d/x=xx o5:6 t5
        plain/one=1 m4711 o7:8 t6
        plain/three=>plain/one m4711 o7:8 t6
        plain/two->one o5:6 t5
    "#]],
    );
    check_archive(
        "",
        tar.clone(),
        &["/a.tar /plain/ unpack: chown:1:2"],
        &expect![[r#"
        plain/ o1:2 t99
        plain/d/ m1777 o1:2 t5
        plain/d/x=xx o1:2 t5
        plain/one=1 m4711 o1:2 t6
        plain/three=>plain/one m4711 o1:2 t6
        plain/two->one o1:2 t5
    "#]],
    );
    check_archive(
        "p/ m700 t1; p/d/ m700; p/d/old=1; p/one/; p/one/in=1",
        tar.clone(),
        &["/a.tar /p unpack:"],
        &expect![[r#"
        p/ m700 t99
        p/d/ m1777 o5:6 t5
        p/d/x=xx o5:6 t5
        p/one=1 m4711 o7:8 t6
        p/three=>p/one m4711 o7:8 t6
        p/two->one o5:6 t5
    "#]],
    );
    check_archive("p=file", tar, &["/a.tar /p unpack:"], &expect!["mkdir /p: not a directory"]);
}

#[test]
fn archives_stay_below_their_destination() {
    let tar = archive(&[
        "x/y/z=1 t5",
        "x=file",
        "abs->/up t5",
        "abs/in=1 t5",
        ".wh.gone= t5",
        "dup=1",
        "dup=22",
    ]);
    check_archive(
        "up/; gone=1",
        tar,
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/.wh.gone= t5
        o/abs->/up t5
        o/dup=22
        o/up/ t99
        o/up/in=1 t5
        o/x=file
    "#]],
    );
    check_archive(
        "o/; o/old=1 m600; o/l->/d; o/d/; d/",
        archive(&["h=>old m644 t7", "l/f=1 t5"]),
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/d/ t99
        o/d/f=1 t5
        o/h=1 t7
        o/old=>o/h t7
    "#]],
    );
    check_archive(
        "",
        archive(&["h=>missing"]),
        &["/a.tar /o/ unpack:"],
        &expect!["link /o/missing: no such file or directory"],
    );
}

#[test]
fn what_is_no_archive_is_copied() {
    check_archive(
        "",
        b"plain text".to_vec(),
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/a.tar=plain text
    "#]],
    );
    check_archive(
        "",
        Vec::new(),
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/a.tar=
    "#]],
    );
}

#[test]
fn compression_is_told_by_content() {
    use std::io::Write as _;
    let tar = archive(&["f=text t5"]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(&tar[..], 1).unwrap();
    let check = |bytes, want: &Expect| check_archive("", bytes, &["/a.tar /o/ unpack:"], want);
    check(
        gz,
        &expect![[r#"
        o/ t99
        o/f=text t5
    "#]],
    );
    check(
        zst,
        &expect![[r#"
        o/ t99
        o/f=text t5
    "#]],
    );
    let mut long = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    long.write_all(&archive(&["f=text t5", "g=text t5", "h=text t5"])).unwrap();
    let long = long.finish().unwrap();
    check_archive(
        "",
        long[..1200].to_vec(),
        &["/a.tar /o/ unpack:"],
        &expect!["cannot unpack /a.tar: incomplete deflate stream"],
    );
}
