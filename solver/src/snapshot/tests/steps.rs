//! What steps write, as each driver sees it.
//!
//! Overlay tests mount for real, by descriptors that are never attached to a directory, so they
//! leave nothing behind. That takes a user namespace; where the caller has no right to mount, the
//! test runs itself again below `unshare`, and says so where that fails.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::symlink;

use expect_test::expect;
use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::*;

/// Set in a process that runs a test again with more rights.
const AGAIN: &str = "RBUILD_TEST_IN_NAMESPACE";

/// A tree as a step sees it.
enum Seen {
    Mount(OwnedFd),
    Dir(PathBuf),
}

impl Seen {
    fn of(prepared: &Prepared) -> rustix::io::Result<Self> {
        match prepared.rootfs() {
            Rootfs::Dir(path) => Ok(Self::Dir(path.clone())),
            Rootfs::Overlay { lowers, upper } => {
                let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
                let set = |key, path: &Path| rustix::mount::fsconfig_set_string(&fs, key, path);
                lowers.iter().try_for_each(|it| set("lowerdir+", it))?;
                if let Some(upper) = upper {
                    set("upperdir", &upper.dir)?;
                    set("workdir", &upper.work)?;
                    rustix::mount::fsconfig_set_flag(&fs, "volatile")?;
                }
                rustix::mount::fsconfig_set_flag(&fs, "userxattr")?;
                rustix::mount::fsconfig_create(&fs)?;
                let flags = FsMountFlags::FSMOUNT_CLOEXEC;
                rustix::mount::fsmount(&fs, flags, MountAttrFlags::empty()).map(Self::Mount)
            }
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Mount(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            Self::Dir(path) => path.clone(),
        }
    }
}

/// Runs `test` with the right to mount; `name` is that of the calling test.
#[expect(clippy::disallowed_methods, reason = "the test starts itself again")]
fn with_mounts(name: &str, test: impl Fn()) {
    let may_mount = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
        && rustix::mount::open_tree(CWD, ".", OpenTreeFlags::OPEN_TREE_CLONE).is_ok();
    if may_mount {
        return test();
    }
    assert!(std::env::var_os(AGAIN).is_none(), "no right to mount in the namespace either");
    let program = std::env::current_exe().expect("has a path");
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(program)
        .args([&format!("snapshot::tests::steps::{name}"), "--exact", "--nocapture"])
        .env(AGAIN, "1")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) if status.code() == Some(101) => panic!("failed in the namespace"),
        other => panic_or_skip(name, &format!("{other:?}")),
    }
}

/// Says that a test could not run: CI counts these lines.
fn panic_or_skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: needs the right to mount: {why}");
}

/// Unpacks `layers`, lets `step` change the tree, and returns what was committed.
fn run(place: &Place, chain: &mut Vec<LayerId>, name: &str, step: &dyn Fn(&Path)) {
    let prepared = place.layers.prepare(chain, Access::Write).expect("prepares");
    let seen = Seen::of(&prepared).expect("mounts");
    step(&seen.path());
    drop(seen);
    let layer = LayerId(name.into());
    place.layers.commit(prepared, &layer).expect("commits");
    chain.push(layer);
}

/// The same on both drivers, with the same result.
fn check(test: &str, base: &[&str], steps: &[&dyn Fn(&Path)], want: &expect_test::Expect) {
    with_mounts(test, || {
        let mut trees = Vec::new();
        for driver in [Driver::Overlay, Driver::Plain] {
            let place = place(driver);
            let mut chain: Vec<LayerId> =
                base.iter().map(|it| place.unpack(&archive(it)).expect("unpacks")).collect();
            let mut text = String::new();
            for (at, step) in steps.iter().enumerate() {
                let name = format!("step{at}");
                run(&place, &mut chain, &name, step);
                let listing =
                    place.layers.listing(&LayerId(name.as_str().into())).expect("has one");
                write!(text, "{name}:\n{}", show(listing.entries())).expect("writes");
            }
            want.assert_eq(&text);
            let prepared = place.layers.prepare(&chain, Access::Read).expect("prepares");
            let seen = Seen::of(&prepared).expect("mounts");
            trees.push(files(&seen.path()));
            drop(seen);
            place.layers.discard(prepared).expect("discards");
            // A tree made from nothing is the one that has moved forward.
            let again = place.again(Driver::Plain);
            again.remove(&["trees".into()]).expect("removes");
            fs::create_dir(place.root().join("trees")).expect("mkdir");
            let prepared = again.prepare(&chain, Access::Write).expect("prepares");
            let Rootfs::Dir(path) = prepared.rootfs() else { panic!("not plain") };
            trees.push(files(path));
        }
        trees.dedup();
        assert_eq!(trees.len(), 1, "{}", trees.join("---\n"));
    });
}

