//! Which destinations a step can reach, and under which address. Pure.
//!
//! A step has no business with the machine that builds it: not with services that trust it for being
//! local, and not with the cloud's metadata service, which hands out the machine's credentials.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address that a step has: one that RFC 7600 sets aside for those that have none, so that
/// nothing that a step may want to reach is hidden by it.
pub(super) const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6: a unique local address (RFC 4193), with our name as its random part.
pub(super) const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd72, 0x6275, 0x696c, 0x6400, 0, 0, 0, 8);
/// Where the step finds the host's name servers, the first at `.1`. Link-local addresses are not
/// reachable from a step, so that nothing is hidden by these either.
const NAME_SERVERS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 0);
/// Where the step finds the loopback of the host, if it may.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 254);
/// The same as text.
pub(super) const GATEWAY_TEXT: &str = "169.254.1.254";
/// Most name servers that a resolver library asks (`MAXNS`).
const MAX_NAME_SERVERS: usize = 3;
/// Port of DNS.
const DNS: u16 = 53;

/// Metadata services of clouds outside of link-local addresses: Amazon by IPv6, Azure, Alibaba,
/// Oracle.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Whether an address is never reachable, on whatever host. The host's own addresses are in
/// addition to these.
pub(super) fn forbidden(address: IpAddr) -> bool {
    if METADATA.contains(&address) {
        return true;
    }
    match address {
        IpAddr::V4(it) => {
            // "This host on this network" is the loopback for Linux.
            it.octets()[0] == 0
                || it.is_loopback()
                || it.is_link_local()
                || it.is_multicast()
                || it.is_broadcast()
        }
        IpAddr::V6(it) => {
            // ::ffff:0:0/96 and ::/96 (deprecated) and 64:ff9b::/96 (NAT64) have an IPv4 address in them.
            let embedded = match it.segments() {
                [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                    let low = u32::try_from(it.to_bits() & 0xffff_ffff).unwrap_or(0);
                    Some(Ipv4Addr::from_bits(low))
                }
                _ => None,
            };
            it.is_loopback()
                || it.is_unspecified()
                || it.is_multicast()
                || it.is_unicast_link_local()
                || embedded.is_some_and(|it| forbidden(it.into()))
        }
    }
}

/// The name servers of the host, as a step reaches them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NameServers {
    servers: Vec<SocketAddr>,
}

impl NameServers {
    /// Those of `/etc/resolv.conf` with this text; `index` finds the number of an interface.
    pub(super) fn new(resolv_conf: &str, index: impl Fn(&str) -> u32) -> Self {
        let mut servers = Vec::new();
        for line in resolv_conf.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("nameserver"), Some(word)) = (words.next(), words.next()) else {
                continue;
            };
            let (address, interface) = word.split_once('%').unwrap_or((word, ""));
            match address.parse() {
                Ok(IpAddr::V4(address)) => servers.push((address, DNS).into()),
                Ok(IpAddr::V6(address)) => {
                    let scope = if interface.is_empty() { 0 } else { index(interface) };
                    servers.push(std::net::SocketAddrV6::new(address, DNS, 0, scope).into());
                }
                Err(_) => {}
            }
        }
        if servers.is_empty() {
            // What the resolver library asks then.
            servers.push((Ipv4Addr::LOCALHOST, DNS).into());
        }
        servers.truncate(MAX_NAME_SERVERS);
        Self { servers }
    }

    /// Where a connection or datagram to `to` really goes, if that is one of the servers.
    fn behind(&self, to: SocketAddr) -> Option<SocketAddr> {
        let IpAddr::V4(address) = to.ip() else {
            return None;
        };
        let [a, b, c, number] = address.octets();
        let index = usize::from(number).checked_sub(1)?;
        let ours = NAME_SERVERS.octets()[..3] == [a, b, c] && to.port() == DNS;
        ours.then(|| self.servers.get(index).copied()).flatten()
    }

    /// `/etc/resolv.conf` of a step: these servers, and what else `host` says.
    pub(super) fn resolv_conf(&self, host: &str) -> String {
        let mut text = String::new();
        for number in (1..).take(self.servers.len()) {
            let [a, b, c, _] = NAME_SERVERS.octets();
            let _ = writeln!(text, "nameserver {}", Ipv4Addr::new(a, b, c, number));
        }
        for line in host.lines().map(str::trim) {
            if !line.starts_with(['#', ';']) && !line.starts_with("nameserver") && !line.is_empty()
            {
                text.extend([line, "\n"]);
            }
        }
        text
    }
}

