//! Entries of a layer archive.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rbuild_store::entry::{Entry, Kind, Timestamp};
use tar::EntryType;

use super::apply::{Applied, Applier};
use super::error::Error;
use crate::worker::proto::LayerId;

/// Blocks of tar from a queue.
struct Blocks {
    queue: Receiver<Arc<Vec<u8>>>,
    block: Arc<Vec<u8>>,
    at: usize,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.block.len() {
            let Ok(block) = self.queue.recv() else { return Ok(0) };
            (self.block, self.at) = (block, 0);
        }
        let rest = &self.block[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

/// Applies the archive that `queue` yields, and takes what comes after it.
pub(crate) fn apply(
    mut applier: Applier<'_>,
    queue: Receiver<Arc<Vec<u8>>>,
    layer: &LayerId,
) -> Result<Applied, Error> {
    let damaged = |source| Error::Stream { layer: layer.0.clone(), source };
    let mut archive = tar::Archive::new(Blocks { queue, block: Arc::default(), at: 0 });
    for found in archive.entries().map_err(damaged)? {
        let mut found = found.map_err(damaged)?;
        if let Some(entry) = read_entry(&mut found).map_err(damaged)? {
            applier.entry(entry, &mut found)?;
        }
    }
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(damaged)?;
    applier.finish()
}

fn read_entry<R: Read>(found: &mut tar::Entry<'_, R>) -> std::io::Result<Option<Entry>> {
    let mut mtime = Timestamp::from_secs(found.header().mtime()?.cast_signed());
    let mut xattrs = BTreeMap::new();
    if let Some(extensions) = found.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), value.to_vec());
            } else if key == b"mtime" {
                mtime = parse_time(value).unwrap_or(mtime);
            }
        }
    }
    let header = found.header();
    let link = || found.link_name_bytes().map(|it| it.into_owned()).unwrap_or_default();
    let device = || -> std::io::Result<(u32, u32)> {
        Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            Kind::File { size: found.size(), digest: None }
        }
        EntryType::Directory => Kind::Dir { opaque: false },
        EntryType::Symlink => Kind::Symlink { target: link() },
        EntryType::Link => Kind::Hardlink { target: link() },
        EntryType::Char => device().map(|(major, minor)| Kind::Char { major, minor })?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block { major, minor })?,
        EntryType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let id = |id: u64| u32::try_from(id).map_err(|_| std::io::Error::other("id out of range"));
    Ok(Some(Entry {
        path: found.path_bytes().into_owned(),
        kind,
        mode: header.mode()? & 0o7777,
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mtime,
        xattrs,
    }))
}

/// Seconds with a fraction.
fn parse_time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut nanos = fraction.get(..fraction.len().min(9))?.parse().unwrap_or(0_u32);
    for _ in fraction.len()..9 {
        nanos *= 10;
    }
    let is_negative = secs.starts_with('-') && nanos > 0;
    let secs: i64 = secs.parse().ok()?;
    Some(match is_negative {
        true => Timestamp { secs: secs - 1, nanos: 1_000_000_000 - nanos },
        false => Timestamp { secs, nanos },
    })
}
