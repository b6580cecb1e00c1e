//! What archives become on disk, and what can be done with it.

use std::os::fd::AsFd as _;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::tree::view::View;
use crate::worker::contents::ContentList;
use crate::worker::proto::{Compression, Content};

#[test]
fn metadata_is_exact_on_disk() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = place(Driver::Plain);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("mtime", &b"1600000000.123456789"[..])]).expect("appends");
    let mut header = tar::Header::new_ustar();
    header.set_path("suid").expect("fits");
    header.set_size(0);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mode(0o4755);
    header.set_cksum();
    builder.append(&header, &[][..]).expect("appends");
    header.set_path("shared").expect("fits");
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o3770);
    header.set_mtime(TIME.unsigned_abs());
    header.set_cksum();
    builder.append(&header, &[][..]).expect("appends");
    header.set_path("shared/f").expect("fits");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o602);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    builder.append(&header, &[][..]).expect("appends");
    let layer = place.unpack(&builder.into_inner().expect("finishes")).expect("unpacks");
    let stat = |name: &str| fs::symlink_metadata(place.fs(&layer).join(name)).expect("stat");
    let brief = |name: &str| {
        let it = stat(name);
        (it.permissions().mode() & 0o7777, it.uid(), it.gid(), it.mtime(), it.mtime_nsec())
    };
    assert_eq!(brief("suid"), (0o4755, 7, 8, TIME, 123_456_789));
    assert_eq!(brief("shared"), (0o3770, 7, 8, TIME, 0));
    assert_eq!(brief("shared/f"), (0o602, 0, 0, TIME, 0));
    assert_eq!(brief("").0, 0o755);
}

#[test]
fn a_layer_torn_by_a_crash_is_noticed() {
    let place = place(Driver::Plain);
    let layer = place.unpack(&archive("f a hello")).expect("unpacks");
    let fs_dir = place.fs(&layer);
    fs::write(fs_dir.join("a"), "hel").expect("write");
    assert!(place.again(Driver::Plain).is_on_disk(&layer).expect("same boot: trusted"));
    let marker = fs_dir.with_file_name(format!("boot-{}", place.layers.mapkey.as_str()));
    fs::write(marker, "an earlier boot").expect("write");
    assert!(!place.again(Driver::Plain).is_on_disk(&layer).expect("torn"));
    assert!(!fs_dir.exists());
    let bytes = archive("f a hello");
    let again = place.again(Driver::Plain);
    again.unpack(&layer, &mut &bytes[..], DiffId(Digest::of(&bytes)), &[]).expect("unpacks again");
    assert_eq!(files(&fs_dir), "a: hello\n");
}

#[test]
fn planned_layers_become_files() {
    let place = place(Driver::Plain);
    let context = tempfile::tempdir().expect("temporary directory");
    fs::write(context.path().join("src"), "from the context").expect("write");
    let base = place.unpack(&archive("f lib 12345")).expect("unpacks");
    let file = |path: &str, size| Entry {
        kind: Kind::File { size, digest: None },
        mode: 0o640,
        ..Entry::dir(path, Timestamp::from_secs(TIME))
    };
    let link = Entry { kind: Kind::Hardlink { target: b"app/a".into() }, ..file("app/h", 0) };
    let listing = vec![
        Entry::dir("app", Timestamp::from_secs(TIME)),
        file("app/a", 16),
        link,
        file("b/c", 5),
        file("z", 2),
    ];
    let layer = LayerId("planned".into());
    put_listing(&place, &layer, &listing);
    let root = fs::File::open(context.path()).expect("open");
    let sources = [Source::Dir(root.as_fd()), Source::Layer(base)];
    let tree = |root, path: &str| Content::Tree { root, path: path.into() };
    let contents = [tree(0, "src"), tree(1, "lib"), Content::Inline(b"in".into())];
    let contents = ContentList::from_iter(contents);
    place.layers.materialise(&layer, &sources, &contents).expect("materialises");
    let want = "app/\napp/a: from the context\napp/h: from the context\nb/\nb/c: 12345\nz: in\n";
    assert_eq!(files(&place.fs(&layer)), want);
    assert_eq!(place.layers.read_file(&layer, b"b/c", 5).expect("reads"), b"12345");
    assert!(matches!(place.layers.read_file(&layer, b"b/c", 4), Err(Error::Limit { .. })));
    let hashes = place.layers.hash_files(&[(layer.clone(), b"z".into())]).expect("hashes");
    assert_eq!(hashes, [Digest::of(b"in")]);

    let changed = LayerId("changed".into());
    put_listing(&place, &changed, &[file("a", 99)]);
    let error = place
        .layers
        .materialise(&changed, &sources, &[tree(0, "src")].into_iter().collect())
        .expect_err("changed");
    assert!(error.to_failure().text.contains("had 99 bytes, now 16"), "{error}");
}

