//! Plans over small stores, and the law that nothing reachable goes.

use proptest::prelude::*;

use super::*;
use crate::compress::Compression;
use crate::descriptor::Descriptor;
use crate::digest::DiffId;
use crate::image::Image;
use crate::image::config::ImageConfig;
use crate::media_type::Family;
use crate::records::{Made, SealedRow, Tree};

const KEEP_ALL: Policy = Policy { unused_since: None, keep_bytes: None, extras: false };

fn record(key: &str, layers: &[&str], blobs: &[BlobId], last_used: i64) -> Record {
    Record {
        key: Digest::of(key.as_bytes()),
        real_key: None,
        value: String::new(),
        trees: vec![Tree::of(layers.iter().map(|&it| it.into()))],
        blobs: blobs.to_vec(),
        created: 0,
        last_used,
    }
}

/// A store with a tagged image, a record with a sealed layer, and things that nothing leads to.
fn store() -> (tempfile::TempDir, Store, [BlobId; 4]) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = Store::open_exclusive(dir.path()).expect("opens");
    let (blobs, db) = (store.blobs(), store.db().expect("opens"));
    let image = Image::new(ImageConfig::default(), vec![]).expect("empty");
    let sealed = image.seal(Family::Oci, |_| {});
    sealed.put(blobs).expect("puts");
    db.put_tags(&["app:1"], &sealed.manifest.descriptor, 1).expect("tags");
    let of_layer = blobs.put(b"sealed").expect("puts");
    let dead = blobs.put(b"dead").expect("puts");
    for (id, size) in [("aa", 100), ("bb", 10), ("dd", 1)] {
        fs::create_dir_all(store.layout().layer_files(id, "n").expect("name")).expect("mkdir");
        db.put_layer(id, size, 5).expect("puts");
    }
    fs::create_dir(store.layout().layer("unknown").expect("name")).expect("mkdir");
    db.put_sealed(&SealedRow {
        layer: "aa".to_owned(),
        compression: Compression::None,
        clamp_mtime: None,
        diff_id: DiffId(of_layer.0),
        blob: of_layer,
        size: 6,
    })
    .expect("puts");
    let records = vec![record("old", &["aa"], &[], 5), record("new", &["bb"], &[], 9)];
    db.put_made(&Made { records, ..Made::default() }, 5).expect("puts");
    let ids = [sealed.config.descriptor.digest, sealed.manifest.descriptor.digest, of_layer, dead];
    (dir, store, ids)
}

fn layers(plan: &Plan) -> Vec<&str> {
    plan.layers.iter().map(|(id, _)| id.as_str()).collect()
}

#[test]
fn what_nothing_leads_to_goes() {
    let (_dir, store, [config, manifest, sealed, dead]) = store();
    let plan = plan(&store, &KEEP_ALL).expect("plans");
    assert_eq!(plan.records, []);
    assert_eq!(layers(&plan), ["dd", "unknown"]);
    assert_eq!(plan.blobs, [(dead, 4)]);
    assert_eq!(plan.bytes(), 5);
    assert_eq!(usage(&store).expect("counts").reclaimable, 5);

    assert_eq!(apply(&store, &plan).expect("applies"), Vec::<PathBuf>::new());
    assert!(super::plan(&store, &KEEP_ALL).expect("plans").is_empty());
    let kept = store.blobs().list().expect("lists");
    assert_eq!(kept.len(), 3);
    assert!([config, manifest, sealed].iter().all(|id| kept.iter().any(|(it, _)| it == id)));
    assert!(!store.layout().layer("dd").expect("name").exists());
    assert!(store.layout().layer("aa").expect("name").exists());
}

#[test]
fn old_records_go_with_what_only_they_keep() {
    let (_dir, store, [_, _, sealed, dead]) = store();
    let policy = Policy { unused_since: Some(6), ..KEEP_ALL };
    let plan = plan(&store, &policy).expect("plans");
    assert_eq!(plan.records, [Digest::of(b"old")]);
    assert_eq!(layers(&plan), ["aa", "dd", "unknown"]);
    let mut blobs: Vec<_> = plan.blobs.iter().map(|(id, _)| *id).collect();
    blobs.sort();
    let mut expected = [sealed, dead];
    expected.sort();
    assert_eq!(blobs, expected);
}

