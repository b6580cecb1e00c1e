//! The embedded database: what processes share besides files.
//!
//! `SQLite` in WAL mode, one connection per process behind a mutex (ADR 0003). Every write is one
//! `BEGIN IMMEDIATE` transaction, so that no reader is ever upgraded; `user_version` is the schema
//! number. The database only refers to files: a broken one is set aside and made anew, at the
//! price of a cold cache.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Result, StoreError};
use crate::records::{Tree, TreeId};

/// The schema that this version reads and writes.
const SCHEMA: u32 = 2;

/// A writer waits this long for another one before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A time of last use is written anew only when it is older than this many seconds: a fully cached
/// build writes nothing.
pub const TOUCH_SECONDS: i64 = 3600;

/// A write-ahead log of this many bytes is merged into the database when a process is done with
/// it. That syncs twice, so a smaller one is left to the next process, which reads it in a
/// millisecond.
const MERGE_LOG_BYTES: u64 = 1 << 20;

/// All tables.
const CREATE: &str = "
CREATE TABLE tags (
    name TEXT PRIMARY KEY NOT NULL,
    media_type TEXT NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
    updated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE layers (
    id TEXT PRIMARY KEY NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL, last_used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sealed (
    layer TEXT NOT NULL, how TEXT NOT NULL,
    diff_id BLOB NOT NULL, blob BLOB NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (layer, how)
) WITHOUT ROWID;
CREATE TABLE diffs (
    diff_id BLOB NOT NULL, blob BLOB NOT NULL,
    size INTEGER NOT NULL, media_type TEXT NOT NULL,
    PRIMARY KEY (diff_id, blob)
) WITHOUT ROWID;
CREATE INDEX diffs_by_blob ON diffs (blob);
CREATE TABLE steps (
    identity BLOB PRIMARY KEY NOT NULL,
    parts TEXT NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE resolved (
    reference TEXT NOT NULL, platform TEXT NOT NULL,
    digest BLOB NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (reference, platform)
) WITHOUT ROWID;
";

/// The tables of records, which schema 1 had in another form: records of that time are dropped,
/// which costs a cold cache. `trees` of a record are identities in `trees`, one after the other.
const CREATE_RECORDS: &str = "
DROP TABLE IF EXISTS records;
CREATE TABLE records (
    key BLOB PRIMARY KEY NOT NULL,
    real_key BLOB,
    value TEXT NOT NULL,
    trees BLOB NOT NULL,
    blobs BLOB NOT NULL,
    created INTEGER NOT NULL, last_used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE trees (
    id BLOB PRIMARY KEY NOT NULL,
    below BLOB NOT NULL, layer TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// An open database. The look-ups and changes are in `db/*.rs`, by table.
pub struct Db {
    connection: Mutex<Connection>,
    /// Trees that were read: those of a build have most in common.
    trees: Mutex<HashMap<TreeId, Tree>>,
    path: PathBuf,
    set_aside: Option<PathBuf>,
}

impl Drop for Db {
    fn drop(&mut self) {
        let log = helper(&self.path, "-wal").metadata();
        if log.is_ok_and(|it| it.len() >= MERGE_LOG_BYTES) {
            // Whoever comes next tries again.
            drop(self.connection().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("set_aside", &self.set_aside).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the database at `path`, making or upgrading it where necessary. A broken one is
    /// renamed ([`Db::set_aside`] tells) and replaced by an empty one.
    ///
    /// # Errors
    ///
    /// It was written by a newer rbuild, or the file system refuses.
    pub fn open(path: &Path) -> Result<Self> {
        match connect(path) {
            Ok(connection) => {
                let (connection, path) = (Mutex::new(connection), path.to_owned());
                Ok(Self { connection, trees: Mutex::default(), path, set_aside: None })
            }
            Err(StoreError::Db { source, .. }) if is_broken(&source) => {
                let aside = set_aside(path)?;
                let connection = Mutex::new(connect(path)?);
                let (trees, path) = (Mutex::default(), path.to_owned());
                Ok(Self { connection, trees, path, set_aside: Some(aside) })
            }
            Err(error) => Err(error),
        }
    }

    /// Where the database went that was broken when this one was opened: tags and cached results
    /// are lost, files are not.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// The connection; a thread that panicked while it had it leaves it usable, because its
    /// transaction was rolled back.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` over one consistent state.
    fn read<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Deferred)
            .map_err(StoreError::db(action))?;
        body(&transaction).map_err(StoreError::db(action))
    }

    /// Runs `body`; all of its changes appear, or none.
    fn write<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::db(action))?;
        let value = body(&transaction).map_err(StoreError::db(action))?;
        transaction.commit().map_err(StoreError::db(action))?;
        Ok(value)
    }
}

/// Opens `path` and sees to its schema.
fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(StoreError::db("open"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(StoreError::db("open"))?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(StoreError::db("open"))?;
    let version = schema(&connection).map_err(StoreError::db("open"))?;
    if version != SCHEMA {
        upgrade(&mut connection, path)?;
    }
    // Per connection; touches no file.
    connection
        .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;")
        .map_err(StoreError::db("open"))?;
    Ok(connection)
}

fn schema(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the tables where there are none. Looks at the version again under the lock: another
/// process may have been quicker.
fn upgrade(connection: &mut Connection, path: &Path) -> Result<()> {
    let action = "upgrade";
    // An empty database is worth no sync: what a power failure leaves of it is empty again, or
    // broken and set aside. What is in the log is checked when it is read.
    connection.execute_batch("PRAGMA synchronous = OFF").map_err(StoreError::db(action))?;
    // Kept by the file. Where shared memory is impossible (network file systems) SQLite stays with
    // its rollback journal, which is correct, too.
    keep_a_log(connection).map_err(StoreError::db(action))?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(StoreError::db(action))?;
    match schema(&transaction).map_err(StoreError::db(action))? {
        0 => transaction
            .execute_batch(CREATE)
            .and_then(|()| transaction.execute_batch(CREATE_RECORDS))
            .map_err(StoreError::db(action))?,
        1 => transaction.execute_batch(CREATE_RECORDS).map_err(StoreError::db(action))?,
        SCHEMA => {}
        found => {
            return Err(StoreError::NewerFormat {
                root: path.parent().unwrap_or(path).to_owned(),
                found,
                supported: SCHEMA,
            });
        }
    }
    transaction.commit().map_err(StoreError::db(action))
}

/// Changes to a write-ahead log. While somebody else does just that, SQLite says at once that the
/// database is busy: it does not wait where two could wait for each other.
fn keep_a_log(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && begun.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames the database and its helpers.
fn set_aside(path: &Path) -> Result<PathBuf> {
    for suffix in ["-wal", "-shm"] {
        // Often not there; of no use without the database.
        drop(std::fs::remove_file(helper(path, suffix)));
    }
    let aside = helper(path, ".broken");
    std::fs::rename(path, &aside).map_err(StoreError::io("rename", path))?;
    Ok(aside)
}

/// A file beside the database.
fn helper(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

mod cache;
mod images;
mod layers;
mod trees;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("db.sqlite");
        drop(Db::open(&path).expect("creates"));
        let connection = Connection::open(&path).expect("opens");
        connection.execute_batch("PRAGMA user_version = 9").expect("sets");
        drop(connection);
        let error = Db::open(&path).expect_err("refuses");
        assert!(matches!(error, StoreError::NewerFormat { found: 9, .. }), "{error}");
    }

    #[test]
    fn an_older_schema_is_upgraded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("db.sqlite");
        let connection = Connection::open(&path).expect("opens");
        let old = "CREATE TABLE records (key BLOB PRIMARY KEY NOT NULL, layers TEXT NOT NULL); \
                   INSERT INTO records VALUES (x'00', 'aa'); PRAGMA user_version = 1";
        connection.execute_batch(&[CREATE, old].concat()).expect("makes");
        drop(connection);
        let db = Db::open(&path).expect("upgrades");
        assert_eq!(db.all_records().expect("reads"), []);
        assert_eq!(schema(&db.connection()).expect("reads"), SCHEMA);
    }

    #[test]
    fn a_broken_database_is_set_aside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("db.sqlite");
        std::fs::write(&path, vec![b'x'; 4096]).expect("writes");
        let db = Db::open(&path).expect("opens");
        assert!(db.set_aside().is_some_and(Path::exists));
        assert_eq!(db.tags().expect("lists"), []);
    }

    #[test]
    fn processes_create_it_side_by_side() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("db.sqlite");
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| Db::open(&path).map(|db| db.tags()))).collect();
            for thread in threads {
                assert_eq!(thread.join().expect("thread").expect("opens").expect("lists"), []);
            }
        });
    }
}
