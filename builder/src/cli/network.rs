//! What the command line says about the network of RUN. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use rbuild_solver::sandbox::network::{Backend, HOST_GATEWAY, Options};

use super::raw::{Build, NetworkBackend};

/// Build arguments that name proxies, in any case.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY"];

/// The network of steps. Proxies that the user gives them are reachable, even on this host.
pub fn options(raw: &Build, build_args: &BTreeMap<String, String>) -> Options {
    let backend = match raw.network_backend {
        NetworkBackend::Auto => Backend::Auto,
        NetworkBackend::Embedded => Backend::Embedded,
        NetworkBackend::Pasta => Backend::Pasta,
        NetworkBackend::Slirp4netns => Backend::Slirp4netns,
    };
    let gateway = |it: &String| {
        it.ends_with(&format!(":{HOST_GATEWAY}")) || it.ends_with(&format!("={HOST_GATEWAY}"))
    };
    let host_gateway = raw.add_hosts.iter().any(gateway);
    Options { backend, allow: proxies(build_args), host_gateway }
}

fn proxies(build_args: &BTreeMap<String, String>) -> Vec<SocketAddr> {
    let is_proxy = |name: &str| PROXIES.iter().any(|it| it.eq_ignore_ascii_case(name));
    let given = build_args.iter().filter(|(name, _)| is_proxy(name));
    let mut all: Vec<_> = given.filter_map(|(_, value)| proxy(value)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The place of a proxy, if it is an address and not a name.
fn proxy(text: &str) -> Option<SocketAddr> {
    let url = url::Url::parse(text).ok().filter(url::Url::has_host);
    let url = url.or_else(|| url::Url::parse(&format!("http://{text}")).ok())?;
    let address: IpAddr = match url.host()? {
        // Of schemes that it does not know, the parser takes addresses for names.
        url::Host::Domain(name) => name.parse().ok()?,
        url::Host::Ipv4(address) => address.into(),
        url::Host::Ipv6(address) => address.into(),
    };
    Some(SocketAddr::new(address, url.port_or_known_default()?))
}

/// `/etc/resolv.conf` with these name servers; none without any.
pub fn resolv_conf(servers: &[IpAddr]) -> Option<String> {
    let lines = servers.iter().map(|server| format!("nameserver {server}\n"));
    (!servers.is_empty()).then(|| lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_by_address() {
        let place = |text| proxy(text).map(|it| it.to_string()).unwrap_or_default();
        assert_eq!(place("http://192.0.2.2:3128"), "192.0.2.2:3128");
        assert_eq!(place("http://user:word@192.0.2.2/"), "192.0.2.2:80");
        assert_eq!(place("192.0.2.2:3128"), "192.0.2.2:3128");
        assert_eq!(place("socks5://192.0.2.2:1080"), "192.0.2.2:1080");
        assert_eq!(place("https://[2001:db8::1]"), "[2001:db8::1]:443");
        assert_eq!(place("http://proxy.example:3128"), "");
        assert_eq!(place("://"), "");
        let args = [("http_proxy", "http://192.0.2.2:1"), ("OTHER", "http://192.0.2.3:1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(proxies(&args.into()), ["192.0.2.2:1".parse().unwrap()]);
    }

    #[test]
    fn name_servers() {
        let servers = ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        let text = "nameserver 192.0.2.53\nnameserver 2001:db8::53\n";
        assert_eq!(resolv_conf(&servers).as_deref(), Some(text));
        assert_eq!(resolv_conf(&[]), None);
    }
}
