//! Tables of patterns, paths and results.

use super::*;

/// `pattern pattern … | path`: whether the list matches the path.
fn set(line: &str) -> bool {
    let (patterns, path) = line.split_once(" | ").unwrap();
    // A blank that belongs to a pattern stands behind a backslash.
    let patterns = patterns.replace("\\ ", "\\\0");
    let patterns: Vec<String> = patterns.split(' ').map(|it| it.replace('\0', " ")).collect();
    PatternSet::new(&patterns).unwrap().matches(path.as_bytes())
}

#[track_caller]
fn check(want: bool, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert_eq!(set(line), want, "{line}");
    }
}

#[test]
fn sets_match() {
    check(
        true,
        r"
        ** | file
        ** | dir/file
        **/ | file
        **/ | dir/file
        **/** | dir/file
        dir/** | dir/file
        dir/** | dir/dir2/file
        dir/**/ | dir/dir2/file
        **/dir2/* | dir/dir2/file
        **/dir2/* | dir/dir2/dir2/file
        **/dir2/** | dir/dir2/dir2/file
        **file | file
        **file | dir/file
        **/file | dir/dir/file
        **/file* | dir/dir/file.txt
        **/**/*.txt | dir/dir/file.txt
        **/*.txt | file.txt
        a**/*.txt | a/dir/dir/file.txt
        a[b-d]e | ace
        a?c | abc
        a\*b | a*b
        a*b?c*x | abxbbxdbxebxczzx
        a.b | a.b
        a[^d]c | abc
        abc.def | abc.def
        docs | docs/deep/file
        docs/*.md | docs/a.md/below
        a/*/c | a/b/c/d
        foo** | foobar/x
        **foo | xfoo
        a{b} | a{b}
        a(b)|c | a(b)|c
        ünicode* | ünicode/x
        a?b | aüb
        ^ab* | abc
        [a-c\-]x | -x
        ",
    );
    check(
        false,
        r"
        **/file | file2
        **file* | dir/xfilx
        dir/** | dir2/file
        a.b | aXb
        *.txt | dir/file.txt
        a?c | a/c
        a*b | a/b
        a\d | ad
        a^b* | a^bc
        docs | docsx
        docs/* | docs
        /docs | docs
        ",
    );
}

#[test]
fn the_last_match_decides() {
    check(
        true,
        "
        * !docs | x
        *.md !README*.md README-secret.md | README-secret.md
        ** !a !b/c | b/d
        dir !dir/keep dir/keep/drop | dir/keep/drop
        * !a* a | a
        ",
    );
    check(
        false,
        "
        * !docs | docs/x
        *.md !README*.md README-secret.md | README.md
        ** !a !b/c | b/c/d
        dir !dir/keep dir/keep/drop | dir/keep/x
        !x | x
        ",
    );
}

#[test]
fn brackets_are_rewritten_like_the_rest() {
    check(true, "[*]x | /]x\n [?]b | /]b\n [!a]c | !c\n [!a]c | ac\n x[.]y | x.y");
    check(false, "[*]x | *x\n [!a]c | bc\n x[.]y | x\\y");
}

#[test]
fn signs_that_are_not_escaped_mean_what_they_mean_to_re2() {
    check(
        true,
        r"
        a*|b | axx/y
        a*|b | xxb
        a|b | a|b
        x{2}* | xx
        x{1,2}y? | xxyz
        x{2,}* | xxxx
        x{,2}* | x{,2}
        [[:alpha:]_]* | Z
        [[:^digit:]]* | é
        [\D]* | x
        My\ Files | My Files
        a\x62* | abc
        a\141* | aa
        a\b-* | a-x
        a\Q* | a[^/]*$ and more
        ",
    );
    check(
        false,
        r"
        a*|b | xa
        a*|b | bx
        x{2}* | x
        x{1,2}y* | xxxy
        [[:alpha:]]* | 1
        [\D]* | 1
        dir\build | dir/build
        build\bin* | buildin
        ",
    );
}

#[test]
fn what_stands_behind_the_first_difference_is_not_checked() {
    let accepted = |pattern: &str| PatternSet::new(&[pattern]).is_ok();
    assert!(accepted("backup*[-_]x") && accepted("a*[]x]"));
    assert!(
        !accepted("*[-_]x") && !accepted(".*[-_]x") && !accepted("backup*[") && !accepted("a*{2}")
    );
    for pattern in
        [r"a\pL", r"dir\obj", r"a\1", r"a\xyz", "x{1001}*", "x{2,1}*", "a|{2}*", "[[:x:]]*"]
    {
        assert!(!accepted(pattern), "{pattern}");
    }
    assert!(set("backup*[-_]x | backup1-x") && !set("backup*[-_]x | backup1x"));
}

#[test]
fn results_for_directories_are_passed_on() {
    let set = PatternSet::new(&["a", "!a/b", "a/b/c"]).unwrap();
    let (a, info) = set.matches_dir(b"a", &Matched::default());
    let (b, inner) = set.matches_dir(b"a/b", &info);
    assert_eq!((a, b), (true, false));
    assert!(set.matches_in(b"a/x", &info));
    assert!(!set.matches_in(b"a/b/x", &inner));
    assert!(set.matches_in(b"a/b/c", &inner));
}

#[test]
fn refuses_what_is_not_a_pattern() {
    for pattern in ["[", "a[]", "[]a]", "a[b", "a\\", "[-x]", "[a-", "[x-]", "\\p"] {
        let error = PatternSet::new(&[pattern]).unwrap_err();
        assert_eq!(error.to_string(), format!("syntax error in pattern `{pattern}`"));
    }
    assert_eq!(PatternSet::new(&["!"]).unwrap_err(), PatternError::LoneExclamation);
    assert!(PatternSet::new(&["", " "]).unwrap().is_empty());
}

#[test]
fn ignore_files_are_cleaned() {
    let text =
        b"\xef\xbb\xbf# comment\n  # not one\r\n\n /lead/ \n!/keep//x/../y\n! z \n!\n./a/./b\n/\n";
    assert_eq!(parse_ignore_file(text), ["# not one", "lead", "!keep/y", "!z", "!", "a/b", "/"]);
}

#[test]
fn cleans_paths() {
    for (path, want) in [
        ("", "."),
        ("/", "/"),
        ("a/../..", ".."),
        ("/../a", "/a"),
        ("a//b/./c/..", "a/b"),
        ("../../x", "../../x"),
    ] {
        assert_eq!(clean(path), want, "{path}");
    }
}

#[test]
fn directories_that_nothing_can_match_below() {
    let set = PatternSet::new(&["*", "!docs/*.md", "!src/**", "!lib/a/b", "!pre*x"]).unwrap();
    let may = |dir: &str| set.may_except_below(dir.as_bytes());
    assert!(may("docs") && may("src") && may("src/deep") && may("lib") && may("lib/a"));
    assert!(may("docs/deep") && may("prefix"));
    assert!(!may("node_modules") && !may("lib/b") && !may("doc"));
    assert!(PatternSet::new(&["**/*.rs"]).unwrap().may_match_below(b"anything"));
    assert!(!PatternSet::new(&["a", "b"]).unwrap().may_except_below(b"a"));
}

#[test]
fn globs_match_whole_paths() {
    let glob = |line: &str| {
        let (pattern, path) = line.split_once(" | ").unwrap();
        Glob::new(pattern).unwrap().matches(path.as_bytes())
    };
    for line in [
        "abc | abc",
        "* | abc",
        "*c | abc",
        "a* | abc",
        "a*/b | abc/b",
        "a*b*c*d*e* | axbxcxdxe",
        "a*b?c*x | abxbbxdbxebxczzx",
        "ab[c] | abc",
        "ab[b-d] | abc",
        "ab[^e-g] | abc",
        "a\\*b | a*b",
        "a?b | a☺b",
        "a[^a]b | a☺b",
        "[a-ζ]* | α",
        "*[a-ζ] | aα",
        "[\\]a] | ]",
        "[\\-x] | -",
        "[x\\-] | -",
        "[a]b | ab",
        "[^a]b | /b",
        "** | abc",
        "a{x} | a{x}",
        "[!a]x | !x",
    ] {
        assert!(glob(line), "{line}");
    }
    for line in [
        "a* | ab/c",
        "a*/b | a/c/b",
        "ab[e-g] | abc",
        "ab[^c] | abc",
        "a???b | a☺b",
        "a?b | a/b",
        "a*b | a/b",
        "*x | xxxy",
        "** | a/b",
        "[!a]x | bx",
        "a | ab",
        "abc | ab",
    ] {
        assert!(!glob(line), "{line}");
    }
}

#[test]
fn wildcards_are_recognised() {
    assert!(has_wildcards("a*") && has_wildcards("a?") && has_wildcards("\\\\*"));
    assert!(!has_wildcards("a\\*") && !has_wildcards("a]b") && !has_wildcards("a\\"));
}

#[test]
fn long_patterns_are_not_cut() {
    let middle = "x".repeat(500);
    let set = PatternSet::new(&[format!("*{middle}*")]).unwrap();
    assert!(set.matches(format!("a{middle}b").as_bytes()));
    assert!(!set.matches(format!("a{}b", &middle[1..]).as_bytes()));
}
