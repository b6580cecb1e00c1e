//! Notes about directories that a process has moved into its unfinished work for a while.
//!
//! A note lies in the process's own directory below `tmp/`. If the process is killed, whoever sweeps
//! that directory away reads the note first, looks for what was lent, by its inode, wherever it is
//! by then, and puts it back.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::digest::Hasher;
use crate::error::{Result, StoreError};
use crate::local::Store;
use crate::lock::KeyLock;

/// How the names of notes begin.
const PREFIX: &str = "lent-";

/// Deepest directory in which something lent is looked for.
const MAX_DEPTH: usize = 1000;

/// A directory that is out of its place, until it is given back. Dropping it gives it back.
#[derive(Debug)]
pub struct Lent {
    home: PathBuf,
    now: PathBuf,
    note: Option<PathBuf>,
    _lock: KeyLock,
}

impl Lent {
    /// Moves the directory `home` of the store to `now`, in this process's unfinished work, as soon
    /// as nobody else has it. A process that takes several does so in the order of their names, or
    /// two of them can wait for each other.
    ///
    /// # Errors
    ///
    /// If there is no such directory, or the disk refuses.
    pub fn take(store: &Store, home: &Path, now: &Path) -> Result<Self> {
        let lock = wait_for(store, home)?;
        let inode = inode(home).map_err(StoreError::io("look at", home))?;
        let note = store.temp().path(PREFIX.trim_end_matches('-'))?;
        let name = home.strip_prefix(store.root()).unwrap_or(home);
        let text = format!("{} {} {}\n", inode.0, inode.1, name.display());
        fs::write(&note, text).map_err(StoreError::io("write", &note))?;
        fs::rename(home, now).map_err(StoreError::io("move", home))?;
        let (home, now) = (home.to_owned(), now.to_owned());
        Ok(Self { home, now, note: Some(note), _lock: lock })
    }

    /// Where it is.
    pub fn now(&self) -> &Path {
        &self.now
    }

    /// Puts it back.
    ///
    /// # Errors
    ///
    /// If the disk refuses.
    pub fn give_back(mut self) -> Result<()> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<()> {
        let Some(note) = self.note.take() else { return Ok(()) };
        fs::rename(&self.now, &self.home).map_err(StoreError::io("move", &self.now))?;
        fs::remove_file(&note).map_err(StoreError::io("remove", &note))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Whoever wants to know has given it back.
        drop(self.put_back());
    }
}

/// Waits until nobody has the directory `home`, and keeps it that way. What a dead process had is
/// put back before.
///
/// # Errors
///
/// If the disk refuses.
pub fn wait_for(store: &Store, home: &Path) -> Result<KeyLock> {
    let mut hasher = Hasher::new();
    hasher.field(b"lent directory");
    hasher.field(home.as_os_str().as_encoded_bytes());
    let lock = store.lock_key(&hasher.finish())?;
    if !home.exists() {
        store.sweep()?;
    }
    Ok(lock)
}

/// Puts back what the dead process whose unfinished work is in `dir` had lent.
pub(crate) fn put_back(root: &Path, dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_note = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_note || !entry.file_type().is_ok_and(|it| it.is_file()) {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let mut words = text.trim_end().splitn(3, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (Some(device), Some(number)) = (number(), number()) else { continue };
        let Some(name) = words.next() else { continue };
        let home = root.join(name);
        // Never lent after all, or made anew by somebody who did not know.
        if home.exists() {
            continue;
        }
        if let Some(found) = find(dir, (device, number), 0) {
            // What cannot be moved is lost with the work around it, and a cache can be.
            drop(fs::rename(found, home));
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|it| (it.dev(), it.ino()))
}

/// The directory with this inode, below `dir`.
fn find(dir: &Path, wanted: (u64, u64), depth: usize) -> Option<PathBuf> {
    if depth > MAX_DEPTH {
        return None;
    }
    let dirs: Vec<PathBuf> = fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter(|it| it.file_type().is_ok_and(|it| it.is_dir()))
        .map(|it| it.path())
        .collect();
    let is_it = |path: &&PathBuf| inode(path).is_ok_and(|it| it == wanted);
    let here = dirs.iter().find(is_it).cloned();
    here.or_else(|| dirs.iter().find_map(|it| find(it, wanted, depth + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = Store::open(dir.path()).expect("opens");
        let home = store.layout().cache_mounts().join("key");
        fs::create_dir_all(&home).expect("creates");
        fs::write(home.join("file"), "cached").expect("writes");
        (dir, store, home)
    }

    #[test]
    fn what_is_lent_comes_back() {
        let (_dir, store, home) = store();
        let now = store.temp().path("tree").expect("a name");
        let lent = Lent::take(&store, &home, &now).expect("takes");
        assert!(!home.exists() && now.join("file").exists());
        lent.give_back().expect("gives back");
        assert!(home.join("file").exists());
        let names = fs::read_dir(store.temp().dir().expect("is there")).expect("reads").count();
        assert_eq!(names, 0, "the note is gone");
    }

    #[test]
    fn what_a_dead_process_had_comes_back_from_wherever_it_was_moved() {
        let (_dir, store, home) = store();
        let now = store.temp().path("tree").expect("a name");
        let mut lent = Lent::take(&store, &home, &now).expect("takes");
        let deep = store.temp().dir().expect("is there").join("a/b");
        fs::create_dir_all(&deep).expect("creates");
        fs::rename(&now, deep.join("moved")).expect("moves");
        lent.note = None;
        drop(lent);
        store.temp().abandon();
        drop(wait_for(&store, &home).expect("waits"));
        assert_eq!(fs::read_to_string(home.join("file")).expect("reads"), "cached");
    }

    #[test]
    fn what_was_made_anew_stays() {
        let (_dir, store, home) = store();
        let now = store.temp().path("tree").expect("a name");
        let mut lent = Lent::take(&store, &home, &now).expect("takes");
        fs::create_dir(&home).expect("creates");
        lent.note = None;
        drop(lent);
        store.temp().abandon();
        store.sweep().expect("sweeps");
        assert_eq!(fs::read_dir(&home).expect("reads").count(), 0);
    }
}
