//! Capability sets of steps.

/// `CAP_SYS_CHROOT` and so on: the numbers that the filter depends on (linux/capability.h).
pub mod number {
    /// Give files away.
    pub const CHOWN: u8 = 0;
    /// Do anything with any file.
    pub const DAC_OVERRIDE: u8 = 1;
    /// Read any file.
    pub const DAC_READ_SEARCH: u8 = 2;
    /// Change any file's mode.
    pub const FOWNER: u8 = 3;
    /// Keep set-id bits.
    pub const FSETID: u8 = 4;
    /// Signal anybody.
    pub const KILL: u8 = 5;
    /// Change groups.
    pub const SETGID: u8 = 6;
    /// Change users.
    pub const SETUID: u8 = 7;
    /// Raw sockets.
    pub const NET_RAW: u8 = 13;
    /// Load modules.
    pub const SYS_MODULE: u8 = 16;
    /// Raw input and output.
    pub const SYS_RAWIO: u8 = 17;
    /// chroot(2).
    pub const SYS_CHROOT: u8 = 18;
    /// ptrace(2) of anything.
    pub const SYS_PTRACE: u8 = 19;
    /// Process accounting.
    pub const SYS_PACCT: u8 = 20;
    /// Mounts and much else.
    pub const SYS_ADMIN: u8 = 21;
    /// Restart of the machine.
    pub const SYS_BOOT: u8 = 22;
    /// Scheduling.
    pub const SYS_NICE: u8 = 23;
    /// The clock.
    pub const SYS_TIME: u8 = 25;
    /// mknod(2) of devices.
    pub const MKNOD: u8 = 27;
    /// Terminals of others.
    pub const SYS_TTY_CONFIG: u8 = 26;
    /// The kernel's log.
    pub const SYSLOG: u8 = 34;
    /// Performance events.
    pub const PERFMON: u8 = 38;
    /// BPF programs.
    pub const BPF: u8 = 39;
}

/// What an ordinary step has: Docker's and BuildKit's 14 (chown, `dac_override`, fowner, fsetid,
/// kill, setgid, setuid, setpcap, `net_bind_service`, `net_raw`, `sys_chroot`, mknod,
/// `audit_write`, setfcap).
pub const SANDBOX: u64 = 0xa804_25fb;

/// All that the kernel may know: what it does not know it ignores.
pub const ALL: u64 = u64::MAX;

/// The last number that there can be.
pub const LAST: u8 = 63;

/// Whether `set` has capability `number`.
pub const fn has(set: u64, number: u8) -> bool {
    set >> number & 1 == 1
}

/// The numbers that are not in `set`, up to the last one that the kernel knows.
pub fn missing(set: u64, last: u8) -> impl Iterator<Item = u8> {
    (0..=last).filter(move |&number| !has(set, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_has_fourteen() {
        assert_eq!(SANDBOX.count_ones(), 14);
        assert!(has(SANDBOX, number::SYS_CHROOT));
        assert!(!has(SANDBOX, number::SYS_ADMIN) && !has(SANDBOX, number::SYS_PTRACE));
        assert_eq!(missing(SANDBOX, 40).count(), 41 - 14);
        assert_eq!(missing(ALL, 40).count(), 0);
    }
}
