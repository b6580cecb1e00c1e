//! Cache records, and the last key parts of each step.

use std::collections::BTreeSet;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::layers::put_layer;
use super::trees::Trees;
use super::{Db, TOUCH_SECONDS};
use crate::digest::{BlobId, Digest};
use crate::error::Result;
use crate::records::{Made, Record, Tree};

impl Db {
    /// The records found by `keys`, in their order.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn records(&self, keys: &[Digest]) -> Result<Vec<Option<Record>>> {
        self.read("read", |connection| {
            let mut trees = self.trees(connection)?;
            let mut statement = connection.prepare(
                "SELECT key, real_key, value, trees, blobs, created, last_used \
                 FROM records WHERE key = ?1",
            )?;
            keys.iter()
                .map(|key| {
                    statement.query_row([key.as_bytes()], |row| record(row, &mut trees)).optional()
                })
                .collect()
        })
    }

    /// All records, the longest unused first.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn all_records(&self) -> Result<Vec<Record>> {
        self.read("read", |connection| {
            let mut trees = self.trees(connection)?;
            connection
                .prepare(
                    "SELECT key, real_key, value, trees, blobs, created, last_used \
                     FROM records ORDER BY last_used, key",
                )?
                .query_map([], |row| record(row, &mut trees))?
                .collect()
        })
    }

    /// Keeps what a step left, all or nothing; records take the place of those with the same keys.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn put_made(&self, made: &Made, now: i64) -> Result<()> {
        self.write("write", |transaction| {
            for (layer, size) in &made.layers {
                put_layer(transaction, layer, *size, now)?;
            }
            for record in &made.records {
                put_record(transaction, record)?;
            }
            let Some((identity, parts)) = &made.parts else { return Ok(()) };
            transaction
                .prepare("INSERT OR REPLACE INTO steps (identity, parts, at) VALUES (?1, ?2, ?3)")?
                .execute(params![identity.as_bytes(), parts, now])
                .map(drop)
        })
    }

    /// Notes that records and their layers were used at `now`. Writes nothing where that was noted
    /// less than [`TOUCH_SECONDS`] ago.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn touch(&self, records: &[&Record], now: i64) -> Result<()> {
        let stale: Vec<_> =
            records.iter().filter(|record| record.last_used < now - TOUCH_SECONDS).collect();
        if stale.is_empty() {
            return Ok(());
        }
        self.write("write", |transaction| {
            let mut of_record = transaction
                .prepare("UPDATE records SET last_used = max(last_used, ?2) WHERE key = ?1")?;
            let mut of_layer = transaction
                .prepare("UPDATE layers SET last_used = max(last_used, ?2) WHERE id = ?1")?;
            let mut done = BTreeSet::new();
            for record in stale {
                of_record.execute(params![record.key.as_bytes(), now])?;
                // What is below a tree that was done is done.
                let trees = record.trees.iter();
                for tree in trees.flat_map(|tree| {
                    tree.down().take_while(|it| done.insert(it.id())).collect::<Vec<_>>()
                }) {
                    of_layer.execute(params![tree.top().map(|(layer, _)| &**layer), now])?;
                }
            }
            Ok(())
        })
    }

    /// Removes the records of `keys`, and trees that no other has; fine where there are none.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn remove_records(&self, keys: &[Digest]) -> Result<()> {
        self.write("write", |transaction| {
            let mut statement = transaction.prepare("DELETE FROM records WHERE key = ?1")?;
            for key in keys {
                statement.execute([key.as_bytes()])?;
            }
            super::trees::sweep(transaction)
        })
    }

    /// The named parts of the key that each step had when it last ran, as text of the caller's, in
    /// the order of `identities`.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn step_parts(&self, identities: &[Digest]) -> Result<Vec<Option<String>>> {
        self.read("read", |connection| {
            let mut statement =
                connection.prepare("SELECT parts FROM steps WHERE identity = ?1")?;
            identities
                .iter()
                .map(|step| statement.query_row([step.as_bytes()], |row| row.get(0)).optional())
                .collect()
        })
    }

    /// Removes key parts noted before `time`.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn remove_step_parts_before(&self, time: i64) -> Result<()> {
        self.write("write", |transaction| {
            transaction.execute("DELETE FROM steps WHERE at < ?1", [time]).map(drop)
        })
    }
}

