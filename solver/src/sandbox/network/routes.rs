//! Interfaces, addresses and routes, as rtnetlink messages. Pure.

use std::net::IpAddr;

use super::netlink::{self, Attributes, Received};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const UP: u32 = 1;
/// The loopback's number: it is the first interface of every network namespace.
pub(super) const LOOPBACK: u32 = 1;
/// Number of the interface that steps see: far from those that a kernel makes by itself.
pub(super) const DEVICE: u32 = 1000;
/// Its name, as under other builders.
const DEVICE_NAME: &str = "eth0";
/// Kinds of interfaces that need nothing beneath: the kernel may lack one or the other.
pub(super) const DEVICE_KINDS: [&str; 2] = ["dummy", "bridge"];
/// Rank of the route through it: behind the one that is taken, which for IPv6 is 1024.
const FOR_SHOW: u32 = 4096;
/// `IN6_ADDR_GEN_MODE_NONE`: no address but those it is given.
const NO_OTHER_ADDRESS: u8 = 1;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const TYPE_UNICAST: u8 = 1;
const TYPE_LOCAL: u8 = 2;
const TYPE_PROHIBIT: u8 = 8;
/// No duplicate address detection.
const NO_DETECTION: u8 = 2;

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

/// Makes an interface of such a kind. Nothing ever leaves through it: programs look for one that is
/// not the loopback, and for an address on it.
pub(super) fn device(kind: &str) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let kind = Attributes::new().bytes(1, kind.as_bytes());
    let attributes = Attributes::new().text(3, DEVICE_NAME).nest(18, &kind);
    netlink::command(&mut out, (NEW_LINK, netlink::CREATE), 1, &link(DEVICE, 0), &attributes);
    (out, 1)
}

/// Has the interface keep to the addresses that it is given.
pub(super) fn no_other_address() -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let ipv6 = Attributes::new().bytes(8, &[NO_OTHER_ADDRESS]);
    let attributes = Attributes::new().nest(26, &Attributes::new().nest(10, &ipv6));
    netlink::command(&mut out, (NEW_LINK, 0), 1, &link(DEVICE, 0), &attributes);
    (out, 1)
}

/// The header of a message about an interface; `flags` are set.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

/// Brings the loopback and interface `device` up, gives the latter the addresses `own`, and leads
/// everything of their families to the loopback; with the number of answers. A second route, which
/// is never taken, names the device for those who look for one.
///
/// All addresses are local ones then: IPv6 has no ordinary routes through the loopback, and over one
/// of IPv4 the kernel does not send its own refusals. What leaves for another address is caught
/// before it arrives.
pub(super) fn everything_to_loopback(own: &[IpAddr], device: u32) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut sequence = 0;
    let mut add = |kind, flags, header: &[u8], attributes: &Attributes| {
        sequence += 1;
        netlink::command(&mut out, (kind, flags), sequence, header, attributes);
    };
    add(NEW_LINK, 0, &link(LOOPBACK, UP), &Attributes::new());
    if device != LOOPBACK {
        add(NEW_LINK, 0, &link(device, UP), &Attributes::new());
    }
    for &address in own {
        let bytes = octets(address);
        let bits = u8::try_from(bytes.len() * 8).unwrap_or(0);
        let on = device.to_ne_bytes();
        let header = [[family(address), bits, NO_DETECTION, SCOPE_UNIVERSE], on].concat();
        let attributes = Attributes::new().bytes(2, &bytes).bytes(1, &bytes);
        add(NEW_ADDRESS, netlink::CREATE, &header, &attributes);
        let scope = match address {
            IpAddr::V4(_) => SCOPE_HOST,
            IpAddr::V6(_) => SCOPE_UNIVERSE,
        };
        let attributes = Attributes::new().ne32(4, LOOPBACK).bytes(7, &bytes);
        let header = route(address, 0, scope, TYPE_LOCAL);
        add(NEW_ROUTE, netlink::CREATE, &header, &attributes);
        if device != LOOPBACK {
            let attributes = Attributes::new().ne32(4, device).ne32(6, FOR_SHOW);
            let header = route(address, 0, SCOPE_LINK, TYPE_UNICAST);
            add(NEW_ROUTE, netlink::CREATE, &header, &attributes);
        }
    }
    (out, sequence as usize)
}

/// Makes `destinations`, each with so many bits of prefix, unreachable; with the number of answers.
pub(super) fn prohibit(destinations: &[(IpAddr, u8)]) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    for (sequence, &(address, bits)) in (1..).zip(destinations) {
        let attributes = Attributes::new().bytes(1, &octets(address)).ne32(6, 1);
        let header = route(address, bits, SCOPE_UNIVERSE, TYPE_PROHIBIT);
        netlink::command(&mut out, (NEW_ROUTE, netlink::CREATE), sequence, &header, &attributes);
    }
    (out, destinations.len())
}

fn route(address: IpAddr, bits: u8, scope: u8, kind: u8) -> Vec<u8> {
    [family(address), bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, kind, 0, 0, 0, 0].to_vec()
}

/// Asks for the route to `address`.
pub(super) fn ask(address: IpAddr) -> Vec<u8> {
    let bytes = octets(address);
    let bits = u8::try_from(bytes.len() * 8).unwrap_or(0);
    let header = [family(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut out = Vec::new();
    netlink::message(&mut out, (GET_ROUTE, 0), 1, &header, &Attributes::new().bytes(1, &bytes));
    out
}

/// How the host reaches an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Route {
    /// Through a network.
    Outside,
    /// It is the host's own, or everybody's.
    Here,
    /// Not at all.
    None,
}

/// The answer to [`ask`].
pub(super) fn answer(bytes: &[u8]) -> Route {
    match netlink::received(bytes).first() {
        Some(Received::Message { kind: NEW_ROUTE, body }) => match body.get(7) {
            Some(&TYPE_UNICAST) => Route::Outside,
            Some(6..) | None => Route::None,
            Some(_) => Route::Here,
        },
        _ => Route::None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::netlink::hex;
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_messages() {
        let own = [IpAddr::from([192, 0, 0, 8])];
        assert_eq!(everything_to_loopback(&own, DEVICE).1, 5);
        assert_eq!(device("dummy").1, 1);
        let (bytes, answers) = everything_to_loopback(&own, LOOPBACK);
        assert_eq!(answers, 3);
        expect![[r#"
            20000000 10000500 01000000 00000000
            00000000 01000000 01000000 01000000
            28000000 14000504 02000000 00000000
            02200200 01000000 08000200 c0000008
            08000100 c0000008 2c000000 18000504
            03000000 00000000 02000000 fe04fe02
            00000000 08000400 01000000 08000700
            c0000008
        "#]]
        .assert_eq(&hex(&bytes));
        expect![[r#"
            24000000 1a000100 01000000 00000000
            02200000 00000000 00000000 08000100
            cb007105
        "#]]
        .assert_eq(&hex(&ask(IpAddr::from([203, 0, 113, 5]))));
    }

    #[test]
    fn answers() {
        let answered = |kind| {
            let mut out = Vec::new();
            let header = route(IpAddr::from([1, 2, 3, 4]), 32, 0, kind);
            netlink::message(&mut out, (NEW_ROUTE, 0), 1, &header, &Attributes::new());
            answer(&out)
        };
        assert_eq!(answered(TYPE_UNICAST), Route::Outside);
        assert_eq!(answered(TYPE_LOCAL), Route::Here);
        assert_eq!(answered(3), Route::Here);
        assert_eq!(answered(TYPE_PROHIBIT), Route::None);
        assert_eq!(answer(&[]), Route::None);
    }
}
