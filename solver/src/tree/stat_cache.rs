//! Digests of files that did not change since they were last read.
//!
//! One flat file for each directory that is a context: read at once, written at once, and only if
//! something changed. A file counts as unchanged if device, inode, size and both times are the
//! same. A file that was changed just before it was read is not remembered: a second change
//! within the clock's step would look the same.
//!
//! ```text
//! "rbuild stat cache 1\n", then for each file, sorted by path:
//! u32 length of path, path, u64 dev, u64 ino, u64 size, i128 mtime, i128 ctime, 32 bytes of digest
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_store::digest::{Digest, Hasher};

use super::context::FileId;

const MAGIC: &[u8] = b"rbuild stat cache 1\n";

/// Largest cache file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// A file changed less than this before it was read is not remembered, in nanoseconds. Two
/// seconds is the coarsest step of the file systems in use (FAT); network file systems have
/// clocks of their own.
const SETTLED: i128 = 2_000_000_000;

/// Bytes read from a file at once.
const CHUNK: usize = 128 * 1024;

/// The digests of one directory's files.
#[derive(Debug)]
pub struct StatCache {
    file: PathBuf,
    known: BTreeMap<Vec<u8>, (FileId, Digest)>,
    changed: bool,
}

impl StatCache {
    /// Reads the cache of `context` below `directory`. One that is missing or damaged is empty.
    pub fn open(directory: &Path, context: &Path) -> Self {
        let name = Digest::of(context.as_os_str().as_encoded_bytes()).hex();
        let file = directory.join(name);
        let known = read(&file).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default();
        Self { file, known, changed: false }
    }

    /// The digest of a file that did not change.
    pub fn get(&self, path: &[u8], id: &FileId) -> Option<Digest> {
        self.known.get(path).filter(|(known, _)| known == id).map(|(_, digest)| *digest)
    }

    /// Remembers a digest that [`digest_file`] gave, unless the file changed just before.
    pub fn put(&mut self, path: &[u8], id: FileId, hashed: &Hashed) {
        if hashed.settled && hashed.id == id {
            self.known.insert(path.to_vec(), (id, hashed.digest));
            self.changed = true;
        }
    }

    /// Writes the cache, if it changed.
    ///
    /// # Errors
    ///
    /// If the disk refuses; the old cache stays then.
    pub fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let directory = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut bytes = MAGIC.to_vec();
        for (path, (id, digest)) in &self.known {
            let FileId { dev, ino, size, mtime, ctime } = id;
            bytes.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(path);
            for number in [dev, ino, size] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            for time in [mtime, ctime] {
                bytes.extend_from_slice(&time.to_le_bytes());
            }
            bytes.extend_from_slice(digest.as_bytes());
        }
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        io::Write::write_all(&mut temporary, &bytes)?;
        temporary.persist(&self.file).map_err(|error| error.error)?;
        self.changed = false;
        Ok(())
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, (FileId, Digest)>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(*take(&mut rest)?) as usize;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let id = FileId {
            dev: u64::from_le_bytes(*take(&mut rest)?),
            ino: u64::from_le_bytes(*take(&mut rest)?),
            size: u64::from_le_bytes(*take(&mut rest)?),
            mtime: i128::from_le_bytes(*take(&mut rest)?),
            ctime: i128::from_le_bytes(*take(&mut rest)?),
        };
        entries.push((path.to_vec(), (id, Digest::from_bytes(*take(&mut rest)?))));
    }
    // Sorted input makes this a bulk load.
    Some(entries.into_iter().collect())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

/// A file that was read.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The version that was read.
    pub id: FileId,
    /// Whether it was unchanged for long enough that a change would show.
    pub settled: bool,
}

/// Reads a file and hashes it.
///
/// # Errors
///
/// If it cannot be read.
#[expect(
    clippy::disallowed_methods,
    reason = "compares the age of a file with now; enters no result"
)]
pub fn digest_file(file: &File) -> io::Result<Hashed> {
    let before = identify(file)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos());
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut reader = file;
    loop {
        let count = reader.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
    }
    let age = i128::try_from(now).unwrap_or(i128::MAX) - before.ctime.max(before.mtime);
    let settled = age > SETTLED && identify(file)? == before;
    Ok(Hashed { digest: hasher.finish(), id: before, settled })
}

fn identify(file: &File) -> io::Result<FileId> {
    use rustix::fs::{AtFlags, StatxFlags};
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(super::context::id(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let id = FileId { dev: 1, ino: 2, size: 3, mtime: -4, ctime: 5 };
        let hashed = Hashed { digest: Digest::of(b"x"), id, settled: true };
        let mut cache = StatCache::open(directory.path(), Path::new("/context"));
        cache.put(b"a/b", id, &hashed);
        cache.put(b"fresh", id, &Hashed { settled: false, ..hashed });
        cache.save().unwrap();
        let again = StatCache::open(directory.path(), Path::new("/context"));
        assert_eq!(again.get(b"a/b", &id), Some(hashed.digest));
        assert_eq!(again.get(b"a/b", &FileId { mtime: 0, ..id }), None);
        assert_eq!(again.get(b"fresh", &id), None);
    }

    #[test]
    fn a_damaged_cache_is_empty() {
        assert_eq!(parse(b"rbuild stat cache 1\n\xff\xff\xff\xff").map(|it| it.len()), None);
        assert_eq!(parse(b"other"), None);
        assert_eq!(parse(MAGIC).map(|it| it.len()), Some(0));
    }
}
