//! Layers, the blobs they were written as, and which tar a blob holds.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::Db;
use super::cache::{bytes, column, digest};
use crate::compress::Compression;
use crate::digest::{BlobId, DiffId};
use crate::error::Result;
use crate::media_type::Family;
use crate::records::{DiffRow, LayerRow, SealedRow};

impl Db {
    /// All layers, the longest unused first.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn layers(&self) -> Result<Vec<LayerRow>> {
        self.read("read", |connection| {
            connection
                .prepare("SELECT id, size, created, last_used FROM layers ORDER BY last_used, id")?
                .query_map([], |row| {
                    Ok(LayerRow {
                        id: row.get(0)?,
                        size: bytes(row, 1)?,
                        created: row.get(2)?,
                        last_used: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    /// Notes that a layer exists; `size` is the number of bytes of its regular files.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn put_layer(&self, id: &str, size: u64, now: i64) -> Result<()> {
        self.write("write", |transaction| put_layer(transaction, id, size, now))
    }

    /// Forgets layers and the blobs they were written as.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn remove_layers(&self, ids: &[&str]) -> Result<()> {
        self.write("write", |transaction| {
            let mut layers = transaction.prepare("DELETE FROM layers WHERE id = ?1")?;
            let mut sealed = transaction.prepare("DELETE FROM sealed WHERE layer = ?1")?;
            for id in ids {
                layers.execute([id])?;
                sealed.execute([id])?;
            }
            Ok(())
        })
    }

    /// The blob that a layer was written as, with this compression and clamp.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn sealed(
        &self,
        layer: &str,
        compression: Compression,
        clamp_mtime: Option<i64>,
    ) -> Result<Option<SealedRow>> {
        let how = how(compression, clamp_mtime);
        self.read("read", |connection| {
            connection
                .prepare("SELECT diff_id, blob, size FROM sealed WHERE layer = ?1 AND how = ?2")?
                .query_row([layer, &how], |row| {
                    Ok(SealedRow {
                        layer: layer.to_owned(),
                        compression,
                        clamp_mtime,
                        diff_id: DiffId(digest(row, 0)?),
                        blob: BlobId(digest(row, 1)?),
                        size: bytes(row, 2)?,
                    })
                })
                .optional()
        })
    }

    /// The blobs that a layer was written as with its own times, however compressed. Their media
    /// types are left empty.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn sealed_unclamped(&self, layer: &str) -> Result<Vec<DiffRow>> {
        self.read("read", |connection| {
            connection
                .prepare("SELECT diff_id, blob, size FROM sealed WHERE layer = ?1 AND how NOT LIKE '%@%'")?
                .query_map([layer], |row| {
                    Ok(DiffRow {
                        diff_id: DiffId(digest(row, 0)?),
                        blob: BlobId(digest(row, 1)?),
                        size: bytes(row, 2)?,
                        media_type: String::new(),
                    })
                })?
                .collect()
        })
    }

    /// When each of `ids` was made; none for a layer that is not known.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn layer_times(&self, ids: &[&str]) -> Result<Vec<Option<i64>>> {
        self.read("read", |connection| {
            let mut layers = connection.prepare("SELECT created FROM layers WHERE id = ?1")?;
            ids.iter().map(|id| layers.query_row([id], |row| row.get(0)).optional()).collect()
        })
    }

    /// Notes the blob that a layer was written as, and which tar it holds.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn put_sealed(&self, sealed: &SealedRow) -> Result<()> {
        self.write("write", |transaction| {
            transaction
                .prepare(
                    "INSERT OR REPLACE INTO sealed (layer, how, diff_id, blob, size) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    sealed.layer,
                    how(sealed.compression, sealed.clamp_mtime),
                    sealed.diff_id.0.as_bytes(),
                    sealed.blob.0.as_bytes(),
                    column(sealed.size),
                ])
                .map(drop)
        })?;
        self.put_diff(&DiffRow {
            diff_id: sealed.diff_id,
            blob: sealed.blob,
            size: sealed.size,
            media_type: Family::Oci.layer(sealed.compression).to_owned(),
        })
    }

    /// Blobs that layers of the store were written as: layer, blob.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn all_sealed(&self) -> Result<Vec<(String, BlobId)>> {
        self.read("read", |connection| {
            connection
                .prepare("SELECT layer, blob FROM sealed ORDER BY layer, how")?
                .query_map([], |row| Ok((row.get(0)?, BlobId(digest(row, 1)?))))?
                .collect()
        })
    }

    /// Blobs known to hold the tar `diff_id`, whether or not they are in the store.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn blobs_of(&self, diff_id: &DiffId) -> Result<Vec<DiffRow>> {
        self.read("read", |connection| {
            connection
                .prepare(
                    "SELECT diff_id, blob, size, media_type FROM diffs \
                     WHERE diff_id = ?1 ORDER BY blob",
                )?
                .query_map([diff_id.0.as_bytes()], diff)?
                .collect()
        })
    }

    /// The tar that a blob is known to hold.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn diff_of(&self, blob: &BlobId) -> Result<Option<DiffRow>> {
        self.read("read", |connection| {
            connection
                .prepare(
                    "SELECT diff_id, blob, size, media_type FROM diffs WHERE blob = ?1 LIMIT 1",
                )?
                .query_row([blob.0.as_bytes()], diff)
                .optional()
        })
    }

    /// Notes that a blob holds a certain tar. Only for what was verified.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn put_diff(&self, row: &DiffRow) -> Result<()> {
        self.write("write", |transaction| {
            transaction
                .prepare(
                    "INSERT OR REPLACE INTO diffs (diff_id, blob, size, media_type) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    row.diff_id.0.as_bytes(),
                    row.blob.0.as_bytes(),
                    column(row.size),
                    row.media_type
                ])
                .map(drop)
        })
    }

    /// Forgets which tars these blobs hold.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn remove_diffs(&self, blobs: &[BlobId]) -> Result<()> {
        self.write("write", |transaction| {
            let mut statement = transaction.prepare("DELETE FROM diffs WHERE blob = ?1")?;
            for blob in blobs {
                statement.execute([blob.0.as_bytes()])?;
            }
            Ok(())
        })
    }
}

