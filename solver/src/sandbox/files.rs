//! The texts of `/etc/hosts` and `/etc/resolv.conf` in a step. Pure.

use super::network::HOST_GATEWAY;

/// `/etc/hosts` of a step with additional `(name, address)` lines, in which `host-gateway` is
/// `gateway`.
pub fn hosts(hostname: &str, extra: &[(String, String)], gateway: &str) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {hostname}\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    for (name, address) in extra {
        let address = if address == HOST_GATEWAY { gateway } else { address };
        text.extend([address, "\t", name, "\n"]);
    }
    text
}

/// Where public name servers are asked when the host names none that a step could reach: what
/// BuildKit and Docker fall back to.
const FALLBACK: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Whether a name server of the host's loopback can be reached from the step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loopback {
    /// The step shares the host's network.
    Reachable,
    /// It does not.
    Elsewhere,
}

/// `/etc/resolv.conf` of a step, from that of the host: comments go, and so do name servers that
/// the step cannot reach.
pub fn resolv_conf(host: &str, loopback: Loopback) -> String {
    let mut text = String::new();
    let mut servers = 0;
    for line in host.lines() {
        let line = line.trim();
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some(first), _) if first.starts_with(['#', ';']) => {}
            (Some("nameserver"), Some(address)) => {
                let local = address.starts_with("127.") || address == "::1";
                if local && loopback == Loopback::Elsewhere {
                    continue;
                }
                servers += 1;
                text.extend(["nameserver ", address, "\n"]);
            }
            (Some("nameserver"), None) => {}
            (Some(_), _) => text.extend([line, "\n"]),
        }
    }
    if servers == 0 && loopback == Loopback::Elsewhere {
        for address in FALLBACK {
            text.extend(["nameserver ", address, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn hosts_with_additions() {
        let extra = [("db", "10.1.2.3"), ("six", "::1"), ("here", "host-gateway")]
            .map(|(name, address)| (name.to_owned(), address.to_owned()));
        expect![[r"
            127.0.0.1	localhost buildkitsandbox
            ::1	localhost ip6-localhost ip6-loopback
            10.1.2.3	db
            ::1	six
            10.0.0.1	here
        "]]
        .assert_eq(&hosts("buildkitsandbox", &extra, "10.0.0.1"));
    }

    const STUB: &str =
        "# from systemd\nnameserver 127.0.0.53\n; x\noptions edns0 trust-ad\nsearch lan\n";

    #[test]
    fn a_stub_resolver_is_kept_where_it_answers() {
        expect![[r"
            nameserver 127.0.0.53
            options edns0 trust-ad
            search lan
        "]]
        .assert_eq(&resolv_conf(STUB, Loopback::Reachable));
    }

    #[test]
    fn a_stub_resolver_is_replaced_elsewhere() {
        expect![[r"
            options edns0 trust-ad
            search lan
            nameserver 8.8.8.8
            nameserver 8.8.4.4
        "]]
        .assert_eq(&resolv_conf(STUB, Loopback::Elsewhere));
    }
}
