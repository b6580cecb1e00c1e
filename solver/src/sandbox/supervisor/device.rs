//! Devices made by a step that has all ids: the kernel refuses them to all but root of the host.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;

use super::Supervisor;
use super::tracee::id;
use crate::sandbox::asked::{Answer, Reply, Stop};
use crate::sandbox::caps::{has, number};
use crate::sandbox::sys::Notification;
use crate::snapshot::owner::Meta;

/// The file that stands for a device, open, and made for somebody else than its maker.
const STAND_IN: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::WRONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Supervisor {
    /// An empty file with a record, which the layer takes for the device.
    pub(super) fn make_device(
        &mut self,
        call: &Notification,
        (dir, path): (Option<usize>, usize),
    ) -> Answer {
        let (wanted, device) = (id(call.args[path + 1]), call.args[path + 2]);
        let file_type = FileType::from_raw_mode(wanted);
        // 0/0 is overlay's whiteout: the kernel decides.
        if file_type == FileType::CharacterDevice && device == 0 {
            return Err(Stop::Continue);
        }
        let maker = self.tracees.maker(call.pid).ok_or(Stop::Continue)?;
        // Who may not make devices does not; and who may, is root, whom no directory refuses.
        if !has(maker.caps, number::MKNOD) || !has(maker.caps, number::DAC_OVERRIDE) {
            return Err(Stop::Continue);
        }
        let (parent, name) = self.parent(call, (dir, path), false)?;
        self.still(call)?;
        let permissions = wanted & 0o7777 & !maker.umask;
        let file = openat(&parent, &name[..], STAND_IN, Mode::from_raw_mode(permissions))?;
        let made = self.record_device(&file, (maker.uid, maker.gid), wanted, device);
        if made.is_err() {
            // A device or nothing.
            let _ = rustix::fs::unlinkat(&parent, &name[..], rustix::fs::AtFlags::empty());
        }
        made.map(|()| Reply::Value(0)).map_err(Stop::Failed)
    }

    fn record_device(
        &mut self,
        file: &OwnedFd,
        (uid, gid): (u32, u32),
        wanted: u32,
        device: u64,
    ) -> Result<(), Errno> {
        let mut stat = rustix::fs::fstat(file)?;
        // A directory that hands its group on has given it already.
        let group = (stat.st_gid == 0 && gid != 0).then(|| Gid::from_raw(gid));
        let user = (uid != 0).then(|| Uid::from_raw(uid));
        if group.is_some() || user.is_some() {
            rustix::fs::fchown(file, user, group)?;
            stat = rustix::fs::fstat(file)?;
        }
        let mode = wanted & libc::S_IFMT | stat.st_mode & 0o7777;
        self.write(file.as_fd(), Meta { uid: stat.st_uid, gid: stat.st_gid, mode, device })
    }
}