fn put_listing(place: &Place, layer: &LayerId, listing: &[Entry]) {
    let path = place.layers.layout().layer_listing(&layer.0).expect("plain name");
    fs::create_dir(path.parent().expect("has a parent")).expect("mkdir");
    let listing = crate::tree::listing::Listing::new(listing.to_vec()).expect("in order");
    fs::write(path, listing.encode()).expect("write");
}

#[test]
fn exported_trees_are_the_callers() {
    let place = place(Driver::Plain);
    let base =
        place.unpack(&archive("d a\nf a/x 1\nf a/y 2\nl s a/x\nf h hard\nh i h")).expect("one");
    let top = place.unpack(&archive("w a/.wh.x\nf a/z 3\nf s file\nf old new")).expect("two");
    let dest = tempfile::tempdir().expect("temporary directory");
    fs::create_dir_all(dest.path().join("old/dir")).expect("mkdir");
    fs::write(dest.path().join("kept"), "kept").expect("write");
    std::os::unix::fs::symlink("/etc", dest.path().join("a")).expect("symlink");
    let root = fs::File::open(dest.path()).expect("open");
    place.layers.export_dir(&[base, top], root.as_fd(), None).expect("exports");
    expect![[r#"
        a/
        a/y: 2
        a/z: 3
        h: hard
        i: hard
        kept: kept
        old: new
        s: file
    "#]]
    .assert_eq(&files(dest.path()));
    let stat = |name: &str| fs::metadata(dest.path().join(name)).expect("stat");
    assert_eq!(stat("h").ino(), stat("i").ino());
    assert_eq!((stat("a/y").mtime(), stat("a").mtime()), (TIME, TIME));
}

#[test]
fn removed_layers_are_gone_at_once() {
    let place = place(Driver::Plain);
    let layer = place.unpack(&archive("f a hello")).expect("unpacks");
    let path = PathBuf::from(format!("layers/{}", layer.0));
    assert!(place.layers.size(std::slice::from_ref(&path)).expect("measures") > 0);
    place.layers.remove(&[path.clone(), "layers/none".into()]).expect("removes");
    assert!(!place.layers.is_on_disk(&layer).expect("says"));
    assert_eq!(place.layers.size(&[path]).expect("measures"), 0);
    assert!(matches!(place.layers.remove(&["../x".into()]), Err(Error::Bug(_))));
    assert!(matches!(place.layers.remove(&["/etc".into()]), Err(Error::Bug(_))));
}

/// Lines of an archive of a small tree: parents come before children.
fn lines() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c-d", "e", "e.f", "é"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let kind = prop::sample::select(vec!["d", "f", "l", "h", "p"]);
    let line = (kind, path, "[xyz]{0,5}", any::<prop::sample::Index>());
    prop::collection::vec(line, 0..20).prop_map(|lines| {
        let mut kinds: BTreeMap<String, &str> = BTreeMap::new();
        let mut text = String::new();
        for (kind, path, content, pick) in lines {
            let parents: Vec<&str> = path.match_indices('/').map(|(end, _)| &path[..end]).collect();
            let taken = kinds.contains_key(&path)
                || parents.iter().any(|it| kinds.get(*it).is_some_and(|kind| *kind != "d"));
            let below = kinds.keys().any(|it| it.starts_with(&format!("{path}/")));
            if taken || below && kind != "d" {
                continue;
            }
            let files: Vec<&String> =
                kinds.iter().filter(|(_, kind)| **kind == "f").map(|(path, _)| path).collect();
            let (kind, rest) = match kind {
                "h" if files.is_empty() => ("f", content),
                "h" => ("h", (*pick.get(&files)).clone()),
                kind => (kind, content),
            };
            let rest = if kind == "l" && rest.is_empty() { "t".to_owned() } else { rest };
            parents.iter().filter(|it| !kinds.contains_key(**it)).for_each(|it| {
                writeln!(text, "d {it}").expect("writes");
            });
            writeln!(text, "{kind} {path} {rest}").expect("writes");
            for parent in parents {
                kinds.insert(parent.to_owned(), "d");
            }
            kinds.insert(path, kind);
        }
        text
    })
}

#[test]
fn sealed_layers_come_back_from_their_blob() {
    let place = place(Driver::Plain);
    let base =
        "d a\nf a/x 12345\nh b a/x\nl s a\np p\nw .wh.gone\nf a/empty\nd o\nw o/.wh..wh..opq";
    let layer = place.unpack(&archive(base)).expect("unpacks");
    let sealed = place
        .layers
        .seal(&layer, &[], &ContentList::default(), Compression::Gzip(6), None, None)
        .expect("seals");
    let again = place
        .layers
        .seal(&layer, &[], &ContentList::default(), Compression::Zstd(3), None, None)
        .expect("seals");
    assert_eq!(sealed.diff_id, again.diff_id);
    // The files are lost (as when the id mapping changes): the blob has them.
    let before = files(&place.fs(&layer));
    place.layers.remove(&[place.fs(&layer)]).expect("removes");
    place
        .again(Driver::Plain)
        .prepare(std::slice::from_ref(&layer), Access::Read)
        .expect("prepares");
    assert_eq!(files(&place.fs(&layer)), before);
}

#[test]
fn links_to_files_of_layers_below_bring_them_up() {
    let place = place(Driver::Plain);
    let below = [
        place.unpack(&archive("d usr\nd usr/lib\nf usr/lib/so old\nl lib usr/lib")).expect("one"),
        place.unpack(&archive("d usr\nd usr/lib\nf usr/lib/so new")).expect("two"),
    ];
    let bytes = archive("h copy lib/so\nh again copy");
    let digest = Digest::of(&bytes);
    let layer = LayerId(digest.hex().into());
    let unpack =
        |below: &[LayerId]| place.layers.unpack(&layer, &mut &bytes[..], DiffId(digest), below);
    assert!(matches!(unpack(&[]), Err(Error::Archive { .. })));
    let strange = [LayerId("00".repeat(32).into())];
    assert!(matches!(unpack(&strange), Err(Error::NeedsBelow)));
    // Its listing needs no files, and says which layers it belongs to.
    place.layers.list(&layer, &mut &bytes[..], DiffId(digest), &below, None).expect("lists");
    assert!(matches!(unpack(&below[..1]), Err(Error::OtherBelow { .. })));
    unpack(&below).expect("unpacks");
    check_listing(
        &place,
        &layer,
        &expect![[r#"
        f644 again 3
        h644 copy = again
        h644 usr/lib/so = again
    "#]],
    );
    assert_eq!(fs::read(place.fs(&layer).join("copy")).expect("reads"), b"new");
    unpack(&below).expect("is there");
    assert!(matches!(unpack(&below[..1]), Err(Error::OtherBelow { .. })));
}

#[test]
fn files_come_out_of_a_layer_that_is_only_listed() {
    let place = place(Driver::Plain);
    let bytes = archive(
        "f z one\nh a z\nd x\nf x/y 3\nl s x\nf s/w 4\nf t old\nf t new\nf q two\nf p no\nh p q\nf k 5\nh j k\nf k 6",
    );
    let digest = Digest::of(&bytes);
    let layer = LayerId(digest.hex().into());
    place.layers.list(&layer, &mut &bytes[..], DiffId(digest), &[], None).expect("lists");
    let to = place.layers.store.temp().path("some").expect("has a place");
    fs::create_dir(&to).expect("mkdir");
    let extract = |paths: &[&str], bytes: &[u8]| {
        let paths: Vec<Vec<u8>> = paths.iter().map(|it| it.as_bytes().to_vec()).collect();
        place.layers.extract(&layer, &mut &bytes[..], DiffId(digest), &paths, &to)
    };
    extract(&["a", "t", "x/w"], &bytes).expect("extracts");
    assert_eq!(files(&to), "a: one\nt: new\nx/\nx/w: 4\nz: one\n");
    extract(&["x/y", "p"], &bytes).expect("extracts");
    assert_eq!(files(&to), "a: one\np: two\nq: two\nt: new\nx/\nx/w: 4\nx/y: 3\nz: one\n");
    // Its content came under a name that has another one now.
    assert!(matches!(extract(&["j"], &bytes), Err(Error::NeedsBelow)));
    assert!(matches!(extract(&["a"], &archive("f a x")), Err(Error::Mismatch { .. })));
    assert!(!place.layers.is_on_disk(&layer).expect("says"));
    place.layers.unpack(&layer, &mut &bytes[..], DiffId(digest), &[]).expect("unpacks");
    assert_eq!(fs::read(place.fs(&layer).join("a")).expect("reads"), b"one");
}

#[test]
fn files_that_will_be_read_come_out_while_a_layer_is_listed() {
    let place = place(Driver::Plain);
    let bytes = archive(
        "d usr\nd usr/bin\nl bin usr/bin\nf usr/bin/sh 1\nf bin/sh 2\nf usr/bin/shell no\nd lib/bin/sh\nf lib/bin/sh/x 3\nf m no\nh lib/bin/sh/y m\nf lib/bin/sh/z 4",
    );
    let digest = Digest::of(&bytes);
    let layer = LayerId(digest.hex().into());
    let to = place.layers.store.temp().path("some").expect("has a place");
    fs::create_dir(&to).expect("mkdir");
    let like = Some((&[b"bin/sh".to_vec()][..], to.as_path()));
    place.layers.list(&layer, &mut &bytes[..], DiffId(digest), &[], like).expect("lists");
    // One name links to a file that nobody asked for: it is read later.
    let want = "lib/\nlib/bin/\nlib/bin/sh/\nlib/bin/sh/x: 3\nlib/bin/sh/z: 4\nusr/\nusr/bin/\nusr/bin/sh: 2\n";
    assert_eq!(files(&to), want);
}

#[test]
fn merged_trees_become_archives() {
    let place = place(Driver::Plain);
    let base = place.unpack(&archive("d a\nf a/x 1\nh a/y a/x\nh b a/x\nf z 1")).expect("one");
    let top = place.unpack(&archive("w a/.wh.x\nf z 22")).expect("two");
    let mut bytes = Vec::new();
    let trees = [(String::new(), vec![base.clone(), top])];
    place.layers.export_tar(&trees, &mut bytes, None).expect("exports");
    let layer = place.unpack(&bytes).expect("unpacks");
    check_listing(
        &place,
        &layer,
        &expect![[r#"
        d755 a
        f644 a/y 1
        h644 b = a/y
        f644 z 2
    "#]],
    );
    let mut bytes = Vec::new();
    let trees = [("linux_amd64".to_owned(), vec![base]), ("linux_arm_v7".to_owned(), Vec::new())];
    place.layers.export_tar(&trees, &mut bytes, Some(1)).expect("exports");
    let layer = place.unpack(&bytes).expect("unpacks");
    check_listing(
        &place,
        &layer,
        &expect![[r#"
        d755 linux_amd64
        d755 linux_amd64/a
        f644 linux_amd64/a/x 1
        h644 linux_amd64/a/y = linux_amd64/a/x
        h644 linux_amd64/b = linux_amd64/a/x
        f644 linux_amd64/z 1
        d755 linux_arm_v7
    "#]],
    );
    let listing = place.layers.listing(&layer).expect("has one");
    assert!(listing.entries().iter().all(|entry| entry.mtime.secs == 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What is sealed and unpacked again is the same layer.
    #[test]
    fn unpack_undoes_seal(lines in lines()) {
        let place = place(Driver::Plain);
        let layer = place.unpack(&archive(&lines)).expect("unpacks");
        let sealed = place.layers.seal(&layer, &[], &ContentList::default(), Compression::None, None, None).expect("seals");
        let blob = place.layers.store.blobs().read(&sealed.blob, 1 << 20).expect("reads");
        prop_assert_eq!(DiffId(Digest::of(&blob)), sealed.diff_id);
        let other = super::place(Driver::Plain);
        let again = other.unpack(&blob).expect("unpacks");
        let listing = |place: &Place, layer| place.layers.listing(layer).expect("has one");
        prop_assert_eq!(listing(&place, &layer), listing(&other, &again));
        prop_assert_eq!(files(&place.fs(&layer)), files(&other.fs(&again)));
    }

    /// Reading an unpacked directory gives the listing that unpacking gave.
    #[test]
    fn disk_says_what_the_listing_says(lines in lines()) {
            let place = place(Driver::Plain);
        let layer = place.unpack(&archive(&lines)).expect("unpacks");
        let root = place.layers.open_fs(&layer).expect("opens");
        let none = |_: usize, _: &[u8]| Err(Error::Bug("nothing is below".into()));
        let found = commit::difference(
            root.as_fd(),
            &View::default(),
            &owner::Table::default(),
            place.layers.own(),
            &none,
        );
        let listing = place.layers.listing(&layer).expect("has one");
        prop_assert_eq!(show(&found.expect("reads").listing), show(listing.entries()));
    }
}
