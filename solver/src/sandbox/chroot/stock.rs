//! `/dev`, `/proc`, `/sys` and generated files, kept for the next step if a step has left them as they
//! were: most do, and a file system may be slow to make files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::plan::Nodes;
use super::system;

/// What is kept, of all steps of a worker.
#[derive(Debug)]
pub(in crate::sandbox) struct Stock {
    /// A directory of the worker's own, on the file system of the trees.
    dir: PathBuf,
    next: AtomicU64,
    kept: Mutex<Vec<Set>>,
}

/// What one step has at a time.
#[derive(Debug)]
pub(super) struct Set {
    dir: PathBuf,
    /// How devices are had.
    pub(super) nodes: Nodes,
    /// What was copied to [`Set::files`].
    sources: [PathBuf; 2],
    below: BTreeMap<PathBuf, Inode>,
}

/// All of an inode that tells of a change: nobody can set the time of the last one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Inode {
    number: u64,
    links: u64,
    changed: (i64, i64),
}

/// Directories in a set, by where a step has them.
const DIRECTORIES: [(&str, &str); 3] = [("/proc", "proc"), ("/dev", "dev"), ("/sys", "sys")];

impl Stock {
    /// Keeps what it keeps in `dir`, which is made when there is something.
    pub(in crate::sandbox) fn new(dir: PathBuf) -> Self {
        Self { dir, next: AtomicU64::new(0), kept: Mutex::default() }
    }

    /// What a step needs that has copies of these files.
    pub(super) fn take(&self, sources: [&Path; 2]) -> io::Result<Set> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.iter().position(|it| it.sources == sources) {
            return Ok(kept.swap_remove(index));
        }
        drop(kept);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(number.to_string());
        fs::create_dir_all(&dir)?;
        system::proc(&dir.join("proc"))?;
        let nodes = system::dev(&dir.join("dev"))?;
        system::sys(&dir.join("sys"))?;
        let sources = sources.map(Path::to_owned);
        let set = Set { dir, nodes, sources, below: BTreeMap::new() };
        for (from, (_, to)) in set.sources.iter().zip(set.files()) {
            fs::copy(from, to)?;
        }
        Ok(Set { below: set.inodes()?, ..set })
    }

    /// Keeps what a step has had, if it is as it was. `untouched` is whether that holds for what was
    /// put into the tree itself; what is in that is looked at.
    pub(super) fn give_back(&self, set: Set, untouched: bool) -> io::Result<()> {
        if untouched && set.inodes().is_ok_and(|now| now == set.below) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(set);
            return Ok(());
        }
        fs::remove_dir_all(&set.dir)
    }
}

impl Set {
    /// Where all of it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Directories, with the places where a step has them.
    pub(super) fn directories(&self) -> [(&'static str, PathBuf); 3] {
        DIRECTORIES.map(|(at, name)| (at, self.dir.join(name)))
    }

    /// Files, with the places where a step has them.
    pub(super) fn files(&self) -> [(&'static str, PathBuf); 2] {
        ["/etc/resolv.conf", "/etc/hosts"]
            .map(|at| (at, self.dir.join(at.trim_start_matches("/etc/"))))
    }

    fn inodes(&self) -> io::Result<BTreeMap<PathBuf, Inode>> {
        let mut found = BTreeMap::new();
        for (_, top) in self.directories() {
            collect(&top, &mut found)?;
        }
        Ok(found)
    }
}

fn collect(dir: &Path, found: &mut BTreeMap<PathBuf, Inode>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let it = fs::symlink_metadata(&path)?;
        let changed = (it.ctime(), it.ctime_nsec());
        if it.is_dir() {
            collect(&path, found)?;
        }
        found.insert(path, Inode { number: it.ino(), links: it.nlink(), changed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        let stock = Stock::new(dir.path().join("stock"));
        let take = || stock.take([&one, &two]).unwrap();
        let set = take();
        let first = set.dir.clone();
        assert_eq!(fs::read_to_string(&set.files()[1].1).unwrap(), "2");
        stock.give_back(set, true).unwrap();

        let set = take();
        assert_eq!(set.dir, first, "it is there again");
        fs::write(first.join("dev/shm/x"), "").unwrap();
        fs::remove_file(first.join("dev/shm/x")).unwrap();
        stock.give_back(set, true).unwrap();
        assert!(!first.exists());

        let set = take();
        let second = set.dir.clone();
        stock.give_back(set, false).unwrap();
        assert!(!second.exists(), "something is known to have changed");

        let set = take();
        fs::hard_link(set.dir.join("proc/self/mounts"), dir.path().join("link")).unwrap();
        stock.give_back(set, true).unwrap();
        let set = take();
        stock.give_back(set, true).unwrap();
        let other = stock.take([&two, &two]).unwrap();
        assert_ne!(other.dir, first, "with other files");
    }
}
