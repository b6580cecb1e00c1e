//! Owners by name.

use std::io::Read as _;

use super::Host;
use super::error::{FileOpError, MAX_BYTES};
use super::source::{Roots, Source};
use crate::llb::op::{Chown, UserOpt};
use crate::tree::resolve::resolve;
use crate::worker::proto::Content;

/// User and group that an owner means; none if none was asked for. A name that the files do not
/// have means root, and so does one without files; a user's group is that of its line, or its own
/// number.
pub(super) fn find(
    owner: Option<&Chown>,
    base: Option<(usize, &Source)>,
    host: &dyn Host,
) -> Result<Option<(u32, u32)>, FileOpError> {
    let Some(Chown { user, group }) = owner else { return Ok(None) };
    let file = |path: &[u8]| match base {
        Some((_, source)) => read(source, path, host),
        None => Err(FileOpError::OwnerOfNothing),
    };
    let (mut uid, mut gid) = match user {
        None => (0, 0),
        Some(UserOpt::Id(id)) => (*id, *id),
        Some(UserOpt::Name(name)) => line(&file(b"etc/passwd")?, name)
            .map_or((0, 0), |fields| (number(fields.get(2)), number(fields.get(3)))),
    };
    match group {
        None => {}
        Some(UserOpt::Id(id)) => gid = *id,
        Some(UserOpt::Name(name)) => {
            if let Some(fields) = line(&file(b"etc/group")?, name) {
                gid = number(fields.get(2));
            }
        }
    }
    if user.is_none() {
        uid = 0;
    }
    Ok(Some((uid, gid)))
}

/// The bytes of a regular file of a tree; nothing if it does not exist.
fn read(source: &Source, path: &[u8], host: &dyn Host) -> Result<Vec<u8>, FileOpError> {
    let view = source.view();
    // A file in place of a directory is as good as none.
    let Ok(path) = resolve(&*view, path, true) else { return Ok(Vec::new()) };
    let Some(node) = view.lookup(&path) else { return Ok(Vec::new()) };
    let bad = || FileOpError::OwnerFile { path: path.clone() };
    if node.inode().kind.file_size().is_none_or(|size| size > MAX_BYTES) {
        return Err(bad());
    }
    let mut roots = Roots::default();
    let mut bytes = Vec::new();
    match source.content(&node, &mut roots) {
        Content::Inline(data) => bytes = data,
        Content::Tree { root, path: below } => {
            let opened = host.open(&roots.list()[root], &below);
            opened
                .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
                .map_err(|source| FileOpError::Read { path: path.clone(), source })?;
        }
    }
    Ok(bytes)
}

/// The fields of the first line with this name.
fn line(text: &[u8], name: &str) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim);
    let found = lines.find(|line| line.split(':').next() == Some(name) && !line.is_empty())?;
    Some(found.split(':').map(str::to_owned).collect())
}

/// A number, or 0 for anything else.
fn number(field: Option<&String>) -> u32 {
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}