/// Where the step's traffic to `to` goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// To this address outside, even if it is one of the host: a name server, or what the user named.
    Trusted(SocketAddr),
    /// Where it wants to, unless that is an address of the host itself.
    Outside(SocketAddr),
    /// Nowhere.
    Forbidden,
}

/// What steps reach although it is, or may be, the host itself.
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    /// The host's resolvers.
    pub(super) servers: NameServers,
    /// What the user named.
    pub(super) destinations: Vec<SocketAddr>,
    /// Whether the host's loopback has an address in the step.
    pub(super) host_gateway: bool,
}

/// See [`Target`].
pub(super) fn target(to: SocketAddr, allowed: &Allowed) -> Target {
    if let Some(server) = allowed.servers.behind(to) {
        return Target::Trusted(server);
    }
    if allowed.host_gateway && to.ip() == IpAddr::V4(GATEWAY) {
        return Target::Trusted((Ipv4Addr::LOCALHOST, to.port()).into());
    }
    if allowed.destinations.contains(&to) {
        return Target::Trusted(to);
    }
    if forbidden(to.ip()) { Target::Forbidden } else { Target::Outside(to) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_no_step_reaches() {
        let forbidden_ones = [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::fb",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "168.63.129.16",
        ];
        for address in forbidden_ones {
            assert!(forbidden(address.parse().unwrap()), "{address}");
        }
        let fine = [
            "203.0.113.80",
            "10.0.0.1",
            "192.168.1.1",
            "2001:db8::1",
            "fd00::1",
            "::ffff:203.0.113.80",
            "64:ff9b::cb00:7150",
            "100.64.0.1",
        ];
        for address in fine {
            assert!(!forbidden(address.parse().unwrap()), "{address}");
        }
    }

    fn allowed(servers: NameServers) -> Allowed {
        Allowed { servers, destinations: Vec::new(), host_gateway: false }
    }

    const STUB: &str = "# stub\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n\
                        options edns0\nsearch lan\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n";

    #[test]
    fn name_servers_have_addresses_of_their_own() {
        let servers = NameServers::new(STUB, |name| u32::from(name == "eth0") * 7);
        expect![[r#"
            nameserver 169.254.1.1
            nameserver 169.254.1.2
            nameserver 169.254.1.3
            options edns0
            search lan
        "#]]
        .assert_eq(&servers.resolv_conf(STUB));
        let allowed = allowed(servers);
        let target = |to: &str| target(to.parse().unwrap(), &allowed);
        let server = |at: &str| Target::Trusted(at.parse().unwrap());
        assert_eq!(target("169.254.1.1:53"), server("127.0.0.53:53"));
        assert_eq!(target("169.254.1.2:53"), server("[fe80::1%7]:53"));
        assert_eq!(target("169.254.1.3:53"), server("10.0.0.2:53"));
        for to in ["169.254.1.4:53", "169.254.1.0:53", "169.254.1.1:80", "127.0.0.53:53"] {
            assert_eq!(target(to), Target::Forbidden, "{to}");
        }
        assert_eq!(target("10.0.0.3:53"), Target::Outside("10.0.0.3:53".parse().unwrap()));
    }

    #[test]
    fn without_name_servers_the_local_one_is_asked() {
        let allowed = allowed(NameServers::new("search x\n", |_| 0));
        let to = "169.254.1.1:53".parse().unwrap();
        let local = Target::Trusted("127.0.0.1:53".parse().unwrap());
        assert_eq!(target(to, &allowed), local);
    }

    #[test]
    fn the_user_can_allow_a_destination() {
        let mut allowed = allowed(NameServers::new("", |_| 0));
        let proxy: SocketAddr = "192.0.2.2:3128".parse().unwrap();
        let gateway = SocketAddr::new(GATEWAY_TEXT.parse().unwrap(), 80);
        assert_eq!(gateway.ip(), IpAddr::V4(GATEWAY));
        assert_eq!(target(proxy, &allowed), Target::Outside(proxy));
        assert_eq!(target(gateway, &allowed), Target::Forbidden);
        allowed.destinations.push(proxy);
        allowed.host_gateway = true;
        assert_eq!(target(proxy, &allowed), Target::Trusted(proxy));
        assert_eq!(target(gateway, &allowed), Target::Trusted("127.0.0.1:80".parse().unwrap()));
    }
}
