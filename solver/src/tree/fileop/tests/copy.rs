//! Copies.

use expect_test::expect;

use super::check;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn forms_of_destinations() {
    let source = "a=1 t5; dir/ t6; dir/in=2 t7; dir/sub/ m700 t8; dir/sub/deep=3 t9";
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/a /w/d/rel"],
        &expect![[r#"
        w/ t1
        w/d/ t99
        w/d/rel=1 t5
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/a /w/d/rel2/"],
        &expect![[r#"
        w/ t1
        w/d/ t99
        w/d/rel2/ t99
        w/d/rel2/a=1 t5
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/a /w/d"],
        &expect![[r#"
        w/ t1
        w/d/ t99
        w/d/a=1 t5
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/a /x/../y/z"],
        &expect![[r#"
        y/ t99
        y/z=1 t5
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/dir /w/d/new"],
        &expect![[r#"
        w/ t1
        w/d/ t99
        w/d/new/ t6
        w/d/new/in=2 t7
        w/d/new/sub/ m700 t8
        w/d/new/sub/deep=3 t9
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/dir /w/d"],
        &expect![[r#"
        w/ t1
        w/d/ t6
        w/d/in=2 t7
        w/d/sub/ m700 t8
        w/d/sub/deep=3 t9
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/dir/ /w/d self"],
        &expect![[r#"
        w/ t1
        w/d/ t99
        w/d/dir/ t6
        w/d/dir/in=2 t7
        w/d/dir/sub/ m700 t8
        w/d/dir/sub/deep=3 t9
    "#]],
    );
    check(
        "w/ t1; w/d/ t1",
        source,
        &["/a /w/d/.", "/dir/in /w/d/."],
        &expect![[r#"
        w/ t1
        w/d/ t99
        w/d/a=1 t5
        w/d/in=2 t7
    "#]],
    );
    check(
        "",
        source,
        &["/a /", "/dir /"],
        &expect![[r#"
        a=1 t5
        in=2 t7
        sub/ m700 t8
        sub/deep=3 t9
    "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn owners_and_modes() {
    let source = "a=1 o5:6; dir/ m2750 o5:6; dir/f=2 m4755; dir/s/; ln->a o5:6";
    check(
        "d/ m700 o3:4; d/e/ m711",
        source,
        &["/a /d/e/f/g chown:7:8 chmod:640"],
        &expect![[r#"
        d/ m700 o3:4
        d/e/ m711 t99
        d/e/f/ m640 o7:8 t99
        d/e/f/g=1 m640 o7:8
    "#]],
    );
    check(
        "d/ o3:4; d/s/ m711",
        source,
        &["/dir /d/ chown:9"],
        &expect![[r#"
        d/ o3:4
        d/f=2 m4755 o9:9
        d/s/ o9:9
    "#]],
    );
    check(
        "",
        source,
        &["/dir /d chmod:1777"],
        &expect![[r#"
        d/ m777
        d/f=2 m1777
        d/s/ m1777
    "#]],
    );
    check(
        "",
        source,
        &["/dir /new/deep/d chmod:600"],
        &expect![[r#"
        new/ m600 t99
        new/deep/ m600 t99
        new/deep/d/ m600
        new/deep/d/f=2 m600
        new/deep/d/s/ m600
    "#]],
    );
    check(
        "",
        source,
        &["/dir /d chmod:u=rwX,go=rX"],
        &expect![[r#"
        d/
        d/f=2 m755
        d/s/
    "#]],
    );
    check(
        "",
        source,
        &["/ /c chown:1:2 chmod:0"],
        &expect![[r#"
        c/ m0 o1:2 t99
        c/a=1 m0 o1:2
        c/dir/ m0 o1:2
        c/dir/f=2 m0 o1:2
        c/dir/s/ m0 o1:2
        c/ln->a o1:2
    "#]],
    );
    let base = "etc/; etc/passwd=root:x:0:0⏎app:x:10:20::/:/bin/sh; etc/group=staff:x:50:";
    check(
        base,
        source,
        &["/a /1 chown:app", "/a /2 chown:app:staff", "/a /3 chown:nobody:7"],
        &expect![[r#"
        1=1 o10:20
        2=1 o10:50
        3=1 o0:7
    "#]],
    );
    check(
        "etc/; etc/passwd->/there; there/",
        source,
        &["/a /1 chown:app"],
        &expect!["/there is not a regular file of at most 10485760 bytes"],
    );
    check(
        "etc=file",
        source,
        &["/a /1 chown:app:staff"],
        &expect![[r#"
        1=1
    "#]],
    );
}

#[test]
fn links_of_sources() {
    let source = "t=target; ln->t; d/; d/l->../t; d/abs->/nowhere; dl->d; lx->ln; dang->gone";
    check(
        "",
        source,
        &["/ln /named", "/lx /twice"],
        &expect![[r#"
        named=target
        twice=target
    "#]],
    );
    check(
        "",
        source,
        &["/d /dir", "/dl /dirlink", "/dl/ /slash"],
        &expect![[r#"
        dir/
        dir/abs->/nowhere
        dir/l->../t
        dirlink/
        dirlink/abs->/nowhere
        dirlink/l->../t
        slash/
        slash/abs->/nowhere
        slash/l->../t
    "#]],
    );
    check(
        "",
        source,
        &["/l* /glob/"],
        &expect![[r#"
        glob/ t99
        glob/ln=target
        glob/lx=target
    "#]],
    );
    check(
        "",
        source,
        &["/ln /named nofollow", "/dl/l /x nofollow", "/d/../t /t"],
        &expect![[r#"
        named->t
        t=target
        x->../t
    "#]],
    );
    check("", source, &["/dang /x"], &expect!["lstat /gone: no such file or directory"]);
    check("", source, &["/t/x /x"], &expect!["lstat /t/x: not a directory"]);
}

#[test]
fn links_of_destinations() {
    let base = "real/ t1; real/f=old m600; abs->/real; rel->real; flink->real/f; out->../../real; dang->/new/dir";
    check(
        base,
        "f=new t5; t/ t6; t/abs/ t7; t/abs/x=1 t8",
        &["/f /flink"],
        &expect![[r#"
        real/ t99
        real/f=new t5
    "#]],
    );
    check(
        base,
        "f=new t5",
        &["/f /rel/g", "/f /abs/", "/f /out/h", "/f /dang/"],
        &expect![[r#"
        new/ t99
        new/dir/ t99
        new/dir/f=new t5
        real/ t99
        real/f=new t5
        real/g=new t5
        real/h=new t5
    "#]],
    );
    check(
        base,
        "flink=new t5",
        &["/flink /"],
        &expect![[r#"
        flink=new t5
    "#]],
    );
    check(
        base,
        "t/; t/abs/; t/abs/other=1",
        &["/t /"],
        &expect!["cannot copy to non-directory: /abs"],
    );
    check(
        base,
        "t/; t/abs/; t/abs/other=1",
        &["/t / replace:"],
        &expect![[r#"
        abs/
        abs/other=1
    "#]],
    );
}

#[test]
fn what_cannot_be_replaced() {
    let source = "a=1; t/; t/x/; t/x/y=1; u/; u/o=file";
    check("o/; o/x=f", source, &["/t /o/"], &expect!["cannot copy to non-directory: /o/x"]);
    check(
        "o/; o/x=f",
        source,
        &["/t /o/ replace:"],
        &expect![[r#"
        o/
        o/x/
        o/x/y=1
    "#]],
    );
    check("o/; o/x=f", source, &["/u /"], &expect!["cannot replace to directory /o with file"]);
    check(
        "etc/; etc/passwd=p",
        source,
        &["/a /etc/passwd/x"],
        &expect!["mkdir /etc/passwd: not a directory"],
    );
    check(
        "etc/; etc/passwd=p",
        source,
        &["/a /etc/passwd/"],
        &expect!["mkdir /etc/passwd: not a directory"],
    );
    check(
        "etc/; etc/passwd=p",
        source,
        &["/a /etc/passwd/x/y"],
        &expect!["lstat /etc/passwd/x: not a directory"],
    );
    check("loop->loop", source, &["/a /loop/x"], &expect!["too many links"]);
    check("", source, &["/missing /x"], &expect!["lstat /missing: no such file or directory"]);
    check("", source, &["/missing* /x"], &expect![]);
    check("", source, &["/missing* /x strict:"], &expect!["/missing* not found"]);
    check("", source, &["/no/such* /x"], &expect!["lstat /no: no such file or directory"]);
    check(
        "",
        source,
        &["/a /x/y nodest:"],
        &expect!["failed to stat /x/y: lstat /x: no such file or directory"],
    );
    check(
        "",
        source,
        &["/a /x chown:name"],
        &expect![[r#"
        x=1
    "#]],
    );
    check("", source, &["/a /x chmod:u!x"], &expect!["invalid mode `u!x`: invalid syntax"]);
    check("", source, &["/t /x exclude:["], &expect!["syntax error in pattern `[`"]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn filters_and_directories_on_the_way() {
    let source =
        "a.txt=a; d/ m700 t5; d/keep=1; d/r.md=r; d/tmp/; d/tmp/x=x; d/s/ t6; d/s/b2=b; d/empty/";
    check(
        "",
        source,
        &["/ /1/ exclude:*.md exclude:**/tmp"],
        &expect![[r#"
        1/ t99
        1/a.txt=a
        1/d/ m700 t5
        1/d/empty/
        1/d/keep=1
        1/d/r.md=r
        1/d/s/ t6
        1/d/s/b2=b
    "#]],
    );
    check(
        "",
        source,
        &["/d /2/ exclude:d/keep*", "/d /3/ exclude:keep*"],
        &expect![[r#"
        2/ t5
        2/empty/
        2/keep=1
        2/r.md=r
        2/s/ t6
        2/s/b2=b
        2/tmp/
        2/tmp/x=x
        3/ t5
        3/empty/
        3/r.md=r
        3/s/ t6
        3/s/b2=b
        3/tmp/
        3/tmp/x=x
    "#]],
    );
    check(
        "",
        source,
        &["/d /1/ exclude:* exclude:!r*"],
        &expect![[r#"
        1/ t5
        1/r.md=r
    "#]],
    );
    check(
        "",
        source,
        &["/ /1/ include:d/s/b2"],
        &expect![[r#"
        1/ t99
        1/d/ m700 t99
        1/d/s/ t99
        1/d/s/b2=b
    "#]],
    );
    check(
        "d/ m711 o1:1; d/s/ m711 o1:1",
        source,
        &["/ / include:d/s/b2"],
        &expect![[r#"
        d/ m700 o1:1
        d/s/ o1:1 t99
        d/s/b2=b
    "#]],
    );
    check(
        "",
        source,
        &["/a.txt /1/ exclude:a.txt"],
        &expect![[r#"
        1/ t99
        1/a.txt=a
    "#]],
    );
    check(
        "",
        source,
        &["/d/*/* /w/", "/?.t[a-x]t /w/"],
        &expect![[r#"
        w/ t99
        w/a.txt=a
        w/b2=b
        w/x=x
    "#]],
    );
}
