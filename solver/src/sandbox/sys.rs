//! The system calls that no safe crate offers: the only file with `unsafe`.
//!
//! Each function is one call in Rust's terms and decides nothing. What rustix and nix offer safely
//! is called where it is needed.

#![expect(unsafe_code, reason = "the only file allowed to: see CONTRIBUTING.md, unsafe policy")]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

/// Leaves namespaces of the caller.
///
/// For the user namespace the process must have one thread; the pid namespace is entered by the
/// next child only; the others change the calling thread.
///
/// # Errors
///
/// As unshare(2): `EPERM` or `ENOSPC` where the kind of namespace is forbidden or exhausted,
/// `EINVAL` for a user namespace in a process with several threads.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // Another thread could lose descriptors only by this flag.
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: `FILES`, the one flag that takes something away from other threads, is not set.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Fork {
    /// The old process; the number of the new one.
    Parent(i32),
    /// The new process.
    Child,
}

/// Makes a second process out of one that has a single thread.
///
/// # Errors
///
/// As fork(2); `EINVAL` if there is a second thread, whose locks would never be released in the
/// child.
pub fn fork_single_threaded() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the process has one thread, so the child is as complete as its parent: no lock is
    // held by a thread that is missing there.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// How a child ended, and what it and its own waited-for children took.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Exit code, or the negative number of the signal.
    pub code_or_signal: i32,
    /// Processor time, user and system, microseconds.
    pub cpu_micros: u64,
    /// Largest resident set of one process, bytes.
    pub max_rss: u64,
}

/// Waits for the end of child `pid`.
///
/// # Errors
///
/// `ECHILD` if there is no such child.
pub fn wait_for(pid: i32) -> io::Result<Ended> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live memory of the right types.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if got == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed is a valid value of this plain struct, and wait4 filled it in.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Ok(Ended {
        code_or_signal: if libc::WIFSIGNALED(status) {
            -libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        },
        cpu_micros: micros(usage.ru_utime) + micros(usage.ru_stime),
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

/// Sets `set` and clears `clear` on a mount, and on all below it if `recursive`
/// (`mount_setattr(2)`, Linux 5.12).
///
/// # Errors
///
/// As the system call; `ENOSYS` before Linux 5.12.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    clear: MountAttrFlags,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: u64::from(clear.bits()),
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, `attributes` lives across the call and its true
    // size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks all descriptors from `first` on to be closed by `execve` (Linux 5.11).
///
/// # Errors
///
/// `EINVAL` or `ENOSYS` on an older kernel.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors; closes nothing now.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives all signals their default action and blocks none, as a new program expects it.
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the default action runs no code of ours; numbers that cannot be changed are
        // refused by the call, which does no harm.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to memory of the right type.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` was initialised by the call before; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

/// Brings the loopback interface of the caller's network namespace up.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: makes a new descriptor, nothing else.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket = owned(raw)?;
    // SAFETY: `ifreq` is plain data for which all zeroes are valid.
    let mut request = unsafe { MaybeUninit::<libc::ifreq>::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::try_from(*from).unwrap_or(0);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the request is an `ifreq`, as SIOCSIFFLAGS wants it, and lives across the call.
    let result = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw mut request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One instruction of a seccomp filter, as the kernel reads it (`struct sock_filter`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Whether a filter comes with a descriptor that is told about calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listener {
    /// No notifications.
    None,
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER`, with waits that only a fatal signal ends where the
    /// kernel can do that (5.19).
    New,
}

/// Puts a seccomp filter on the calling thread, for good.
///
/// # Errors
///
/// `EACCES` without `CAP_SYS_ADMIN` in the user namespace and without `no_new_privs`; `EBUSY` if
/// a listener is asked for and a filter in place has one already; `EINVAL` for a bad filter.
pub fn install_filter(filter: &[Instruction], listener: Listener) -> io::Result<Option<OwnedFd>> {
    let length =
        u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog {
        len: length,
        filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let call = |flags: libc::c_ulong| {
        // SAFETY: `program` points at `length` instructions of the kernel's own layout
        // (`Instruction` is `repr(C)` with the fields of `sock_filter`), which are only read.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    };
    match listener {
        Listener::None => call(0).map(|_| None),
        Listener::New => {
            let new = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let raw =
                call(new | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV).or_else(|error| {
                    // Linux before 5.19 does not know the second flag.
                    if error.raw_os_error() == Some(libc::EINVAL) { call(new) } else { Err(error) }
                })?;
            owned(RawFd::try_from(raw).unwrap_or(-1)).map(Some)
        }
    }
}

/// Replaces the process by the program at `path`.
///
/// # Errors
///
/// Returns only if that failed, as execve(2).
pub fn execute(path: &CStr, args: &[&CStr], env: &[&CStr]) -> io::Error {
    match nix::unistd::execve(path, args, env) {
        Err(errno) => io::Error::from_raw_os_error(errno as i32),
    }
}

/// Takes over standard input, which the parent process made a socket, and leaves `/dev/null` in its
/// place, so that nothing that is opened or started later meets it there.
///
/// # Errors
///
/// If `/dev/null` cannot be opened.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

fn owned(raw: RawFd) -> io::Result<OwnedFd> {
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller got `raw` from a call that opened it, or checked that it is open and
    // owned by nobody.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
