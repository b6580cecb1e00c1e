//! Trees and actions as text, layers as text.

use std::collections::BTreeMap;
use std::io;

use expect_test::{Expect, expect};
use rbuild_store::digest::Digest;
use rbuild_store::entry::Kind;

use super::*;
use crate::llb::op::{Chown, UserOpt};
use crate::tree::text::{listing, show};

/// Bytes by root and path; archives are unpacked to a directory.
struct Files {
    bytes: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    stage: tempfile::TempDir,
}

impl Files {
    fn get(&self, root: &Root, path: &[u8]) -> io::Result<Vec<u8>> {
        if let Root::Store(_) = root {
            return std::fs::read(self.stage.path().join(std::str::from_utf8(path).unwrap()));
        }
        let found = self.bytes.get(&(format!("{root:?}"), path.to_vec()));
        Ok(found.ok_or(io::ErrorKind::NotFound)?.clone())
    }
}

impl Host for Files {
    fn open(&self, root: &Root, path: &[u8]) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.get(root, path)?)))
    }

    fn stage(&self) -> io::Result<(Root, std::os::fd::OwnedFd)> {
        Ok((Root::Store("stage".into()), std::fs::File::open(self.stage.path())?.into()))
    }
}

/// Inputs, each one layer of text.
struct World {
    inputs: Vec<Input>,
    host: Files,
}

impl World {
    fn new(inputs: &[&str]) -> Self {
        let stage = tempfile::tempdir().unwrap();
        let mut world = Self { inputs: Vec::new(), host: Files { bytes: BTreeMap::new(), stage } };
        for (number, input) in inputs.iter().enumerate() {
            let root = Root::Fd(number);
            for line in input.split(['\n', ';']).map(str::trim) {
                let word = line.split(' ').next().expect("a first word");
                let file = word.split_once('=').filter(|(_, text)| !text.starts_with('>'));
                if let Some((path, text)) = file {
                    let key = (format!("{root:?}"), path.into());
                    world.host.bytes.insert(key, text.replace('⏎', "\n").into_bytes());
                }
            }
            world.push(listing(input), root);
        }
        world
    }

    fn push(&mut self, listing: Listing, root: Root) {
        let layer = Layer { listing: Arc::new(listing), files: super::Files::Root(root) };
        self.inputs.push(Input { layers: vec![layer] });
    }

    /// One more input, with one file.
    fn push_file(&mut self, path: &str, bytes: Vec<u8>) {
        let root = Root::Fd(self.inputs.len());
        let mut entry = listing("f=").into_entries().remove(0);
        entry.path = path.into();
        entry.kind = Kind::File { size: bytes.len() as u64, digest: None };
        self.host.bytes.insert((format!("{root:?}"), path.into()), bytes);
        self.push(Listing::new(vec![entry]).unwrap(), root);
    }

    fn run(&self, actions: Vec<FileActionKind>) -> String {
        let count = actions.len();
        let actions = actions.into_iter().enumerate().map(|(number, kind)| FileAction {
            input: if number == 0 { FileInput::Input(0) } else { FileInput::Action(number - 1) },
            secondary: Some(FileInput::Input(1)),
            output: (number + 1 == count).then_some(0),
            kind,
        });
        self.evaluate(&FileOp { actions: actions.collect(), platform: None })
    }

    fn evaluate(&self, op: &FileOp) -> String {
        match evaluate(op, &self.inputs, &self.host, Timestamp::from_secs(99)) {
            Ok(outputs) => self.show(&outputs[0].plan),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                error.to_string() + &cause.unwrap_or_default()
            }
        }
    }

    /// The layer; each file with its text, which must be where the plan says.
    fn show(&self, plan: &Plan) -> String {
        let mut contents = plan.contents.files.iter();
        let mut text = String::new();
        for entry in plan.listing.entries() {
            let mut content = Vec::new();
            if let Kind::File { size, digest } = &entry.kind {
                content = match contents.next().expect("each file has a content") {
                    Content::Inline(bytes) => bytes.clone(),
                    Content::Tree { root, path } => self
                        .host
                        .get(&plan.contents.roots[*root], path)
                        .expect("a content is where the plan says"),
                };
                assert_eq!(*size, content.len() as u64, "{entry:?}");
                assert!(digest.is_none_or(|digest| digest == Digest::of(&content)), "{entry:?}");
            }
            text += &show(entry, &String::from_utf8_lossy(&content));
            text.push('\n');
        }
        assert!(contents.next().is_none(), "each content has a file");
        text
    }
}

fn copy(line: &str) -> FileActionKind {
    FileActionKind::Copy(crate::tree::text::copy(line))
}

