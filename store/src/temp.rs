//! Names for unfinished files of this process.
//!
//! The directory that holds them is made when the first name is asked for, so that a process that
//! writes nothing leaves no trace and pays nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::layout::Layout;
use crate::lock::Scratch;

/// Gives out names below this process's directory in `tmp/`, each once.
#[derive(Debug)]
pub struct Temp {
    layout: Layout,
    scratch: Mutex<Option<Scratch>>,
    next: AtomicU64,
}

impl Temp {
    /// Nothing is made yet.
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, scratch: Mutex::new(None), next: AtomicU64::new(0) }
    }

    /// This process's directory itself, for those who find names on their own.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn dir(&self) -> Result<PathBuf> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = match &mut *scratch {
            Some(scratch) => scratch,
            none => none.insert(Scratch::create(&self.layout)?),
        };
        Ok(scratch.dir().to_owned())
    }

    /// A path at which nothing is yet, on the file system of the store. `what` becomes part of the
    /// name, for whoever looks at what a dead process has left.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub fn path(&self, what: &str) -> Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(self.dir()?.join(format!("{what}-{number}")))
    }

    /// Removes all of it now, and not when the last holder lets go: a thread that is still busy when
    /// the process ends never does.
    pub fn clear(&self) {
        let scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(scratch);
    }

    /// Leaves everything as the death of the process would.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        if let Some(scratch) = self.scratch.lock().expect("one thread").take() {
            scratch.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleared_while_others_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path()).unwrap();
        let temp = std::sync::Arc::new(Temp::new(layout.clone()));
        let other = std::sync::Arc::clone(&temp);
        std::fs::write(other.path("file").unwrap(), "x").unwrap();
        temp.clear();
        assert_eq!(std::fs::read_dir(layout.tmp()).unwrap().count(), 0);
        assert!(other.dir().unwrap().exists());
    }
}
