//! Trees of records: a row is a tree's topmost layer and the tree below.
//!
//! A tree that has a row has all those below it: they are put in one transaction, and a tree is
//! removed only with all that is above it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use rusqlite::{Connection, Statement, Transaction, params};

use super::Db;
use crate::records::{Tree, TreeId};

/// Reads trees, each row once in the life of a [`Db`].
pub(super) struct Trees<'a> {
    known: MutexGuard<'a, HashMap<TreeId, Tree>>,
    statement: Statement<'a>,
}

impl Db {
    pub(super) fn trees<'a>(&'a self, connection: &'a Connection) -> rusqlite::Result<Trees<'a>> {
        let known = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let statement = connection.prepare("SELECT below, layer FROM trees WHERE id = ?1")?;
        Ok(Trees { known, statement })
    }
}

impl Trees<'_> {
    pub(super) fn get(&mut self, id: &TreeId) -> rusqlite::Result<Tree> {
        let (mut rows, mut at) = (Vec::new(), *id);
        let mut tree = loop {
            if at == TreeId::default() {
                break Tree::default();
            }
            if let Some(tree) = self.known.get(&at) {
                break tree.clone();
            }
            let (below, layer): (TreeId, Arc<str>) =
                self.statement.query_row([at], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.push(layer);
            at = below;
        };
        for layer in rows.into_iter().rev() {
            tree = tree.with(layer);
            self.known.insert(tree.id(), tree.clone());
        }
        Ok(tree)
    }
}

/// Keeps a tree and those below it.
pub(super) fn put(transaction: &Transaction<'_>, tree: &Tree) -> rusqlite::Result<()> {
    let mut statement = transaction
        .prepare("INSERT OR IGNORE INTO trees (id, below, layer) VALUES (?1, ?2, ?3)")?;
    for tree in tree.down() {
        let Some((layer, below)) = tree.top() else { break };
        if statement.execute(params![tree.id(), below.id(), &**layer])? == 0 {
            // It was there, and so is all that is below it.
            break;
        }
    }
    Ok(())
}

/// Removes the trees that no record has.
pub(super) fn sweep(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut below: HashMap<TreeId, TreeId> = HashMap::new();
    let mut all = transaction.prepare("SELECT id, below FROM trees")?;
    for row in all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        let (id, under) = row?;
        below.insert(id, under);
    }
    let mut alive: BTreeSet<TreeId> = BTreeSet::new();
    let mut records = transaction.prepare("SELECT trees FROM records")?;
    for tops in records.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
        for top in tops?.as_chunks().0 {
            let mut at = *top;
            while let Some(under) = below.get(&at)
                && alive.insert(at)
            {
                at = *under;
            }
        }
    }
    let mut remove = transaction.prepare("DELETE FROM trees WHERE id = ?1")?;
    let mut dead: Vec<&TreeId> = below.keys().filter(|id| !alive.contains(*id)).collect();
    dead.sort_unstable();
    for id in dead {
        remove.execute([id])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::records::{Made, Record};

    fn record(key: &str, tree: &Tree) -> Record {
        Record {
            key: Digest::of(key.as_bytes()),
            real_key: None,
            value: String::new(),
            trees: vec![tree.clone()],
            blobs: Vec::new(),
            created: 0,
            last_used: 0,
        }
    }

    #[test]
    fn beginnings_are_shared_and_kept_as_long_as_somebody_has_them() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let open = || Db::open(&dir.path().join("db")).expect("opens");
        let tree = |names: &str| Tree::of(names.split_whitespace().map(Arc::from));
        let records = [("1", "a"), ("2", "a b c"), ("3", "a b d"), ("4", "")];
        let records = records.map(|(key, names)| record(key, &tree(names)));
        let made = Made { records: records.to_vec(), ..Made::default() };
        open().put_made(&made, 0).expect("puts");
        let count = |db: &Db| -> i64 {
            let count = "SELECT count(*) FROM trees";
            db.connection().query_row(count, [], |row| row.get(0)).expect("counts")
        };
        let db = open();
        assert_eq!(count(&db), 4);
        let keys = records.each_ref().map(|it| it.key);
        assert_eq!(db.records(&keys).expect("reads"), records.map(Some));
        db.remove_records(&keys[2..3]).expect("removes");
        assert_eq!(count(&db), 3);
        db.remove_records(&keys[1..2]).expect("removes");
        assert_eq!(count(&db), 1);
        assert_eq!(open().records(&keys[..1]).expect("reads")[0], Some(record("1", &tree("a"))));
    }
}