/// Copies from the second tree into the first one.
#[track_caller]
fn check(base: &str, source: &str, lines: &[&str], want: &Expect) {
    let world = World::new(&[base, source]);
    want.assert_eq(&world.run(lines.iter().map(|line| copy(line)).collect()));
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
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

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
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

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[test]
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

/// An archive of entries, in this order.
fn archive(lines: &[&str]) -> Vec<u8> {
    let mut tar = rbuild_store::tar::write::TarWriter::new(Vec::new(), None);
    for line in lines {
        let (word, options) = line.split_once(' ').unwrap_or((line, ""));
        // A hard link alone is no listing.
        let (path, target) = word.split_once("=>").unwrap_or((word, ""));
        let text =
            if target.is_empty() { (*line).to_owned() } else { format!("{path}-> {options}") };
        let mut entry = listing(&text).into_entries().remove(0);
        let content =
            word.split_once('=').filter(|_| target.is_empty()).map_or("", |(_, text)| text);
        if !target.is_empty() {
            entry.kind = Kind::Hardlink { target: target.into() };
        }
        if let Kind::File { .. } = entry.kind {
            tar.append(&entry, content.as_bytes()).unwrap();
        } else {
            tar.append_bodiless(&entry).unwrap();
        }
    }
    tar.finish().unwrap()
}

#[track_caller]
fn check_archive(base: &str, bytes: Vec<u8>, lines: &[&str], want: &Expect) {
    let mut world = World::new(&[base]);
    world.push_file("a.tar", bytes);
    want.assert_eq(&world.run(lines.iter().map(|line| copy(line)).collect()));
}

#[test]
fn archives_are_unpacked() {
    let tar = archive(&[
        "d/ m1777 o5:6 t5",
        "d/x=xx o5:6 t5",
        "one=1 m4711 o5:6 t5",
        "three=>one m4711 o7:8 t6",
        "two->one o5:6 t5",
    ]);
    check_archive(
        "",
        tar.clone(),
        &["/a.tar /plain/ unpack:"],
        &expect![[r#"
        plain/ t99
        plain/d/ m1777 o5:6 t5
        plain/d/x=xx o5:6 t5
        plain/one=1 m4711 o7:8 t6
        plain/three=>plain/one m4711 o7:8 t6
        plain/two->one o5:6 t5
    "#]],
    );
    check_archive(
        "",
        tar.clone(),
        &["/a.tar /plain/ unpack: chown:1:2"],
        &expect![[r#"
        plain/ o1:2 t99
        plain/d/ m1777 o1:2 t5
        plain/d/x=xx o1:2 t5
        plain/one=1 m4711 o1:2 t6
        plain/three=>plain/one m4711 o1:2 t6
        plain/two->one o1:2 t5
    "#]],
    );
    check_archive(
        "p/ m700 t1; p/d/ m700; p/d/old=1; p/one/; p/one/in=1",
        tar.clone(),
        &["/a.tar /p unpack:"],
        &expect![[r#"
        p/ m700 t99
        p/d/ m1777 o5:6 t5
        p/d/x=xx o5:6 t5
        p/one=1 m4711 o7:8 t6
        p/three=>p/one m4711 o7:8 t6
        p/two->one o5:6 t5
    "#]],
    );
    check_archive("p=file", tar, &["/a.tar /p unpack:"], &expect!["mkdir /p: not a directory"]);
}

#[test]
fn archives_stay_below_their_destination() {
    let tar = archive(&[
        "x/y/z=1 t5",
        "x=file",
        "abs->/up t5",
        "abs/in=1 t5",
        ".wh.gone= t5",
        "dup=1",
        "dup=22",
    ]);
    check_archive(
        "up/; gone=1",
        tar,
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/.wh.gone= t5
        o/abs->/up t5
        o/dup=22
        o/up/ t99
        o/up/in=1 t5
        o/x=file
    "#]],
    );
    check_archive(
        "o/; o/old=1 m600; o/l->/d; o/d/; d/",
        archive(&["h=>old m644 t7", "l/f=1 t5"]),
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/d/ t99
        o/d/f=1 t5
        o/h=1 t7
        o/old=>o/h t7
    "#]],
    );
    check_archive(
        "",
        archive(&["h=>missing"]),
        &["/a.tar /o/ unpack:"],
        &expect!["link /o/missing: no such file or directory"],
    );
}

#[test]
fn what_is_no_archive_is_copied() {
    check_archive(
        "",
        b"plain text".to_vec(),
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/a.tar=plain text
    "#]],
    );
    check_archive(
        "",
        Vec::new(),
        &["/a.tar /o/ unpack:"],
        &expect![[r#"
        o/ t99
        o/a.tar=
    "#]],
    );
}

#[test]
fn compression_is_told_by_content() {
    use std::io::Write as _;
    let tar = archive(&["f=text t5"]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(&tar[..], 1).unwrap();
    let check = |bytes, want: &Expect| check_archive("", bytes, &["/a.tar /o/ unpack:"], want);
    check(
        gz,
        &expect![[r#"
        o/ t99
        o/f=text t5
    "#]],
    );
    check(
        zst,
        &expect![[r#"
        o/ t99
        o/f=text t5
    "#]],
    );
    let mut long = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    long.write_all(&archive(&["f=text t5", "g=text t5", "h=text t5"])).unwrap();
    let long = long.finish().unwrap();
    check_archive(
        "",
        long[..1200].to_vec(),
        &["/a.tar /o/ unpack:"],
        &expect!["cannot unpack /a.tar: incomplete deflate stream"],
    );
}
