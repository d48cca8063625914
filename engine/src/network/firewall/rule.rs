//! The chains and rules of the table, and how a rule is told to the kernel: as steps of its register machine.

use dhow_runtime::netlink::Message;

use super::{BRIDGES, INTERNAL, MASKED, PAIRS, Protocol, Questions};

// Where a chain hangs.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// The first register of 16 bytes; the ones of 4 bytes count from 8, so this one is 8 to 11.
const FIRST: u32 = 1;
/// The second 4 bytes of [`FIRST`].
const SECOND_WORD: u32 = 9;
/// The 4 bytes behind [`FIRST`].
const FIFTH_WORD: u32 = 12;
/// The second register of 16 bytes.
const SECOND: u32 = 2;

/// A chain and what is in it.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Type, hook, priority; `None` for one that is jumped to.
    hook: Option<(&'static str, u32, i32)>,
    pub(super) rules: Vec<Vec<Step>>,
}

impl Chain {
    pub(super) fn write(&self, table: &str, message: &mut Message) {
        message.text(1, table).text(3, self.name);
        if let Some((kind, hook, priority)) = self.hook {
            message.text(7, kind).nested(4, |hooked| {
                hooked.attribute(1, &hook.to_be_bytes()).attribute(2, &priority.to_be_bytes());
            });
        }
    }
}

