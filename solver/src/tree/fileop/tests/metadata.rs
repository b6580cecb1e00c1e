//! Copies: what becomes of links, devices, attributes and times.

use expect_test::expect;

use super::check;

#[test]
fn links_between_files_are_kept_within_one_copy() {
    let source = "d/; d/h3=hard m6755; h1=>d/h3; h2=>d/h3; s->x; t=>s";
    check(
        "",
        source,
        &["/ /all/"],
        &expect![[r#"
        all/ t99
        all/d/
        all/d/h3=hard m6755
        all/h1=>all/d/h3 m6755
        all/h2=>all/d/h3 m6755
        all/s->x
        all/t=>all/s m777
    "#]],
    );
    check(
        "",
        source,
        &["/h1 /two/", "/h2 /two/"],
        &expect![[r#"
        two/ t99
        two/h1=hard m6755
        two/h2=hard m6755
    "#]],
    );
    check(
        "",
        source,
        &["/ /all/ exclude:d"],
        &expect![[r#"
        all/ t99
        all/h1=hard m6755
        all/h2=>all/h1 m6755
        all/s->x
        all/t=>all/s m777
    "#]],
    );
}

#[test]
fn devices_and_attributes() {
    let source =
        "c:c1,5 m666; b:b7,1; p| m600; x=1 x.user.k=v x.security.capability=cap; d/ x.user.d=1";
    check(
        "d/ x.user.old=2",
        source,
        &["/ /"],
        &expect![[r#"
        b:c7,1
        c:c1,5 m666
        p| m600
        x=1 x.security.capability=cap x.user.k=v
    "#]],
    );
}

#[test]
fn equal_files_are_no_change() {
    let base = "w/ t1; w/f=1 t5.5; w/g=1 t5.6; w/l->x t1; w/m=1 m600 t5.5";
    check(
        base,
        "f=1 t5.5; g=2 t5.6; l->x t1; m=1 t5.5",
        &["/ /w/"],
        &expect![[r#"
        w/ t99
        w/g=2 t5.000000006
        w/m=1 t5.000000005
    "#]],
    );
    check(base, "f=1 t5.5", &["/f /w/"], &expect![]);
}

#[test]
fn times() {
    let source = "a=1 t5; d/ t6; d/s/ t7; d/s/f=1 t8";
    check(
        "w/ t1",
        source,
        &["/d /w/x/y time:3"],
        &expect![[r#"
        w/ t99
        w/x/ t3
        w/x/y/ t3
        w/x/y/s/ t3
        w/x/y/s/f=1 t3
    "#]],
    );
    check(
        "w/ t1",
        source,
        &["/d /w time:3"],
        &expect![[r#"
        w/ t3
        w/s/ t3
        w/s/f=1 t3
    "#]],
    );
}
