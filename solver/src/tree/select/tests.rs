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

/// Nothing is read: the text has the digests.
fn select(layers: &[&str], line: &str) -> Result<Selected, SelectError> {
    copied(&input(layers), &copy(line), &mut |_, files| panic!("{files:?} have no digest"))
}

fn of(tree: &str, line: &str) -> Selected {
    select(&[tree], line).expect("the copy finds its sources")
}

#[track_caller]
fn same(line: &str, one: &str, other: &str) {
    assert_eq!(of(one, line).digest, of(other, line).digest);
}

#[track_caller]
fn differ(line: &str, one: &str, other: &str) {
    assert_ne!(of(one, line).digest, of(other, line).digest);
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
fn links_at_the_top_of_a_filtered_tree_lead_somewhere() {
    let said = |tree: &str, line: &str| {
        select(&[tree], line).map(|_| ()).map_err(|error| error.to_string())
    };
    let missing = || Err("\"/l\": not found".to_owned());
    assert_eq!(said("l->gone; a=1", "/ /x exclude:a"), missing());
    assert_eq!(said("l->gone; a=1", "/ /x include:l"), missing());
    assert_eq!(said("l->l", "/ /x include:l"), Err("too many links".to_owned()));
    for line in ["/ /x", "/ /x include:a", "/ /x exclude:l"] {
        assert_eq!(said("l->gone; a=1", line), Ok(()), "{line}");
    }
    assert_eq!(said("d/; d/l->gone; m->d", "/ /x exclude:a"), Ok(()));
    assert_eq!(said("d/; d/l->gone", "/d /x exclude:a"), Ok(()));
}

#[test]
fn paths_explain() {
    let names = |tree: &str| -> Vec<String> {
        of(tree, "/d /x").paths.into_iter().map(|(path, _)| path).collect()
    };
    assert_eq!(names("d/; d/a=1; d/s/; d/s/b=2; z=1"), ["d/a", "d/s/b"]);
}

#[test]
fn mounts_show_the_directory_itself() {
    let of = |text: &str, path: &str| {
        let mounted = mounted(&input(&[text]), path, &mut |_, _| Ok::<_, SelectError>(Vec::new()));
        mounted.map(|it| it.digest).map_err(|error| error.to_string())
    };
    assert_ne!(of("d/; d/a=1", "/d"), of("d/ m700; d/a=1", "/d"));
    assert_eq!(of("d/; d/a=1; l->d", "l"), of("d/; d/a=1; z=1", "/d/"));
    assert_eq!(of("d/; d/a=1", "/d"), of("e/; e/a=1", "/e"));
    assert_eq!(of("d/", "/e/f"), Err("\"/e/f\": not found".to_owned()));
}

#[test]
fn layers_do_not_count() {
    let digest = |layers: &[&str]| select(layers, "/ /x").expect("found").digest;
    assert_eq!(digest(&["d/; d/a=1; b=2", "!b; d/a=3"]), digest(&["d/; d/a=3"]));
}

#[test]
fn missing_sources_are_named() {
    let error = |tree: &str, line: &str| match select(&[tree], line) {
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

#[test]
fn files_are_read_some_at_a_time() {
    let many = |count: usize| -> String {
        let lines = (0..count).map(|number| format!("f{number:05}={number}\n"));
        lines.chain(["zz=last".to_owned()]).collect()
    };
    let unread = |text: &str| {
        let mut entries = listing(text).into_entries();
        for entry in &mut entries {
            if let Kind::File { digest, .. } = &mut entry.kind {
                *digest = None;
            }
        }
        let listing = crate::tree::listing::Listing::new(entries).expect("in order");
        Input {
            layers: vec![Layer { listing: Arc::new(listing), files: Files::Root(Root::Fd(0)) }],
        }
    };
    let text = many(BATCH + 7);
    let mut asked = Vec::new();
    let mut read = |_: &[Root], files: &[File]| {
        asked.push(files.len());
        let text = |file: &File| match &file.content {
            Content::Tree { path, .. } if path == b"zz" => "last".to_owned(),
            Content::Tree { path, .. } => {
                String::from_utf8_lossy(&path[1..]).trim_start_matches('0').to_owned()
            }
            Content::Inline(_) => panic!("nothing is inline"),
        };
        let text = |file: &File| Some(text(file)).filter(|it| !it.is_empty());
        let digest = |file| Digest::of(text(file).unwrap_or_else(|| "0".to_owned()).as_bytes());
        Ok::<_, SelectError>(files.iter().map(digest).collect())
    };
    let found = copied(&unread(&text), &copy("/ /x"), &mut read).expect("found");
    assert_eq!(asked, [BATCH, 8]);
    assert_eq!(found.digest, of(&text, "/ /x").digest);
    assert_eq!(found.paths, []);
}
