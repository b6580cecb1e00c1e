//! The packet filter of a step's network namespace, as `nf_tables` messages. Pure.
//!
//! ```text
//!  table ip|ip6 rbuild {
//!    chain capture { type filter hook output priority raw
//!      meta mark REPLY   notrack accept                  what the engine sends to the step
//!      meta mark GO      accept                          a SYN whose outside connection stands
//!      meta mark ...     reject with tcp reset, icmp ... one whose outside connection does not
//!      daddr (loopback, own address) accept
//!      tcp syn / udp     log group 1, meta mark CAUGHT, notrack, accept
//!      tcp accept                                        connections that stand
//!      reject with icmp admin-prohibited                 ping and everything else
//!    }
//!    chain caught    { type filter hook prerouting priority raw;  meta mark CAUGHT drop }
//!    chain divert    { type nat hook output priority dstnat;  meta mark GO redirect to :port }
//!  }
//! ```
//!
//! A caught packet goes on to the loopback, where it is dropped: a drop on the way out would be an
//! error (`EPERM`) of the sender's call. The policy of destinations is *not* here, where a step with
//! all capabilities could change it, but in the engine.

use super::netlink::{self, Attributes};

/// `NFNL_SUBSYS_NFTABLES`, as the high byte of a message's kind.
const NFTABLES: u16 = 10 << 8;
/// `NFNL_SUBSYS_ULOG`, likewise.
const ULOG: u16 = 4 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = NFTABLES;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
/// Kind of a message with a logged packet.
pub(super) const PACKET: u16 = ULOG;
/// Attribute of such a message: the packet's bytes from the network header on.
pub(super) const PAYLOAD: u16 = 9;
const CONFIGURE_LOG: u16 = ULOG | 1;
/// Log group of caught packets.
const GROUP: u16 = 1;
/// Most bytes of a logged packet: all (`0xffff` less an attribute's header).
const COPY_RANGE: u32 = 0xfffb;

const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
/// Before connection tracking.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;

const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Marks of packets, by which the engine and the rules speak.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub(super) enum Mark {
    /// To the engine; dropped on its way.
    Caught = 0x7262_0000,
    /// From outside to the step.
    Reply,
    /// The outside connection stands: connect with the engine.
    Go,
    /// Refuse with a TCP reset.
    Reset,
    /// Refuse: network unreachable.
    NoNetwork,
    /// Refuse: host unreachable.
    NoHost,
    /// Refuse: port unreachable.
    NoPort,
    /// Refuse: administratively prohibited.
    Prohibited,
}

/// Which internet protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_*`, which is also `AF_*`.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Code of a `destination unreachable` message.
    const fn unreachable(self, mark: Mark) -> u8 {
        match (self, mark) {
            (Self::V4, Mark::NoNetwork) => 0,
            (Self::V4, Mark::NoHost) => 1,
            (Self::V4, Mark::NoPort) => 3,
            (Self::V4, _) => 13,
            (Self::V6, Mark::NoNetwork) => 0,
            (Self::V6, Mark::NoHost) => 3,
            (Self::V6, Mark::NoPort) => 4,
            (Self::V6, _) => 1,
        }
    }
}

/// What the rules of one family need to know.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    pub(super) family: Family,
    /// The namespace's own address, as bytes.
    pub(super) own: &'a [u8],
    /// Port of the engine's listening socket.
    pub(super) port: u16,
}

