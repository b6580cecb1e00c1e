//! Order, archives, bytes.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::tree::text::{listing, show};

fn shown(listing: &Listing) -> String {
    listing.entries().iter().map(|entry| show(entry, "…") + "\n").collect()
}

#[track_caller]
fn check_archive(lines: &[&str], want: &Expect) {
    // Each line is parsed alone, so that hard links need no target yet.
    let entries = lines.iter().map(|line| match line.split_once("=>") {
        Some((path, target)) => {
            let mut entry = Entry::dir(path, rbuild_store::entry::Timestamp::default());
            entry.kind = Kind::Hardlink { target: target.into() };
            entry
        }
        None => listing(line).into_entries().remove(0),
    });
    match Listing::from_archive(entries) {
        Ok(listing) => want.assert_eq(&shown(&listing)),
        Err(error) => want.assert_eq(&error.to_string()),
    }
}

#[test]
fn the_slash_sorts_first() {
    let sorted = ["", "a", "a/z", "a-b", "a-b/c", "a.b", "ab", "b"];
    for pair in sorted.windows(2) {
        assert_eq!(compare(pair[0].as_bytes(), pair[1].as_bytes()), Ordering::Less, "{pair:?}");
    }
}

#[test]
fn later_entries_of_an_archive_win() {
    check_archive(
        &[
            "b=1",
            "a/",
            "a/x=1",
            "a/ m700",
            "b=22 m600",
            "!c",
            "c=new",
            "d/",
            "!d",
            "e/",
            "e/in=1",
            "e=file",
        ],
        &expect![[r#"
            a/ m700
            a/x=…
            b=… m600
            c=…
            d/ opaque
            e=…
        "#]],
    );
}

#[test]
fn hard_links_point_to_the_first_name() {
    check_archive(
        &["z=1 m600", "a=>z", "m=>a", "l->x", "k=>l"],
        &expect![[r#"
        a=… m600
        k->x
        l=>k m777
        m=>a m600
        z=>a m600
    "#]],
    );
    check_archive(
        &["a=>b", "b=1"],
        &expect!["`a` is a hard link to `b`, which is no earlier file"],
    );
    check_archive(&["d/", "a=>d"], &expect!["`a` is a hard link to `d`, which is no earlier file"]);
}

#[test]
fn replacing_a_linked_file_leaves_the_other_names() {
    check_archive(
        &["f=1", "g=>f", "f=22 m600"],
        &expect![[r#"
        f=… m600
        g=…
    "#]],
    );
}

#[test]
fn refuses_bad_paths() {
    for path in ["/a", "a/", "a//b", "./a", "a/../b", "..", "a\0b"] {
        let entry = Entry::dir(path, rbuild_store::entry::Timestamp::default());
        assert!(matches!(Listing::new(vec![entry]), Err(ListingError::Path { .. })), "{path}");
    }
}

#[test]
fn finds_what_is_below() {
    let listing = listing("a/; a/b/; a/b/c=1; a-/; a-/x=1; ab=1");
    let below = |dir: &str| {
        let found = &listing.entries()[listing.below(dir.as_bytes())];
        found.iter().map(|entry| show(entry, "")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(below("a"), "a/b/ a/b/c=");
    assert_eq!(below("a/b"), "a/b/c=");
    assert_eq!(below("a-"), "a-/x=");
    assert_eq!(below("ab") + &below("nothing"), "");
    assert_eq!(listing.below(b"").len(), 6);
}

#[test]
fn bytes_round_trip() {
    let listing = listing(
        "d/ opaque m1777 o1:70000 t-5.999999999; d/f=text x.user.a=b x.user.c=; d/g=>d/f; d/l->../x; \
         c:c1,3; b:b259,1048575; p| t99999999999; !w",
    );
    assert_eq!(Listing::decode(&listing.encode()), Ok(listing));
    assert_eq!(Listing::decode(&Listing::default().encode()), Ok(Listing::default()));
}

#[test]
fn broken_bytes_are_refused() {
    let bytes = listing("a/; a/f=text m600 x.user.a=b; a/l->t").encode();
    for length in 0..bytes.len() {
        assert!(Listing::decode(&bytes[..length]).is_err(), "{length}");
    }
    assert_eq!(Listing::decode(b"RBL\x02\0"), Err(DecodeError::Magic));
    let mut longer = bytes;
    longer.push(0);
    assert!(Listing::decode(&longer).is_err());
    assert!(Listing::decode(b"RBL\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut input = b"RBL\x01".to_vec();
        input.extend(&bytes);
        if let Ok(listing) = Listing::decode(&input) {
            prop_assert_eq!(Listing::decode(&listing.encode()), Ok(listing));
        }
    }
}