#[test]
fn the_longest_unused_go_until_the_rest_fits() {
    let (_dir, store, _) = store();
    let tagged: u64 = 4096;
    let gone = |keep_bytes| {
        let policy = Policy { keep_bytes: Some(keep_bytes), ..KEEP_ALL };
        plan(&store, &policy).expect("plans").records.len()
    };
    assert_eq!(gone(tagged), 0);
    assert_eq!(gone(0), 2);
    let (config, manifest) = (store.blobs().list().expect("lists"), 10 + 6);
    let documents: u64 =
        config.iter().map(|(_, size)| size).sum::<u64>() - b"sealed".len() as u64 - 4;
    assert_eq!(gone(documents + manifest), 1);
}

#[test]
fn extras_go_when_asked() {
    let (_dir, store, _) = store();
    let mount = store.layout().cache_mount("k").expect("name");
    fs::create_dir_all(mount.join("a/b")).expect("mkdir");
    fs::write(store.layout().downloads().join("part"), "x").expect("writes");
    assert!(plan(&store, &KEEP_ALL).expect("plans").extras.is_empty());
    let plan = plan(&store, &Policy { extras: true, ..KEEP_ALL }).expect("plans");
    assert_eq!(plan.extras.len(), 2);
    apply(&store, &plan).expect("applies");
    assert!(!mount.exists());
}

/// Removal is killed after the database has forgotten: the next plan finds the rest.
#[test]
fn killed_in_between_the_rest_is_found() {
    let (_dir, store, _) = store();
    let whole = plan(&store, &KEEP_ALL).expect("plans");
    store.db().expect("open").remove_layers(&["dd"]).expect("forgets");
    let rest = plan(&store, &KEEP_ALL).expect("plans");
    assert_eq!(layers(&rest), layers(&whole));
    assert_eq!(rest.blobs, whole.blobs);
}

#[test]
fn a_tag_whose_manifest_is_lost_harms_nothing() {
    let (_dir, store, _) = store();
    let lost = Descriptor::new(Family::Oci.manifest(), BlobId(Digest::of(b"lost")), 4);
    store.db().expect("open").put_tags(&["lost:1"], &lost, 1).expect("tags");
    assert_eq!(plan(&store, &KEEP_ALL).expect("plans").blobs.len(), 1);
}

proptest! {
    /// Whatever the store holds and whatever the policy: what a kept record or a tag names stays.
    #[test]
    fn nothing_reachable_goes(
        uses in proptest::collection::vec(
            (proptest::collection::vec(0..6usize, 0..4), 0..6usize, 0..10i64), 0..8),
        sealed in proptest::collection::vec((0..6usize, 0..6usize), 0..6),
        tagged in proptest::collection::btree_set(0..6usize, 0..3),
        unused_since in proptest::option::of(0..10i64),
        keep_bytes in proptest::option::of(0..60u64),
    ) {
        let names = ["l0", "l1", "l2", "l3", "l4", "l5"];
        let blob = |number: usize| BlobId(Digest::of(&[u8::try_from(number).expect("small")]));
        let mut records: Vec<_> = uses
            .iter()
            .enumerate()
            .map(|(index, (layers, of, time))| {
                let layers: Vec<_> = layers.iter().map(|layer| names[*layer]).collect();
                record(&index.to_string(), &layers, &[blob(*of)], *time)
            })
            .collect();
        records.sort_by_key(|record| record.last_used);
        let row = |id: &str| LayerRow { id: id.to_owned(), size: 7, created: 0, last_used: 0 };
        let contents = Contents {
            records,
            layers: names.iter().map(|id| ((*id).to_owned(), row(id))).collect(),
            blobs: (0..6).map(|number| (blob(number), 3)).collect(),
            sealed: sealed.iter().map(|(layer, of)| (names[*layer].to_owned(), blob(*of))).collect(),
            tagged: tagged.iter().map(|number| blob(*number)).collect(),
            extras: vec![],
        };
        let plan = decide(&contents, &Policy { unused_since, keep_bytes, extras: false });
        let is_dead = |id: &BlobId| plan.blobs.iter().any(|(dead, _)| dead == id);
        prop_assert!(!contents.tagged.iter().any(is_dead));
        let kept: Vec<_> =
            contents.records.iter().filter(|it| !plan.records.contains(&it.key)).collect();
        let mut bytes: u64 = 0;
        for record in &kept {
            prop_assert!(!record.blobs.iter().any(is_dead));
            for layer in record.trees.iter().flat_map(Tree::layers) {
                prop_assert!(!plan.layers.iter().any(|(dead, _)| **dead == *layer));
            }
            prop_assert!(unused_since.is_none_or(|time| record.last_used >= time));
        }
        bytes += 7 * (6 - plan.layers.len() as u64) + 3 * (6 - plan.blobs.len() as u64);
        if let Some(limit) = keep_bytes {
            prop_assert!(bytes <= limit || kept.is_empty());
        }
    }
}
