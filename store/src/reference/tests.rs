//! Tests of the module above.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[track_caller]
fn check(text: &str, full: &str, familiar: &str) {
    let reference: Reference = text.parse().unwrap();
    assert_eq!(reference.to_string(), full);
    assert_eq!(reference.familiar(), familiar);
    assert_eq!(full.parse(), Ok(reference.clone()), "the full form means the same");
    assert_eq!(familiar.parse(), Ok(reference), "the short form means the same");
}

#[test]
fn defaults() {
    check("busybox", "docker.io/library/busybox", "busybox");
    check("busybox:1", "docker.io/library/busybox:1", "busybox:1");
    check("user/app", "docker.io/user/app", "user/app");
    check("docker.io/app", "docker.io/library/app", "app");
    check("index.docker.io/app", "docker.io/library/app", "app");
    check("library/app", "docker.io/library/app", "app");
    check("a/b/c", "docker.io/a/b/c", "a/b/c");
    check("localhost/app", "localhost/app", "localhost/app");
    check("localhost:5000/app:t", "localhost:5000/app:t", "localhost:5000/app:t");
    check("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app");
    check("quay.io/a/b", "quay.io/a/b", "quay.io/a/b");
    check("Registry/app", "Registry/app", "Registry/app");
    check("a__b/c-----d.e_f", "docker.io/a__b/c-----d.e_f", "a__b/c-----d.e_f");
    let both = format!("app:1@{DIGEST}");
    check(&both, &format!("docker.io/library/{both}"), &both);
}

#[test]
fn versions() {
    let version = |text: &str| text.parse::<Reference>().unwrap().or_latest().version();
    assert_eq!(version("app"), "latest");
    assert_eq!(version("app:1"), "1");
    assert_eq!(version(&format!("app:1@{DIGEST}")), DIGEST);
    assert_eq!("app".parse::<Reference>().unwrap().host(), "registry-1.docker.io");
    assert_eq!("h:1/app".parse::<Reference>().unwrap().host(), "h:1");
}

#[track_caller]
fn refused(texts: &[&str], want: &Expect) {
    let mut all = String::new();
    for text in texts {
        all.push_str(&text.parse::<Reference>().unwrap_err().to_string());
        all.push('\n');
    }
    want.assert_eq(&all);
}

#[test]
fn refuses_with_the_part_at_fault() {
    refused(
        &[
            "",
            "Busybox",
            "foo/Bar",
            "a b",
            "-a",
            "a..b",
            "a___b",
            "a//b",
            "a/",
            "/a",
            ":tag",
            "app:",
            "app:-x",
            "app:a:b",
            "app@sha256:12",
            "app@md5:12",
            "-h.io/app",
            "host:port/app",
            "host:70000/app",
            "[::g]/app",
            "[::1]x/app",
            "https://docker.io/app",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ],
        &expect![[r#"
            `` is not an image name (invalid reference format): empty name
            `Busybox` is not an image name (invalid reference format): repository name must be lowercase: `Busybox`
            `foo/Bar` is not an image name (invalid reference format): repository name must be lowercase: `foo/Bar`
            `a b` is not an image name (invalid reference format): `a b` is not a repository component (lower case letters and digits, separated by one `.`, one or two `_`, or any number of `-`)
            `-a` is not an image name (invalid reference format): `-a` is not a repository component (lower case letters and digits, separated by one `.`, one or two `_`, or any number of `-`)
            `a..b` is not an image name (invalid reference format): `a..b` is not a repository component (lower case letters and digits, separated by one `.`, one or two `_`, or any number of `-`)
            `a___b` is not an image name (invalid reference format): `a___b` is not a repository component (lower case letters and digits, separated by one `.`, one or two `_`, or any number of `-`)
            `a//b` is not an image name (invalid reference format): a part between slashes is empty
            `a/` is not an image name (invalid reference format): a part between slashes is empty
            `/a` is not an image name (invalid reference format): a part between slashes is empty
            `:tag` is not an image name (invalid reference format): empty name
            `app:` is not an image name (invalid reference format): `` is not a tag (at most 128 letters, digits, `_`, `.`, `-`; the first one a letter, digit or `_`)
            `app:-x` is not an image name (invalid reference format): `-x` is not a tag (at most 128 letters, digits, `_`, `.`, `-`; the first one a letter, digit or `_`)
            `app:a:b` is not an image name (invalid reference format): `a:b` is not a tag (at most 128 letters, digits, `_`, `.`, `-`; the first one a letter, digit or `_`)
            `app@sha256:12` is not an image name (invalid reference format): `sha256:12` is not a digest: expected 64 lowercase hex digits after `sha256:`, found 2 characters
            `app@md5:12` is not an image name (invalid reference format): `md5:12` is not a digest: expected a digest that starts with `sha256:`
            `-h.io/app` is not an image name (invalid reference format): `-h.io` is not a registry host
            `host:port/app` is not an image name (invalid reference format): `host:port` is not a registry host
            `host:70000/app` is not an image name (invalid reference format): `host:70000` is not a registry host
            `[::g]/app` is not an image name (invalid reference format): `[::g]` is not a registry host
            `[::1]x/app` is not an image name (invalid reference format): `[::1]x` is not a registry host
            `https://docker.io/app` is not an image name (invalid reference format): `https://` (an image name has no scheme)
            `e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` is not an image name (invalid reference format): 64 hex digits (an image id is not a name; put `sha256:` and a repository before it)
        "#]],
    );
}

#[test]
fn refuses_what_is_too_long() {
    let path = "a".repeat(248);
    assert_eq!(
        path.parse::<Reference>().unwrap_err().reason,
        BadReference::PathTooLong,
        "with `library/`"
    );
    assert!(path[1..].parse::<Reference>().is_ok());
    assert!(format!("a:{}", "t".repeat(128)).parse::<Reference>().is_ok());
    assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    assert!("a/".repeat(4096).parse::<Reference>().is_err());
}

proptest! {
    #[test]
    fn any_text_is_refused_or_survives(text in "[a-zA-Z0-9./:@_é\\[\\]-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
            prop_assert_eq!(reference.familiar().parse(), Ok(reference));
        }
    }
}
