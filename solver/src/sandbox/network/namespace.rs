//! A network namespace of a step, and the sockets in it that the engine works with.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::netlink::{self, Received};
use super::policy::{OWN_V4, OWN_V6};
use super::routes::{self, Route};
use super::rules::{self, Family, Rules};
use crate::sandbox::sys;

/// Largest answer of netlink to what is asked here.
const MAX_ANSWER: usize = 64 << 10;

/// What the host refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct NamespaceError {
    what: &'static str,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> NamespaceError {
    move |error| NamespaceError { what, source: error.into() }
}

/// The sockets of one family.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Caught connections come in here.
    pub(super) listener: TcpListener,
    /// Packets to the step go out here.
    pub(super) raw: OwnedFd,
}

/// A namespace ready for a step.
#[derive(Debug)]
pub(super) struct Namespace {
    /// The namespace itself.
    pub(super) handle: OwnedFd,
    /// Caught packets come in here.
    pub(super) log: OwnedFd,
    pub(super) four: Sockets,
    /// None where the host has no IPv6.
    pub(super) six: Option<Sockets>,
}

impl Namespace {
    /// Makes one, in a thread of its own since no thread can come back from there. It is for the
    /// calling process's user namespace, which must be its own.
    ///
    /// # Errors
    ///
    /// What is refused, and by which answer.
    pub(super) fn new(ipv6: bool) -> Result<Self, NamespaceError> {
        let work = move || Self::enter(ipv6);
        let thread = std::thread::Builder::new().name("network-setup".to_owned());
        let thread = thread.spawn(work).map_err(failed("a thread"))?;
        let lost = |_| failed("a thread")(io::Error::from(io::ErrorKind::Other));
        thread.join().map_err(lost)?
    }

    fn enter(ipv6: bool) -> Result<Self, NamespaceError> {
        let handle = enter()?;
        let own: &[IpAddr] = &[IpAddr::V4(OWN_V4), IpAddr::V6(OWN_V6)];
        let own = if ipv6 { own } else { &own[..1] };
        // Without one the loopback has all addresses, which does as well but for appearances.
        let made = routes::DEVICE_KINDS.iter().any(|kind| configure(&routes::device(kind)).is_ok());
        // Fails where there is no IPv6, and so no other address.
        drop(configure(&routes::no_other_address()));
        let device = if made { routes::DEVICE } else { routes::LOOPBACK };
        configure(&routes::everything_to_loopback(own, device)).map_err(failed("rtnetlink"))?;
        let four = Sockets::new(Ipv4Addr::LOCALHOST.into())?;
        let six = if ipv6 { Some(Sockets::new(Ipv6Addr::LOCALHOST.into())?) } else { None };
        let (own_v4, own_v6) = (OWN_V4.octets(), OWN_V6.octets());
        let mut tables = vec![four.rules(Family::V4, &own_v4)?];
        if let Some(six) = &six {
            tables.push(six.rules(Family::V6, &own_v6)?);
        }
        let socket = open(Some(rustix::net::netlink::NETFILTER)).map_err(failed("nfnetlink"))?;
        perform(&socket, &rules::batch(&tables)).map_err(failed("nf_tables"))?;
        let log = open(Some(rustix::net::netlink::NETFILTER)).map_err(failed("nfnetlink"))?;
        perform(&log, &rules::subscribe()).map_err(failed("nfnetlink_log"))?;
        rustix::io::ioctl_fionbio(&log, true).map_err(failed("nfnetlink"))?;
        Ok(Self { handle, log, four, six })
    }
}

/// Puts the calling thread into a new network namespace.
fn enter() -> Result<OwnedFd, NamespaceError> {
    sys::unshare(UnshareFlags::NEWNET).map_err(failed("unshare(CLONE_NEWNET)"))?;
    let handle = std::fs::File::open("/proc/thread-self/ns/net")
        .map_err(failed("/proc/thread-self/ns/net"))?;
    Ok(handle.into())
}

/// A namespace with nothing but a loopback, for a helper program to fill.
///
/// # Errors
///
/// What is refused.
pub(super) fn bare() -> Result<OwnedFd, NamespaceError> {
    let work = || {
        let handle = enter()?;
        sys::loopback_up().map_err(failed("SIOCSIFFLAGS"))?;
        Ok(handle)
    };
    let thread = std::thread::Builder::new().name("network-setup".to_owned());
    let thread = thread.spawn(work).map_err(failed("a thread"))?;
    let lost = |_| failed("a thread")(io::Error::from(io::ErrorKind::Other));
    thread.join().map_err(lost)?
}

