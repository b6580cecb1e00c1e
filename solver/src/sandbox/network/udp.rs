//! Datagrams of a step: an outside socket for each pair of addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::engine::{Engine, Item, refusal};
use super::packet::{self, Flow, Transport};
use super::rules::Mark;

/// How long both sides may be silent (RFC 4787 asks for two minutes at least, and less where the
/// port is known to be of short questions).
const IDLE: Duration = Duration::from_mins(2);
const IDLE_DNS: Duration = Duration::from_secs(20);
const DNS: u16 = 53;
/// Largest datagram.
const MAX_DATAGRAM: usize = 64 << 10;
/// Datagrams of one exchange before others have their turn.
const DATAGRAMS: usize = 64;

/// Datagrams between two addresses.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) flow: Flow,
    outside: UdpSocket,
    /// The packet that was sent last, which an error is about.
    last: Vec<u8>,
    used: Instant,
}

impl Exchange {
    /// Whether nothing came or went for long.
    pub(super) fn is_stale(&self) -> bool {
        self.used.elapsed() >= if self.flow.to.port() == DNS { IDLE_DNS } else { IDLE }
    }
}

impl Engine {
    /// Starts an exchange with its first datagram.
    pub(super) fn exchange(&mut self, flow: Flow, to: SocketAddr, packet: &[u8], data: &[u8]) {
        let outside = match connect(to) {
            Ok(outside) => outside,
            Err(error) => {
                if let Some(mark) = refusal(&error, Transport::Udp) {
                    self.refuse(&flow, packet, mark);
                }
                return;
            }
        };
        let id = self.number();
        if self.watch(id, &outside, EventFlags::IN).is_ok() {
            self.flows.insert((Transport::Udp, flow), id);
            let exchange = Exchange { flow, outside, last: Vec::new(), used: Instant::now() };
            self.items.insert(id, Item::Exchange(exchange));
            self.send(id, packet, data);
        }
    }

    /// Sends a datagram on.
    pub(super) fn send(&mut self, id: u64, packet: &[u8], data: &[u8]) {
        let Some(Item::Exchange(exchange)) = self.items.get_mut(&id) else {
            return;
        };
        exchange.used = Instant::now();
        packet.clone_into(&mut exchange.last);
        if let Err(error) = exchange.outside.send(data) {
            self.failed(id, &error);
        }
    }

    /// Takes answers from outside.
    pub(super) fn answered(&mut self, id: u64) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        for _ in 0..DATAGRAMS {
            let Some(Item::Exchange(exchange)) = self.items.get_mut(&id) else {
                return;
            };
            match exchange.outside.recv(&mut buffer) {
                Ok(length) => {
                    exchange.used = Instant::now();
                    let flow = exchange.flow;
                    if let Some(packet) = packet::reply(&flow, &buffer[..length]) {
                        self.inject(flow.from.ip(), &packet, Mark::Reply);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.failed(id, &error);
                    return;
                }
            }
        }
    }

    /// Tells the step what happened to its datagram.
    fn failed(&mut self, id: u64, error: &io::Error) {
        if let Some(mark) = refusal(error, Transport::Udp)
            && let Some(Item::Exchange(exchange)) = self.items.get(&id)
        {
            self.refuse(&exchange.flow, &exchange.last, mark);
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}
