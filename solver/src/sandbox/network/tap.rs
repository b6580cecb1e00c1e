//! `pasta` and `slirp4netns`: user-mode networks on a TAP device, by a program of the host.
//!
//! Such a program outlives the namespace that it serves, so it is killed by pidfd.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Refused, UserNetwork, namespace, opens};
use crate::causes::chain;
use crate::sandbox::helper;

/// The device that they need.
const TUN: &str = "/dev/net/tun";
/// The interface that they make.
const INTERFACE: &str = "tap0";
/// How long they may take.
const READY: Duration = Duration::from_secs(5);
/// Bytes of what it says that are kept.
const MAX_WORDS: usize = 4096;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// Name server that pasta is told to forward to the host's: an address that is nobody's (RFC 7600).
const PASTA_DNS: &str = "192.0.0.8";
/// Name server of slirp4netns.
const SLIRP_DNS: &str = "10.0.2.3";

/// A program that makes networks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    /// From passt.
    Pasta,
    /// With libslirp.
    Slirp4netns,
}

impl Program {
    /// Its file name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Its arguments; the namespace is behind descriptor `namespace`.
    fn arguments(self, namespace: i32) -> Vec<String> {
        let path = format!("/proc/self/fd/{namespace}");
        let words: Vec<&str> = match self {
            Self::Pasta => vec![
                "--foreground",
                "--quiet",
                "--config-net",
                "--no-map-gw",
                "-t",
                "none",
                "-u",
                "none",
                "-T",
                "none",
                "-U",
                "none",
                "--dns-forward",
                PASTA_DNS,
                "--ns-ifname",
                INTERFACE,
                "--netns-only",
                "--netns",
                &path,
            ],
            Self::Slirp4netns => vec![
                "--configure",
                "--mtu=65520",
                "--disable-host-loopback",
                "--netns-type=path",
                &path,
                INTERFACE,
            ],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    const fn name_server(self) -> &'static str {
        match self {
            Self::Pasta => PASTA_DNS,
            Self::Slirp4netns => SLIRP_DNS,
        }
    }
}

/// A running program and its namespace.
#[derive(Debug)]
pub(super) struct Tap {
    namespace: OwnedFd,
    pidfd: OwnedFd,
    resolv_conf: String,
    /// The beginning of what it wrote to standard error, when it has ended.
    said: mpsc::Receiver<Vec<u8>>,
}

impl Tap {
    /// Starts one and waits until its interface is there.
    ///
    /// # Errors
    ///
    /// If the program is not installed, the device cannot be opened, or it does not work.
    pub(super) fn start(program: Program, resolv_conf: &str) -> Result<Self, Refused> {
        let found = helper::find(program.name());
        let found = found.ok_or_else(|| Refused("not installed".to_owned()))?;
        opens(Path::new(TUN))?;
        let refused = |error: &dyn std::error::Error| Refused(chain(error));
        let namespace = namespace::bare().map_err(|error| refused(&error))?;
        let handle = namespace.try_clone().map_err(|error| refused(&error))?;
        let (tell, told) = mpsc::channel();
        let (heard, said) = mpsc::channel();
        // The thread lives as long as the program, which dies with it.
        let work = move || {
            let child = helper::start(&found, program.arguments(NAMESPACE), handle.as_fd());
            drop(handle);
            if let Some(mut child) = report(child, &tell) {
                if let Some(words) = child.stderr.take() {
                    // Nobody asks, unless it ended before it was ready.
                    drop(heard.send(listen(words)));
                }
                drop(child.wait());
            }
        };
        std::thread::Builder::new()
            .name("network-helper".to_owned())
            .spawn(work)
            .map_err(|error| refused(&error))?;
        let pidfd = told.recv().map_err(|error| refused(&error))??;
        let resolv_conf = texts(program.name_server(), resolv_conf);
        let tap = Self { namespace, pidfd, resolv_conf, said };
        tap.wait()?;
        namespace::prohibit(&tap.namespace, &prohibited()).map_err(|error| refused(&error))?;
        Ok(tap)
    }

    /// Waits for the default route, the last thing that they make.
    fn wait(&self) -> Result<(), Refused> {
        let began = Instant::now();
        while began.elapsed() < READY {
            if self.ended() {
                let said = self.said.recv_timeout(READY).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let last = said.lines().rfind(|it| !it.trim().is_empty());
                let last = last.map(|it| format!(": {}", it.trim())).unwrap_or_default();
                return Err(Refused(format!("it ended at once{last}")));
            }
            if namespace::has_route(&self.namespace) {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        Err(Refused(format!("not ready after {} s", READY.as_secs())))
    }

    fn ended(&self) -> bool {
        let mut poll = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|count| count > 0)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl UserNetwork for Tap {
    fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn resolv_conf(&self) -> &str {
        &self.resolv_conf
    }

    fn forget(&mut self) -> bool {
        !self.ended()
    }

    fn refused(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

/// What steps must not reach beside what the program itself keeps from them.
fn prohibited() -> Vec<(IpAddr, u8)> {
    let mut all = vec![(IpAddr::from([169, 254, 0, 0]), 16)];
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let address = interface.address;
        let four = address.and_then(|it| it.as_sockaddr_in().map(|it| IpAddr::from(it.ip())));
        let six = address.and_then(|it| it.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())));
        if let Some(address) = four.or(six)
            && !address.is_loopback()
        {
            all.push((address, if address.is_ipv4() { 32 } else { 128 }));
        }
    }
    all
}

fn texts(server: &str, host: &str) -> String {
    let kept = |line: &&str| {
        !line.is_empty() && !line.starts_with(['#', ';']) && !line.starts_with("nameserver")
    };
    let mut text = format!("nameserver {server}\n");
    for line in host.lines().map(str::trim).filter(kept) {
        text.extend([line, "\n"]);
    }
    text
}

/// Keeps the beginning of what a program says, and takes the rest.
fn listen(mut words: impl Read) -> Vec<u8> {
    let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = words.read(&mut buffer) {
        if heard.len() < MAX_WORDS {
            heard.extend(&buffer[..count]);
        }
    }
    heard
}

/// Number of the namespace's descriptor in the program.
const NAMESPACE: i32 = 0;

fn report(
    child: io::Result<Child>,
    tell: &mpsc::Sender<Result<OwnedFd, Refused>>,
) -> Option<Child> {
    let opened = child.map_err(|error| Refused(chain(&error))).and_then(|child| {
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Refused("no process".to_owned()))?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|errno| Refused(errno.to_string()))?;
        Ok((child, pidfd))
    });
    match opened {
        Ok((child, pidfd)) => {
            drop(tell.send(Ok(pidfd)));
            Some(child)
        }
        Err(refused) => {
            drop(tell.send(Err(refused)));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn nothing_of_the_host_is_offered() {
        expect!["--foreground --quiet --config-net --no-map-gw -t none -u none -T none -U none --dns-forward 192.0.0.8 --ns-ifname tap0 --netns-only --netns /proc/self/fd/0"].assert_eq(&Program::Pasta.arguments(0).join(" "));
        expect![
            "--configure --mtu=65520 --disable-host-loopback --netns-type=path /proc/self/fd/0 tap0"
        ]
        .assert_eq(&Program::Slirp4netns.arguments(0).join(" "));
    }
}
