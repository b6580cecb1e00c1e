//! Archives that lie, contradict themselves, or want out.

use expect_test::expect;

use super::*;

#[track_caller]
fn refused(lines: &str, want: &expect_test::Expect) {
    let place = place(Driver::Plain);
    fs::create_dir(place.dir.path().join("outside")).expect("mkdir");
    let error = place.unpack(&archive(lines)).expect_err("is refused").to_failure();
    want.assert_eq(&error.text);
    let layers = fs::read_dir(place.root().join("layers")).expect("reads").count();
    assert_eq!(layers, 0, "nothing appears");
    assert_eq!(files(&place.dir.path().join("outside")), "");
}

#[test]
fn paths_go_through_directories_only() {
    refused(
        "f a\nf a/b x",
        &expect![
            "layer archive is not acceptable: `a` is no directory, but has something below it"
        ],
    );
    refused(
        "w .wh...",
        &expect![
            "cannot unpack layer `ab1748bf1b3db01c3dfe2d3a24947de89d36489925398957e881840b6d2d8aed`: the layer's entry 1 (`.wh...`) is malformed: it is a whiteout without a name"
        ],
    );
}

#[test]
fn links_cannot_leave() {
    refused(
        "h a /etc/passwd",
        &expect!["layer archive is not acceptable: `a` links to something that is in no layer"],
    );
    refused(
        "h a ../../outside",
        &expect!["layer archive is not acceptable: `a` links to something that is in no layer"],
    );
    refused(
        "d a\nh b a",
        &expect!["layer archive is not acceptable: `b` links to something that is no file"],
    );
    refused(
        "l a b\nl b a\nf a/x out",
        &expect!["layer archive is not acceptable: `a/x` leads through too many symbolic links"],
    );
}

#[track_caller]
fn accepted(lines: &str, want_listing: &expect_test::Expect, want_files: &expect_test::Expect) {
    let place = place(Driver::Plain);
    let layer = place.unpack(&archive(lines)).expect("is accepted");
    check_listing(&place, &layer, want_listing);
    want_files.assert_eq(&files(&place.fs(&layer)));
}

#[test]
fn writes_through_links_stay_in_the_layer() {
    accepted(
        "l etc /../../outside\nf etc/x in",
        &expect![[r#"
            l777 etc -> /../../outside
            f644 outside/x 2
        "#]],
        &expect![[r#"
            etc -> /../../outside
            outside/
            outside/x: in
        "#]],
    );
}

#[test]
fn absolute_names_and_dots_are_taken_as_relative() {
    accepted(
        "d ./\nd /a/\nf //a/./b x\nf ../../c y\nf a/../../d z",
        &expect![[r#"
            d755 a
            f644 a/b 1
            f644 c 1
            f644 d 1
        "#]],
        &expect![[r#"
            a/
            a/b: x
            c: y
            d: z
        "#]],
    );
}

#[test]
fn later_entries_win() {
    accepted(
        "d a\nf a/b x\nf a y\nf c 1\nd c\nf c/d z\nf e 1\nf e 22",
        &expect![[r#"
            f644 a 1
            d755 c opaque
            f644 c/d 1
            f644 e 2
        "#]],
        &expect![[r#"
            a: y
            c/
            c/d: z
            e: 22
        "#]],
    );
}

#[test]
fn links_survive_the_name_they_were_made_from() {
    accepted(
        "f z one\nh a z\nh b a\nf z two",
        &expect![[r#"
            f644 a 3
            h644 b = a
            f644 z 3
        "#]],
        &expect![[r#"
            a: one
            b: one
            z: two
        "#]],
    );
}

#[test]
fn whiteouts_do_not_hide_what_the_layer_adds() {
    let place = place(Driver::Plain);
    let lines = "w a/.wh.b\nw .wh.c\nd c\nf c/x 1\nd d\nf d/x 1\nw .wh.d\nw .wh.e\nf e 1\nf g/h 1\nw g/.wh..wh..opq\nw .wh..wh.plnk";
    let layer = place.unpack(&archive(lines)).expect("is accepted");
    check_listing(
        &place,
        &layer,
        &expect![[r#"
            w0 a/b
            d755 c opaque
            f644 c/x 1
            d755 d opaque
            f644 d/x 1
            f644 e 1
            d755 g opaque
            f644 g/h 1
        "#]],
    );
}

#[test]
fn names_too_long_are_refused() {
    let place = place(Driver::Plain);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "x".repeat(300), &[][..]).expect("appends");
    let error = place.unpack(&builder.into_inner().expect("finishes")).expect_err("refused");
    assert!(matches!(error, Error::Archive { why: "has too long a name", .. }), "{error}");
}

#[test]
fn what_does_not_hash_right_never_appears() {
    let place = place(Driver::Plain);
    let bytes = archive("f a x");
    let layer = LayerId("abc".into());
    let result = place.layers.unpack(&layer, &mut &bytes[..], DiffId(Digest::of(b"other")), &[]);
    assert!(matches!(result, Err(Error::Mismatch { .. })));
    let result = place.layers.unpack(&layer, &mut &bytes[..700], DiffId(Digest::of(b"other")), &[]);
    assert!(result.is_err(), "a stream that ends early");
    assert!(!place.layers.is_on_disk(&layer).expect("says"));
    assert_eq!(fs::read_dir(place.root().join("layers")).expect("reads").count(), 0);
}

#[test]
fn forged_records_do_not_reach_the_disk() {
    let place = place(Driver::Plain);
    let mut builder = tar::Builder::new(Vec::new());
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.user.rbuild.owner", b"0:0:104755:0:0:0:0:644"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.color", b"blue"),
    ];
    builder.append_pax_extensions(records).expect("appends");
    let mut header = tar::Header::new_ustar();
    header.set_path("f").expect("fits");
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, &[][..]).expect("appends");
    let layer = place.unpack(&builder.into_inner().expect("finishes")).expect("is accepted");
    assert_eq!(place.layers.listing(&layer).expect("listing").entries()[0].xattrs.len(), 3);
    let mut names = [0_u8; 256];
    let length = rustix::fs::llistxattr(place.fs(&layer).join("f"), &mut names).expect("lists");
    assert_eq!(&names[..length], b"user.color\0");
}
