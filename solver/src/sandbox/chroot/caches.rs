//! Caches of steps that run at the same time.
//!
//! A directory lies in one tree only. The first step that mounts a cache has the directory itself; who
//! mounts it while that one runs has directories of its own over the same files ([`super::links`]), and
//! what it did is brought back when it ends. So nobody waits for a step, and no two of them for each
//! other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_store::error::StoreError;
use rbuild_store::lent::Lent;
use rbuild_store::local::Store;
use rustix::fs::{Mode, OFlags};

use super::links::{self, Names};

/// Why a cache cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::sandbox) enum CacheError {
    /// It cannot be taken from its place, or put back there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Several steps cannot have it.
    #[error("cannot share the cache `{home}` with a step that runs")]
    Share { home: PathBuf, source: io::Error },
}

/// The caches that steps of this worker have at the moment, by their places in the store.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Caches(Mutex<BTreeMap<PathBuf, Arc<Mutex<State>>>>);

/// Where a cache is.
#[derive(Debug, Default)]
enum State {
    /// In its place, until whoever looks at this takes it.
    #[default]
    New,
    /// In the tree of a step.
    Out(Arc<OwnedFd>),
    /// In its place; nobody who comes now looks at this any more.
    Back,
}

/// A cache in the hands of one step. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Loan<'a> {
    caches: &'a Caches,
    home: PathBuf,
    now: PathBuf,
    kind: Option<Kind>,
}

#[derive(Debug)]
enum Kind {
    /// The directory itself.
    Itself(Lent, Arc<Mutex<State>>),
    /// Directories over the files of this one, which had these names.
    Second(Arc<OwnedFd>, Names),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Caches {
    /// Whether a step of this worker has the cache whose place is `home`.
    pub(in crate::sandbox) fn has(&self, home: &Path) -> bool {
        lock(&self.0).contains_key(home)
    }

    /// Takes the cache `home` to `now`, where nothing is. Waits for other processes that have it, not
    /// for steps of this one; who takes several does so in the order of their names.
    pub(super) fn take(
        &self,
        store: &Store,
        home: &Path,
        now: &Path,
    ) -> Result<Loan<'_>, CacheError> {
        let loan = |kind| {
            let (home, now) = (home.to_owned(), now.to_owned());
            Loan { caches: self, home, now, kind: Some(kind) }
        };
        loop {
            let entry = Arc::clone(lock(&self.0).entry(home.to_owned()).or_default());
            let mut state = lock(&entry);
            match &*state {
                State::Back => {}
                State::Out(directory) => {
                    let share = |source| CacheError::Share { home: home.to_owned(), source };
                    let names = second(directory, now).map_err(share)?;
                    return Ok(loan(Kind::Second(Arc::clone(directory), names)));
                }
                State::New => match Self::take_itself(store, home, now) {
                    Ok((lent, directory)) => {
                        *state = State::Out(Arc::new(directory));
                        drop(state);
                        return Ok(loan(Kind::Itself(lent, entry)));
                    }
                    Err(error) => {
                        *state = State::Back;
                        lock(&self.0).remove(home);
                        return Err(error);
                    }
                },
            }
        }
    }

    fn take_itself(store: &Store, home: &Path, now: &Path) -> Result<(Lent, OwnedFd), CacheError> {
        let lent = Lent::take(store, home, now)?;
        let directory =
            open(now).map_err(|source| CacheError::Share { home: home.to_owned(), source })?;
        Ok((lent, directory))
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn second(directory: &OwnedFd, now: &Path) -> io::Result<Names> {
    fs::create_dir(now)?;
    links::link(directory, &open(now)?)
}

impl Loan<'_> {
    /// Where it is.
    pub(super) fn now(&self) -> &Path {
        &self.now
    }

    /// Gives it back.
    pub(super) fn give_back(mut self) -> Result<(), CacheError> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<(), CacheError> {
        match self.kind.take() {
            None => Ok(()),
            Some(Kind::Itself(lent, entry)) => {
                let mut state = lock(&entry);
                let result = lent.give_back();
                *state = State::Back;
                lock(&self.caches.0).remove(&self.home);
                Ok(result?)
            }
            Some(Kind::Second(directory, names)) => open(&self.now)
                .and_then(|own| links::bring_back(&own, &names, &directory))
                .map_err(|source| CacheError::Share { home: self.home.clone(), source }),
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        // Whoever wants to know has given it back.
        drop(self.put_back());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let home = store.layout().cache_mounts().join("key");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("file"), "cached").unwrap();
        (dir, store, home)
    }

    #[test]
    fn several_have_it_and_none_waits() {
        let (_dir, store, home) = store();
        let caches = Caches::default();
        let place = || store.temp().path("cache").unwrap();
        let first = caches.take(&store, &home, &place()).unwrap();
        assert!(caches.has(&home) && !home.exists());
        let second = caches.take(&store, &home, &place()).unwrap();
        let third = caches.take(&store, &home, &place()).unwrap();
        for (loan, name) in [(&first, "1"), (&second, "2"), (&third, "3")] {
            assert_eq!(fs::read_to_string(loan.now().join("file")).unwrap(), "cached");
            fs::write(loan.now().join(name), name).unwrap();
        }
        second.give_back().unwrap();
        assert_eq!(fs::read_to_string(first.now().join("2")).unwrap(), "2");
        first.give_back().unwrap();
        assert!(!caches.has(&home));
        // The one that has it now does not know of the third, nor need it.
        let fourth = caches.take(&store, &home, &place()).unwrap();
        third.give_back().unwrap();
        fourth.give_back().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&home).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["1", "2", "3", "file"]);
    }

    #[test]
    fn what_cannot_be_taken_is_nobodys() {
        let (_dir, store, home) = store();
        let caches = Caches::default();
        let missing = home.with_file_name("missing");
        assert!(caches.take(&store, &missing, &store.temp().path("a").unwrap()).is_err());
        assert!(!caches.has(&missing));
        drop(caches.take(&store, &home, &store.temp().path("b").unwrap()).unwrap());
        assert!(home.join("file").exists() && !caches.has(&home));
    }
}
