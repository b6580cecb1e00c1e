//! The event loop between a step's namespace and the host's network.
//!
//! ```text
//!  step: connect() ── SYN ──> caught, logged ──> engine: may it go there?  ── connect() ──> outside
//!                                                                    stands, or is refused
//!        SYN again, marked <────────────────────────────────────────────'
//!        redirected to the engine's listener, or refused by the kernel as it was outside
//! ```
//!
//! So a connection is there inside when it is there outside, and is refused, unreachable or silent
//! like the one outside. The kernel does TCP on both sides; bytes go by splice(2). Datagrams are
//! sent on from a socket for each pair of addresses. One thread; it runs in the host's namespace
//! with the user's own rights, and ends when the other end of `control` does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::namespace::{HostRoutes, Namespace, Sockets};
use super::netlink::{self, Received};
use super::packet::{self, Flow, Transport};
use super::policy::{self, Allowed, Target};
use super::routes::Route;
use super::rules::{self, Mark};
use super::splice::Pipes;
use super::tcp::{Connection, Dial};
use super::udp::Exchange;

/// Most connections and exchanges of datagrams at the same time. What is beyond is dropped, and its
/// sender tries again.
const MAX_FLOWS: u64 = 4096;
/// Share of our descriptors that flows may use: each needs at most four.
const DESCRIPTORS_PER_FLOW: u64 = 8;
/// Refused destinations that are told of.
const MAX_TOLD: usize = 8;
/// Events of one call.
const EVENTS: usize = 64;
/// Time between two looks for what is idle.
const SWEEP: Duration = Duration::from_secs(1);
/// Most bytes of one read: a message holds one packet.
const MAX_MESSAGE: usize = 128 << 10;

const CONTROL: u64 = 0;
const LOG: u64 = 1;
const LISTENER_V4: u64 = 2;
const LISTENER_V6: u64 = 3;
const FIRST_ITEM: u64 = 4;

/// What all engines of a build share.
#[derive(Debug)]
pub(super) struct Host {
    /// What may be an address of the host.
    pub(super) allowed: Allowed,
    /// Where steps wanted to go and may not.
    pub(super) refused: Mutex<BTreeSet<SocketAddr>>,
}

/// What a token of the event queue stands for.
#[derive(Debug)]
pub(super) enum Item {
    /// A connection whose outside half is under way, or waits for the inside one.
    Dial(Dial),
    /// A connection.
    Connection(Connection),
    /// Datagrams between two addresses.
    Exchange(Exchange),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Engine {
    epoll: OwnedFd,
    control: OwnedFd,
    pub(super) namespace: Namespace,
    host: Arc<Host>,
    routes: HostRoutes,
    pub(super) items: BTreeMap<u64, Item>,
    pub(super) flows: BTreeMap<(Transport, Flow), u64>,
    /// Connections that have more to move.
    pub(super) again: BTreeSet<u64>,
    pub(super) pipes: Pipes,
    next: u64,
    limit: u64,
    swept: Instant,
}

impl Engine {
    /// An engine for `namespace`. A byte on `control` makes it forget everything, its end ends it.
    ///
    /// # Errors
    ///
    /// If there is no event queue.
    pub(super) fn new(namespace: Namespace, control: OwnedFd, host: Arc<Host>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let add = |fd: &dyn AsFdDyn, token| {
            epoll::add(&epoll, fd.fd(), EventData::new_u64(token), EventFlags::IN)
        };
        add(&control, CONTROL)?;
        add(&namespace.log, LOG)?;
        add(&namespace.four.listener, LISTENER_V4)?;
        if let Some(six) = &namespace.six {
            add(&six.listener, LISTENER_V6)?;
        }
        let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = open.unwrap_or(u64::MAX) / DESCRIPTORS_PER_FLOW;
        Ok(Self {
            epoll,
            control,
            namespace,
            host,
            routes: HostRoutes::open()?,
            items: BTreeMap::new(),
            flows: BTreeMap::new(),
            again: BTreeSet::new(),
            pipes: Pipes::default(),
            next: FIRST_ITEM,
            limit: limit.min(MAX_FLOWS),
            swept: Instant::now(),
        })
    }

