//! Messages of the domain name system (RFC 1035) as a server sees them: reading a question, writing an answer.
//!
//! What is read comes from the container, so it is bytes from anybody. Knows nothing of who has which name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most that goes into a datagram without the extension mechanism.
pub(crate) const UDP_MAX: usize = 512;

/// Seconds that an answer of ours holds: containers come and go.
const HOLDS: u32 = 5;

const HEADER: usize = 12;
/// The longest name on the wire.
const NAME_MAX: usize = 255;

/// `A`
const A: u16 = 1;
/// `AAAA`
const AAAA: u16 = 28;
/// `PTR`
const PTR: u16 = 12;
/// The class of the internet.
const INTERNET: u16 = 1;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Pointer,
    /// Anything else.
    Other,
}

/// What the header's last four bits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The question makes no sense.
    Malformed = 1,
    /// It cannot be answered now.
    Failed = 2,
    /// What is asked for is not done here.
    Unknown = 4,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Chosen by who asks.
    pub(crate) id: u16,
    /// In lower case, without the dot at the end.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Recursion is desired.
    recursion: bool,
    /// Where the question ends in its message.
    end: usize,
}

/// Reads a message. `Err` has what to say to who sent it, if anything.
pub(crate) fn read(message: &[u8]) -> Result<Question, Option<Code>> {
    let word =
        |at: usize| message.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    let (Some(id), Some(flags), Some(count)) = (word(0), word(2), word(4)) else { return Err(None) };
    // Answers are not answered, or two servers would never end.
    if message.len() < HEADER || flags & 0x8000 != 0 {
        return Err(None);
    }
    if flags & 0x7800 != 0 {
        return Err(Some(Code::Unknown));
    }
    if count != 1 {
        return Err(Some(Code::Malformed));
    }
    let malformed = || Some(Code::Malformed);
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at).ok_or_else(malformed)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => {
                let label = message.get(at..at + length).ok_or_else(malformed)?;
                if !name.is_empty() {
                    name.push('.');
                }
                // What is no text has no record here, and is passed on as it came.
                name.extend(label.iter().map(|byte| char::from(*byte).to_ascii_lowercase()));
                at += length;
                if at - HEADER > NAME_MAX {
                    return Err(malformed());
                }
            }
            // A question has nothing to point to.
            _ => return Err(malformed()),
        }
    }
    let (Some(kind), Some(class)) = (word(at), word(at + 2)) else { return Err(malformed()) };
    let kind = match (class, kind) {
        (INTERNET, A) => Kind::A,
        (INTERNET, AAAA) => Kind::Aaaa,
        (INTERNET, PTR) => Kind::Pointer,
        _ => Kind::Other,
    };
    Ok(Question { id, name, kind, recursion: flags & 0x100 != 0, end: at + 4 })
}

impl Question {
    /// The address that a question for a name's address is about (`4.3.2.1.in-addr.arpa`).
    pub(crate) fn address(&self) -> Option<IpAddr> {
        if let Some(digits) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets = [0; 4];
            let mut parts = digits.split('.');
            for octet in octets.iter_mut().rev() {
                *octet = parts.next()?.parse().ok()?;
            }
            return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
        }
        let digits = self.name.strip_suffix(".ip6.arpa")?;
        let mut bits = 0u128;
        let mut count = 0;
        for digit in digits.rsplit('.') {
            let value = u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
            bits = bits << 4 | value;
            count += 1;
        }
        (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
    }

