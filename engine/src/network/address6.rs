//! IPv6 networks, and which address of one is whose.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::error::Error;

/// An IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet6 {
    /// Its first address.
    pub first: Ipv6Addr,
    /// How many leading bits are the network's: 1 to 126.
    pub prefix: u8,
}

impl Subnet6 {
    const fn mask(prefix: u8) -> u128 {
        if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) }
    }

    /// Whether an address is in it.
    pub const fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & Self::mask(self.prefix) == self.first.to_bits()
    }

    /// Whether two share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The addresses behind the first one.
    pub fn hosts(self) -> impl Iterator<Item = Ipv6Addr> {
        let last = self.first.to_bits() | !Self::mask(self.prefix);
        (self.first.to_bits() + 1..last).map(Ipv6Addr::from_bits)
    }

    /// A network of local addresses (RFC 4193) that belongs to an id: 40 of its bits, and 16 for the subnet.
    pub fn local(id: &str) -> Self {
        let bits = u128::from_str_radix(id.get(..14).unwrap_or("0"), 16).unwrap_or(0);
        Self { first: Ipv6Addr::from_bits(0xfd << 120 | bits << 64), prefix: 64 }
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = Error;

    /// `fd00:1::/64`. Bits beyond the prefix are refused.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::Invalid(format!("invalid subnet {text}: an IPv6 network such as fd00:1::/64 is expected"))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=126).contains(prefix)).ok_or_else(wrong)?;
        let subnet = Self { first: Ipv6Addr::from_bits(address.to_bits() & Self::mask(prefix)), prefix };
        if subnet.first != address {
            return Err(Error::Invalid(format!("invalid subnet {text}: it should be {subnet}")));
        }
        Ok(subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let subnet: Subnet6 = "fd00:1::/64".parse().unwrap();
        assert_eq!(subnet.hosts().next().map(|ip| ip.to_string()).as_deref(), Some("fd00:1::1"));
        assert!(subnet.contains("fd00:1::7".parse().unwrap()));
        assert!(!subnet.contains("fd00:2::7".parse().unwrap()));
        assert!(subnet.overlaps("fd00::/8".parse().unwrap()));
        for bad in ["", "fd00::", "fd00::1/64", "fd00::/0", "fd00::/127", "10.0.0.0/8", "x/64"] {
            assert!(bad.parse::<Subnet6>().is_err(), "{bad}");
        }
        let local = Subnet6::local(&"0123456789abcdef".repeat(4));
        assert_eq!(local.to_string(), "fd01:2345:6789:abcd::/64");
    }
}
