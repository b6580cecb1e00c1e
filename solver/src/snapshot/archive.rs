//! Takes an archive apart as it arrives.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rbuild_store::tar::read::TarReader;

use super::apply::{Applied, Applier};
use super::error::Error;
use crate::worker::proto::LayerId;

/// Blocks of tar from a queue.
#[derive(Debug)]
struct Blocks {
    queue: Receiver<Arc<Vec<u8>>>,
    block: Arc<Vec<u8>>,
    at: usize,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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
///
/// # Errors
///
/// If the archive is damaged or hostile, or the disk refuses.
pub(crate) fn apply(
    mut applier: Applier<'_>,
    queue: Receiver<Arc<Vec<u8>>>,
    layer: &LayerId,
) -> Result<Applied, Error> {
    let damaged = |source| Error::Unreadable { layer: layer.0.to_string(), source };
    let mut archive = TarReader::new(Blocks { queue, block: Arc::default(), at: 0 });
    while let Some(item) = archive.next().map_err(damaged)? {
        applier.item(item, &mut archive)?;
    }
    applier.finish()
}
