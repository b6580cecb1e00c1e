//! Directories on disk, listed.

use std::os::unix::fs::symlink;

use super::*;

/// Files and directories (with a trailing slash) are made; `a -> b` is a link.
#[track_caller]
fn check(files: &str, filter: &Filter, want: &str) {
    let root = tempfile::tempdir().unwrap();
    for line in files.split_whitespace() {
        let (name, target) =
            line.split_once("->").map_or((line, None), |(name, target)| (name, Some(target)));
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match target {
            Some(target) => symlink(target, path).unwrap(),
            None if name.ends_with('/') => std::fs::create_dir_all(path).unwrap(),
            None => std::fs::write(path, name).unwrap(),
        }
    }
    let walked = walk(root.path(), filter).unwrap();
    let got: Vec<String> =
        walked.entries.iter().map(|it| String::from_utf8_lossy(&it.path).into_owned()).collect();
    assert_eq!(got.join(" "), want);
    assert_eq!(walked.versions.len(), walked.entries.len());
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn order_is_that_of_a_listing() {
    check("b a/z a/b a.c", &Filter::default(), "a a/b a/z a.c b");
}

#[test]
fn ignored_directories_are_kept_only_for_exceptions() {
    let exclude_patterns = list(&["node_modules", "out/*", "!out/keep/x"]);
    let filter = Filter { exclude_patterns, ..Filter::default() };
    check("node_modules/a out/b out/keep/x out/keep/y c", &filter, "c out out/keep out/keep/x");
}

#[test]
fn followed_paths_bring_their_links_along() {
    let follow = |paths: &[&str]| Filter { follow_paths: list(paths), ..Filter::default() };
    check("a/f b->a c d/e", &follow(&["b/f"]), "a a/f b");
    check("a/f b->a c d/e", &follow(&["*"]), "a a/f b c d d/e");
    check("x/l->../y y/f z", &follow(&["x/l"]), "x x/l y y/f");
    check("l->/y y/f z", &follow(&["l"]), "l y y/f");
    check("l->l a", &follow(&["l", "missing/x"]), "l");
    check("l->. a b", &follow(&["l"]), "a b l");
    check("a b", &follow(&["."]), "a b");
}

#[test]
fn included_paths_bring_their_directories_along() {
    let filter = Filter { include_patterns: list(&["a/*.c"]), ..Filter::default() };
    check("a/x.c a/y.h b/x.c", &filter, "a a/x.c");
}

#[test]
fn a_second_name_is_a_hard_link() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("b"), "x").unwrap();
    std::fs::hard_link(root.path().join("b"), root.path().join("a")).unwrap();
    let walked = walk(root.path(), &Filter::default()).unwrap();
    assert_eq!(walked.entries[1].kind, Kind::Hardlink { target: b"a".to_vec() });
}
