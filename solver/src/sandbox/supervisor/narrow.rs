//! The structure that stat(2) fills in for 32-bit programs. Pure.

use rustix::fs::Statx;

use crate::snapshot::owner::Meta;

/// Bytes of the kernel's `struct stat64` of i386.
pub(super) const BYTES: usize = 96;

/// The structure, little-endian as all machines that have it.
pub(super) fn bytes(stat: &Statx, meta: &Meta) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let device = |(major, minor): (u32, u32)| {
        u64::from((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12))
    };
    put(0, &device((stat.stx_dev_major, stat.stx_dev_minor)).to_le_bytes());
    put(12, &low(stat.stx_ino).to_le_bytes());
    put(16, &meta.mode.to_le_bytes());
    put(20, &stat.stx_nlink.to_le_bytes());
    put(24, &meta.uid.to_le_bytes());
    put(28, &meta.gid.to_le_bytes());
    put(32, &device(meta.device_parts()).to_le_bytes());
    put(44, &stat.stx_size.to_le_bytes());
    put(52, &stat.stx_blksize.to_le_bytes());
    put(56, &stat.stx_blocks.to_le_bytes());
    for (at, time) in [(64, stat.stx_atime), (72, stat.stx_mtime), (80, stat.stx_ctime)] {
        put(at, &low(time.tv_sec.cast_unsigned()).to_le_bytes());
        put(at + 4, &time.tv_nsec.to_le_bytes());
    }
    put(88, &stat.stx_ino.to_le_bytes());
    out
}
