//! Why a host refuses a rung, in words, and what would change its mind.
//!
//! What a host allows is found out by doing it ([`crate::worker::launch`]); nothing is ever decided
//! by reading configuration. But once something was refused, configuration tells why: [`Facts`] is
//! what is read then, and [`explain`] (pure) turns a refusal and the facts into an explanation.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_store::layout::Layout;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};
use serde::{Deserialize, Serialize};

use super::caps::{has, number};
use super::fuse;
use super::give_ids;
use super::refusal::Refusal;

/// What is looked at to explain a refusal.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Facts {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// The `Seccomp` line of `/proc/self/status`: 2 under a filter.
    pub seccomp: u32,
    /// Whether no program can gain privileges any more.
    pub no_new_privs: bool,
    /// Effective capabilities.
    pub caps: u64,
    /// Capabilities that can be had at all.
    pub bounding: u64,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` of Debian and hardened kernels.
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu.
    pub apparmor_restricts: Option<u64>,
    /// The security label of the process.
    pub label: String,
    /// Where this program lies.
    pub program: PathBuf,
    /// The command that gives this user a range of ids.
    pub range_command: String,
    /// What kind of file system the store is on; empty if that is not known.
    pub store_fs: String,
    /// What explains nothing, but tells one place and time from another: lines.
    pub around: Vec<String>,
}

/// What differs between places of which all else is the same: this boot, the ids that are mapped,
/// namespaces, who may give ids away.
const AROUND: [&str; 5] = [
    "/proc/sys/kernel/random/boot_id",
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/etc/subuid",
    "/etc/subgid",
];

/// Namespaces that make another place.
const NAMESPACES: [&str; 4] = ["user", "mnt", "net", "pid"];

/// Programs and devices whose coming and going changes what a place allows.
const THINGS: [&str; 6] = [
    "/usr/bin/newuidmap",
    "/usr/bin/newgidmap",
    "/usr/local/bin/newuidmap",
    "/usr/local/bin/newgidmap",
    "/dev/fuse",
    "/dev/net/tun",
];

impl Facts {
    /// Reads them. What cannot be read is left at its default.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let sysctl = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
            text.trim().parse().ok()
        };
        let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            max_user_namespaces: sysctl("user/max_user_namespaces"),
            unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
            label: label.trim_end_matches(['\n', '\0']).to_owned(),
            program: fs::read_link("/proc/self/exe").unwrap_or_default(),
            range_command: give_ids::range_command(),
            ..Self::parse(&status)
        }
    }

    /// All of them for a store, so that two places with the same facts allow the same.
    pub fn of(store: &Path) -> Self {
        let mut around = Vec::new();
        for file in AROUND {
            around.push(format!("{file}: {}", fs::read_to_string(file).unwrap_or_default()));
        }
        for name in NAMESPACES {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
            around.push(link.to_string_lossy().into_owned());
        }
        for path in THINGS.map(Path::new) {
            around.push(stamp(path, StatxFlags::CTIME | StatxFlags::MODE));
        }
        // A store that was moved is on another file system; its own times do not matter.
        around.push(stamp(store, StatxFlags::INO));
        around.push(stamp(&Layout::new(store).mnt(), StatxFlags::INO));
        let store_fs = rustix::fs::statfs(store).map(|it| fs_name(it.f_type));
        let store_fs = store_fs.unwrap_or_default().to_owned();
        Self { store_fs, around, ..Self::read() }
    }

    /// The part that is in `/proc/self/status`.
    fn parse(status: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|it| it.strip_prefix(name));
            line.and_then(|it| it.strip_prefix(':')).map(str::trim).unwrap_or_default()
        };
        let caps = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
        Self {
            seccomp: field("Seccomp").parse().unwrap_or(0),
            no_new_privs: field("NoNewPrivs") == "1",
            caps: caps("CapEff"),
            bounding: caps("CapBnd"),
            ..Self::default()
        }
    }
}

/// File systems by the number that statfs(2) gives.
const FILE_SYSTEMS: [(i64, &str); 14] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x2fc1_2fc1, "zfs"),
    (0x0102_1997, "9p"),
    (0x4d44, "vfat"),
    (0x8584_58f6, "ramfs"),
    (0xf2f5_2010, "f2fs"),
];

fn fs_name(magic: i64) -> &'static str {
    FILE_SYSTEMS.iter().find(|it| it.0 == magic).map_or("", |it| it.1)
}

/// What `mask` asks about the thing at `path`, as text.
fn stamp(path: &Path, mask: StatxFlags) -> String {
    let show = |it: Statx| {
        let device = (it.stx_dev_major, it.stx_dev_minor);
        let (mode, changed) = (it.stx_mode, (it.stx_ctime.tv_sec, it.stx_ctime.tv_nsec));
        if mask.contains(StatxFlags::INO) {
            format!("{device:?} {}", it.stx_ino)
        } else {
            format!("{device:?} {mode:o} {changed:?}")
        }
    };
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), mask).map(show);
    format!("{}: {}", path.display(), found.unwrap_or_default())
}

/// A refusal, its cause, and ways out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explained {
    /// What was refused.
    pub refusal: Refusal,
    /// Why, in words; empty if it is not known.
    pub cause: String,
    /// What would help, the smallest change first.
    pub remedies: Vec<String>,
}

impl fmt::Display for Explained {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.refusal)?;
        if !self.cause.is_empty() {
            write!(out, "\n{}", self.cause)?;
        }
        for remedy in &self.remedies {
            write!(out, "\n- {remedy}")?;
        }
        Ok(())
    }
}

/// Explains why `refusal` happened on a host of which `facts` are known.
pub fn explain(refusal: Refusal, facts: &Facts) -> Explained {
    let (cause, remedies) =
        if refusal.call.starts_with("newuidmap") || refusal.call.starts_with("newgidmap") {
            helper(&refusal, facts)
        } else if refusal.call.starts_with("/etc/sub") {
            subordinate(facts)
        } else if refusal.call == "/proc/self/uid_map" {
            words(
                "rbuild runs as root of a user namespace with few ids, and has no more to give",
                &["start what is around it with 65536 ids (podman run --uidmap 0:1:65536)"],
            )
        } else if refusal.call == "unshare(CLONE_NEWUSER)" {
            namespace(&refusal, facts)
        } else if let Some(words) = lesser(&refusal, facts) {
            words
        } else if matches!(refusal.errno, libc::EPERM | libc::EACCES) {
            after(facts)
        } else {
            (String::new(), Vec::new())
        };
    Explained { refusal, cause, remedies }
}

type Words = (String, Vec<String>);

fn words(cause: &str, remedies: &[&str]) -> Words {
    (cause.to_owned(), remedies.iter().map(|&it| it.to_owned()).collect())
}

/// The user namespace itself was refused.
fn namespace(refusal: &Refusal, facts: &Facts) -> Words {
    match refusal.errno {
        libc::ENOSPC => words(
            "the host allows no (more) user namespaces: user.max_user_namespaces is 0 or used up",
            &["sysctl -w user.max_user_namespaces=15000"],
        ),
        libc::EINVAL | libc::ENOSYS => {
            words("the kernel was built without user namespaces", &["use another kernel"])
        }
        libc::EPERM if facts.seccomp == 2 => {
            let cause = "the container's seccomp profile blocks unshare(2), as Docker's and \
                         containerd's defaults do";
            if facts.uid == 0 {
                words(
                    cause,
                    &[
                        "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
                        "Kubernetes: hostUsers: false, and capabilities: add: [SYS_ADMIN] \
                         (safe there: it reaches no further than the pod)",
                    ],
                )
            } else {
                words(
                    cause,
                    &[
                        "Kubernetes: runAsUser: 0, without runAsNonRoot: true and without \
                         capabilities: drop: [ALL] (RUN is then held by `chroot`); docker run \
                         --user 0",
                        "Kubernetes: hostUsers: false, and capabilities: add: [SYS_ADMIN]",
                        "Kubernetes: seccompProfile: type: Unconfined, or a Localhost profile with unshare(2)",
                        "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined",
                    ],
                )
            }
        }
        libc::EPERM | libc::EACCES => {
            if facts.unprivileged_userns_clone == Some(0) {
                return words(
                    "the kernel forbids ordinary users to make user namespaces",
                    &["sysctl -w kernel.unprivileged_userns_clone=1"],
                );
            }
            if facts.max_user_namespaces == Some(0) {
                return words(
                    "the host allows no user namespaces",
                    &["sysctl -w user.max_user_namespaces=15000"],
                );
            }
            if facts.apparmor_restricts == Some(1) {
                return apparmor(facts);
            }
            words(
                "a security policy forbids it, or rbuild runs inside of a chroot",
                &["run rbuild outside of the chroot"],
            )
        }
        _ => words("", &[]),
    }
}

/// What no rung hangs on, but somebody may wonder about.
fn lesser(refusal: &Refusal, facts: &Facts) -> Option<Words> {
    let by_the_container = "the container's profile forbids it; rbuild does without";
    Some(match refusal.call.as_str() {
        "an overlay in the store" => {
            let kind = if facts.store_fs.is_empty() { "a file system" } else { &facts.store_fs };
            let cause = format!("the store is on {kind}, where no overlay can be written");
            let remedy = "put the store on a volume: --root DIR or RBUILD_ROOT (Kubernetes: an \
                          emptyDir; docker run -v; GitLab: below /builds)";
            (cause, vec![remedy.to_owned()])
        }
        fuse::CALL => helper_overlay(refusal),
        "chown(2) in the store" => words(
            "files of the store cannot belong to the users of an image, as on a network file system that \
             decides about owners itself (root squash): owners are recorded beside the files",
            &["put the store on a local disk: --root DIR or RBUILD_ROOT"],
        ),
        "symlink(2) in the store" | "names in the store" => words(
            "the file system of the store cannot hold the files of an image",
            &["put the store on a Linux file system: --root DIR or RBUILD_ROOT"],
        ),
        "programs in the store" => words(
            "whole trees are made in the store, from which no step could start a program",
            &["put the store where programs run: --root DIR or RBUILD_ROOT"],
        ),
        "mount(2) of proc" => words(
            "the place's own /proc is partly hidden, so the kernel mounts no other: steps see a copy \
             of it, which shows processes around them, but their pid namespace keeps them apart",
            &["docker run --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked"],
        ),
        "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)" if refusal.errno == libc::EBUSY => words(
            "another program answers system calls here already (a container manager, or rbuild within \
             rbuild), and there can be one only: without a range of ids all files of a step are root's",
            &["give rbuild a range of ids, or start it outside"],
        ),
        "pivot_root(2)" | "unshare(CLONE_NEWNET)" => words(by_the_container, &[]),
        "chroot(2)" if facts.uid != 0 => words("only root may", &[]),
        "chroot(2)" | "capabilities" => words(
            "the container has dropped capabilities that root has by default",
            &[
                "Kubernetes: capabilities: add: [CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, \
               SETUID, SYS_CHROOT]; docker run --cap-add likewise",
            ],
        ),
        "a cgroup" => words(
            "limits such as --memory hold each process alone, as far as they can",
            &["systemd-run --user --scope -p Delegate=yes rbuild build …"],
        ),
        "ioctl(FICLONE)" => words("files cannot share blocks there: whole trees are copied", &[]),
        "setxattr(user.rbuild)" => {
            words("the file system of the store has no such attributes", &[])
        }
        "opening /dev/fuse" | "opening /dev/net/tun" => {
            let device = refusal.call.trim_start_matches("opening ");
            let cause = match refusal.errno {
                libc::ENOENT => "there is no such device, as usual in containers",
                _ => "its owner and mode, or the list of the container's devices, keep rbuild out",
            };
            (cause.to_owned(), vec![format!("docker run --device {device}")])
        }
        _ => return None,
    })
}

/// What keeps `fuse-overlayfs` from standing in for the kernel.
fn helper_overlay(refusal: &Refusal) -> Words {
    if refusal.detail.contains("not installed") {
        let remedy =
            "apt-get install fuse-overlayfs (Debian, Ubuntu), dnf install fuse-overlayfs (Fedora)";
        words("it is of use where the kernel makes no overlays", &[remedy])
    } else if refusal.detail.starts_with("/dev/fuse") {
        words(
            "it needs the device, which its owner and mode, or the container, keep from rbuild",
            &["docker run --device /dev/fuse; on a host, as root: chmod 666 /dev/fuse"],
        )
    } else {
        words(
            "images would not be those of other places, so it is used only if it is asked for",
            &["--snapshotter=fuse-overlayfs, if no step moves such files"],
        )
    }
}

/// The namespace was made, but is of no use.
fn after(facts: &Facts) -> Words {
    if facts.apparmor_restricts == Some(1) {
        return apparmor(facts);
    }
    if facts.label.is_empty() || facts.label.starts_with("unconfined") {
        return words("", &[]);
    }
    let cause = format!("the security profile `{}` forbids it", facts.label);
    (
        cause,
        vec![
            "docker run --security-opt apparmor=unconfined --security-opt label=disable".to_owned(),
        ],
    )
}

fn apparmor(facts: &Facts) -> Words {
    let program = facts.program.display();
    let name = "/etc/apparmor.d/rbuild";
    let profile = format!(
        "allow it for this program, as root: put\n\
         \x20   abi <abi/4.0>,\n\
         \x20   include <tunables/global>\n\
         \x20   profile rbuild {program} flags=(unconfined) {{\n\
         \x20     userns,\n\
         \x20     include if exists <local/rbuild>\n\
         \x20   }}\n\
         \x20 into {name} and load it: apparmor_parser -r {name}"
    );
    let sysctl = "or for all: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    (
        "Ubuntu's AppArmor policy lets rbuild create a user namespace but strips its capabilities"
            .to_owned(),
        vec![profile, sysctl.to_owned()],
    )
}

/// There are no subordinate ids.
fn subordinate(facts: &Facts) -> Words {
    let cause = if facts.uid == 0 {
        "root may not write the id map itself (it lacks CAP_SETUID, CAP_SETGID or CAP_SETFCAP) and \
         has no subordinate ids either"
    } else {
        "a range of ids is needed to give files to the users of an image"
    };
    words(cause, &[&facts.range_command])
}

/// newuidmap or newgidmap did not do it.
fn helper(refusal: &Refusal, facts: &Facts) -> Words {
    let program = refusal.call.as_str();
    if refusal.detail.starts_with("not installed") {
        return words(
            "ids beyond one's own are handed out by newuidmap and newgidmap",
            &["apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)"],
        );
    }
    if facts.no_new_privs {
        return words(
            "no_new_privs is set, so that newuidmap has no privilege to use",
            &["Kubernetes: allowPrivilegeEscalation: true"],
        );
    }
    if refusal.detail.contains("not allowed") {
        return words(
            "/etc/subuid or /etc/subgid has no such range for this user",
            &[&facts.range_command],
        );
    }
    if refusal.detail.contains("write to") && !has(facts.bounding, number::SYS_ADMIN) {
        let cause = format!(
            "{program} is setuid root, which is not enough in a container without CAP_SYS_ADMIN in \
             its bounding set"
        );
        let remedy = "in the image: chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; \
                      setcap cap_setuid=ep /usr/bin/newuidmap; setcap cap_setgid=ep /usr/bin/newgidmap";
        return (cause, vec![remedy.to_owned()]);
    }
    let cause = format!(
        "{program} lost its setuid bit or file capabilities, perhaps in a copy of an image"
    );
    let remedy = "chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap, or install the package again";
    (cause, vec![remedy.to_owned()])
}

#[cfg(test)]
mod tests;
