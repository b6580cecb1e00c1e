//! Digests of files that did not change since they were last read.
//!
//! One flat file for each directory that is a context: read when the first digest is asked for,
//! written only if something changed. A file counts as unchanged if device, inode, size and both
//! times are the same. A file that was changed just before it was read is not remembered: a second
//! change within the clock's step would look the same.
//!
//! ```text
//! "rbuild stat cache 2\n", then for each file, sorted: 16 bytes of version, 32 bytes of digest
//! ```
//!
//! There are no paths: 48 bytes a file, on disk and in memory.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_store::digest::{Digest, Hasher};

use super::context::FileId;

const MAGIC: &[u8] = b"rbuild stat cache 2\n";

/// Largest cache file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// A file changed less than this before it was read is not remembered, in nanoseconds. Two
/// seconds is the coarsest step of the file systems in use (FAT); network file systems have
/// clocks of their own.
const SETTLED: i128 = 2_000_000_000;

/// Bytes read from a file at once.
const CHUNK: usize = 128 * 1024;

/// Records that this build did not ask for are kept up to this many, or as many as it did ask for.
const MAX_UNUSED: usize = 1000;

/// A version of a file's content: a digest of what [`FileId`] has, in 16 bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version([u8; 16]);

impl FileId {
    /// This version in short.
    pub fn version(&self) -> Version {
        let Self { dev, ino, size, mtime, ctime } = self;
        let mut hasher = Hasher::new();
        for number in [dev, ino, size] {
            hasher.number(*number);
        }
        // A block of SHA-256 holds 55 bytes: of times in nanoseconds 12 bytes are enough for 10^12 years.
        for time in [mtime, ctime] {
            hasher.update(&time.to_le_bytes()[..12]);
        }
        let digest = hasher.finish();
        Version(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
    }
}

/// A version and the digest of its content.
type Record = [u8; 48];

/// Records of one directory's files, in memory.
#[derive(Debug, Default)]
struct Loaded {
    /// Those of earlier builds, sorted, as they are in the file.
    old: Vec<u8>,
    /// Which of them were asked for.
    used: Vec<bool>,
    /// Those of this build: the first `sorted` ones are.
    new: Vec<Record>,
    sorted: usize,
}

/// The digests of one directory's files.
#[derive(Debug)]
pub struct StatCache {
    file: PathBuf,
    loaded: Option<Loaded>,
}

impl StatCache {
    /// The cache of `context` below `directory`. One that is missing or damaged is empty.
    pub fn open(directory: &Path, context: &Path) -> Self {
        let name = Digest::of(context.as_os_str().as_encoded_bytes()).hex();
        Self { file: directory.join(name), loaded: None }
    }

    fn loaded(&mut self) -> &mut Loaded {
        self.loaded.get_or_insert_with(|| {
            let old = read(&self.file).unwrap_or_default();
            Loaded { used: vec![false; old.len() / size_of::<Record>()], old, ..Loaded::default() }
        })
    }

    /// The digest of a file that did not change.
    pub fn get(&mut self, version: &Version) -> Option<Digest> {
        let loaded = self.loaded();
        if let Some(at) = find(records(&loaded.old), version) {
            loaded.used[at] = true;
            return Some(digest(&records(&loaded.old)[at]));
        }
        loaded.sort();
        find(&loaded.new, version).map(|at| digest(&loaded.new[at]))
    }

    /// Remembers the digest of a file that was read, unless the file changed just before.
    pub fn put(&mut self, version: Version, hashed: &Hashed) {
        if hashed.settled && hashed.version == version {
            let mut record = [0; size_of::<Record>()];
            record[..16].copy_from_slice(&version.0);
            record[16..].copy_from_slice(hashed.digest.as_bytes());
            self.loaded().new.push(record);
        }
    }

    /// Writes the cache, if it changed, and lets go of the memory: who asks again reads it again.
    ///
    /// # Errors
    ///
    /// If the disk refuses; the old cache stays then.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(mut loaded) = self.loaded.take().filter(|it| !it.new.is_empty()) else {
            return Ok(());
        };
        loaded.sort();
        let directory = self.file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut out = BufWriter::with_capacity(CHUNK, tempfile::NamedTempFile::new_in(directory)?);
        out.write_all(MAGIC)?;
        let mut last = None;
        for record in loaded.kept() {
            if last != Some(version(record)) {
                out.write_all(record)?;
            }
            last = Some(version(record));
        }
        let temporary = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        temporary.persist(&self.file).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Loaded {
    #[expect(
        clippy::stable_sort_primitive,
        reason = "it merges what is sorted with a few more, instead of sorting anew"
    )]
    fn sort(&mut self) {
        if self.sorted < self.new.len() {
            self.new.sort();
            self.sorted = self.new.len();
        }
    }

    /// What is written, in order: versions that no file has any more are dropped in the end.
    fn kept(&self) -> impl Iterator<Item = &Record> {
        let used = self.used.iter().filter(|used| **used).count();
        let all = self.used.len() - used <= MAX_UNUSED.max(used + self.new.len());
        let old = records(&self.old).iter().zip(&self.used);
        let mut old = old.filter(move |(_, used)| all || **used).map(|(it, _)| it).peekable();
        let mut new = self.new.iter().peekable();
        std::iter::from_fn(move || match (old.peek(), new.peek()) {
            (Some(left), Some(right)) if left < right => old.next(),
            (Some(_), None) => old.next(),
            (_, Some(_)) => new.next(),
            (None, None) => None,
        })
    }
}

