//! Subnets, and which address of one is whose.
//!
//! `networks/<name>/addresses/<address>` holds the endpoint that has the address; it appears in whole, by a hard link,
//! so that of two who want the same address one gets it. An endpoint whose container nobody supervises is stale.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::error::Error;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// Its first address, which is the network's own.
    pub first: Ipv4Addr,
    /// How many leading bits are the network's: 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// The network of this size that an address is in.
    pub const fn of(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { first: Ipv4Addr::from_bits(address.to_bits() & Self::mask(prefix)), prefix }
    }

    const fn mask(prefix: u8) -> u32 {
        if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
    }

    /// Its last address, which is everybody's.
    pub const fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !Self::mask(self.prefix))
    }

    /// Whether an address is in it.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & Self::mask(self.prefix) == self.first.to_bits()
    }

    /// Whether two share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The addresses that hosts can have, in order.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first.to_bits() + 1..self.last().to_bits()).map(Ipv4Addr::from_bits)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    /// `10.1.2.0/24`. Docker refuses bits beyond the prefix, and so is done here.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::Invalid(format!("invalid subnet {text}: an IPv4 network such as 10.1.2.0/24 is expected"))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=30).contains(prefix)).ok_or_else(wrong)?;
        let subnet = Self::of(address, prefix);
        if subnet.first != address {
            return Err(Error::Invalid(format!("invalid subnet {text}: it should be {subnet}")));
        }
        Ok(subnet)
    }
}

/// What networks get that ask for nothing, in order: a larger one for the default network, then small ones. Private
/// addresses that home routers, companies and other engines seldom use; what the host has a route to is passed over.
pub(super) fn candidates(large: bool) -> impl Iterator<Item = Subnet> {
    let prefix = if large { 20 } else { 24 };
    let step = 1u32 << (32 - prefix);
    [Ipv4Addr::new(10, 210, 0, 0), Ipv4Addr::new(172, 30, 0, 0)].into_iter().flat_map(move |pool| {
        let pool = Subnet::of(pool, 16);
        // The small ones leave the first large one alone.
        let skipped = if large { 0 } else { 16 };
        (skipped..(1 << 16) / step)
            .map(move |number| Subnet::of(Ipv4Addr::from_bits(pool.first.to_bits() + number * step), prefix))
    })
}

/// The hardware address that belongs to an address, as Docker makes it.
pub(super) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// `02:42:0a:d2:00:02`
pub(super) fn hardware_text(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let subnet: Subnet = "10.1.2.0/24".parse().unwrap();
        assert_eq!(
            (subnet.to_string().as_str(), subnet.last().to_string().as_str()),
            ("10.1.2.0/24", "10.1.2.255")
        );
        assert_eq!(subnet.hosts().count(), 254);
        assert!(
            subnet.contains("10.1.2.7".parse().unwrap()) && !subnet.contains("10.1.3.0".parse().unwrap())
        );
        assert!(
            subnet.overlaps("10.0.0.0/8".parse().unwrap())
                && !subnet.overlaps("10.1.3.0/24".parse().unwrap())
        );
        for bad in [
            "",
            "10.1.2.0",
            "10.1.2.1/24",
            "10.1.2.0/33",
            "10.1.2.0/0",
            "10.1.2/24",
            "x/24",
            "::/64",
            "1.2.3.4/32",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pools_do_not_overlap() {
        let large: Vec<_> = candidates(true).collect();
        let small: Vec<_> = candidates(false).collect();
        assert_eq!((large.len(), small.len()), (32, 480));
        assert!(small.iter().all(|subnet| !subnet.overlaps(large[0])));
        assert_eq!(small[0].to_string(), "10.210.16.0/24");
    }
}