fn put_record(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    let blobs: Vec<u8> = record.blobs.iter().flat_map(|blob| *blob.0.as_bytes()).collect();
    let trees: Vec<u8> = record.trees.iter().flat_map(Tree::id).collect();
    for tree in &record.trees {
        super::trees::put(transaction, tree)?;
    }
    transaction
        .prepare(
            "INSERT OR REPLACE INTO records \
             (key, real_key, value, trees, blobs, created, last_used) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            record.key.as_bytes(),
            record.real_key.as_ref().map(Digest::as_bytes),
            record.value,
            trees,
            blobs,
            record.created,
            record.last_used,
        ])
        .map(drop)
}

fn record(row: &Row<'_>, trees: &mut Trees<'_>) -> rusqlite::Result<Record> {
    let ids: Vec<u8> = row.get(3)?;
    let (ids, rest) = ids.as_chunks();
    if !rest.is_empty() {
        return Err(rusqlite::Error::InvalidColumnType(3, "trees".to_owned(), Type::Blob));
    }
    let blobs: Vec<u8> = row.get(4)?;
    let (blobs, rest) = blobs.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(rusqlite::Error::InvalidColumnType(4, "blobs".to_owned(), Type::Blob));
    }
    Ok(Record {
        key: Digest::from_bytes(row.get(0)?),
        real_key: row.get::<_, Option<[u8; 32]>>(1)?.map(Digest::from_bytes),
        value: row.get(2)?,
        trees: ids.iter().map(|id| trees.get(id)).collect::<rusqlite::Result<_>>()?,
        blobs: blobs.iter().map(|bytes| BlobId(Digest::from_bytes(*bytes))).collect(),
        created: row.get(5)?,
        last_used: row.get(6)?,
    })
}

/// A digest in a column.
pub(super) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get(column).map(Digest::from_bytes)
}

/// A number of bytes in a column.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A number of bytes for a column.
pub(super) fn column(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_record(key: &str) -> Record {
        Record {
            key: Digest::of(key.as_bytes()),
            real_key: Some(Digest::of(b"real")),
            value: r#"{"v":1}"#.to_owned(),
            trees: vec![Tree::of(["aa".into(), "bb".into()]), Tree::default()],
            blobs: vec![BlobId(Digest::of(b"blob"))],
            created: 5,
            last_used: 5,
        }
    }

    fn made(records: &[&Record]) -> Made {
        let records = records.iter().map(|&record| record.clone()).collect();
        Made { records, ..Made::default() }
    }

    #[test]
    fn records_come_back_in_the_order_asked() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(&dir.path().join("db")).expect("opens");
        let (one, two) = (a_record("1"), a_record("2"));
        db.put_made(&made(&[&one, &two]), 5).expect("puts");
        let keys = [two.key, Digest::of(b"3"), one.key];
        assert_eq!(db.records(&keys).expect("reads"), [Some(two), None, Some(one.clone())]);
        db.remove_records(&[one.key, Digest::of(b"3")]).expect("removes");
        assert_eq!(db.records(&[one.key]).expect("reads"), [None]);
    }

    #[test]
    fn use_is_noted_seldom() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(&dir.path().join("db")).expect("opens");
        let record = a_record("1");
        db.put_made(&made(&[&record]), 5).expect("puts");
        let last_used = |now| {
            db.touch(&[&record], now).expect("touches");
            db.all_records().expect("reads")[0].last_used
        };
        assert_eq!(last_used(5 + TOUCH_SECONDS), 5);
        assert_eq!(last_used(6 + TOUCH_SECONDS), 6 + TOUCH_SECONDS);
    }

    #[test]
    fn parts_are_kept_per_step() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(&dir.path().join("db")).expect("opens");
        let step = Digest::of(b"step");
        let made = Made { parts: Some((step, "a=1".to_owned())), ..Made::default() };
        db.put_made(&made, 7).expect("puts");
        let parts = db.step_parts(&[step, Digest::of(b"other")]).expect("reads");
        assert_eq!(parts, [Some("a=1".to_owned()), None]);
        db.remove_step_parts_before(8).expect("removes");
        assert_eq!(db.step_parts(&[step]).expect("reads"), [None]);
    }
}
