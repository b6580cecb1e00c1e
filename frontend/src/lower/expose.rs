//! Ports of `EXPOSE`: `[ip:][host:]port[-port][/protocol]`.

use crate::gotext;

/// Highest port.
const MAX_PORT: u32 = 65_535;

/// What a port says that nothing listens to: warnings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Oddities {
    /// The protocol has capital letters.
    pub(crate) protocol_case: bool,
    /// It has an address or a host port.
    pub(crate) mapping: bool,
}

/// The ports that one word exposes, as `number/protocol`, and what is odd about it.
///
/// # Errors
///
/// If it is not a port, as text.
pub(crate) fn parse(word: &str) -> Result<(Vec<String>, Oddities), String> {
    let (ip, host_port, rest) = split(word);
    let (port, protocol) = rest.split_once('/').unwrap_or((rest, ""));
    let quoted = gotext::quote(word);
    if port.is_empty() {
        return Err(format!("invalid port: {quoted}: no port specified"));
    }
    let lower = protocol.to_ascii_lowercase();
    let lower = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => lower.as_str(),
        _ => return Err(format!("invalid port: {quoted}: invalid proto: {protocol}")),
    };
    let oddities = Oddities {
        protocol_case: !protocol.is_empty() && protocol != lower,
        mapping: !ip.is_empty() || !host_port.is_empty(),
    };
    check_ip(ip)?;
    let (first, last) = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
    if !host_port.is_empty() {
        let (host_first, host_last) =
            range(host_port).ok_or_else(|| format!("invalid hostPort: {host_port}"))?;
        if last - first != host_last - host_first && first != last {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {port} and {host_port}"
            ));
        }
    }
    Ok(((first..=last).map(|number| format!("{number}/{lower}")).collect(), oddities))
}

/// Address, host port and port.
fn split(word: &str) -> (&str, &str, &str) {
    match word.rsplit_once(':') {
        None => ("", "", word),
        Some((before, port)) => match before.rsplit_once(':') {
            None => ("", before, port),
            Some((ip, host_port)) => (ip, host_port, port),
        },
    }
}

fn check_ip(ip: &str) -> Result<(), String> {
    let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    if bare.is_empty() || bare.parse::<std::net::IpAddr>().is_ok() {
        Ok(())
    } else {
        Err(format!("invalid IP address: {ip}"))
    }
}

fn range(ports: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|&it| it <= MAX_PORT);
    let Some((first, last)) = ports.split_once('-') else {
        return number(ports).map(|it| (it, it));
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, want: &str) {
        let got = match parse(word) {
            Ok((ports, _)) => ports.join(" "),
            Err(error) => error,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn ports() {
        check("80", "80/tcp");
        check("80/UDP", "80/udp");
        check("80/", "80/tcp");
        check("8000-8002/sctp", "8000/sctp 8001/sctp 8002/sctp");
        check("127.0.0.1:80:81", "81/tcp");
        check("[::1]:80:81", "81/tcp");
        check("8080:80", "80/tcp");
        check("8000-8001:80", "80/tcp");
        check("x", "invalid containerPort: x");
        check("65536", "invalid containerPort: 65536");
        check("9-8", "invalid containerPort: 9-8");
        check("/tcp", "invalid port: \"/tcp\": no port specified");
        check("80/icmp", "invalid port: \"80/icmp\": invalid proto: icmp");
        check("a.b:1:80", "invalid IP address: a.b");
        check("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3");
    }

    #[test]
    fn oddities() {
        let odd = |word| parse(word).expect("a port").1;
        assert_eq!(odd("80/tcp"), Oddities::default());
        assert_eq!(odd("80/TCP"), Oddities { protocol_case: true, mapping: false });
        assert_eq!(odd("1:80"), Oddities { protocol_case: false, mapping: true });
    }
}
