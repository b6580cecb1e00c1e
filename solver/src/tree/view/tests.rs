//! Chains as text, lowest layer first.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::tree::text::{listing, show};

fn view(layers: &[&str]) -> View {
    View::new(layers.iter().map(|layer| Arc::new(listing(layer))).collect())
}

/// The whole tree: path, what the inode's entry says, layer. Children found one by one must be the
/// same as those found together.
#[track_caller]
fn check(layers: &[&str], want: &Expect) {
    let view = view(layers);
    let mut text = String::new();
    view.walk(&view.root(), &mut |node| {
        let single = view.lookup(node.path()).expect("what is listed is found");
        assert_eq!(
            (single.layer, single.index, single.inode),
            (node.layer, node.index, node.inode)
        );
        let path = String::from_utf8_lossy(node.path());
        writeln!(text, "{path}: {} {}", show(node.inode(), "…"), node.layer())
            .expect("writing to a string does not fail");
        true
    });
    want.assert_eq(&text);
}

#[test]
fn upper_layers_win() {
    check(
        &["a/ m700; a/x=1; a/y=1; f=1", "a/; a/x=22 m600; a/z=1", "!f"],
        &expect![[r#"
        : / 0
        a: a/ 1
        a/x: a/x=… m600 1
        a/y: a/y=… 0
        a/z: a/z=… 1
    "#]],
    );
}

#[test]
fn opaque_directories_and_whiteouts_hide_what_is_below() {
    check(
        &["a/; a/b/; a/b/c=1; a/d=1; g/; g/h=1", "a/ opaque; a/n=1; !g", "g/; g/new=1"],
        &expect![[r#"
        : / 0
        a: a/ opaque 1
        a/n: a/n=… 1
        g: g/ 2
        g/new: g/new=… 2
    "#]],
    );
}

#[test]
fn a_file_hides_the_directory_below_it_for_good() {
    check(
        &["a/; a/old=1", "a=file", "a/; a/new=1"],
        &expect![[r#"
        : / 0
        a: a/ 2
        a/new: a/new=… 2
    "#]],
    );
}

#[test]
fn directories_that_nobody_lists() {
    check(
        &["a/ m700 o1:1", "a/b/c=1"],
        &expect![[r#"
        : / 0
        a: a/ m700 o1:1 0
        a/b: / 1
        a/b/c: a/b/c=… 1
    "#]],
    );
}

#[test]
fn the_root_may_have_an_entry() {
    check(
        &["/ m711; lost=1", "a=1", "/ m700 opaque; b=1"],
        &expect![[r#"
        : / opaque m700 2
        b: b=… 2
    "#]],
    );
}

#[test]
fn hard_links_lead_to_the_content_of_their_layer() {
    check(
        &["a=1 m600; b=>a; l->t; m=>l", "a=22"],
        &expect![[r#"
        : / 0
        a: a=… 1
        b: a=… m600 0
        l: l->t 0
        m: l->t 0
    "#]],
    );
}

#[test]
fn names_that_share_beginnings() {
    check(
        &["a/; a/x=1; a-b=1; a.d/; a.d/x=1; ab/", "a-b=2; a/y=1; ab/z=1"],
        &expect![[r#"
        : / 0
        a: a/ 0
        a/x: a/x=… 0
        a/y: a/y=… 1
        a-b: a-b=… 1
        a.d: a.d/ 0
        a.d/x: a.d/x=… 0
        ab: ab/ 0
        ab/z: ab/z=… 1
    "#]],
    );
}

#[test]
fn links_stay_inside() {
    let view =
        view(&["d/; d/s/; d/s/f=1; abs->/d/s; rel->d/s; up->../../../d; d/back->../rel/f; \
                       loop->loop; dang->no/where; f=1"]);
    let resolve = |path: &str, follow| match view.resolve(path.as_bytes(), follow) {
        Ok(path) => String::from_utf8(path).expect("the tree is text"),
        Err(error) => error.to_string(),
    };
    assert_eq!(resolve("/abs/f", true), "d/s/f");
    assert_eq!(resolve("up/back", true), "d/s/f");
    assert_eq!(resolve("up/back", false), "d/back");
    assert_eq!(resolve("rel/", false), "rel");
    assert_eq!(resolve("rel/..", true), "d");
    assert_eq!(resolve("../../d/./s", true), "d/s");
    assert_eq!(resolve("dang/more", true), "no/where/more");
    assert_eq!(resolve("loop", true), "too many links");
    assert_eq!(resolve("f/x", true), "lstat /f/x: not a directory");
    assert_eq!(resolve("", true), "");
}
