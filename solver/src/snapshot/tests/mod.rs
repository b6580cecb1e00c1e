//! Layers on disk, end to end: archives in, trees and listings out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_store::digest::{DiffId, Digest};
use rbuild_store::entry::{Entry, Kind, Timestamp};
use rbuild_store::local::Store;

use super::*;

mod hostile;
mod steps;
mod trees;

/// A store that lasts as long as a test.
struct Place {
    dir: tempfile::TempDir,
    layers: LayerStore,
}

impl Place {
    fn root(&self) -> PathBuf {
        self.layers.store.root().to_owned()
    }

    /// Another process with the same store.
    fn again(&self, driver: Driver) -> LayerStore {
        place_in(self.dir.path(), driver)
    }

    /// Unpacks an archive, and sees to it that without its files it is the same.
    fn unpack(&self, archive: &[u8]) -> Result<LayerId, Error> {
        let digest = Digest::of(archive);
        let layer = LayerId(digest.hex().into());
        let unpacked = self.layers.unpack(&layer, &mut &archive[..], DiffId(digest), &[]);
        let paper = place(Driver::Plain);
        let listed = paper.layers.list(&layer, &mut &archive[..], DiffId(digest), &[], None);
        match &unpacked {
            Ok(_) => {
                listed.expect("is listed, too");
                let listing = |layers: &LayerStore| layers.listing(&layer).expect("has one");
                assert_eq!(listing(&paper.layers), listing(&self.layers));
                assert!(!paper.layers.is_on_disk(&layer).expect("says"));
            }
            Err(error) => {
                let why = |error: &Error| error.to_failure().text;
                assert_eq!(listed.as_ref().map_err(why), Err(why(error)));
            }
        }
        unpacked.map(|_| layer)
    }

    fn fs(&self, layer: &LayerId) -> PathBuf {
        self.layers.fs_path(layer).expect("plain name")
    }
}

fn place(driver: Driver) -> Place {
    let dir = tempfile::tempdir().expect("temporary directory");
    let layers = place_in(dir.path(), driver);
    Place { dir, layers }
}

/// With whatever ownership the caller can have.
fn place_in(dir: &Path, driver: Driver) -> LayerStore {
    let (mapkey, ownership) = if rustix::process::geteuid().is_root() {
        (MapKey::root(), Ownership::Real)
    } else {
        (MapKey::none(), Ownership::Recorded)
    };
    let store = Arc::new(Store::open(dir).expect("opens the store"));
    LayerStore::of(store, mapkey, ownership, driver)
}

/// The time of all that tests make.
const TIME: i64 = 1_600_000_000;

/// An archive from lines: type, path, and for some what follows:
/// `d path`, `f path text`, `l path target`, `h path target`, `p path`, `w path` (a whiteout).
fn archive(lines: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for line in lines.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (kind, path, rest) = (word(), word(), word());
        let mut header = tar::Header::new_gnu();
        header.set_mtime(TIME.unsigned_abs());
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(if kind == "d" { 0o755 } else { 0o644 });
        let (entry_type, content) = match kind {
            "d" => (tar::EntryType::Directory, ""),
            "l" => (tar::EntryType::Symlink, ""),
            "h" => (tar::EntryType::Link, ""),
            "p" => (tar::EntryType::Fifo, ""),
            _ => (tar::EntryType::Regular, rest),
        };
        header.set_entry_type(entry_type);
        header.set_size(content.len() as u64);
        // Written by hand: the builder refuses hostile names.
        set_bytes(&mut header.as_old_mut().name, path);
        if matches!(kind, "l" | "h") {
            set_bytes(&mut header.as_old_mut().linkname, rest);
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("appends");
    }
    builder.into_inner().expect("finishes")
}

fn set_bytes(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// One line for each entry: mode with type, owner unless root, path, what belongs to the type.
fn show(listing: &[Entry]) -> String {
    let mut text = String::new();
    for entry in listing {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let (kind, tail) = match &entry.kind {
            Kind::File { size, .. } => ('f', format!(" {size}")),
            Kind::Dir { opaque } => ('d', if *opaque { " opaque".into() } else { String::new() }),
            Kind::Symlink { target } => ('l', format!(" -> {}", String::from_utf8_lossy(target))),
            Kind::Hardlink { target } => ('h', format!(" = {}", String::from_utf8_lossy(target))),
            Kind::Char { major, minor } => ('c', format!(" {major}:{minor}")),
            Kind::Block { major, minor } => ('b', format!(" {major}:{minor}")),
            Kind::Fifo => ('p', String::new()),
            Kind::Whiteout => ('w', String::new()),
        };
        let owner = match (entry.uid, entry.gid) {
            (0, 0) => String::new(),
            (uid, gid) => format!(" {uid}:{gid}"),
        };
        let slash = if path.is_empty() { "/" } else { "" };
        writeln!(text, "{kind}{:o}{owner} {path}{slash}{tail}", entry.mode).expect("writes");
    }
    text
}

#[track_caller]
fn check_listing(place: &Place, layer: &LayerId, want: &expect_test::Expect) {
    want.assert_eq(&show(place.layers.listing(layer).expect("has a listing").entries()));
}

/// The files of a directory: path, and content, link target or type.
fn files(dir: &Path) -> String {
    fn visit(dir: &Path, prefix: &str, text: &mut String) {
        let mut names: Vec<_> =
            fs::read_dir(dir).expect("reads").map(|it| it.expect("entry").file_name()).collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let shown = format!("{prefix}{}", name.to_string_lossy());
            let stat = fs::symlink_metadata(&path).expect("stat");
            if stat.is_dir() {
                writeln!(text, "{shown}/").expect("writes");
                visit(&path, &format!("{shown}/"), text);
            } else if stat.is_symlink() {
                let target = fs::read_link(&path).expect("reads the link");
                writeln!(text, "{shown} -> {}", target.display()).expect("writes");
            } else if stat.is_file() {
                let content = fs::read_to_string(&path).expect("reads");
                writeln!(text, "{shown}: {content}").expect("writes");
            } else {
                writeln!(text, "{shown} special").expect("writes");
            }
        }
    }
    let mut text = String::new();
    visit(dir, "", &mut text);
    text
}
