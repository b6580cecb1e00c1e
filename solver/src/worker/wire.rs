//! Messages with descriptors over a stream socket.
//!
//! One message is a 4-byte little-endian length and that many bytes of JSON; its descriptors go
//! with its first byte. The reader asks for exactly one message at a time, so that descriptors
//! never reach the wrong one. Calls block; each direction of a socket has one user.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most descriptors that go with one message: the kernel's limit is 253 (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 250;

/// Most bytes of one message. Inline file contents make large ones.
pub const MAX_MESSAGE: usize = 1 << 30;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is gone in the middle of a message, or the socket broke.
    #[error("the connection to the other process broke")]
    Io(#[from] io::Error),
    /// More than [`MAX_MESSAGE`] bytes or [`MAX_FDS`] descriptors.
    #[error("a message of {bytes} bytes and {fds} descriptors is too large")]
    TooLarge {
        /// Bytes.
        bytes: usize,
        /// Descriptors.
        fds: usize,
    },
    /// Not what this version of the program says.
    #[error("a message could not be understood")]
    Malformed(#[from] serde_json::Error),
}

impl From<rustix::io::Errno> for WireError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Sends one message.
///
/// # Errors
///
/// `Io` if the other side is gone.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(WireError::TooLarge { bytes: length, fds: fds.len() });
    }
    let prefix = u32::try_from(length).expect("the limit is below 2^32").to_le_bytes();
    bytes[..4].copy_from_slice(&prefix);

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut rest: &[u8] = &bytes;
    let mut fds = fds;
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        match sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = &rest[sent..];
                fds = &[];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Receives one message; `None` if the other side closed the socket between messages.
///
/// # Errors
///
/// `Io` if the socket ends within a message, `TooLarge` and `Malformed` for what we never send.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(T, Vec<OwnedFd>)>, WireError> {
    let mut fds = Vec::new();
    let mut prefix = [0; 4];
    if !fill(socket, &mut prefix, &mut fds)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_MESSAGE {
        return Err(WireError::TooLarge { bytes: length, fds: fds.len() });
    }
    let mut bytes = vec![0; length];
    if !bytes.is_empty() && !fill(socket, &mut bytes, &mut fds)? {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some((serde_json::from_slice(&bytes)?, fds)))
}

/// Fills `buffer`; false if the stream ended before its first byte.
fn fill(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<bool, WireError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut done = 0;
    while done < buffer.len() {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut buffer[done..])];
        let got = match recvmsg(socket.as_fd(), into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) if done == 0 => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            // Descriptors were lost: the table of open files is full.
            return Err(io::Error::from_raw_os_error(libc::EMFILE).into());
        }
        if got.bytes == 0 {
            if done == 0 {
                return Ok(false);
            }
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        done += got.bytes;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_keep_their_descriptors() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(left.as_fd(), &"first", &[]).unwrap();
        send(left.as_fd(), &"second", &[writer.as_fd()]).unwrap();
        send(left.as_fd(), &"third", &[]).unwrap();
        drop((left, writer));

        let (text, fds) = receive::<String>(right.as_fd()).unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("first", 0));
        let (text, fds) = receive::<String>(right.as_fd()).unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("second", 1));
        let (text, none) = receive::<String>(right.as_fd()).unwrap().unwrap();
        assert_eq!((text.as_str(), none.len()), ("third", 0));
        assert!(receive::<String>(right.as_fd()).unwrap().is_none());

        rustix::io::write(&fds[0], b"through").unwrap();
        drop(fds);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn large_messages_arrive_whole() {
        let (left, right) = UnixStream::pair().unwrap();
        let text = "x".repeat(3 << 20);
        let sent = text.clone();
        let sender = std::thread::spawn(move || send(left.as_fd(), &sent, &[]));
        let (got, _) = receive::<String>(right.as_fd()).unwrap().unwrap();
        sender.join().unwrap().unwrap();
        assert!(got == text);
    }

    #[test]
    fn half_a_message_is_an_error() {
        let (left, right) = UnixStream::pair().unwrap();
        rustix::io::write(&left, &[9, 0, 0, 0, b'"']).unwrap();
        drop(left);
        assert!(matches!(receive::<String>(right.as_fd()), Err(WireError::Io(_))));
    }

    #[test]
    fn an_absurd_length_is_refused() {
        let (left, right) = UnixStream::pair().unwrap();
        rustix::io::write(&left, &[255; 4]).unwrap();
        assert!(matches!(receive::<String>(right.as_fd()), Err(WireError::TooLarge { .. })));
    }
}