/// One step. Each test that fails ends its rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Loads something about the packet.
    Meta { key: u32, register: u32 },
    /// Loads bytes of the network (1) or transport (2) header.
    Payload { base: u32, offset: u32, length: u32, register: u32 },
    /// Keeps these bits of the first register.
    Mask(&'static [u8]),
    /// The first register is this, or is not.
    Compare { equal: bool, value: &'static [u8] },
    /// The first register is in a set, or is not.
    In { set: &'static str, inside: bool },
    /// The first register is in a map, whose data is loaded.
    Map(&'static str),
    /// Loads what kind of address the destination (2) or source (1) is.
    AddressType { of: u32 },
    /// Loads state (0) or status (2) of the connection.
    Connection(u32),
    /// Loads bytes as they are.
    Load { register: u32, bytes: [u8; 4] },
    /// The destination is now what the first register has, with the port behind it.
    Redirect { six: bool },
    /// The source is now this host.
    Masquerade,
    /// Drop (0) or accept (1).
    Verdict(i32),
    /// Goes on there, and comes back.
    Jump(&'static str),
}

/// Name of a rule's writer.
pub(super) struct Rule;

impl Rule {
    pub(super) fn write(steps: &[Step], message: &mut Message) {
        message.nested(4, |list| {
            for step in steps {
                list.nested(1, |expression| step.write(expression));
            }
        });
    }
}

impl Step {
    fn write(self, message: &mut Message) {
        let number = |value: u32| value.to_be_bytes();
        let value = |message: &mut Message, kind: u16, bytes: &[u8]| {
            message.nested(kind, |data| {
                data.attribute(1, bytes);
            });
        };
        let name = match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::In { .. } | Self::Map(_) => "lookup",
            Self::AddressType { .. } => "fib",
            Self::Connection(_) => "ct",
            Self::Redirect { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Verdict(_) | Self::Jump(_) | Self::Load { .. } => "immediate",
        };
        message.text(1, name).nested(2, |m| match self {
            Self::Meta { key, register } => {
                m.attribute(1, &number(register)).attribute(2, &number(key));
            }
            Self::Payload { base, offset, length, register } => {
                m.attribute(1, &number(register)).attribute(2, &number(base));
                m.attribute(3, &number(offset)).attribute(4, &number(length));
            }
            Self::Mask(bits) => {
                m.attribute(1, &number(FIRST)).attribute(2, &number(FIRST));
                m.attribute(3, &number(u32::try_from(bits.len()).unwrap_or(0)));
                value(m, 4, bits);
                value(m, 5, &[0; 16][..bits.len().min(16)]);
            }
            Self::Compare { equal, value: wanted } => {
                m.attribute(1, &number(FIRST)).attribute(2, &number(u32::from(!equal)));
                value(m, 3, wanted);
            }
            Self::In { set, inside } => {
                m.text(1, set).attribute(2, &number(FIRST));
                if !inside {
                    m.attribute(5, &number(1));
                }
            }
            Self::Map(set) => {
                m.text(1, set).attribute(2, &number(FIRST)).attribute(3, &number(FIRST));
            }
            Self::AddressType { of } => {
                m.attribute(1, &number(FIRST)).attribute(2, &number(3)).attribute(3, &number(of));
            }
            Self::Connection(key) => {
                m.attribute(1, &number(FIRST)).attribute(2, &number(key));
            }
            Self::Redirect { six } => {
                // Destination, the family, where the address is, where the port is.
                let (family, port) = if six { (10, FIFTH_WORD) } else { (2, SECOND_WORD) };
                m.attribute(1, &number(1)).attribute(2, &number(family));
                m.attribute(3, &number(FIRST)).attribute(5, &number(port));
            }
            Self::Load { register, bytes } => {
                m.attribute(1, &number(register));
                value(m, 2, &bytes);
            }
            Self::Masquerade => {}
            Self::Verdict(code) => verdict(m, code, None),
            Self::Jump(chain) => verdict(m, -3, Some(chain)),
        });
    }
}

fn verdict(message: &mut Message, code: i32, chain: Option<&str>) {
    message.attribute(1, &0u32.to_be_bytes()).nested(2, |data| {
        data.nested(2, |verdict| {
            verdict.attribute(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}

/// Words for the tests of rules.
const DROP: Step = Step::Verdict(0);
const ACCEPT: Step = Step::Verdict(1);
const INPUT_NAME: Step = Step::Meta { key: 6, register: FIRST };
const OUTPUT_NAME: Step = Step::Meta { key: 7, register: FIRST };

fn comes_from(set: &'static str) -> [Step; 2] {
    [INPUT_NAME, Step::In { set, inside: true }]
}

fn goes_to(set: &'static str, inside: bool) -> [Step; 2] {
    [OUTPUT_NAME, Step::In { set, inside }]
}

/// `NFPROTO_IPV4`
fn is_ipv4() -> [Step; 2] {
    [Step::Meta { key: 15, register: FIRST }, Step::Compare { equal: true, value: &[2] }]
}

/// `NFPROTO_IPV6`
fn is_ipv6() -> [Step; 2] {
    [Step::Meta { key: 15, register: FIRST }, Step::Compare { equal: true, value: &[10] }]
}

fn is_not_loopback6() -> [Step; 2] {
    const LOOPBACK: &[u8] = &std::net::Ipv6Addr::LOCALHOST.octets();
    [
        Step::Payload { base: 1, offset: 24, length: 16, register: FIRST },
        Step::Compare { equal: false, value: LOOPBACK },
    ]
}

/// The protocol above, by its number.
fn is_protocol(protocol: Protocol) -> [Step; 2] {
    let number: &'static [u8] = match protocol {
        Protocol::Tcp => &[6],
        Protocol::Udp => &[17],
        Protocol::Sctp => &[132],
    };
    [Step::Meta { key: 16, register: FIRST }, Step::Compare { equal: true, value: number }]
}

/// The source (12) or destination (16) is one of 127.0.0.0/8.
fn is_loopback(offset: u32) -> [Step; 2] {
    [
        Step::Payload { base: 1, offset, length: 1, register: FIRST },
        Step::Compare { equal: true, value: &[127] },
    ]
}

/// Bits of a connection's state: established is 2, related 4.
const ESTABLISHED_OR_RELATED: &[u8] = &6u32.to_ne_bytes();

/// The connection was redirected by a destination rule.
fn was_redirected() -> [Step; 3] {
    const REDIRECTED: &[u8] = &(1u32 << 5).to_ne_bytes();
    [Step::Connection(2), Step::Mask(REDIRECTED), Step::Compare { equal: false, value: &[0; 4] }]
}

/// All chains with their rules, those that are jumped to first.
pub(super) fn chains() -> Vec<Chain> {
    let mut ports = Vec::new();
    for protocol in Protocol::ALL {
        for six in [false, true] {
            // What comes from this host's `::1` can go nowhere else, unlike with IPv4.
            let family =
                if six { [&is_ipv6()[..], &is_not_loopback6()].concat() } else { is_ipv4().to_vec() };
            let to = |then: &[Step]| {
                [&family[..], &is_protocol(protocol), then, &[Step::Redirect { six }]].concat()
            };
            let (offset, length, behind) = if six { (24, 16, FIFTH_WORD) } else { (16, 4, SECOND_WORD) };
            let destination = Step::Payload { base: 1, offset, length, register: FIRST };
            let port = |register| Step::Payload { base: 2, offset: 2, length: 2, register };
            ports.push(to(&[destination, port(behind), Step::Map(protocol.map(six, true))]));
            ports.push(to(&[port(FIRST), Step::Map(protocol.map(six, false))]));
        }
    }
    let to_this_host = || {
        // RTN_LOCAL
        const LOCAL: &[u8] = &2u32.to_ne_bytes();
        vec![Step::AddressType { of: 2 }, Step::Compare { equal: true, value: LOCAL }, Step::Jump("ports")]
    };
    let rule = |parts: &[&[Step]]| parts.concat();
    let raw = vec![
        // Nobody else may use the host's loopback, though bridges route it and ports are published on it.
        rule(&[
            &is_ipv4(),
            &[INPUT_NAME, Step::Compare { equal: false, value: b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0" }],
            &is_loopback(16),
            &[DROP],
        ]),
    ];
    let forward = vec![
        rule(&[
            &[INPUT_NAME, Step::Meta { key: 7, register: SECOND }],
            &[Step::In { set: PAIRS, inside: true }, ACCEPT],
        ]),
        rule(&[&comes_from(INTERNAL), &[DROP]]),
        rule(&[&goes_to(INTERNAL, true), &[DROP]]),
        rule(&[
            &goes_to(BRIDGES, true),
            &[Step::Connection(0), Step::Mask(ESTABLISHED_OR_RELATED)],
            &[Step::Compare { equal: false, value: &[0; 4] }, ACCEPT],
        ]),
        rule(&[&goes_to(BRIDGES, true), &was_redirected(), &[ACCEPT]]),
        // From other networks, and from elsewhere to what is not published.
        rule(&[&goes_to(BRIDGES, true), &[DROP]]),
    ];
    let postrouting = vec![
        // From a container to the world.
        rule(&[&comes_from(MASKED), &goes_to(BRIDGES, false), &[Step::Masquerade]]),
        // From a container to a published port: the answer must come back this way.
        rule(&[&comes_from(BRIDGES), &was_redirected(), &[Step::Masquerade]]),
        // From this host's loopback to a published port.
        rule(&[&is_ipv4(), &goes_to(BRIDGES, true), &is_loopback(12), &[Step::Masquerade]]),
    ];
    vec![
        Chain { name: "ports", hook: None, rules: ports },
        Chain { name: "raw", hook: Some(("filter", PREROUTING, -300)), rules: raw },
        Chain { name: "prerouting", hook: Some(("nat", PREROUTING, -100)), rules: vec![to_this_host()] },
        Chain { name: "output", hook: Some(("nat", OUTPUT, -100)), rules: vec![to_this_host()] },
        Chain { name: "forward", hook: Some(("filter", FORWARD, 0)), rules: forward },
        Chain { name: "postrouting", hook: Some(("nat", POSTROUTING, 100)), rules: postrouting },
    ]
}

/// The chain of a container's own table: its questions for names go to where they are answered.
pub(super) fn questions(to: &Questions) -> Vec<Chain> {
    const SERVER: &[u8] = &super::super::inside::SERVER.octets();
    const DOMAIN: &[u8] = &53u16.to_be_bytes();
    let lead = |protocol, port: u16| {
        let [high, low] = port.to_be_bytes();
        [
            &is_ipv4()[..],
            &[
                Step::Payload { base: 1, offset: 16, length: 4, register: FIRST },
                Step::Compare { equal: true, value: SERVER },
            ],
            &is_protocol(protocol),
            &[
                Step::Payload { base: 2, offset: 2, length: 2, register: FIRST },
                Step::Compare { equal: true, value: DOMAIN },
                Step::Load { register: FIRST, bytes: super::super::inside::SERVER.octets() },
                Step::Load { register: SECOND_WORD, bytes: [high, low, 0, 0] },
                Step::Redirect { six: false },
            ],
        ]
        .concat()
    };
    let rules = vec![lead(Protocol::Udp, to.udp), lead(Protocol::Tcp, to.tcp)];
    vec![Chain { name: "output", hook: Some(("nat", OUTPUT, -100)), rules }]
}
