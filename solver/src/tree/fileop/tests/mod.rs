//! Trees and actions as text, layers as text.

mod copy;
mod law;
mod make;
mod metadata;
mod unpack;

use std::collections::BTreeMap;
use std::io;

use expect_test::Expect;
use rbuild_store::digest::Digest;
use rbuild_store::entry::Kind;

use super::*;
use crate::tree::text::{listing, show};
use crate::worker::proto::Content;

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
                    Content::Inline(bytes) => bytes,
                    Content::Tree { root, path } => self
                        .host
                        .get(&plan.contents.roots[root], &path)
                        .expect("a content is where the plan says"),
                };
                assert_eq!(*size, content.len() as u64, "{entry:?}");
                assert!(
                    digest.as_ref().is_none_or(|digest| **digest == Digest::of(&content)),
                    "{entry:?}"
                );
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
