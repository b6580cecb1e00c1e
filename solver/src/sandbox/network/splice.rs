//! Bytes between two sockets, through a pipe, without coming by our memory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Most bytes of one move, and of a pipe.
const CHUNK: usize = 256 << 10;
/// Moves of one direction before others have their turn.
const MOVES: usize = 16;
/// Empty pipes that are kept.
const SPARE_PIPES: usize = 16;

/// Empty pipes. Most connections never need one for longer than one call.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&mut self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user has so much memory for pipes; a smaller one is slower.
        let _ = fcntl_setpipe_size(&write, CHUNK);
        Ok(Pipe { read, write })
    }

    fn put(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Bytes that were read and not yet written.
    stuck: Option<(Pipe, usize)>,
    read_all: bool,
    closed: bool,
}

/// How far a direction came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// It waits for one of the sockets.
    Blocked,
    /// It would have gone on.
    More,
    /// The end was passed on.
    Done,
}

impl Half {
    /// Moves bytes, and in the end the end.
    ///
    /// # Errors
    ///
    /// That of either socket: the connection is broken.
    pub(super) fn pump(
        &mut self,
        from: impl AsFd,
        to: impl AsFd,
        pipes: &mut Pipes,
    ) -> io::Result<Progress> {
        for _ in 0..MOVES {
            if let Some((pipe, left)) = &mut self.stuck {
                match moved(&pipe.read, &to, *left) {
                    Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                    Ok(count) => *left -= count.min(*left),
                    Err(Errno::AGAIN) => return Ok(Progress::Blocked),
                    Err(errno) => return Err(errno.into()),
                }
                if *left == 0
                    && let Some((pipe, _)) = self.stuck.take()
                {
                    pipes.put(pipe);
                }
                continue;
            }
            if self.read_all {
                if !self.closed {
                    self.closed = true;
                    // Who is gone needs no end.
                    let _ = rustix::net::shutdown(&to, Shutdown::Write);
                }
                return Ok(Progress::Done);
            }
            let pipe = pipes.take()?;
            match moved(&from, &pipe.write, CHUNK) {
                Ok(0) => {
                    self.read_all = true;
                    pipes.put(pipe);
                }
                Ok(count) => self.stuck = Some((pipe, count)),
                Err(errno) => {
                    pipes.put(pipe);
                    let blocked = errno == Errno::AGAIN;
                    return if blocked { Ok(Progress::Blocked) } else { Err(errno.into()) };
                }
            }
        }
        Ok(Progress::More)
    }
}

fn moved(from: impl AsFd, to: impl AsFd, count: usize) -> rustix::io::Result<usize> {
    loop {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match splice(&from, None, &to, None, count, flags) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_and_the_end_are_passed_on() {
        let (mut step, inside) = UnixStream::pair().unwrap();
        let (mut server, outside) = UnixStream::pair().unwrap();
        for socket in [&inside, &outside] {
            socket.set_nonblocking(true).unwrap();
        }
        let (mut pipes, mut half) = (Pipes::default(), Half::default());
        assert_eq!(half.pump(&inside, &outside, &mut pipes).unwrap(), Progress::Blocked);
        step.write_all(b"question").unwrap();
        assert_eq!(half.pump(&inside, &outside, &mut pipes).unwrap(), Progress::Blocked);
        step.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(half.pump(&inside, &outside, &mut pipes).unwrap(), Progress::Done);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        assert_eq!(pipes.0.len(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_kept() {
        let (mut step, inside) = UnixStream::pair().unwrap();
        let (mut server, outside) = UnixStream::pair().unwrap();
        for socket in [&inside, &outside] {
            socket.set_nonblocking(true).unwrap();
        }
        let (mut pipes, mut half) = (Pipes::default(), Half::default());
        let sent = std::thread::spawn(move || {
            step.write_all(&vec![7; 4 << 20]).unwrap();
        });
        let received = std::thread::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            all
        });
        while half.pump(&inside, &outside, &mut pipes).unwrap() != Progress::Done {
            std::thread::yield_now();
        }
        sent.join().unwrap();
        drop(outside);
        assert_eq!(received.join().unwrap(), vec![7; 4 << 20]);
    }
}
