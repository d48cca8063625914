//! Messages of the domain name system (RFC 1035), as far as asking for addresses needs them. What comes back is read
//! as what it is: bytes from anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The largest answer over UDP without the extension mechanism.
pub(super) const UDP_MAX: usize = 512;

/// The most names one answer may lead along.
const ALIASES_MAX: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Addresses, and for how many seconds they hold. None: the name exists and has none of this kind.
    Addresses(Vec<IpAddr>, u32),
    /// Another name stands for it, and its addresses were not sent along.
    Alias(String),
    /// There is no such name.
    NoName,
    /// The rest did not fit into a datagram.
    Truncated,
    /// The server cannot or will not tell.
    Refused,
}

/// A question for the addresses of `name`, which is in normal form.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Vec<u8> {
    let mut message = Vec::with_capacity(name.len() + 18);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question, nothing else.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        // A normal name's labels have at most 63 bytes.
        message.push(label.len().to_le_bytes()[0]);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.number().to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Reads the answer to a question. `None` if it is none, or is torn.
pub(super) fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let (answered, flags) = (reader.u16()?, reader.u16()?);
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.skip(4)?;
    if answered != id || flags & 0x8000 == 0 || questions != 1 {
        return None;
    }
    if reader.name()? != name || reader.u16()? != kind.number() || reader.u16()? != 1 {
        return None;
    }
    match flags & 0xf {
        0 => {}
        3 => return Some(Answer::NoName),
        _ => return Some(Answer::Refused),
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    let (mut addresses, mut aliases) = (Vec::new(), Vec::new());
    for _ in 0..answers {
        let owner = reader.name()?;
        let (found, class, seconds, length) =
            (reader.u16()?, reader.u16()?, reader.u32()?, usize::from(reader.u16()?));
        let start = reader.at;
        match (found, class) {
            (1, 1) if kind == Kind::A && length == 4 => {
                addresses.push((owner, IpAddr::V4(Ipv4Addr::from_bits(reader.u32()?)), seconds));
            }
            (28, 1) if kind == Kind::Aaaa && length == 16 => {
                let bytes: [u8; 16] = reader.bytes(16)?.try_into().ok()?;
                addresses.push((owner, IpAddr::V6(Ipv6Addr::from(bytes)), seconds));
            }
            (5, 1) => aliases.push((owner, reader.name()?, seconds)),
            _ => {}
        }
        reader.at = start.checked_add(length).filter(|end| *end <= message.len())?;
    }
    Some(follow(name, &addresses, &aliases))
}

/// From the name along its aliases to addresses. What belongs to other names was not asked for and is not believed.
fn follow(name: &str, addresses: &[(String, IpAddr, u32)], aliases: &[(String, String, u32)]) -> Answer {
    let (mut current, mut seconds) = (name, u32::MAX);
    for _ in 0..ALIASES_MAX {
        let of_this = addresses.iter().filter(|(owner, ..)| owner == current);
        let found: Vec<IpAddr> = of_this.clone().map(|(_, ip, _)| *ip).collect();
        if !found.is_empty() {
            let least = of_this.map(|(.., seconds)| *seconds).min().unwrap_or(0);
            return Answer::Addresses(found, seconds.min(least));
        }
        match aliases.iter().find(|(owner, ..)| owner == current) {
            Some((_, target, holds)) => {
                seconds = seconds.min(*holds);
                current = target;
            }
            None if current == name => return Answer::Addresses(Vec::new(), 0),
            None => return Answer::Alias(current.to_owned()),
        }
    }
    Answer::Refused
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(bytes)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes(count).map(drop)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// A name in lower case; compressed ones only ever point back, so this ends.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut end = None;
        loop {
            let length = *self.message.get(at)?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    // What is no text cannot equal a name that was asked for.
                    name.extend(label.iter().map(|byte| char::from(*byte).to_ascii_lowercase()));
                    if name.len() > 512 {
                        return None;
                    }
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1)?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    end.get_or_insert(at + 2);
                    if target >= at {
                        return None;
                    }
                    at = target;
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(at + 1);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a question, with records of (owner, type, seconds, data).
    fn reply(question: &[u8], flags: u16, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (owner, kind, seconds, data) in records {
            message.extend(*owner);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1]);
            message.extend(seconds.to_be_bytes());
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    const POINTER: &[u8] = &[0xc0, 12];

    #[test]
    fn answers() {
        let asked = question(7, "www.example.com", Kind::A);
        let read = |message: &[u8]| answer(message, 7, "www.example.com", Kind::A);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = reply(&asked, 0, &[(POINTER, 1, 60, &[192, 0, 2, 1]), (POINTER, 16, 1, b"text")]);
        assert_eq!(read(&one), Some(Answer::Addresses(vec![ip("192.0.2.1")], 60)));
        // The alias' target, uncompressed, then compressed behind a label.
        let alias = b"\x03cdn\x07example\x03com\0";
        let two = reply(&asked, 0, &[(POINTER, 5, 30, alias), (b"\x03CDN\xc0\x10", 1, 60, &[192, 0, 2, 2])]);
        assert_eq!(read(&two), Some(Answer::Addresses(vec![ip("192.0.2.2")], 30)));
        let only = reply(&asked, 0, &[(POINTER, 5, 30, alias)]);
        assert_eq!(read(&only), Some(Answer::Alias("cdn.example.com".to_owned())));
        // Records of another name do not count.
        let other = reply(&asked, 0, &[(alias, 1, 60, &[192, 0, 2, 3])]);
        assert_eq!(read(&other), Some(Answer::Addresses(vec![], 0)));
        let circle = reply(&asked, 0, &[(POINTER, 5, 30, b"\xc0\x0c")]);
        assert_eq!(read(&circle), Some(Answer::Refused));
        assert_eq!(read(&reply(&asked, 3, &[])), Some(Answer::NoName));
        assert_eq!(read(&reply(&asked, 2, &[])), Some(Answer::Refused));
        assert_eq!(read(&reply(&asked, 0x200, &[])), Some(Answer::Truncated));
    }

    #[test]
    fn what_is_no_answer() {
        let asked = question(7, "example.com", Kind::Aaaa);
        let good = reply(&asked, 0, &[(POINTER, 28, 60, &[0; 16])]);
        let read = |message: &[u8]| answer(message, 7, "example.com", Kind::Aaaa);
        assert!(read(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "cut at {length}");
        }
        assert_eq!(answer(&good, 8, "example.com", Kind::Aaaa), None, "another question's");
        assert_eq!(answer(&good, 7, "example.org", Kind::Aaaa), None, "another name's");
        assert_eq!(answer(&good, 7, "example.com", Kind::A), None, "another kind's");
        assert_eq!(read(&asked), None, "a question");
        let mut forward = good.clone();
        let at = asked.len();
        forward[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(read(&forward), None, "a pointer that points ahead");
        // No bytes make it panic or hang.
        let mut state = 1u32;
        for _ in 0..20_000 {
            let mut message = good.clone();
            for _ in 0..4 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = usize::try_from(state >> 8).unwrap() % message.len();
                message[at] = state.to_le_bytes()[3];
            }
            drop(read(&message));
        }
    }
}
