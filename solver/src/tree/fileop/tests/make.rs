//! What is made and removed, and chains of actions.

use expect_test::{Expect, expect};

use super::*;
use crate::llb::op::{Chown, UserOpt};

#[test]
fn directories_that_are_made_again_hide_the_old_ones() {
    let world = World::new(&["d/; d/a=1; d/s/; d/s/x=1; d/s/y=1; d/t/; f=1", "n=1 t5"]);
    let rm = |path: &str| FileActionKind::Rm {
        path: path.into(),
        allow_not_found: false,
        allow_wildcard: true,
    };
    let mkdir = |path: &str| FileActionKind::Mkdir {
        path: path.into(),
        mode: 0o755,
        make_parents: true,
        owner: None,
        timestamp: Some(7_000_000_001),
    };
    let run = |actions: Vec<FileActionKind>, want: &Expect| want.assert_eq(&world.run(actions));
    run(
        vec![rm("/d"), mkdir("/d/s"), copy("/n /d/s/y")],
        &expect![[r#"
        d/ t99
        !d/a
        d/s/ t99
        !d/s/x
        d/s/y=1 t5
        !d/t
    "#]],
    );
    run(
        vec![rm("/d/*"), rm("/f")],
        &expect![[r#"
        d/ t99
        !d/a
        !d/s
        !d/t
        !f
    "#]],
    );
    run(
        vec![rm("/d/s/x"), copy("/n /d/s/x")],
        &expect![[r#"
        d/
        d/s/ t99
        d/s/x=1 t5
    "#]],
    );
    run(vec![rm("/gone")], &expect!["stat /gone: no such file or directory"]);
    run(vec![rm("/")], &expect!["invalid file operation: the root of a tree cannot be removed"]);
    run(vec![mkdir("/f/x")], &expect!["lstat /f/x: not a directory"]);
    run(
        vec![mkdir("/w/d")],
        &expect![[r#"
        w/ t99
        w/d/ t7.000000001
    "#]],
    );
}

#[test]
fn a_set_group_id_bit_is_passed_on_to_what_is_made() {
    let world = World::new(&["g/ m2775 o1:50", "n=1; d/; d/e/ m700"]);
    let made = world.run(vec![copy("/n /g/a/b/"), copy("/d /g/c"), copy("/n /g/o/ chown:7:8")]);
    expect![[r#"
        g/ m2775 o1:50 t99
        g/a/ m2755 o0:50 t99
        g/a/b/ m2755 o0:50 t99
        g/a/b/n=1
        g/c/ m2755 o0:50
        g/c/e/ m700
        g/o/ m2755 o7:8 t99
        g/o/n=1 o7:8
    "#]]
    .assert_eq(&made);
}

#[test]
fn files_and_links_are_made() {
    let world = World::new(&["d/ t1; f=old m600 o1:2 x.security.capability=c; l->d/new", "n=1"]);
    let mkfile = |path: &str, text: &str| FileActionKind::Mkfile {
        path: path.into(),
        mode: 0o4755,
        data: text.into(),
        owner: None,
        timestamp: None,
    };
    let symlink = |target: &str, path: &str| FileActionKind::Symlink {
        oldpath: target.into(),
        newpath: path.into(),
        owner: Some(Chown { user: Some(UserOpt::Id(3)), group: None }),
        timestamp: Some(-1),
    };
    let run = |actions: Vec<FileActionKind>, want: &Expect| want.assert_eq(&world.run(actions));
    run(
        vec![mkfile("/f", "new"), mkfile("/l", "through"), mkfile("/x", "x")],
        &expect![[r#"
        d/ t99
        d/new=through m755 t99
        f=new m600 o1:2 t99
        x=x m755 t99
    "#]],
    );
    run(vec![mkfile("/d", "new")], &expect!["open /d: is a directory"]);
    run(vec![mkfile("/no/f", "new")], &expect!["open /no/f: no such file or directory"]);
    run(vec![mkfile("/f/g", "new")], &expect!["lstat /f/g: not a directory"]);
    run(
        vec![symlink("../t", "/d/s"), symlink("x", "/y")],
        &expect![[r#"
        d/ t99
        d/s->../t o3:3 t-1.999999999
        y->x o3:3 t-1.999999999
    "#]],
    );
    run(vec![symlink("t", "/f")], &expect!["symlink t /f: file exists"]);
}

#[test]
fn actions_read_what_other_actions_made() {
    let world = World::new(&["", "dir/; dir/a=1 t5"]);
    let action = |input, secondary, output, kind| FileAction { input, secondary, output, kind };
    let second = copy("/x /y");
    let op = FileOp {
        actions: vec![
            action(FileInput::Scratch, Some(FileInput::Input(1)), None, copy("/dir /x")),
            action(FileInput::Input(0), Some(FileInput::Action(0)), Some(0), second),
        ],
        platform: None,
    };
    expect![[r#"
        y/
        y/a=1 t5
    "#]]
    .assert_eq(&world.evaluate(&op));
}
