//! What `SOURCE_DATE_EPOCH` names.

use expect_test::expect;

use super::*;
use crate::options::{MainContext, NamedContext};

/// The epoch of a Dockerfile whose global argument is a name.
fn epoch(case: &Case) -> Option<i64> {
    case.lower().targets[0].epoch
}

#[test]
fn of_the_main_context() {
    let text = "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL a=$SOURCE_DATE_EPOCH\n";
    let context = |identifier: &str| {
        let identifier = identifier.to_owned();
        let main = MainContext::Source { identifier, attrs: BTreeMap::new(), unpack: false };
        case(text).arg("SOURCE_DATE_EPOCH", "context").with(|it| it.context = main)
    };
    assert_eq!(epoch(&context("git://h/r#time=7")), Some(7));
    assert_eq!(context("git://h/r#time=7").config().config.labels["a"], "7");
    assert_eq!(epoch(&context("http://h/f")), None);
    assert_eq!(epoch(&case(text).arg("SOURCE_DATE_EPOCH", "context")), None);
}

#[test]
fn of_a_named_context() {
    let named = |context: NamedContext| {
        case("ARG SOURCE_DATE_EPOCH=src\nFROM scratch\n")
            .with(|it| drop(it.named_contexts.insert("src".to_owned(), context)))
    };
    let identifier = "http://h/f?time=8".to_owned();
    assert_eq!(epoch(&named(NamedContext::Source { identifier, attrs: BTreeMap::new() })), Some(8));
    assert_eq!(epoch(&named(NamedContext::Image("docker-image://busybox".to_owned()))), None);
}

#[test]
fn of_a_stage() {
    let web = case(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS Src\nARG WHEN=9\n\
         ADD --checksum=${NONE} http://h/time=$WHEN /\nFROM scratch\n",
    );
    assert_eq!(epoch(&web), Some(9));
    assert_eq!(epoch(&web.arg("WHEN", "10")), Some(10));
    let git = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://h/r.git#time=11 /\nFROM scratch\n";
    assert_eq!(epoch(&case(git)), Some(11));
}

#[test]
fn of_nothing() {
    case("ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nCOPY a /\nFROM scratch\n")
        .refused(&expect![[r#"
            error: SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction
             --> Dockerfile:3:1
              |
            3 | COPY a /
              | ^^^^^^^^
        "#]]);
    case("ARG SOURCE_DATE_EPOCH=src\nFROM busybox AS src\nFROM scratch\n").refused(&expect![[r#"
        error: SOURCE_DATE_EPOCH stage must use FROM scratch
         --> Dockerfile:2:1
          |
        2 | FROM busybox AS src
          | ^^^^^^^^^^^^^^^^^^^
    "#]]);
    case("ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD a /\nFROM scratch\n").refused(
        &expect![[r#"
            error: SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD
             --> Dockerfile:3:1
              |
            3 | ADD a /
              | ^^^^^^^
        "#]],
    );
    case("ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nFROM scratch\n").refused(&expect![[r#"
        error: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD
         --> Dockerfile:2:1
          |
        2 | FROM scratch AS src
          | ^^^^^^^^^^^^^^^^^^^
    "#]]);
}
