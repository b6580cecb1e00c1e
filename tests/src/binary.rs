//! The binary under test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::host;
use crate::sources::root;

/// Where the binary under test is: what `RBUILD_BIN` names, else a debug build, made when first asked for.
///
/// Where another user runs it, it is a copy that everybody may read.
///
/// # Panics
///
/// If it can not be built or copied.
pub fn rbuild() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let binary = host::environment("RBUILD_BIN").map_or_else(debug_build, PathBuf::from);
        if *host::runner() == host::ourselves() { binary } else { readable_copy(&binary) }
    })
}

fn debug_build() -> PathBuf {
    let cargo = host::environment("CARGO").unwrap_or_else(|| "cargo".to_owned());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "rbuild"])
        .current_dir(root())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "could not build rbuild");
    // We are target/debug/deps/it-….
    let own = std::env::current_exe().expect("the path of a running program");
    let folder = own.ancestors().nth(2).expect("in the deps folder of a profile");
    folder.join("rbuild")
}

fn readable_copy(binary: &Path) -> PathBuf {
    let folder = std::env::temp_dir().join("rbuild-under-test");
    let copy = folder.join("rbuild");
    let unnamed = folder.join(format!("rbuild-{}", std::process::id()));
    let copied = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::copy(binary, &unnamed))
        .and_then(|_| std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&unnamed, &copy));
    copied.unwrap_or_else(|error| {
        panic!("could not copy `{}` to `{}`: {error}", binary.display(), copy.display())
    });
    copy
}
