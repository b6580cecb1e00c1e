//! Device nodes that a step makes: recorded on an empty file, as on the other rungs.

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, StatxTimestamp, XattrFlags, makedev,
};
use rustix::io::Errno;

use super::{PATH, Server};
use crate::sandbox::asked::{Answer, Reply, Stop, int};
use crate::sandbox::plan::Report;
use crate::sandbox::sys::Notification;
use crate::snapshot::owner::{ATTRIBUTE, Record};

impl Server {
    /// mknod(2) of a device.
    pub(super) fn make_node(&self, call: &Notification, dir: Option<usize>, path: usize) -> Answer {
        let (mode, device) = (int(call.args[path + 1]).cast_unsigned(), call.args[path + 2]);
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(Stop::Continue);
        }
        // 0/0 is overlay's whiteout: the kernel decides.
        if kind == FileType::CharacterDevice && device == 0 {
            return Err(Stop::Continue);
        }
        let ids = self.tracees.ids(call.pid).ok_or(Stop::Continue)?;
        if !ids.is_root() {
            return Err(Errno::PERM.into());
        }
        let path = self.whole_path(call, dir.map(|it| int(call.args[it])), call.args[path])?;
        let end = memchr::memrchr(b'/', &path).ok_or(Stop::Continue)?;
        let (parent, name) = (&path[..end], &path[end + 1..]);
        if matches!(name, b"" | b"." | b"..") {
            return Err(Stop::Continue);
        }
        let parent = [b".", parent].concat();
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = PATH | OFlags::DIRECTORY;
        let parent = rustix::fs::openat2(&self.root, parent, flags, Mode::empty(), inside)?;
        let mask = self.tracees.field(call.pid, "Umask:");
        let mask = mask.and_then(|it| u32::from_str_radix(&it, 8).ok()).unwrap_or(0o022);
        let bits = mode & 0o7777 & !mask;
        // An empty file stands for it.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(bits))?;
        let held = rustix::fs::statx(
            &file,
            "",
            AtFlags::EMPTY_PATH,
            StatxFlags::BASIC_STATS | StatxFlags::BTIME,
        )?;
        let record = Record {
            uid: held.stx_uid,
            gid: held.stx_gid,
            mode: kind.as_raw_mode() | bits,
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
            held_uid: held.stx_uid,
            held_gid: held.stx_gid,
            held_mode: u32::from(held.stx_mode) & 0o7777,
        };
        let record = record.to_string();
        match rustix::fs::fsetxattr(&file, ATTRIBUTE, record.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            // A file system without attributes.
            Err(Errno::OPNOTSUPP) => {
                let device = makedev(held.stx_dev_major, held.stx_dev_minor);
                let StatxTimestamp { tv_sec, tv_nsec, .. } = held.stx_btime;
                let birth = tv_sec.saturating_mul(1_000_000_000).saturating_add(tv_nsec.into());
                let inode = (device, held.stx_ino, birth);
                self.made.borrow_mut().push(Report::Made { inode, record });
            }
            Err(errno) => {
                // A device or nothing.
                let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
                return Err(errno.into());
            }
        }
        Ok(Reply::Value(0))
    }

    /// The path of a call from the step's root, links and `..` still in it.
    pub(super) fn whole_path(
        &self,
        call: &Notification,
        dir: Option<i32>,
        address: u64,
    ) -> Result<Vec<u8>, Stop> {
        let path = self.tracees.path(call.pid, address)?;
        if path.starts_with(b"/") {
            return Ok(path);
        }
        let mut from = match dir {
            None | Some(libc::AT_FDCWD) => self.directory_of(call.pid)?,
            Some(number) => {
                let path = self.link_of(call.pid, &format!("fd/{number}"))?;
                self.inside(&path).ok_or(Stop::Continue)?
            }
        };
        from.push(b'/');
        from.extend(path);
        Ok(from)
    }
}
