//! What a host refused, as it is told.

use std::io;

use serde::{Deserialize, Serialize};

/// What the host refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// The system call or program, as one would look it up: `unshare(CLONE_NEWUSER)`.
    pub call: String,
    /// The system's answer; 0 where the text says it all.
    pub errno: i32,
    /// More about it; may be empty.
    pub detail: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.call)?;
        match self.errno {
            0 => {}
            // "No space left on device" would have people look at their disks.
            libc::ENOSPC => write!(out, ": over the limit (ENOSPC)")?,
            errno => {
                let text = nix::errno::Errno::from_raw(errno).desc();
                write!(out, ": {text} ({})", self.error_name())?;
            }
        }
        if !self.detail.is_empty() {
            write!(out, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Whether it is about a range of ids, and one id could still be had.
    pub fn is_about_ranges(&self) -> bool {
        ["newuidmap", "newgidmap", "/etc/sub", "/proc/self/uid_map"]
            .iter()
            .any(|it| self.call.starts_with(it))
    }

    /// The answer's name: `EPERM`; empty without one.
    pub fn error_name(&self) -> String {
        match self.errno {
            0 => String::new(),
            errno => format!("{:?}", nix::errno::Errno::from_raw(errno)),
        }
    }

    /// A refusal of `call` by the kernel.
    pub fn new(call: impl Into<String>, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let detail = if errno == 0 { error.to_string() } else { String::new() };
        Self { call: call.into(), errno, detail }
    }
}
