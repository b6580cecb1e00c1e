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

/// Number of the allocator's option `purge_delay` (mimalloc 3, `enum mi_option_e`).
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Has the allocator give memory back to the system so many milliseconds after it was freed; its
/// own choice is a second, in which a large build frees as much as it uses.
pub fn give_memory_back_after(milliseconds: std::ffi::c_long) {
    // SAFETY: the function stores a number in a table of its own, atomically; one that it does
    // not know is ignored.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) }
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

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names it until it is answered.
    pub id: u64,
    /// The calling thread, in the receiver's pid namespace.
    pub pid: i32,
    /// The interface it came by (`AUDIT_ARCH_*`).
    pub arch: u32,
    /// Its number there.
    pub number: i64,
    /// Arguments.
    pub args: [u64; 6],
}

/// What to answer a call with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Response {
    /// Let the kernel carry it out.
    Continue,
    /// It succeeded with this value.
    Value(i64),
    /// It failed with this number.
    Error(i32),
}

/// Waits for the next call.
///
/// # Errors
///
/// `ENOENT` if the caller was killed meanwhile.
pub fn receive_notification(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: `seccomp_notif` is plain data for which all zeroes are valid; the kernel wants them.
    let mut notif = unsafe { MaybeUninit::<libc::seccomp_notif>::zeroed().assume_init() };
    // SAFETY: the argument is the structure that this request writes, and lives across the call.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notif)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Notification {
        id: notif.id,
        pid: i32::try_from(notif.pid).unwrap_or(0),
        arch: notif.data.arch,
        number: notif.data.nr.into(),
        args: notif.data.args,
    })
}

/// Answers a call.
///
/// # Errors
///
/// `ENOENT` if the caller was killed meanwhile.
pub fn answer_notification(
    listener: BorrowedFd<'_>,
    id: u64,
    response: Response,
) -> io::Result<()> {
    let (val, error, flags) = match response {
        Response::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Response::Value(value) => (value, 0, 0),
        Response::Error(errno) => (0, -errno, 0),
    };
    let flags = u32::try_from(flags).unwrap_or(0);
    let mut answer = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the argument is the structure that this request reads, and lives across the call.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Answers a call with a new descriptor of the caller, for the same open file as `file`.
///
/// # Errors
///
/// `ENOENT` if the caller was killed meanwhile; `EMFILE` if it has too many; `EINVAL` before
/// Linux 5.14.
pub fn answer_with_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or(0),
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the argument is the structure that this request reads, and lives across the call.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request)
    };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a call still waits for its answer: then its caller's number means what it meant.
pub fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the argument is a 64-bit number, as this request reads it.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id)
    };
    result == 0
}

/// Has caller and receiver wake each other on the same processor (Linux 6.6; no effect before).
pub fn wake_up_here(listener: BorrowedFd<'_>) {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the argument of this request is a number.
    let _ = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP)
    };
}

/// The soft limit of process `pid` on `resource`, and its hard limit; `set` becomes the soft one.
///
/// # Errors
///
/// `ESRCH` if there is no such process, `EINVAL` if `set` is above the hard limit.
pub fn soft_limit(pid: i32, resource: u32, set: Option<u64>) -> io::Result<(u64, u64)> {
    let call = |new: Option<libc::rlimit64>| {
        let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `new` is null or points at a limit, `old` points at one; both live across the
        // call.
        let result =
            unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, &raw mut old) };
        if result == 0 { Ok(old) } else { Err(io::Error::last_os_error()) }
    };
    let old = call(None)?;
    if let Some(soft) = set {
        call(Some(libc::rlimit64 { rlim_cur: soft, rlim_max: old.rlim_max }))?;
    }
    Ok((old.rlim_cur, old.rlim_max))
}

/// fstat(2) of a descriptor, one opened with `O_PATH` included.
///
/// # Errors
///
/// As the call.
pub fn stat(file: BorrowedFd<'_>) -> io::Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the pointer is to memory of the right type, for which all zeroes are valid.
    let result = unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid value of this plain struct, and fstat filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// statx(2) of a descriptor, one opened with `O_PATH` included.
///
/// # Errors
///
/// As the call.
pub fn statx(file: BorrowedFd<'_>, flags: i32, mask: u32) -> io::Result<libc::statx> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a constant C string, the last pointer is to memory of the right type.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            file.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            mask,
            stat.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid value of this plain struct, and statx filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// The bytes of a `stat`, as the kernel hands them out (the C library's layout is the same on
/// 64-bit machines).
pub fn bytes_of_stat(stat: &libc::stat) -> &[u8] {
    // SAFETY: the structure was zeroed before it was filled in, so that all its bytes, padding
    // included, are initialised; they are only read, for as long as it is borrowed.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(stat).cast(), size_of::<libc::stat>()) }
}

/// The bytes of a `statx`, as the kernel hands them out.
pub fn bytes_of_statx(stat: &libc::statx) -> &[u8] {
    // SAFETY: as in `bytes_of_stat`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(stat).cast(), size_of::<libc::statx>()) }
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

/// Ends the process: nothing is dropped, and nothing of a parent's that was forked with it undone.
pub fn end_now() -> ! {
    // SAFETY: does not return, and runs no code of ours.
    unsafe { libc::_exit(0) }
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
