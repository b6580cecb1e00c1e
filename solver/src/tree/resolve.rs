//! Symbolic links, followed within a tree.

use rbuild_store::entry::Kind;

/// Links followed for one path before giving up; BuildKit's number.
const MAX_LINKS: usize = 255;

/// What decides how a path goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stat {
    /// A directory.
    Dir,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// Anything else.
    Other,
}

impl Stat {
    /// The stat of a kind of entry.
    pub fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Dir { .. } => Self::Dir,
            Kind::Symlink { target } => Self::Symlink(target.clone()),
            Kind::File { .. }
            | Kind::Hardlink { .. }
            | Kind::Char { .. }
            | Kind::Block { .. }
            | Kind::Fifo
            | Kind::Whiteout => Self::Other,
        }
    }
}

/// A tree that paths can be resolved in.
pub trait Tree {
    /// What has this path, without following anything. The path is canonical.
    fn stat(&self, path: &[u8]) -> Option<Stat>;

    /// The names in a directory, sorted; none for anything else. The path is canonical.
    fn names(&self, dir: &[u8]) -> Vec<Vec<u8>>;
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// Links lead in circles, or there are too many.
    #[error("too many links")]
    TooManyLinks,
    /// The path goes on below something that is no directory.
    #[error("lstat /{}: not a directory", String::from_utf8_lossy(path))]
    NotADirectory {
        /// The path that cannot be.
        path: Vec<u8>,
    },
}

/// The canonical path that `path` leads to. An absolute target starts at the root again, and `..`
/// at the root stays there. The last component is followed only if `follow_last` is set; what does
/// not exist is taken as it is written.
///
/// # Errors
///
/// If there are too many links, or the path goes through something that is no directory.
pub fn resolve(tree: &impl Tree, path: &[u8], follow_last: bool) -> Result<Vec<u8>, ResolveError> {
    let mut done: Vec<u8> = Vec::new();
    // Components still to take, last first.
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.truncate(memchr::memrchr(b'/', &done).unwrap_or(0));
            continue;
        }
        let next = super::listing::join(&done, &name);
        match tree.stat(&next) {
            Some(Stat::Symlink(target)) if follow_last || !todo.is_empty() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(ResolveError::TooManyLinks);
                }
                if target.starts_with(b"/") {
                    done.clear();
                }
                todo.extend(components(&target));
            }
            Some(Stat::Other) if todo.last().is_some_and(|name| name != b"..") => {
                let path = super::listing::join(&next, &todo[todo.len() - 1]);
                return Err(ResolveError::NotADirectory { path });
            }
            Some(_) | None => done = next,
        }
    }
    Ok(done)
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}
