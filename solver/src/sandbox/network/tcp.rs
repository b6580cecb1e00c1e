//! Connections of a step: outside first, then inside, then bytes both ways.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::engine::{Engine, Item, refusal};
use super::packet::{self, Flow, Transport};
use super::rules::Mark;
use super::splice::{Half, Progress};

/// How long an outside connection waits for the inside one, which needs no network: the step may
/// have given up.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Connections that are taken at once.
const ACCEPTED: usize = 64;

/// An outside connection without its inside half.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) flow: Flow,
    outside: OwnedFd,
    /// The step's first packet, with its checksum.
    syn: Vec<u8>,
    stands_since: Option<Instant>,
}

impl Dial {
    /// Whether the step does not want it any more.
    pub(super) fn is_stale(&self) -> bool {
        self.stands_since.is_some_and(|it| it.elapsed() >= MAX_WAIT)
    }
}

/// Two sockets and what goes between them.
#[derive(Debug)]
pub(super) struct Connection {
    inside: OwnedFd,
    outside: OwnedFd,
    sent: Half,
    received: Half,
}

impl Connection {
    /// Ends it the hard way: the other side sees a reset as well.
    fn abort(&self) {
        for socket in [&self.inside, &self.outside] {
            // It ends anyway.
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

fn edges() -> EventFlags {
    EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
}

impl Engine {
    /// Starts the outside connection for a step's first packet.
    pub(super) fn dial(&mut self, flow: Flow, target: SocketAddr, packet: &[u8]) {
        let Some(syn) = packet::complete(packet) else {
            return;
        };
        let outside = match connect(target) {
            Ok(outside) => outside,
            Err(error) => {
                if let Some(mark) = refusal(&error, Transport::Tcp) {
                    self.inject(flow.to.ip(), &syn, mark);
                }
                return;
            }
        };
        let id = self.number();
        if self.watch(id, &outside, EventFlags::OUT | EventFlags::ET).is_ok() {
            self.flows.insert((Transport::Tcp, flow), id);
            self.items.insert(id, Item::Dial(Dial { flow, outside, syn, stands_since: None }));
        }
    }

    /// The outside connection stands or is refused: the step's packet goes on its way.
    pub(super) fn dialled(&mut self, id: u64) {
        let Some(Item::Dial(dial)) = self.items.get_mut(&id) else {
            return;
        };
        if dial.stands_since.is_some() {
            // Something comes from outside already; it keeps.
            return;
        }
        let error = match sockopt::socket_error(&dial.outside) {
            Ok(Ok(())) => {
                if rustix::net::getpeername(&dial.outside).is_err() {
                    // Not yet: an event from before the connection began.
                    return;
                }
                dial.stands_since = Some(Instant::now());
                let (to, syn) = (dial.flow.to.ip(), dial.syn.clone());
                self.inject(to, &syn, Mark::Go);
                return;
            }
            Ok(Err(errno)) | Err(errno) => io::Error::from(errno),
        };
        if let Some(Item::Dial(dial)) = self.forget(id)
            && let Some(mark) = refusal(&error, Transport::Tcp)
        {
            self.inject(dial.flow.to.ip(), &dial.syn, mark);
        }
    }

    /// Takes the inside halves that came in.
    pub(super) fn accept(&mut self, six: bool) {
        for _ in 0..ACCEPTED {
            let listener = match &self.namespace.six {
                Some(sockets) if six => &sockets.listener,
                _ => &self.namespace.four.listener,
            };
            let Ok((inside, from)) = listener.accept() else {
                return;
            };
            let to = if six {
                sockopt::ipv6_original_dst(&inside).map(SocketAddr::V6)
            } else {
                sockopt::ip_original_dst(&inside).map(SocketAddr::V4)
            };
            // Without an original destination somebody found the listener itself.
            if let Ok(to) = to
                && self.join(Flow { from, to }, &inside).is_none()
            {
                let _ = sockopt::set_socket_linger(&inside, Some(Duration::ZERO));
            }
        }
    }

    /// Joins an inside half with the outside one that waits for it.
    fn join(&mut self, flow: Flow, inside: &TcpStream) -> Option<()> {
        let id = *self.flows.get(&(Transport::Tcp, plain(flow)))?;
        let Some(Item::Dial(dial)) = self.forget(id) else {
            return None;
        };
        dial.stands_since?;
        let inside: OwnedFd = inside.try_clone().ok()?.into();
        rustix::io::ioctl_fionbio(&inside, true).ok()?;
        // The step and its server decide what makes a packet.
        for socket in [&inside, &dial.outside] {
            let _ = sockopt::set_tcp_nodelay(socket, true);
        }
        self.watch(id, &inside, edges()).ok()?;
        self.watch_for(id, &dial.outside, edges()).ok()?;
        let (sent, received) = (Half::default(), Half::default());
        let connection = Connection { inside, outside: dial.outside, sent, received };
        self.items.insert(id, Item::Connection(connection));
        self.pump(id);
        Some(())
    }

    /// Moves what can be moved.
    pub(super) fn pump(&mut self, id: u64) {
        let Some(Item::Connection(connection)) = self.items.get_mut(&id) else {
            return;
        };
        let Connection { inside, outside, sent, received } = connection;
        let results = [
            sent.pump(&*inside, &*outside, &mut self.pipes),
            received.pump(&*outside, &*inside, &mut self.pipes),
        ];
        if results.iter().any(Result::is_err) {
            connection.abort();
            self.forget(id);
        } else if results.iter().all(|it| matches!(it, Ok(Progress::Done))) {
            self.forget(id);
        } else if results.iter().any(|it| matches!(it, Ok(Progress::More))) {
            self.again.insert(id);
        }
    }
}

/// Without what only sockets know: labels and scopes of IPv6.
fn plain(flow: Flow) -> Flow {
    let plain = |it: SocketAddr| SocketAddr::new(it.ip(), it.port());
    Flow { from: plain(flow.from), to: plain(flow.to) }
}

/// Starts a connection.
fn connect(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}
