//! Copies the bytes of a file the cheapest way that both file systems permit: shared extents,
//! a copy within the kernel, read and write.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::io::Errno;

/// Bytes moved by one call.
const CHUNK_BYTES: usize = 1 << 20;

/// Files below this many bytes are not worth a try with shared extents: they would take a whole
/// block all the same.
const REFLINK_BYTES: u64 = 4096;

/// Copies all of `source` to the empty file `dest`; returns the number of bytes.
pub(crate) fn content(source: &File, dest: &File, size: u64) -> io::Result<u64> {
    if size >= REFLINK_BYTES && rustix::fs::ioctl_ficlone(dest, source).is_ok() {
        return Ok(dest.metadata()?.len());
    }
    let mut copied = 0;
    loop {
        match rustix::fs::copy_file_range(source, None, dest, None, CHUNK_BYTES) {
            Ok(0) if copied == 0 => break,
            Ok(0) => return Ok(copied),
            Ok(length) => {
                copied += length as u64;
                if copied == size {
                    // A last call would only say "0".
                    return Ok(copied);
                }
            }
            Err(Errno::INTR) => {}
            // Another file system, a kernel or a profile without the call.
            Err(
                Errno::XDEV
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::BADF,
            ) if copied == 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    // Some file systems (procfs, and a few in user space) answer 0 though there is something.
    let (mut source, mut dest) = (source, dest);
    let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(size).unwrap_or(CHUNK_BYTES).max(1))];
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        dest.write_all(&buffer[..length])?;
        copied += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    #[test]
    fn copies_everything() {
        for size in [0_usize, 1, 4096, 3_000_001] {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
            let mut source = tempfile::tempfile().expect("temporary file");
            source.write_all(&bytes).expect("write");
            source.rewind().expect("seek");
            let mut dest = tempfile::tempfile().expect("temporary file");
            assert_eq!(content(&source, &dest, size as u64).expect("copies"), size as u64);
            let mut copy = Vec::new();
            dest.rewind().expect("seek");
            dest.read_to_end(&mut copy).expect("read");
            assert_eq!(copy, bytes);
        }
    }
}
