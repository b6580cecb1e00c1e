//! `rbuild images` and `rbuild rmi`.

use std::fmt::Write as _;
use std::path::Path;

use rbuild_store::digest::BlobId;
use rbuild_store::local::Store;
use rbuild_store::records::Tag;
use serde_json::{Value, json};

use super::{open_store, print};
use crate::cli::raw::{Format, Images, Rmi};
use crate::output::parse_name;
use crate::progress::bytes;
use crate::report::{Failure, Kind};

/// Largest manifest or configuration that is read, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Lists the images of the store.
///
/// # Errors
///
/// If the store cannot be read.
pub fn list(raw: &Images, root: &Path) -> Result<(), Failure> {
    let store = open_store(root)?;
    let mut out = String::new();
    let tags = store.db()?.tags()?;
    if raw.format.is_none() && !raw.quiet {
        writeln!(out, "{:<50} {:<20} {:<22} {:>9}", "NAME", "DIGEST", "PLATFORM", "SIZE")
            .expect("writing to a string");
    }
    for tag in &tags {
        let digest = tag.target.digest.to_string();
        let image = describe(&store, tag);
        if raw.quiet {
            writeln!(out, "{digest}").expect("writing to a string");
        } else if raw.format == Some(Format::Json) {
            let line = json!({
                "name": tag.name, "digest": digest, "platforms": image.platforms, "size": image.size, "updated": tag.updated,
            });
            writeln!(out, "{line}").expect("writing to a string");
        } else {
            let short = digest.get(..19).unwrap_or(&digest);
            let platforms = image.platforms.join(",");
            let size = bytes(image.size);
            writeln!(out, "{:<50} {short:<20} {platforms:<22} {size:>9}", tag.name)
                .expect("writing to a string");
        }
    }
    print(&out)
}

/// What is shown of an image.
#[derive(Debug, Default)]
struct Shown {
    platforms: Vec<String>,
    /// Bytes of manifests, configurations and layers, as transferred.
    size: u64,
}

fn describe(store: &Store, tag: &Tag) -> Shown {
    let mut shown = Shown::default();
    add(store, &tag.target.digest, &mut shown, 0);
    shown.platforms.sort_unstable();
    shown.platforms.dedup();
    shown
}

/// Adds a manifest, or the manifests of an index. What is missing or strange is left out.
fn add(store: &Store, id: &BlobId, shown: &mut Shown, depth: usize) {
    const MAX_DEPTH: usize = 3;
    let Some(document) = read(store, id) else { return };
    if let Some(manifests) = document["manifests"].as_array().filter(|_| depth < MAX_DEPTH) {
        for digest in manifests.iter().filter_map(|it| it["digest"].as_str()?.parse().ok()) {
            add(store, &digest, shown, depth + 1);
        }
        return;
    }
    let descriptors =
        document["layers"].as_array().into_iter().flatten().chain([&document["config"]]);
    shown.size += descriptors.filter_map(|it| it["size"].as_u64()).sum::<u64>();
    let config = document["config"]["digest"]
        .as_str()
        .and_then(|it| it.parse().ok())
        .and_then(|id| read(store, &id));
    if let Some(config) = config {
        let part = |name: &str| config[name].as_str().unwrap_or("?").to_owned();
        let variant = config["variant"].as_str().map(|it| format!("/{it}")).unwrap_or_default();
        shown.platforms.push(format!("{}/{}{variant}", part("os"), part("architecture")));
    }
}

fn read(store: &Store, id: &BlobId) -> Option<Value> {
    serde_json::from_slice(&store.blobs().read(id, MAX_DOCUMENT).ok()?).ok()
}

/// Removes names. The content goes with the next `prune`.
///
/// # Errors
///
/// If a name is not there; the others are removed all the same.
pub fn remove(raw: &Rmi, root: &Path) -> Result<(), Failure> {
    let store = open_store(root)?;
    let mut missing = Vec::new();
    for name in &raw.names {
        // A name with a digest is written as it is listed.
        let has_digest = name.contains('@');
        let full = if has_digest { name.clone() } else { parse_name("rmi", name)?.to_string() };
        if !store.db()?.remove_tag(&full)? {
            missing.push(full);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Kind::User, format!("there is no image named {}", missing.join(", ")))
        .hint("`rbuild images` lists them"))
}
