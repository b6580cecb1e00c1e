//! Two trees and a copy: whether the copy's digest tells them apart.

use super::*;
use crate::tree::fileop::{Files, Layer};
use crate::tree::text::{copy, listing};

fn input(layers: &[&str]) -> Input {
    let layers = layers
        .iter()
        .map(|text| Layer { listing: Arc::new(listing(text)), files: Files::Root(Root::Fd(0)) });
    Input { layers: layers.collect() }
}

fn digests(selection: &Selection) -> (Digest, Vec<(String, Digest)>) {
    let files: Vec<Digest> =
        selection.files().iter().map(|file| file.digest.expect("the text has it")).collect();
    selection.digest(&files, true)
}

fn of(tree: &str, line: &str) -> (Digest, Vec<(String, Digest)>) {
    digests(&copied(&input(&[tree]), &copy(line)).expect("the copy finds its sources"))
}

#[track_caller]
fn same(line: &str, one: &str, other: &str) {
    assert_eq!(of(one, line).0, of(other, line).0);
}

#[track_caller]
fn differ(line: &str, one: &str, other: &str) {
    assert_ne!(of(one, line).0, of(other, line).0);
}

#[test]
fn what_is_not_copied_does_not_count() {
    same("/d /x", "d/; d/a=1", "d/ m700 o1:1 t9; d/a=1 t7; other=2");
    same("/ /x exclude:*.md", "a=1; r.md=1", "a=1; r.md=2; s.md=3");
    same("/ /x include:d/*", "d/; d/a=1; e/", "d/; d/a=1; e=2");
    same("/l /x", "l->t; t=1", "l->t; t=1 t4; u=2");
    same("/ /x", "a=1; b=>a", "a=1; b=1");
}

#[test]
fn what_is_copied_counts() {
    differ("/d /x", "d/; d/a=1", "d/; d/a=2");
    differ("/d /x", "d/; d/a=1", "d/; d/b=1");
    differ("/d /x", "d/; d/a=1", "d/; d/a=1 m600");
    differ("/d /x", "d/; d/a=1", "d/; d/a=1 o1:0");
    differ("/d /x", "d/; d/a=1", "d/; d/a=1 x.user.k=v");
    differ("/d /x", "d/; d/a=1", "d/; d/a->1");
    differ("/d /x", "d/; d/e/", "d/");
    differ("/d /x self:", "d/", "d/ m700");
    differ("/ /x", "c:c1,3", "c:c1,5");
    differ("/l* /x", "la->t; t=1", "lb->t; t=1");
    differ("/l /x", "l->t; t=1", "l->t; t=2");
}

#[test]
fn paths_explain() {
    let names = |tree: &str| -> Vec<String> {
        of(tree, "/d /x").1.into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(names("d/; d/a=1; d/s/; d/s/b=2; z=1"), ["d/a", "d/s/b"]);
}

#[test]
fn mounts_show_the_directory_itself() {
    let of = |text: &str, path: &str| {
        mounted(&input(&[text]), path).map(|it| digests(&it).0).map_err(|error| error.to_string())
    };
    assert_ne!(of("d/; d/a=1", "/d"), of("d/ m700; d/a=1", "/d"));
    assert_eq!(of("d/; d/a=1; l->d", "l"), of("d/; d/a=1; z=1", "/d/"));
    assert_eq!(of("d/; d/a=1", "/d"), of("e/; e/a=1", "/e"));
    assert_eq!(of("d/", "/e/f"), Err("\"/e/f\": not found".to_owned()));
}

#[test]
fn layers_do_not_count() {
    let copy = copy("/ /x");
    let digest = |layers: &[&str]| digests(&copied(&input(layers), &copy).expect("found")).0;
    assert_eq!(digest(&["d/; d/a=1; b=2", "!b; d/a=3"]), digest(&["d/; d/a=3"]));
}

#[test]
fn missing_sources_are_named() {
    let error = |tree: &str, line: &str| match copied(&input(&[tree]), &copy(line)) {
        Ok(_) => "found".to_owned(),
        Err(SelectError::NotFound { path, hint }) => {
            format!("{path}: {}", hint.unwrap_or_default())
        }
        Err(other) => other.to_string(),
    };
    assert_eq!(error("a=1", "/missing /x"), "/missing: ");
    assert_eq!(error("README.md=1; s/", "/Readme.md /x"), "/Readme.md: did you mean `/README.md`?");
    assert_eq!(error("s/; s/main.rs=1", "/s/mian.rs /x"), "/s/mian.rs: did you mean `/s/main.rs`?");
    assert_eq!(error("src/; src/a=1", "/scr/a /x"), "/scr/a: did you mean `/src/a`?");
    assert_eq!(error("a=1", "/lib/b/c /x"), "/lib/b/c: there is no directory `/lib`");
    assert_eq!(error("l->gone", "/l /x"), "/l: ");
    assert_eq!(error("", "/none* /x"), "found");
    assert_eq!(error("d/; d/a=1", "/ /x include:d/a needs:/d/a"), "found");
    assert_eq!(error("d/; d/a=1", "/ /x include:d/b needs:/d/b"), "/d/b: ");
    assert_eq!(error("", "/a /x exclude:["), "syntax error in pattern `[`");
}