    fn header(&self, message: &[u8], code: u16, answers: u16) -> Vec<u8> {
        let mut answer = Vec::with_capacity(UDP_MAX);
        answer.extend(self.id.to_be_bytes());
        // An answer, recursion available.
        let desired = if self.recursion { 0x100 } else { 0 };
        answer.extend((0x8080 | desired | code).to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(answers.to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(&message[HEADER..self.end]);
        answer
    }

    /// An answer with addresses, of which there may be none: the name exists. What does not fit into `most` bytes is
    /// left out, and the answer says so.
    pub(crate) fn addresses(&self, message: &[u8], addresses: &[IpAddr], most: usize) -> Vec<u8> {
        let data = addresses.iter().filter_map(|address| match (self.kind, address) {
            (Kind::A, IpAddr::V4(address)) => Some((A, address.octets().to_vec())),
            (Kind::Aaaa, IpAddr::V6(address)) => Some((AAAA, address.octets().to_vec())),
            _ => None,
        });
        self.records(message, data, most)
    }

    /// An answer with a name.
    pub(crate) fn pointer(&self, message: &[u8], name: &str, most: usize) -> Vec<u8> {
        let mut data = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            let label = &label.as_bytes()[..label.len().min(63)];
            data.push(u8::try_from(label.len()).unwrap_or(63));
            data.extend(label);
        }
        data.push(0);
        self.records(message, std::iter::once((PTR, data)), most)
    }

    fn records(&self, message: &[u8], records: impl Iterator<Item = (u16, Vec<u8>)>, most: usize) -> Vec<u8> {
        let mut answer = self.header(message, 0, 0);
        let mut count = 0u16;
        for (kind, data) in records {
            if answer.len() + 12 + data.len() > most || count == u16::MAX {
                answer[2] |= 0x02;
                break;
            }
            count += 1;
            // The name is the question's.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend(INTERNET.to_be_bytes());
            answer.extend(HOLDS.to_be_bytes());
            answer.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
            answer.extend(data);
        }
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        answer
    }

    /// An answer that there is none.
    pub(crate) fn refusal(&self, message: &[u8], code: Code) -> Vec<u8> {
        self.header(message, code as u16, 0)
    }

    /// Whether a message is an answer to this question, sent on as `id`: by its number and by what it repeats.
    pub(crate) fn is_answered_by(&self, asked: &[u8], answer: &[u8], id: u16) -> bool {
        answer.get(..2) == Some(&id.to_be_bytes()[..])
            && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && answer
                .get(HEADER..self.end)
                .is_none_or(|question| question.eq_ignore_ascii_case(&asked[HEADER..self.end]))
    }
}

/// What is said to a message that is no question.
pub(crate) fn refusal(message: &[u8], code: Code) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(message.get(..2).unwrap_or(&[0; 2]));
    let refused = (0x8080 | code as u16).to_be_bytes();
    answer[2..4].copy_from_slice(&refused);
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn questions_and_answers() {
        let asked = ask("Web.Back", 1);
        let question = read(&asked).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.id), ("web.back", Kind::A, 0x1234));
        let addresses = ["10.0.0.2".parse().unwrap(), "::1".parse().unwrap()];
        let answer = question.addresses(&asked, &addresses, UDP_MAX);
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[asked.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 2]);
        assert!(question.is_answered_by(&asked, &answer, 0x1234));
        assert!(!question.is_answered_by(&asked, &answer, 0x1235));
        assert!(!question.is_answered_by(&asked, &asked, 0x1234), "a question is no answer");
        let many: Vec<IpAddr> = (0..100).map(|last| Ipv4Addr::new(10, 0, 0, last).into()).collect();
        let cut = question.addresses(&asked, &many, UDP_MAX);
        assert!(cut.len() <= UDP_MAX && cut[2] & 2 == 2, "{}", cut.len());
        assert_eq!(question.addresses(&asked, &many, 65_535)[6..8], [0, 100]);
        assert_eq!(question.refusal(&asked, Code::Failed)[3] & 0xf, 2);
    }

    #[test]
    fn addresses_backwards() {
        for (name, expected) in [
            ("4.3.2.10.in-addr.arpa", Some("10.2.3.4")),
            ("3.2.10.in-addr.arpa", None),
            ("5.4.3.2.10.in-addr.arpa", None),
            ("x.3.2.10.in-addr.arpa", None),
            ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", Some("fd00::1")),
            ("1.0.ip6.arpa", None),
            ("web", None),
        ] {
            let question = read(&ask(name, 12)).unwrap();
            assert_eq!(question.address(), expected.map(|text| text.parse().unwrap()), "{name}");
        }
        let asked = ask("2.0.0.10.in-addr.arpa", 12);
        let answer = read(&asked).unwrap().pointer(&asked, "web.back.", UDP_MAX);
        assert!(answer.ends_with(b"\x03web\x04back\0"));
    }

    #[test]
    fn what_is_no_question() {
        let good = ask("web", 1);
        for length in 0..HEADER {
            assert_eq!(read(&good[..length]), Err(None), "{length}");
        }
        for length in HEADER..good.len() {
            assert_eq!(read(&good[..length]), Err(Some(Code::Malformed)), "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            read(&message)
        };
        assert_eq!(with(2, 0x80), Err(None), "an answer");
        assert_eq!(with(2, 0x28), Err(Some(Code::Unknown)), "an update");
        assert_eq!(with(5, 2), Err(Some(Code::Malformed)), "two questions");
        assert_eq!(with(12, 0xc0), Err(Some(Code::Malformed)), "a pointer");
        let long = ask(&["a"; 200].join("."), 1);
        assert_eq!(read(&long), Err(Some(Code::Malformed)), "too long a name");
        assert_eq!(refusal(&good, Code::Malformed)[..4], [0x12, 0x34, 0x80, 0x81]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_trouble(bytes in proptest::collection::vec(any::<u8>(), 0..600), most in 0usize..600) {
            match read(&bytes) {
                Ok(question) => {
                    let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                    let answer = question.addresses(&bytes, &addresses, most);
                    prop_assert!(question.is_answered_by(&bytes, &answer, question.id));
                    drop((question.address(), question.pointer(&bytes, "a.b.", most)));
                }
                Err(Some(code)) => prop_assert_eq!(refusal(&bytes, code).len(), HEADER),
                Err(None) => {}
            }
        }

        #[test]
        fn names_come_back(labels in proptest::collection::vec("[a-z0-9_-]{1,30}", 1..6)) {
            let name = labels.join(".");
            let asked = ask(&name, 28);
            let question = read(&asked).unwrap();
            prop_assert_eq!((question.name, question.kind), (name, Kind::Aaaa));
        }
    }
}