    /// Works until `control` ends.
    ///
    /// # Errors
    ///
    /// If the event queue breaks.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let mut space = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
            let wait = match (self.again.is_empty(), self.items.is_empty()) {
                (false, _) => Some(Duration::ZERO),
                (true, false) => Some(SWEEP),
                (true, true) => None,
            };
            let wait = wait.and_then(|it| it.try_into().ok());
            let tokens: Vec<u64> = match epoll::wait(&self.epoll, &mut space, wait.as_ref()) {
                Ok((events, _)) => events.iter().map(|it| it.data.u64()).collect(),
                Err(Errno::INTR) => Vec::new(),
                Err(errno) => return Err(errno.into()),
            };
            let mut pumped = std::mem::take(&mut self.again);
            for token in tokens {
                match token {
                    CONTROL if !self.told()? => return Ok(()),
                    CONTROL => {}
                    LOG => self.caught(),
                    LISTENER_V4 | LISTENER_V6 => self.accept(token == LISTENER_V6),
                    item => {
                        pumped.remove(&item);
                        self.event(item);
                    }
                }
            }
            for item in pumped {
                self.event(item);
            }
            if self.swept.elapsed() >= SWEEP {
                self.sweep();
            }
        }
    }

    /// Whether to go on.
    fn told(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        match rustix::io::read(&self.control, &mut byte) {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.items.clear();
                self.flows.clear();
                self.again.clear();
                // Answered when all is forgotten.
                rustix::io::write(&self.control, &byte)?;
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }

    fn event(&mut self, id: u64) {
        match self.items.get(&id) {
            Some(Item::Dial(_)) => self.dialled(id),
            Some(Item::Connection(_)) => self.pump(id),
            Some(Item::Exchange(_)) => self.answered(id),
            None => {}
        }
    }

    /// Takes the packets that were caught.
    fn caught(&mut self) {
        let mut buffer = vec![0; MAX_MESSAGE];
        for _ in 0..EVENTS {
            let length = match rustix::net::recv(
                &self.namespace.log,
                &mut buffer[..],
                RecvFlags::DONTWAIT,
            ) {
                Ok((_, length)) => length.min(buffer.len()),
                // Some were lost: their senders try again.
                Err(Errno::NOBUFS | Errno::INTR) => continue,
                Err(_) => return,
            };
            for message in netlink::received(&buffer[..length]) {
                // Behind the family's header of four bytes.
                if let Received::Message { kind: rules::PACKET, body } = message
                    && let Some(packet) = body.get(4..)
                    && let Some(packet) = netlink::attribute(packet, rules::PAYLOAD)
                {
                    self.packet(packet);
                }
            }
        }
    }

    fn packet(&mut self, packet: &[u8]) {
        let Some(parsed) = packet::parse(packet) else {
            return;
        };
        let known = self.flows.get(&(parsed.transport, parsed.flow)).copied();
        match (parsed.transport, known) {
            // It was sent again while the outside connection is under way.
            (Transport::Tcp, Some(_)) => {}
            (Transport::Udp, Some(id)) => self.send(id, packet, parsed.data),
            (transport, None) => {
                if self.items.len() as u64 >= self.limit {
                    return;
                }
                let Some(target) = self.target(parsed.flow.to) else {
                    self.refuse(&parsed.flow, packet, Mark::Prohibited);
                    return;
                };
                match transport {
                    Transport::Tcp => self.dial(parsed.flow, target, packet),
                    Transport::Udp => self.exchange(parsed.flow, target, packet, parsed.data),
                }
            }
        }
    }

    /// Where traffic to `to` really goes, if it may.
    fn target(&self, to: SocketAddr) -> Option<SocketAddr> {
        let outside = match policy::target(to, &self.host.allowed) {
            Target::Trusted(address) => return Some(address),
            Target::Outside(address) => Some(address),
            Target::Forbidden => None,
        };
        // Where there is no route, trying says more.
        let route = outside.map(|it| self.routes.route(it.ip()));
        if matches!(route, Some(Ok(Route::Outside | Route::None))) {
            return outside;
        }
        let mut refused = self.host.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MAX_TOLD {
            refused.insert(to);
        }
        None
    }

    fn sockets(&self, address: IpAddr) -> Option<&Sockets> {
        match address {
            IpAddr::V4(_) => Some(&self.namespace.four),
            IpAddr::V6(_) => self.namespace.six.as_ref(),
        }
    }

    /// Has the kernel answer a packet of the step: as `mark` says.
    pub(super) fn refuse(&self, flow: &Flow, packet: &[u8], mark: Mark) {
        if let Some(packet) = packet::complete(packet) {
            self.inject(flow.to.ip(), &packet, mark);
        }
    }

    /// Sends a packet in the namespace. If that fails it is lost, as packets may be.
    pub(super) fn inject(&self, to: IpAddr, packet: &[u8], mark: Mark) {
        if let Some(sockets) = self.sockets(to) {
            drop(sockets.inject(packet, to, mark));
        }
    }

    /// The number of the next item.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Has events of `fd` come for item `id`.
    pub(super) fn watch(&self, id: u64, fd: impl AsFd, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(id), flags)?)
    }

    /// As [`Self::watch`], for what is watched already.
    pub(super) fn watch_for(&self, id: u64, fd: impl AsFd, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(id), flags)?)
    }

    /// Forgets an item.
    pub(super) fn forget(&mut self, id: u64) -> Option<Item> {
        let item = self.items.remove(&id)?;
        match &item {
            Item::Dial(dial) => self.flows.remove(&(Transport::Tcp, dial.flow)),
            Item::Exchange(exchange) => self.flows.remove(&(Transport::Udp, exchange.flow)),
            Item::Connection(_) => None,
        };
        Some(item)
    }

    /// Forgets what nobody waits for any more.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let stale = |item: &Item| match item {
            Item::Dial(dial) => dial.is_stale(),
            Item::Connection(_) => false,
            Item::Exchange(exchange) => exchange.is_stale(),
        };
        let ids: Vec<u64> =
            self.items.iter().filter(|(_, item)| stale(item)).map(|(id, _)| *id).collect();
        for id in ids {
            self.forget(id);
        }
    }
}

/// What a call outside answered, as a packet inside would say it.
pub(super) fn refusal(error: &io::Error, transport: Transport) -> Option<Mark> {
    Some(match error.raw_os_error()? {
        libc::ECONNREFUSED if transport == Transport::Tcp => Mark::Reset,
        libc::ECONNRESET => Mark::Reset,
        libc::ECONNREFUSED => Mark::NoPort,
        libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT => Mark::NoNetwork,
        libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT => Mark::NoHost,
        libc::EACCES | libc::EPERM => Mark::Prohibited,
        // Silence: it is tried again.
        _ => return None,
    })
}

/// [`AsFd`] behind a reference.
trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}
