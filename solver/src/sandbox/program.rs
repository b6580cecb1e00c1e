//! This program, as steps are started from it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// This program, bound read-only to the new file `at`.
///
/// A step can have the kernel execute `/proc/self/exe`, as its command or as the interpreter of a
/// script, while that is still this program, and the user whom the step's root stands for owns it.
/// Through a mount that cannot be written to it stays what it is (compare CVE-2019-5736).
pub(super) fn bound(at: &Path) -> PathBuf {
    let own = PathBuf::from("/proc/self/exe");
    let bind = || -> io::Result<()> {
        fs::write(at, "")?;
        // The link itself leads into the mount namespace that this process came from.
        super::mount_api::bind_read_only(&fs::read_link(&own)?, at).map_err(io::Error::other)?;
        let (bound, running) = (fs::metadata(at)?, fs::metadata(&own)?);
        let same = (bound.dev(), bound.ino()) == (running.dev(), running.ino());
        if same { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    };
    if bind().is_ok() { at.to_owned() } else { own }
}