fn records(bytes: &[u8]) -> &[Record] {
    bytes.as_chunks().0
}

fn version(record: &Record) -> &[u8] {
    &record[..16]
}

fn digest(record: &Record) -> Digest {
    Digest::from_bytes(*record.last_chunk().expect("a record ends with a digest"))
}

fn find(records: &[Record], wanted: &Version) -> Option<usize> {
    records.binary_search_by(|record| version(record).cmp(&wanted.0)).ok()
}

/// The records of a file, if they are whole and sorted.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    let mut bytes = Vec::new();
    if magic == MAGIC && length <= MAX_FILE {
        bytes.reserve_exact(usize::try_from(length).unwrap_or(0));
        file.read_to_end(&mut bytes)?;
    }
    let whole = bytes.len().is_multiple_of(size_of::<Record>())
        && records(&bytes).is_sorted_by(|left, right| version(left) < version(right));
    Ok(if whole { bytes } else { Vec::new() })
}

/// A file that was read.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The version that was read.
    pub version: Version,
    /// Whether it was unchanged for long enough that a change would show.
    pub settled: bool,
}

/// Reads files and hashes them.
#[derive(Debug)]
pub struct FileHasher {
    buffer: Vec<u8>,
}

impl Default for FileHasher {
    fn default() -> Self {
        Self { buffer: vec![0; CHUNK] }
    }
}

impl FileHasher {
    /// Reads a file and hashes it.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    #[expect(
        clippy::disallowed_methods,
        reason = "compares the age of a file with now; enters no result"
    )]
    pub fn hash(&mut self, mut file: &File) -> io::Result<Hashed> {
        let before = identify(file)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos());
        let mut hasher = Hasher::new();
        loop {
            let count = file.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&self.buffer[..count]);
        }
        let age = i128::try_from(now).unwrap_or(i128::MAX) - before.ctime.max(before.mtime);
        let settled = age > SETTLED && identify(file)? == before;
        Ok(Hashed { digest: hasher.finish(), version: before.version(), settled })
    }
}

fn identify(file: &File) -> io::Result<FileId> {
    use rustix::fs::{AtFlags, StatxFlags};
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(super::context::id(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ino: u64) -> FileId {
        FileId { dev: 1, ino, size: 3, mtime: -4, ctime: 5 }
    }

    fn hashed(ino: u64) -> Hashed {
        let digest = Digest::of(&ino.to_le_bytes());
        Hashed { digest, version: id(ino).version(), settled: true }
    }

    #[test]
    fn versions_differ_in_everything() {
        let one = id(2);
        let others = [
            FileId { dev: 0, ..one },
            FileId { ino: 0, ..one },
            FileId { size: 0, ..one },
            FileId { mtime: 0, ..one },
            FileId { ctime: 0, ..one },
        ];
        assert_eq!(one.version(), id(2).version());
        assert!(others.iter().all(|other| other.version() != one.version()));
    }

    #[test]
    fn remembers_what_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let open = || StatCache::open(directory.path(), Path::new("/context"));
        let mut cache = open();
        cache.put(id(1).version(), &hashed(1));
        cache.put(id(2).version(), &Hashed { settled: false, ..hashed(2) });
        cache.put(id(3).version(), &hashed(4));
        assert_eq!(cache.get(&id(1).version()), Some(hashed(1).digest));
        cache.save().unwrap();
        for mut again in [cache, open()] {
            let found = [1, 2, 3, 4].map(|ino| again.get(&id(ino).version()).is_some());
            assert_eq!(found, [true, false, false, false]);
        }
    }

    #[test]
    fn versions_that_are_gone_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let open = || StatCache::open(directory.path(), Path::new("/context"));
        let mut cache = open();
        (0..2000).for_each(|ino| cache.put(id(ino).version(), &hashed(ino)));
        cache.save().unwrap();
        let mut cache = open();
        assert!((0..999).all(|ino| cache.get(&id(ino).version()).is_some()));
        cache.put(id(5000).version(), &hashed(5000));
        cache.save().unwrap();
        let mut cache = open();
        assert!(cache.get(&id(5000).version()).is_some());
        assert!((0..999).all(|ino| cache.get(&id(ino).version()).is_some()));
        assert!((999..2000).all(|ino| cache.get(&id(ino).version()).is_none()));
    }

    #[test]
    fn a_damaged_cache_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cache");
        let length = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            read(&file).map_or(0, |it| it.len())
        };
        let with = |records: &[u8]| [MAGIC, records].concat();
        assert_eq!(length(&with(&[7; 48])), 48);
        assert_eq!(length(&with(&[7; 47])), 0);
        assert_eq!(length(&with(&[7; 96])), 0, "the same version twice");
        assert_eq!(length(b"other"), 0);
        assert_eq!(length(&with(b"")), 0);
    }
}