fn write(path: PathBuf, text: &str) {
    fs::write(path, text).expect("write");
}

#[test]
fn additions_and_removals() {
    check(
        "additions_and_removals",
        &["d a\nf a/x 1\nf a/y 2\nd b\nf b/z 3\nd tmp\nf top t"],
        &[
            &|root| {
                write(root.join("a/new"), "n");
                fs::remove_file(root.join("a/x")).expect("rm");
                fs::remove_dir_all(root.join("b")).expect("rm -r");
                write(root.join("tmp/t"), "t");
                fs::remove_file(root.join("tmp/t")).expect("rm");
            },
            &|root| {
                fs::create_dir_all(root.join("b/c")).expect("mkdir");
                write(root.join("b/c/d"), "d");
            },
            &|_| {},
        ],
        &expect![[r#"
            step0:
            d755 a
            f644 a/new 1
            w0 a/x
            w0 b
            step1:
            d755 b
            d755 b/c
            f644 b/c/d 1
            step2:
        "#]],
    );
}

#[test]
fn replaced_directories() {
    check(
        "replaced_directories",
        &["d o\nf o/a 1\nd o/deep\nf o/deep/b 2\nd k\nf k/x 1\nf f 1"],
        &[
            &|root| {
                fs::remove_dir_all(root.join("o")).expect("rm -r");
                fs::create_dir(root.join("o")).expect("mkdir");
                write(root.join("o/c"), "new");
                fs::remove_dir_all(root.join("k")).expect("rm -r");
                symlink("o", root.join("k")).expect("ln -s");
                fs::remove_file(root.join("f")).expect("rm");
                fs::create_dir(root.join("f")).expect("mkdir");
            },
            &|root| {
                fs::create_dir(root.join("o/deep")).expect("mkdir");
                write(root.join("o/deep/d"), "3");
            },
        ],
        &expect![[r#"
            step0:
            d755 f
            l777 k -> o
            d755 o
            w0 o/a
            f644 o/c 3
            w0 o/deep
            step1:
            d755 o
            d755 o/deep
            f644 o/deep/d 1
        "#]],
    );
}

#[test]
fn hard_links_within_and_across() {
    check(
        "hard_links_within_and_across",
        &["d l"],
        &[
            &|root| {
                write(root.join("l/b"), "x");
                fs::hard_link(root.join("l/b"), root.join("l/a")).expect("ln");
                fs::hard_link(root.join("l/b"), root.join("l/c")).expect("ln");
            },
            &|root| fs::hard_link(root.join("l/a"), root.join("l/d")).expect("ln"),
            &|root| {
                use std::io::Write as _;
                let mut file =
                    fs::OpenOptions::new().append(true).open(root.join("l/b")).expect("open");
                file.write_all(b"more").expect("write");
            },
            &|root| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(root.join("l/d"), mode).expect("chmod");
            },
        ],
        &expect![[r#"
            step0:
            d755 l
            f644 l/a 1
            h644 l/b = l/a
            h644 l/c = l/a
            step1:
            d755 l
            f644 l/d 1
            step2:
            d755 l
            f644 l/b 5
            step3:
            d755 l
            f600 l/d 1
        "#]],
    );
}

#[test]
fn what_is_no_change() {
    check(
        "what_is_no_change",
        &["d d\nf d/same s\nf d/touched t\nf d/rewritten old\nf d/moded m\nd e\nf e/f 1"],
        &[&|root| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(TIME.unsigned_abs());
            let open = |name: &str| {
                fs::OpenOptions::new().write(true).open(root.join(name)).expect("open")
            };
            drop(open("d/same"));
            // The same bytes and time, and then other bytes at the same time.
            write(root.join("d/touched"), "t");
            open("d/touched").set_modified(time).expect("utimens");
            write(root.join("d/rewritten"), "new");
            open("d/rewritten").set_modified(time).expect("utimens");
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(root.join("d/moded"), mode).expect("chmod");
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(root.join("e"), mode).expect("chmod");
            drop(std::os::unix::net::UnixListener::bind(root.join("e/s")).expect("bind"));
        }],
        &expect![[r#"
            step0:
            d755 d
            f600 d/moded 1
            f644 d/rewritten 3
            d700 e
        "#]],
    );
}

#[test]
fn directories_that_no_layer_describes() {
    // `d` is private, and the layer above only has files in it.
    let private = |root: &Path| {
        let mode = fs::metadata(root.join("d")).expect("stat").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700);
        assert_eq!(fs::metadata(root.join("d")).expect("stat").mtime(), TIME);
    };
    with_mounts("directories_that_no_layer_describes", || {
        for driver in [Driver::Overlay, Driver::Plain] {
            let place = place(driver);
            let mut chain = vec![place.unpack(&archive("d d\nf d/a 1")).expect("unpacks")];
            run(&place, &mut chain, "private", &|root| {
                let mode = fs::Permissions::from_mode(0o700);
                fs::set_permissions(root.join("d"), mode).expect("chmod");
                let time =
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(TIME.unsigned_abs());
                fs::File::open(root.join("d")).expect("open").set_modified(time).expect("utimens");
            });
            chain.push(place.unpack(&archive("f d/b 1\nw d/.wh.a")).expect("unpacks"));
            run(&place, &mut chain, "looks", &private);
            assert_eq!(show(place.layers.listing(&chain[3]).expect("has one").entries()), "");
            let prepared = place.layers.prepare(&chain, Access::Read).expect("prepares");
            let seen = Seen::of(&prepared).expect("mounts");
            private(&seen.path());
            assert_eq!(files(&seen.path()), "d/\nd/b: 1\n");
        }
    });
}

#[test]
fn chains_longer_than_overlay_can_mount() {
    with_mounts("chains_longer_than_overlay_can_mount", || {
        let place = place(Driver::Overlay);
        let mut chain: Vec<LayerId> = (0..800)
            .map(|at| place.unpack(&archive(&format!("f f{} {at}\nf last {at}", at % 7))))
            .collect::<Result<_, _>>()
            .expect("unpacks");
        chain.push(place.unpack(&archive("w .wh.f3")).expect("unpacks"));
        run(&place, &mut chain, "top", &|root| write(root.join("f0"), "new"));
        let prepared = place.layers.prepare(&chain, Access::Read).expect("prepares");
        let seen = Seen::of(&prepared).expect("mounts");
        let want = "f0: new\nf1: 799\nf2: 793\nf4: 795\nf5: 796\nf6: 797\nlast: 799\n";
        assert_eq!(files(&seen.path()), want);
    });
}

#[test]
fn empty_trees_can_be_mounted() {
    check(
        "empty_trees_can_be_mounted",
        &[],
        &[&|root| write(root.join("first"), "1")],
        &expect![[r#"
            step0:
            f644 first 1
        "#]],
    );
}

#[test]
fn a_discarded_step_leaves_nothing() {
    with_mounts("a_discarded_step_leaves_nothing", || {
        for driver in [Driver::Overlay, Driver::Plain] {
            let place = place(driver);
            let chain = [place.unpack(&archive("f a 1")).expect("unpacks")];
            let prepared = place.layers.prepare(&chain, Access::Write).expect("prepares");
            let seen = Seen::of(&prepared).expect("mounts");
            write(seen.path().join("a"), "changed");
            drop(seen);
            place.layers.discard(prepared).expect("discards");
            let mut chain = chain.to_vec();
            run(&place, &mut chain, "next", &|root| {
                assert_eq!(fs::read_to_string(root.join("a")).expect("reads"), "1");
            });
        }
    });
}

#[test]
fn deep_trees_and_too_deep_ones() {
    let place = place(Driver::Plain);
    let base = place.unpack(&archive("d a")).expect("unpacks");
    let deep = |levels: usize| vec!["d"; levels].join("/");
    let mut chain = vec![base.clone()];
    run(&place, &mut chain, "deep", &|root| {
        fs::create_dir_all(root.join(deep(dir::MAX_DEPTH - 1))).expect("mkdir");
    });
    assert_eq!(place.layers.listing(&chain[1]).expect("has one").len(), dir::MAX_DEPTH - 1);
    let prepared = place.layers.prepare(&[base], Access::Write).expect("prepares");
    let Rootfs::Dir(root) = prepared.rootfs() else { panic!("not plain") };
    fs::create_dir_all(root.join(deep(dir::MAX_DEPTH + 9))).expect("mkdir");
    let error = place.layers.commit(prepared, &LayerId("deeper".into())).expect_err("refused");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

/// An archive of a set-uid file, a private one and a directory, none of them root's.
fn owned() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, uid) in [("d/", 0o2750, 7), ("d/suid", 0o4755, 70_000), ("d/other", 0o604, 9)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).expect("fits");
        let is_dir = path.ends_with('/');
        let (dir, file) = (tar::EntryType::Directory, tar::EntryType::Regular);
        header.set_entry_type(if is_dir { dir } else { file });
        header.set_size(0);
        header.set_mtime(TIME.unsigned_abs());
        header.set_uid(uid);
        header.set_gid(8);
        header.set_mode(mode);
        header.set_cksum();
        builder.append(&header, &[][..]).expect("appends");
    }
    builder.into_inner().expect("finishes")
}

#[test]
fn owners_that_the_host_cannot_hold_survive_a_step() {
    with_mounts("owners_that_the_host_cannot_hold_survive_a_step", || {
        for (mapkey, ownership) in
            [(MapKey::single(1000), Ownership::Recorded), (MapKey::root(), Ownership::Real)]
        {
            let dir = tempfile::tempdir().expect("temporary directory");
            let store = Arc::new(Store::open(dir.path()).expect("opens the store"));
            let layers = LayerStore::of(store, mapkey, ownership, Driver::Overlay);
            let place = Place { dir, layers };
            let mut chain = vec![place.unpack(&owned()).expect("unpacks")];
            run(&place, &mut chain, "step", &|root| {
                write(root.join("d/other"), "written");
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(root.join("d/suid"), mode).expect("chmod");
                write(root.join("d/new"), "n");
            });
            let listing = place.layers.listing(&chain[1]).expect("has one");
            let want = "d2750 7:8 d\nf644 d/new 1\nf604 9:8 d/other 7\nf600 70000:8 d/suid 0\n";
            // A new file in a set-gid directory takes its group, where the host has it.
            let found = show(listing.entries()).replace(" 0:8 d/new", " d/new");
            assert_eq!(found, want, "{ownership:?}");
        }
    });
}

#[test]
fn few_trees_wait_for_a_step() {
    let place = place(Driver::Plain);
    let base = place.unpack(&archive("f a 1")).expect("unpacks");
    for n in 0..20 {
        let layer = place.unpack(&archive(&format!("f b {n}"))).expect("unpacks");
        let prepared = place.layers.prepare(&[base.clone(), layer], Access::Write);
        place
            .layers
            .commit(prepared.expect("prepares"), &LayerId(format!("{n:02}").into()))
            .expect("commits");
    }
    let trees = fs::read_dir(place.layers.layout().trees()).expect("reads").count();
    assert!((1..=8).contains(&trees), "{trees}");
}