/// Makes destinations unreachable in namespace `handle`.
///
/// # Errors
///
/// What is refused.
pub(super) fn prohibit(handle: &OwnedFd, all: &[(IpAddr, u8)]) -> Result<(), NamespaceError> {
    inside(handle, || configure(&routes::prohibit(all)).map_err(failed("rtnetlink")))
}

/// Whether there is a way out of namespace `handle`.
pub(super) fn has_route(handle: &OwnedFd) -> bool {
    // Of TEST-NET-3: only a default route can lead there.
    let somewhere = IpAddr::from([203, 0, 113, 1]);
    let route = inside(handle, || {
        HostRoutes::open().and_then(|it| it.route(somewhere)).map_err(failed("rtnetlink"))
    });
    route.is_ok_and(|it| it == Route::Outside)
}

/// Does `work` in namespace `handle`: in a thread, since none can come back.
fn inside<T: Send>(
    handle: &OwnedFd,
    work: impl FnOnce() -> Result<T, NamespaceError> + Send,
) -> Result<T, NamespaceError> {
    let work = || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(handle.as_fd(), kind)
            .map_err(failed("setns(CLONE_NEWNET)"))?;
        work()
    };
    let lost = |_| failed("a thread")(io::Error::from(io::ErrorKind::Other));
    std::thread::scope(|scope| scope.spawn(work).join()).map_err(lost)?
}

impl Sockets {
    fn new(loopback: IpAddr) -> Result<Self, NamespaceError> {
        let listener = TcpListener::bind((loopback, 0)).map_err(failed("listen(2)"))?;
        listener.set_nonblocking(true).map_err(failed("listen(2)"))?;
        let family = match loopback {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let raw = rustix::net::ipproto::RAW;
        let raw = rustix::net::socket_with(family, SocketType::RAW, flags, Some(raw))
            .map_err(failed("a raw socket"))?;
        Ok(Self { listener, raw })
    }

    fn rules<'a>(&self, family: Family, own: &'a [u8]) -> Result<Rules<'a>, NamespaceError> {
        let port = self.listener.local_addr().map_err(failed("getsockname(2)"))?.port();
        Ok(Rules { family, own, port })
    }

    /// Sends a packet to the step, or on behalf of it, under a mark.
    ///
    /// # Errors
    ///
    /// As sendto(2).
    pub(super) fn inject(&self, packet: &[u8], to: IpAddr, mark: rules::Mark) -> io::Result<()> {
        nix::sys::socket::setsockopt(&self.raw, nix::sys::socket::sockopt::Mark, &(mark as u32))?;
        // A raw socket's port is the protocol; none means the socket's.
        let to = SocketAddr::new(to, 0);
        rustix::net::sendto(&self.raw, packet, SendFlags::NOSIGNAL, &to)?;
        Ok(())
    }
}

/// The routes of the host, asked of the kernel one by one.
#[derive(Debug)]
pub(super) struct HostRoutes(OwnedFd);

impl HostRoutes {
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// If there is no netlink.
    pub(super) fn open() -> io::Result<Self> {
        open(None).map(Self)
    }

    /// How the host reaches `address`.
    ///
    /// # Errors
    ///
    /// If netlink does not answer.
    pub(super) fn route(&self, address: IpAddr) -> io::Result<Route> {
        send(&self.0, &routes::ask(address))?;
        let mut buffer = vec![0; 4096];
        let (_, length) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
        Ok(routes::answer(&buffer[..length.min(buffer.len())]))
    }
}

fn open(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(socket, bytes, SendFlags::empty(), &kernel)?;
    Ok(())
}

fn configure(messages: &(Vec<u8>, usize)) -> io::Result<()> {
    perform(&open(None)?, messages)
}

/// Sends messages and waits for so many answers; the first refusal is the error.
fn perform(socket: &OwnedFd, (bytes, answers): &(Vec<u8>, usize)) -> io::Result<()> {
    send(socket, bytes)?;
    let mut missing = *answers;
    let mut buffer = vec![0; MAX_ANSWER];
    while missing > 0 {
        let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        for message in netlink::received(&buffer[..length.min(buffer.len())]) {
            match message {
                Received::Result { errno: 0, .. } => missing = missing.saturating_sub(1),
                Received::Result { errno, .. } => return Err(io::Error::from_raw_os_error(errno)),
                Received::Message { .. } => {}
            }
        }
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
    Ok(())
}
