//! TCP and UDP packets as bytes. Pure; what is read comes from a step and is hostile.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bytes of an IPv4 header without options.
const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
const V6_HEADER: usize = 40;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// What a packet carries.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Where a packet goes from and to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Flow {
    /// In the step.
    pub(super) from: SocketAddr,
    /// Where the step wants to go.
    pub(super) to: SocketAddr,
}

/// A packet that was understood.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Parsed<'a> {
    pub(super) transport: Transport,
    pub(super) flow: Flow,
    /// What a datagram carries; of TCP all that follows the ports.
    pub(super) data: &'a [u8],
}

/// Parts of a packet by their places.
struct Places {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    transport: usize,
    end: usize,
}

fn places(packet: &[u8]) -> Option<Places> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let end = usize::from(half(packet, 2)?);
            // Fragments are put together only by their receiver.
            let fragment = half(packet, 6)? & 0x3fff != 0;
            if header < V4_HEADER || end < header || end > packet.len() || fragment {
                return None;
            }
            let address = |at: usize| -> Option<IpAddr> {
                let four: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(four)))
            };
            let (source, destination) = (address(12)?, address(16)?);
            Some(Places { source, destination, protocol: packet[9], transport: header, end })
        }
        6 => {
            let end = V6_HEADER + usize::from(half(packet, 4)?);
            if end > packet.len() {
                return None;
            }
            let address = |at: usize| -> Option<IpAddr> {
                let sixteen: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(sixteen)))
            };
            let (source, destination) = (address(8)?, address(24)?);
            let protocol = packet[6];
            Some(Places { source, destination, protocol, transport: V6_HEADER, end })
        }
        _ => None,
    }
}

/// Reads a packet; none if it is cut off, a fragment, or neither TCP nor UDP.
pub(super) fn parse(packet: &[u8]) -> Option<Parsed<'_>> {
    let Places { source, destination, protocol, transport, end } = places(packet)?;
    let segment = packet.get(transport..end)?;
    let (transport, data) = match protocol {
        TCP if segment.len() >= 20 => (Transport::Tcp, &segment[4..]),
        UDP => (Transport::Udp, segment.get(UDP_HEADER..)?),
        _ => return None,
    };
    let flow = Flow {
        from: SocketAddr::new(source, half(segment, 0)?),
        to: SocketAddr::new(destination, half(segment, 2)?),
    };
    Some(Parsed { transport, flow, data })
}

/// The packet with the checksum that its sender left to hardware.
pub(super) fn complete(packet: &[u8]) -> Option<Vec<u8>> {
    let Places { source, destination, protocol, transport, end } = places(packet)?;
    let mut packet = packet.get(..end)?.to_vec();
    let segment = packet.get_mut(transport..)?;
    let place = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    segment.get_mut(place..place + 2)?.fill(0);
    let sum = checksum(source, destination, protocol, segment);
    segment.get_mut(place..place + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// A datagram from `flow.to` back to `flow.from`; none if it is too long for one packet.
///
/// In IPv4 the length, identification and checksum of the header are the kernel's to fill in.
pub(super) fn reply(flow: &Flow, data: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP_HEADER + data.len()).ok()?;
    let (source, destination) = (flow.to.ip(), flow.from.ip());
    let mut packet = Vec::with_capacity(V6_HEADER + usize::from(length));
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = length.checked_add(20)?;
            packet.extend([0x45, 0]);
            packet.extend(total.to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([UDP, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    }
    let transport = packet.len();
    packet.extend(flow.to.port().to_be_bytes());
    packet.extend(flow.from.port().to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(data);
    let sum = checksum(source, destination, UDP, &packet[transport..]);
    packet[transport + 6..transport + 8].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// The internet checksum over a segment and the addresses (RFC 793, RFC 768, RFC 8200).
fn checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut sum = 0_u64;
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    };
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => add(&address.octets()),
            IpAddr::V6(address) => add(&address.octets()),
        }
    }
    add(&u32::try_from(segment.len()).unwrap_or(0).to_be_bytes());
    add(&[0, protocol]);
    add(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    // In UDP zero means that there is none.
    if sum == 0 && protocol == UDP { 0xffff } else { sum }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(from: &str, to: &str) -> Flow {
        Flow { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn datagrams_there_and_back() {
        for flow in
            [flow("192.0.0.8:4000", "203.0.113.5:53"), flow("[fd72::8]:4000", "[2001:db8::1]:53")]
        {
            let packet = reply(&flow, b"hello").unwrap();
            let parsed = parse(&packet).unwrap();
            assert_eq!(parsed.transport, Transport::Udp);
            assert_eq!((parsed.flow.from, parsed.flow.to), (flow.to, flow.from));
            assert_eq!(parsed.data, b"hello");
            let completed = complete(&packet).unwrap();
            assert_eq!(completed, packet);
            // With its checksum in place a segment sums up to nothing.
            let at = packet.len() - 13;
            let sum = checksum(parsed.flow.from.ip(), parsed.flow.to.ip(), UDP, &packet[at..]);
            assert_eq!(sum, 0xffff);
        }
    }

    #[test]
    fn what_is_too_long_is_no_packet() {
        let flow = flow("192.0.0.8:1", "203.0.113.5:2");
        assert!(reply(&flow, &vec![0; 65_507]).is_some());
        assert_eq!(reply(&flow, &vec![0; 65_508]), None);
    }

    #[test]
    fn fragments_are_not_read() {
        let mut packet = reply(&flow("192.0.0.8:1", "203.0.113.5:2"), b"x").unwrap();
        packet[6] = 0x20;
        assert_eq!(parse(&packet), None);
        packet[6] = 0x40;
        assert!(parse(&packet).is_some());
    }

    proptest! {
        #[test]
        fn nothing_crashes_the_reader(mut bytes in prop::collection::vec(any::<u8>(), 0..80), four: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if four { 0x45 } else { 0x60 };
            }
            let _ = parse(&bytes);
            drop(complete(&bytes));
        }
    }
}
