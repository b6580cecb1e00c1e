//! Why a host refuses a rung, in words, and what would change its mind.
//!
//! What a host allows is found out by doing it ([`crate::worker::launch`]); nothing is ever decided
//! by reading configuration. But once something was refused, configuration tells why: [`Facts`] is
//! what is read then, and [`explain`] (pure) turns a refusal and the facts into an explanation.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::caps::{has, number};
use crate::worker::launch::Refusal;

/// What is looked at to explain a refusal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Effective user id.
    pub uid: u32,
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
}

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
            max_user_namespaces: sysctl("user/max_user_namespaces"),
            unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
            label: label.trim_end_matches(['\n', '\0']).to_owned(),
            program: fs::read_link("/proc/self/exe").unwrap_or_default(),
            ..Self::parse(&status)
        }
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
            subordinate(&refusal, facts)
        } else if refusal.call == "/proc/self/uid_map" {
            words(
                "rbuild runs as root of a user namespace with few ids, and has no more to give",
                &["start what is around it with 65536 ids (podman run --uidmap 0:1:65536)"],
            )
        } else if refusal.call == "unshare(CLONE_NEWUSER)" {
            namespace(&refusal, facts)
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
fn subordinate(refusal: &Refusal, facts: &Facts) -> Words {
    let remedy = refusal.detail.split_once(": ").map_or("", |it| it.1);
    if facts.uid == 0 {
        let cause = "root may not write the id map itself (it lacks CAP_SETUID, CAP_SETGID or \
                     CAP_SETFCAP) and has no subordinate ids either";
        return words(cause, &[remedy]);
    }
    words("a range of ids is needed to give files to the users of an image", &[remedy])
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
            &["usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"],
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
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn unshare(errno: i32) -> Refusal {
        Refusal { call: "unshare(CLONE_NEWUSER)".into(), errno, detail: String::new() }
    }

    fn newuidmap(detail: &str) -> Refusal {
        Refusal { call: "newuidmap".into(), errno: 0, detail: detail.into() }
    }

    #[track_caller]
    fn check(refusal: Refusal, facts: &Facts, expect: &Expect) {
        expect.assert_eq(&explain(refusal, facts).to_string());
    }

    fn user() -> Facts {
        let program = "/usr/local/bin/rbuild".into();
        Facts { uid: 1000, bounding: u64::MAX, program, ..Facts::default() }
    }

    #[test]
    fn in_a_docker_container() {
        check(
            unshare(libc::EPERM),
            &Facts { uid: 0, seccomp: 2, ..user() },
            &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (os error 1)
            the container's seccomp profile blocks unshare(2), as Docker's and containerd's defaults do
            - docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined
            - Kubernetes: hostUsers: false, and capabilities: add: [SYS_ADMIN] (safe there: it reaches no further than the pod)"#]],
        );
        check(
            unshare(libc::EPERM),
            &Facts { seccomp: 2, ..user() },
            &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (os error 1)
            the container's seccomp profile blocks unshare(2), as Docker's and containerd's defaults do
            - Kubernetes: hostUsers: false, and capabilities: add: [SYS_ADMIN]
            - Kubernetes: seccompProfile: type: Unconfined, or a Localhost profile with unshare(2)
            - docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"#]],
        );
    }

    #[test]
    fn by_sysctl() {
        check(
            unshare(libc::ENOSPC),
            &user(),
            &expect![[r#"
                unshare(CLONE_NEWUSER): over the limit (ENOSPC)
                the host allows no (more) user namespaces: user.max_user_namespaces is 0 or used up
                - sysctl -w user.max_user_namespaces=15000"#]],
        );
        let facts = Facts { unprivileged_userns_clone: Some(0), ..user() };
        check(
            unshare(libc::EPERM),
            &facts,
            &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (os error 1)
            the kernel forbids ordinary users to make user namespaces
            - sysctl -w kernel.unprivileged_userns_clone=1"#]],
        );
        check(
            unshare(libc::EPERM),
            &user(),
            &expect![[r#"
            unshare(CLONE_NEWUSER): Operation not permitted (os error 1)
            a security policy forbids it, or rbuild runs inside of a chroot
            - run rbuild outside of the chroot"#]],
        );
    }

    #[test]
    fn by_ubuntu() {
        let call = "mount(MS_PRIVATE)".into();
        let refusal = Refusal { call, errno: libc::EACCES, detail: String::new() };
        check(
            refusal,
            &Facts { apparmor_restricts: Some(1), ..user() },
            &expect![[r#"
            mount(MS_PRIVATE): Permission denied (os error 13)
            Ubuntu's AppArmor policy lets rbuild create a user namespace but strips its capabilities
            - allow it for this program, as root: put
                abi <abi/4.0>,
                include <tunables/global>
                profile rbuild /usr/local/bin/rbuild flags=(unconfined) {
                  userns,
                  include if exists <local/rbuild>
                }
              into /etc/apparmor.d/rbuild and load it: apparmor_parser -r /etc/apparmor.d/rbuild
            - or for all: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"#]],
        );
    }

    #[test]
    fn by_a_container_profile() {
        let call = "mount(MS_PRIVATE)".into();
        let refusal = Refusal { call, errno: libc::EACCES, detail: String::new() };
        let label = "docker-default (enforce)".into();
        check(
            refusal,
            &Facts { label, ..user() },
            &expect![[r#"
            mount(MS_PRIVATE): Permission denied (os error 13)
            the security profile `docker-default (enforce)` forbids it
            - docker run --security-opt apparmor=unconfined --security-opt label=disable"#]],
        );
    }

    #[test]
    fn five_ways_to_have_no_range() {
        check(
            newuidmap("not installed (Debian package `uidmap`)"),
            &user(),
            &expect![[r#"
            newuidmap: not installed (Debian package `uidmap`)
            ids beyond one's own are handed out by newuidmap and newgidmap
            - apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)"#]],
        );
        let eperm = "write to uid_map failed: Operation not permitted";
        check(
            newuidmap(eperm),
            &Facts { no_new_privs: true, ..user() },
            &expect![[r#"
                newuidmap: write to uid_map failed: Operation not permitted
                no_new_privs is set, so that newuidmap has no privilege to use
                - Kubernetes: allowPrivilegeEscalation: true"#]],
        );
        check(
            newuidmap(eperm),
            &Facts { bounding: 0xa804_25fb, ..user() },
            &expect![[r#"
                newuidmap: write to uid_map failed: Operation not permitted
                newuidmap is setuid root, which is not enough in a container without CAP_SYS_ADMIN in its bounding set
                - in the image: chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; setcap cap_setuid=ep /usr/bin/newuidmap; setcap cap_setgid=ep /usr/bin/newgidmap"#]],
        );
        check(
            newuidmap(eperm),
            &user(),
            &expect![[r#"
                newuidmap: write to uid_map failed: Operation not permitted
                newuidmap lost its setuid bit or file capabilities, perhaps in a copy of an image
                - chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap, or install the package again"#]],
        );
        let denied = "uid range [1-65536) -> [100000-165535) not allowed";
        check(
            newuidmap(denied),
            &user(),
            &expect![[r#"
                newuidmap: uid range [1-65536) -> [100000-165535) not allowed
                /etc/subuid or /etc/subgid has no such range for this user
                - usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"#]],
        );
        let call = "/etc/subuid".into();
        let detail = "no range of 65535 ids for user dev: usermod --add-subuids 100000-165535 dev";
        let refusal = Refusal { call, errno: 0, detail: detail.into() };
        check(
            refusal,
            &user(),
            &expect![[r#"
            /etc/subuid: no range of 65535 ids for user dev: usermod --add-subuids 100000-165535 dev
            a range of ids is needed to give files to the users of an image
            - usermod --add-subuids 100000-165535 dev"#]],
        );
    }

    #[test]
    fn facts_of_a_status_file() {
        let status = "Name:\tx\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n\
                      NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let facts = Facts::parse(status);
        assert_eq!((facts.seccomp, facts.no_new_privs), (2, true));
        assert_eq!((facts.caps, facts.bounding), (0xa804_25fb, 0xa804_25fb));
    }
}
