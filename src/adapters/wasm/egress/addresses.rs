//! Which addresses lie where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address lies, as seen from a worker in somebody's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// On the internet.
    Public,
    /// In the operator's own networks, or on this machine.
    Private,
    /// Where nothing is that a component may talk to, whoever allows it: the metadata services of clouds, links, groups
    /// and addresses that are none.
    Never,
}

/// Metadata services that have no link-local address.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

pub(super) fn reach(address: IpAddr) -> Reach {
    if METADATA.contains(&address) {
        return Reach::Never;
    }
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => reach(IpAddr::V4(inner)),
            None => reach_v6(address),
        },
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    match (a, b) {
        (0, _) | (169, 254) | (224..=255, _) => Reach::Never,
        // Loopback, RFC 1918, the shared space of providers, benchmarks.
        (10 | 127, _) | (172, 16..=31) | (192, 168) | (100, 64..=127) | (198, 18..=19) => {
            Reach::Private
        }
        // Reserved for protocols and for documentation.
        (192, 0) if c == 0 || c == 2 => Reach::Never,
        (198, 51) if c == 100 => Reach::Never,
        (203, 0) if c == 113 => Reach::Never,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let first = address.segments()[0];
    if address.is_loopback() || first & 0xfe00 == 0xfc00 {
        return Reach::Private;
    }
    // Only a part of the space is given out to be routed; of what is left, nothing is worth reaching.
    match first & 0xe000 == 0x2000 && !(first == 0x2001 && address.segments()[1] == 0xdb8) {
        true => Reach::Public,
        false => Reach::Never,
    }
}

/// The address of version 4 that one of version 6 stands for: mapped, compatible, translated (NAT64) or tunnelled (6to4).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(of(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_an_address_hides_where_it_lies() {
        #[track_caller]
        fn check(address: &str, expected: Reach) {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "2002:0101:0101::1",
            "::ffff:1.1.1.1",
        ] {
            check(address, Reach::Public);
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.9.9",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::1",
        ] {
            check(address, Reach::Private);
        }
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
        ] {
            check(address, Reach::Never);
        }
        check("172.32.0.1", Reach::Public);
        check("100.128.0.1", Reach::Public);
    }
}
