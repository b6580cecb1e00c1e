//! The paths that steps name, followed through symbolic links: what of a context they need.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_store::pattern::{Glob, clean};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{MAX_PATH, WalkError, io_error, names};
use crate::tree::listing::join;

/// Most symbolic links that one path to follow may lead through.
const MAX_LINKS: usize = 255;

/// How much of a path is wanted.
pub(super) enum Cover {
    /// It and all that is in it.
    Whole,
    /// Something in it.
    Above,
    /// Nothing.
    No,
}

/// The paths that a set of paths to follow leads to.
pub(super) struct Scope {
    whole: BTreeSet<Vec<u8>>,
    above: BTreeSet<Vec<u8>>,
}

impl Scope {
    pub(super) fn follow(root: &OwnedFd, paths: &[String]) -> Result<Self, WalkError> {
        let mut scope = Self { whole: BTreeSet::new(), above: BTreeSet::new() };
        for path in paths {
            let cleaned = clean(path);
            let parts: Vec<&[u8]> =
                cleaned.split('/').filter(|it| !it.is_empty()).map(str::as_bytes).collect();
            scope.step(root, &[], &parts, &mut 0)?;
        }
        Ok(scope)
    }

    pub(super) fn covers(&self, path: &[u8]) -> Cover {
        // A link that leads to the root brings everything along.
        if self.whole.contains(path) || self.whole.contains(&b""[..]) {
            Cover::Whole
        } else if self.above.contains(path) {
            Cover::Above
        } else {
            Cover::No
        }
    }

    /// Follows `rest` from the directory `base`, whose path has no symbolic link.
    fn step(
        &mut self,
        root: &OwnedFd,
        base: &[u8],
        rest: &[&[u8]],
        links: &mut usize,
    ) -> Result<(), WalkError> {
        let Some((first, rest)) = rest.split_first() else {
            return self.add(base);
        };
        match *first {
            b"." => return self.step(root, base, rest, links),
            b".." => {
                let up =
                    base.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |at| &base[..at]);
                return self.step(root, up, rest, links);
            }
            name if is_pattern(name) => {
                let Ok(directory) = open_beneath(root, base) else { return Ok(()) };
                let text = String::from_utf8_lossy(name).into_owned();
                let glob = Glob::new(&text)?;
                for found in names(directory.as_fd()).map_err(|error| io_error(base, error))? {
                    if glob.matches(found.to_bytes()) {
                        self.name(root, base, found.to_bytes(), rest, links)?;
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        self.name(root, base, first, rest, links)
    }

    fn name(
        &mut self,
        root: &OwnedFd,
        base: &[u8],
        name: &[u8],
        rest: &[&[u8]],
        links: &mut usize,
    ) -> Result<(), WalkError> {
        let path = join(base, name);
        let Ok(directory) = open_beneath(root, base) else { return Ok(()) };
        let Ok(stat) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return self.step(root, &path, rest, links);
        }
        self.add(&path)?;
        *links += 1;
        if *links > MAX_LINKS {
            return Ok(());
        }
        let Ok(target) = rustix::fs::readlinkat(&directory, name, Vec::new()) else {
            return Ok(());
        };
        let target = target.into_bytes();
        let base = if target.starts_with(b"/") { &b""[..] } else { base };
        let parts: Vec<&[u8]> = target
            .split(|&byte| byte == b'/')
            .filter(|it| !it.is_empty())
            .chain(rest.iter().copied())
            .collect();
        self.step(root, base, &parts, links)
    }

    fn add(&mut self, path: &[u8]) -> Result<(), WalkError> {
        if path.len() > MAX_PATH {
            return Err(WalkError::TooDeep(String::from_utf8_lossy(path).into_owned()));
        }
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.above.insert(path[..at].to_vec());
        }
        self.whole.insert(path.to_vec());
        Ok(())
    }
}

fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[\\".contains(byte))
}

/// Opens a directory below `root`, through no symbolic link.
fn open_beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for name in path.split(|&byte| byte == b'/').filter(|it| !it.is_empty()) {
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
    }
    Ok(directory)
}
