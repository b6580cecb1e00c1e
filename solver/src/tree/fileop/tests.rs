//! Trees and actions as text, layers as text.

use std::collections::BTreeMap;
use std::io;

use expect_test::{Expect, expect};
use rbuild_store::digest::Digest;
use rbuild_store::entry::Kind;

use super::*;
use crate::llb::op::{ChmodOpt, Chown, FileCopy, UserOpt};
use crate::tree::text::{listing, show};

/// Files by the digests of their texts, and nothing to stage.
struct Texts(BTreeMap<(String, Vec<u8>), String>);

impl Host for Texts {
    fn open(&self, root: &Root, path: &[u8]) -> io::Result<Box<dyn io::Read>> {
        let text =
            self.0.get(&(format!("{root:?}"), path.to_vec())).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(text.clone().into_bytes())))
    }

    fn stage(&self) -> io::Result<(Root, std::os::fd::OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Inputs, each one layer of text. The texts of the files are found again by their digests.
struct World {
    inputs: Vec<Input>,
    texts: BTreeMap<Digest, String>,
    host: Texts,
}

impl World {
    fn new(inputs: &[&str]) -> Self {
        let mut world =
            Self { inputs: Vec::new(), texts: BTreeMap::new(), host: Texts(BTreeMap::new()) };
        for (number, input) in inputs.iter().enumerate() {
            let root = Root::Fd(number);
            let listing = Arc::new(listing(input));
            for line in input.split(['\n', ';']).map(str::trim) {
                let word = line.split(' ').next().expect("a first word");
                if let Some((path, text)) =
                    word.split_once('=').filter(|(_, text)| !text.starts_with('>'))
                {
                    world.texts.insert(Digest::of(text.as_bytes()), text.to_owned());
                    world.host.0.insert((format!("{root:?}"), path.into()), text.to_owned());
                }
            }
            world.inputs.push(Input { layers: vec![Layer { listing, files: Files::Root(root) }] });
        }
        world
    }

    fn run(&self, actions: Vec<FileActionKind>) -> String {
        let count = actions.len();
        let actions = actions.into_iter().enumerate().map(|(number, kind)| FileAction {
            input: if number == 0 { FileInput::Input(0) } else { FileInput::Action(number - 1) },
            secondary: Some(FileInput::Input(1)),
            output: (number + 1 == count).then_some(0),
            kind,
        });
        let op = FileOp { actions: actions.collect(), platform: None };
        match evaluate(&op, &self.inputs, &self.host, Timestamp::from_secs(99)) {
            Ok(outputs) => self.show(&outputs[0].plan),
            Err(error) => error.to_string(),
        }
    }

    /// The layer; each file with its text, which must be where the plan says.
    fn show(&self, plan: &Plan) -> String {
        let mut contents = plan.contents.files.iter();
        let mut text = String::new();
        for entry in plan.listing.entries() {
            let mut content = String::new();
            if let Kind::File { digest, .. } = &entry.kind {
                content = match contents.next().expect("each file has a content") {
                    Content::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Content::Tree { root, path } => {
                        let root = format!("{:?}", plan.contents.roots[*root]);
                        self.host.0[&(root, path.clone())].clone()
                    }
                };
                assert_eq!(*digest, Some(Digest::of(content.as_bytes())), "{entry:?}");
            }
            text += &show(entry, &content);
            text.push('\n');
        }
        assert!(contents.next().is_none(), "each content has a file");
        text
    }
}

/// A copy as the Dockerfile frontend asks for it: `src dest` and options.
fn copy(line: &str) -> FileActionKind {
    let mut words = line.split(' ');
    let mut next = || words.next().expect("source and destination").to_owned();
    let mut op = FileCopy {
        src: next(),
        dest: next(),
        owner: None,
        mode: None,
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: false,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: None,
        include_patterns: Vec::new(),
        exclude_patterns: Vec::new(),
        always_replace_existing_dest_paths: false,
        required_paths: Vec::new(),
    };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("chown", owner) => {
                let mut parts = owner.split(':').map(|part| match part.parse() {
                    Ok(id) => UserOpt::Id(id),
                    Err(_) => UserOpt::Name(part.to_owned()),
                });
                op.owner = Some(Chown { user: parts.next(), group: parts.next() });
            }
            ("chmod", mode) => {
                op.mode = Some(match u32::from_str_radix(mode, 8) {
                    Ok(bits) => ChmodOpt::Bits(bits),
                    Err(_) => ChmodOpt::Symbolic(mode.to_owned()),
                });
            }
            ("time", seconds) => {
                op.timestamp = Some(seconds.parse::<i64>().expect("seconds") * 1_000_000_000)
            }
            ("include", pattern) => op.include_patterns.push(pattern.to_owned()),
            ("exclude", pattern) => op.exclude_patterns.push(pattern.to_owned()),
            ("nofollow", _) => op.follow_symlink = false,
            ("self", _) => op.dir_copy_contents = false,
            ("strict", _) => op.allow_empty_wildcard = false,
            ("exact", _) => op.allow_wildcard = false,
            ("nodest", _) => op.create_dest_path = false,
            ("replace", _) => op.always_replace_existing_dest_paths = true,
            (other, _) => panic!("{other} means nothing"),
        }
    }
    FileActionKind::Copy(op)
}

/// Copies from the second tree into the first one.
#[track_caller]
fn check(base: &str, source: &str, lines: &[&str], want: &Expect) {
    let world = World::new(&[base, source]);
    want.assert_eq(&world.run(lines.iter().map(|line| copy(line)).collect()));
}

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
