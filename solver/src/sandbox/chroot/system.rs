//! What lies in `/dev`, `/proc` and `/sys` of a step's tree.
//!
//! Most of `/proc` and `/sys` is served when it is asked for ([`super::serve`]). What lies here is for
//! those who come by a path that cannot be followed, such as `/etc/mtab`: links and a few files
//! with what the container's kernel said when the step began. Directories are filled when a step
//! lists them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, makedev};
use rustix::io::Errno;

use super::plan::Nodes;

/// The device nodes of every step, with their numbers.
pub(super) const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Files of `/proc` that are copied.
const COPIED: [&str; 6] = ["cpuinfo", "filesystems", "loadavg", "meminfo", "uptime", "version"];

/// Most bytes of a copied file.
const MAX_COPY_BYTES: usize = 1 << 20;

/// What a step sees of its mounts.
pub(super) const MOUNTS: &str = "rootfs / rootfs rw,relatime 0 0\n\
    proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n\
    tmpfs /dev tmpfs rw,nosuid,mode=755 0 0\n\
    sysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0\n";

/// The same in the form of `mountinfo`.
pub(super) const MOUNTINFO: &str = "1 0 0:1 / / rw,relatime - rootfs rootfs rw\n\
    2 1 0:2 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
    3 1 0:3 / /dev rw,nosuid - tmpfs tmpfs rw,mode=755\n\
    4 1 0:4 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro\n";

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)?;
    // Whatever the umask is.
    if mode & 0o022 == 0 {
        Ok(())
    } else {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
}

/// Makes `/dev` at `dir`.
pub(super) fn dev(dir: &Path) -> io::Result<Nodes> {
    directory(dir, 0o755)?;
    let nodes = nodes(dir)?;
    for (name, target) in LINKS {
        symlink(target, dir.join(name))?;
    }
    directory(&dir.join("pts"), 0o755)?;
    placeholder(&dir.join("pts/ptmx"))?;
    directory(&dir.join("shm"), 0o1777)?;
    directory(&dir.join("mqueue"), 0o1777)?;
    Ok(nodes)
}

/// Makes the device nodes, or empty files where the host refuses nodes or lets nobody open them.
fn nodes(dir: &Path) -> io::Result<Nodes> {
    let mut made = Nodes::Real;
    for (name, major, minor) in NODES {
        let path = dir.join(name);
        if made == Nodes::Real {
            let device = makedev(major, minor);
            let mode = Mode::from_raw_mode(0o666);
            match rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, device) {
                Ok(()) => rustix::fs::chmodat(CWD, &path, mode, AtFlags::empty())?,
                Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => made = Nodes::Injected,
                Err(errno) => return Err(errno.into()),
            }
            // A volume can be mounted so that its devices are of no use.
            if name == "null" && made == Nodes::Real && fs::File::open(&path).is_err() {
                fs::remove_file(&path)?;
                made = Nodes::Injected;
            }
        }
        if made == Nodes::Injected {
            placeholder(&path)?;
        }
    }
    Ok(made)
}

fn placeholder(path: &Path) -> io::Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

/// Makes `/proc` at `dir`.
pub(super) fn proc(dir: &Path) -> io::Result<()> {
    directory(dir, 0o555)?;
    let own = dir.join("self");
    directory(&own, 0o555)?;
    fs::write(own.join("mounts"), MOUNTS)?;
    fs::write(own.join("mountinfo"), MOUNTINFO)?;
    symlink("/", own.join("root"))?;
    symlink(".", own.join("cwd"))?;
    // The C library takes it for a broken kernel if this is no absolute path.
    symlink("/proc/self/exe", own.join("exe"))?;
    directory(&own.join("fd"), 0o755)?;
    for name in ["0", "1", "2"] {
        symlink("/dev/null", own.join("fd").join(name))?;
    }
    symlink("self", dir.join("thread-self"))?;
    symlink("self/mounts", dir.join("mounts"))?;
    symlink("self/net", dir.join("net"))?;
    for name in COPIED {
        // A host that hides one does so in a step as well.
        if let Ok(bytes) = fs::read(Path::new("/proc").join(name)) {
            fs::write(dir.join(name), &bytes[..bytes.len().min(MAX_COPY_BYTES)])?;
        }
    }
    Ok(())
}

/// Makes `/sys` at `dir`.
pub(super) fn sys(dir: &Path) -> io::Result<()> {
    directory(dir, 0o555)
}

/// Makes a directory at `dir` that stands for a file system in memory.
pub(super) fn memory(dir: &Path) -> io::Result<()> {
    directory(dir, 0o1777)
}

/// Makes the place of a secret: a file without bytes, whose size is set when it is known.
pub(super) fn secret(path: &Path, mode: u32) -> io::Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
