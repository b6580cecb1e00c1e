//! Tags, and what image names stood for.

use rusqlite::{OptionalExtension as _, Row, params};

use super::Db;
use super::cache::{bytes, column, digest};
use crate::descriptor::Descriptor;
use crate::digest::{BlobId, Digest};
use crate::error::Result;
use crate::records::{ResolvedRow, Tag};

impl Db {
    /// All tags, sorted by name.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        self.read("read", |connection| {
            connection
                .prepare("SELECT name, media_type, digest, size, updated FROM tags ORDER BY name")?
                .query_map([], tag)?
                .collect()
        })
    }

    /// The image that `name` stands for.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn tag(&self, name: &str) -> Result<Option<Tag>> {
        self.read("read", |connection| {
            connection
                .prepare(
                    "SELECT name, media_type, digest, size, updated FROM tags WHERE name = ?1",
                )?
                .query_row([name], tag)
                .optional()
        })
    }

    /// Lets `names` stand for `target` from now on. Writes nothing where they already do.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn put_tags(&self, names: &[&str], target: &Descriptor, now: i64) -> Result<()> {
        let mut changed = Vec::new();
        for name in names {
            if self.tag(name)?.is_none_or(|tag| !tag.target.same_content(target)) {
                changed.push(name);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        self.write("write", |transaction| {
            let mut statement = transaction.prepare(
                "INSERT OR REPLACE INTO tags (name, media_type, digest, size, updated) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for name in changed {
                statement.execute(params![
                    name,
                    target.media_type,
                    target.digest.0.as_bytes(),
                    column(target.size),
                    now
                ])?;
            }
            Ok(())
        })
    }

    /// Removes a tag; tells whether it was there.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn remove_tag(&self, name: &str) -> Result<bool> {
        self.write("write", |transaction| {
            Ok(transaction.execute("DELETE FROM tags WHERE name = ?1", [name])? > 0)
        })
    }

    /// What `reference` was last pinned to for `platform` (in text form).
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn resolved(&self, reference: &str, platform: &str) -> Result<Option<ResolvedRow>> {
        self.read("read", |connection| {
            connection
                .prepare("SELECT digest, at FROM resolved WHERE reference = ?1 AND platform = ?2")?
                .query_row([reference, platform], |row| {
                    Ok(ResolvedRow { digest: digest(row, 0)?, at: row.get(1)? })
                })
                .optional()
        })
    }

    /// Notes what `reference` stands for.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn put_resolved(
        &self,
        reference: &str,
        platform: &str,
        digest: &Digest,
        now: i64,
    ) -> Result<()> {
        self.write("write", |transaction| {
            transaction
                .prepare(
                    "INSERT OR REPLACE INTO resolved (reference, platform, digest, at) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![reference, platform, digest.as_bytes(), now])
                .map(drop)
        })
    }

    /// Forgets what was noted about image names before `time`.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn remove_resolved_before(&self, time: i64) -> Result<()> {
        self.write("write", |transaction| {
            transaction.execute("DELETE FROM resolved WHERE at < ?1", [time]).map(drop)
        })
    }
}

fn tag(row: &Row<'_>) -> rusqlite::Result<Tag> {
    Ok(Tag {
        name: row.get(0)?,
        target: Descriptor::new(row.get::<_, String>(1)?, BlobId(digest(row, 2)?), bytes(row, 3)?),
        updated: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_and_go() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(&dir.path().join("db")).expect("opens");
        let target = Descriptor::new("application/x", BlobId(Digest::of(b"m")), 1);
        db.put_tags(&["b:1", "a:1"], &target, 3).expect("puts");
        db.put_tags(&["a:1"], &target, 4).expect("changes nothing");
        let tag = |name: &str| Tag { name: name.to_owned(), target: target.clone(), updated: 3 };
        assert_eq!(db.tags().expect("lists"), [tag("a:1"), tag("b:1")]);
        assert!(db.remove_tag("a:1").expect("removes"));
        assert!(!db.remove_tag("a:1").expect("removes"));
        assert_eq!(db.tag("a:1").expect("asks"), None);
        assert_eq!(db.tag("b:1").expect("asks"), Some(tag("b:1")));
    }

    #[test]
    fn names_are_pinned_per_platform() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let db = Db::open(&dir.path().join("db")).expect("opens");
        let digest = Digest::of(b"m");
        db.put_resolved("debian:13", "linux/amd64", &digest, 9).expect("puts");
        let row = db.resolved("debian:13", "linux/amd64").expect("asks");
        assert_eq!(row, Some(ResolvedRow { digest, at: 9 }));
        assert_eq!(db.resolved("debian:13", "linux/arm64").expect("asks"), None);
        db.remove_resolved_before(10).expect("removes");
        assert_eq!(db.resolved("debian:13", "linux/amd64").expect("asks"), None);
    }
}
