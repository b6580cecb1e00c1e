//! Calls that the kernel asks about (`seccomp_unotify(2)`): heard, and
//! answered.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::sys::{self, Notification, Response};

/// What a call is answered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reply {
    /// It succeeded.
    Value(i64),
    /// It was answered already.
    Sent,
}

/// Why a call is not answered with success.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// There is nothing to pretend: the kernel carries it out, and says what is wrong with it.
    Continue,
    /// It fails.
    Failed(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// How the handling of a call ends.
pub(super) type Answer = Result<Reply, Stop>;

/// For `map_err` where the kernel should say what is wrong.
pub(super) fn leave<E>(_: E) -> Stop {
    Stop::Continue
}

/// What has been heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// A call, which has been answered.
    Call,
    /// The caller was killed before it was heard, or nobody is left.
    Nobody,
    /// There will be no call.
    End,
}

/// Answers the next call with what `handle` says.
pub(super) fn answer_next(
    listener: BorrowedFd<'_>,
    handle: impl FnOnce(&Notification) -> Answer,
) -> Heard {
    let call = match sys::receive_notification(listener) {
        Ok(call) => call,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Heard::Nobody,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Heard::Nobody,
        Err(_) => return Heard::End,
    };
    let response = match handle(&call) {
        Ok(Reply::Sent) => return Heard::Call,
        Ok(Reply::Value(value)) => Response::Value(value),
        Err(Stop::Continue) => Response::Continue,
        Err(Stop::Failed(errno)) => Response::Error(errno.raw_os_error()),
    };
    // A caller that was killed needs no answer.
    drop(sys::answer_notification(listener, call.id, response));
    Heard::Call
}

/// The low half of an argument, as the kernel takes an `int`.
#[expect(clippy::cast_possible_truncation, reason = "the kernel does the same")]
pub(super) const fn int(argument: u64) -> i32 {
    argument as i32
}