/// What, besides the layer, decides the bytes of its blob.
fn how(compression: Compression, clamp_mtime: Option<i64>) -> String {
    match clamp_mtime {
        Some(seconds) => format!("{compression}@{seconds}"),
        None => compression.to_string(),
    }
}

fn diff(row: &Row<'_>) -> rusqlite::Result<DiffRow> {
    Ok(DiffRow {
        diff_id: DiffId(digest(row, 0)?),
        blob: BlobId(digest(row, 1)?),
        size: bytes(row, 2)?,
        media_type: row.get(3)?,
    })
}

/// See [`Db::put_layer`].
pub(super) fn put_layer(
    transaction: &Transaction<'_>,
    id: &str,
    size: u64,
    now: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare(
            "INSERT INTO layers (id, size, created, last_used) VALUES (?1, ?2, ?3, ?3) \
             ON CONFLICT (id) DO UPDATE SET size = ?2, last_used = ?3",
        )?
        .execute(params![id, column(size), now])
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn sealed_layers_are_found_by_how_they_were_written() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(&dir.path().join("db")).expect("opens");
        let row = SealedRow {
            layer: "aa".to_owned(),
            compression: Compression::Gzip(6),
            clamp_mtime: Some(0),
            diff_id: DiffId(Digest::of(b"tar")),
            blob: BlobId(Digest::of(b"gzip")),
            size: 4,
        };
        db.put_layer("aa", 10, 1).expect("puts");
        db.put_sealed(&row).expect("puts");
        let find = |compression, clamp| db.sealed("aa", compression, clamp).expect("asks");
        assert_eq!(find(Compression::Gzip(6), Some(0)), Some(row.clone()));
        assert_eq!(find(Compression::Gzip(6), None), None);
        assert_eq!(find(Compression::Gzip(5), Some(0)), None);
        assert_eq!(db.blobs_of(&row.diff_id).expect("asks")[0].blob, row.blob);
        assert_eq!(db.diff_of(&row.blob).expect("asks").map(|row| row.diff_id), Some(row.diff_id));
        db.remove_layers(&["aa"]).expect("removes");
        assert_eq!(find(Compression::Gzip(6), Some(0)), None);
        assert_eq!(db.layers().expect("lists"), []);
    }
}