/// An expression: its name and its attributes.
type Expression = (&'static str, Attributes);

fn meta(key: u32) -> Expression {
    ("meta", Attributes::new().be32(2, key).be32(1, 1))
}

fn equals(value: &[u8]) -> Expression {
    let data = Attributes::new().bytes(1, value);
    ("cmp", Attributes::new().be32(1, 1).be32(2, 0).nest(3, &data))
}

/// `base`: 1 is the network header, 2 the transport header.
fn payload(base: u32, offset: u32, length: usize) -> Expression {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    ("payload", Attributes::new().be32(1, 1).be32(2, base).be32(3, offset).be32(4, length))
}

fn mask(value: u8) -> Expression {
    let (mask, xor) = (Attributes::new().bytes(1, &[value]), Attributes::new().bytes(1, &[0]));
    let attributes = Attributes::new().be32(1, 1).be32(2, 1).be32(3, 1);
    ("bitwise", attributes.nest(4, &mask).nest(5, &xor))
}

fn load(value: &[u8]) -> Expression {
    let data = Attributes::new().bytes(1, value);
    ("immediate", Attributes::new().be32(1, 1).nest(2, &data))
}

fn verdict(code: u32) -> Expression {
    let data = Attributes::new().nest(2, &Attributes::new().be32(1, code));
    ("immediate", Attributes::new().be32(1, 0).nest(2, &data))
}

fn drop_packet() -> Expression {
    verdict(0)
}

fn accept() -> Expression {
    verdict(1)
}

fn marked(mark: Mark) -> [Expression; 2] {
    [meta(META_MARK), equals(&(mark as u32).to_ne_bytes())]
}

fn protocol(number: u8) -> [Expression; 2] {
    [meta(META_L4PROTO), equals(&[number])]
}

fn not_tracked() -> Expression {
    ("notrack", Attributes::new())
}

fn unreachable(family: Family, mark: Mark) -> Expression {
    ("reject", Attributes::new().be32(1, 0).bytes(2, &[family.unreachable(mark)]))
}

fn reset() -> Expression {
    ("reject", Attributes::new().be32(1, 1).bytes(2, &[0]))
}

/// Hands a packet to the engine.
fn caught() -> [Expression; 5] {
    let group = Attributes::new().bytes(1, &GROUP.to_be_bytes()).bytes(4, &1_u16.to_be_bytes());
    let mark = (Mark::Caught as u32).to_ne_bytes();
    let set_mark = ("meta", Attributes::new().be32(2, META_MARK).be32(3, 1));
    [("log", group), load(&mark), set_mark, not_tracked(), accept()]
}

impl Rules<'_> {
    /// The rules of chain `capture`.
    fn capture(&self) -> Vec<Vec<Expression>> {
        let family = self.family;
        let (offset, loopback): (u32, &[u8]) = match family {
            Family::V4 => (16, &[127]),
            Family::V6 => (24, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        };
        let to =
            |address: &[u8]| vec![payload(1, offset, address.len()), equals(address), accept()];
        let rule = |parts: &[&[Expression]]| parts.concat();
        // TCP flags: FIN 1, SYN 2, RST 4, ACK 16.
        let opens = [payload(2, 13, 1), mask(0x17), equals(&[2])];
        let mut rules = vec![
            rule(&[&marked(Mark::Reply), &[not_tracked(), accept()]]),
            rule(&[&marked(Mark::Go), &[accept()]]),
            rule(&[&marked(Mark::Reset), &protocol(TCP), &[reset()]]),
        ];
        for mark in [Mark::NoNetwork, Mark::NoHost, Mark::NoPort, Mark::Prohibited] {
            rules.push(rule(&[&marked(mark), &[unreachable(family, mark)]]));
        }
        rules.extend([
            to(loopback),
            to(self.own),
            rule(&[&protocol(TCP), &opens, &caught()]),
            rule(&[&protocol(UDP), &caught()]),
            rule(&[&protocol(TCP), &[accept()]]),
            vec![unreachable(family, Mark::Prohibited)],
        ]);
        rules
    }

    /// Adds the family's table to a batch; counts messages up from `sequence`.
    fn table(&self, batch: &mut Vec<u8>, sequence: &mut u32) {
        const TABLE: &str = "rbuild";
        let header = [self.family.number(), 0, 0, 0];
        let mut add = |kind, flags, attributes: &Attributes| {
            netlink::command(batch, (kind, flags), *sequence, &header, attributes);
            *sequence += 1;
        };
        add(NEW_TABLE, netlink::CREATE, &Attributes::new().text(1, TABLE));
        let redirect = ("redir", Attributes::new().be32(1, 1));
        let divert = [&marked(Mark::Go)[..], &[load(&self.port.to_be_bytes()), redirect]].concat();
        let dropped = [&marked(Mark::Caught)[..], &[drop_packet()]].concat();
        let chains = [
            ("capture", "filter", HOOK_OUTPUT, PRIORITY_RAW, self.capture()),
            ("caught", "filter", HOOK_PREROUTING, PRIORITY_RAW, vec![dropped]),
            ("divert", "nat", HOOK_OUTPUT, PRIORITY_DSTNAT, vec![divert]),
        ];
        for (name, kind, hook, priority, rules) in chains {
            let hook = Attributes::new().be32(1, hook).be32(2, priority.cast_unsigned());
            let chain = Attributes::new().text(1, TABLE).text(3, name).nest(4, &hook);
            add(NEW_CHAIN, netlink::CREATE, &chain.text(7, kind));
            for rule in rules {
                let mut list = Attributes::new();
                for (name, data) in rule {
                    list = list.nest(1, &Attributes::new().text(1, name).nest(2, &data));
                }
                let rule = Attributes::new().text(1, TABLE).text(2, name).nest(4, &list);
                add(NEW_RULE, netlink::CREATE | netlink::APPEND, &rule);
            }
        }
    }
}

/// One transaction that installs the tables, and how many answers it gets.
pub(super) fn batch(tables: &[Rules<'_>]) -> (Vec<u8>, usize) {
    let mut batch = Vec::new();
    // The subsystem that the transaction is for, in network order.
    let header = [0, 0, 0, 10];
    netlink::message(&mut batch, (BATCH_BEGIN, 0), 0, &header, &Attributes::new());
    let mut sequence = 1;
    for rules in tables {
        rules.table(&mut batch, &mut sequence);
    }
    netlink::message(&mut batch, (BATCH_END, 0), sequence, &header, &Attributes::new());
    (batch, sequence as usize - 1)
}

/// Has the kernel send the caught packets to the asking socket, each at once and whole.
pub(super) fn subscribe() -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let [high, low] = GROUP.to_be_bytes();
    let header = [0, 0, high, low];
    let [a, b, c, d] = COPY_RANGE.to_be_bytes();
    // The command first: the group exists only then.
    let steps = [
        Attributes::new().bytes(1, &[1]),
        Attributes::new().bytes(2, &[a, b, c, d, 2, 0]).be32(5, 1),
    ];
    for (sequence, attributes) in (1..).zip(&steps) {
        netlink::command(&mut out, (CONFIGURE_LOG, 0), sequence, &header, attributes);
    }
    (out, steps.len())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::netlink::hex;
    use super::*;

    fn text(rules: &[Vec<Expression>]) -> String {
        let mut text = String::new();
        for rule in rules {
            let names: Vec<_> = rule.iter().map(|it| it.0).collect();
            text.push_str(&names.join(" "));
            text.push('\n');
        }
        text
    }

    #[test]
    fn the_shape_of_the_rules() {
        let rules = Rules { family: Family::V4, own: &[192, 0, 0, 8], port: 4000 };
        expect![[r#"
            meta cmp notrack immediate
            meta cmp immediate
            meta cmp meta cmp reject
            meta cmp reject
            meta cmp reject
            meta cmp reject
            meta cmp reject
            payload cmp immediate
            payload cmp immediate
            meta cmp payload bitwise cmp log immediate meta notrack immediate
            meta cmp log immediate meta notrack immediate
            meta cmp immediate
            reject
        "#]]
        .assert_eq(&text(&rules.capture()));
    }

    #[test]
    fn one_answer_for_each_message_but_the_borders() {
        let four = Rules { family: Family::V4, own: &[192, 0, 0, 8], port: 4000 };
        let six = Rules { family: Family::V6, own: &[0xfd; 16], port: 4001 };
        let (bytes, answers) = batch(&[four, six]);
        assert_eq!(netlink::received(&bytes).len(), answers + 2);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_subscription() {
        expect![[r#"
            1c000000 01040500 01000000 00000000
            00000001 05000100 01000000 28000000
            01040500 02000000 00000000 00000001
            0a000200 0000fffb 02000000 08000500
            00000001
        "#]]
        .assert_eq(&hex(&subscribe().0));
    }
}
