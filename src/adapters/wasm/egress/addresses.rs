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

/// Metadata services of version 4 that have no link-local address: Alibaba Cloud's and Azure's. That of Oracle lies among
/// the addresses that are reserved for protocols.
const METADATA: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Networks of 32 bits that clouds keep for the services of their machines: metadata, credentials, names and time of AWS
/// (`fd00:ec2::254`, `::23`, `::253`, `::123`), of Google (`fd20:ce::254`) and of Scaleway (`fd00:42::42`).
const METADATA_V6: [[u16; 2]; 3] = [[0xfd00, 0xec2], [0xfd20, 0xce], [0xfd00, 0x42]];

pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// The address that one of version 6 stands for, else itself.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => embedded(address).map_or(IpAddr::V6(address), IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA.contains(&address) {
        return Reach::Never;
    }
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
        // The relays of 6to4.
        (192, 88) if c == 99 => Reach::Never,
        (203, 0) if c == 113 => Reach::Never,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if let Some(inner) = embedded(address) {
        return reach_v4(inner);
    }
    let segments = address.segments();
    let [first, second, ..] = segments;
    if METADATA_V6.contains(&[first, second]) {
        return Reach::Never;
    }
    if let [_, _, _, _, 0 | 0x200, 0x5efe, high, low] = segments
        && reach_v4(join(high, low)) == Reach::Never
    {
        return Reach::Never;
    }
    if address.is_loopback() || first & 0xfe00 == 0xfc00 {
        return Reach::Private;
    }
    // Reserved for protocols, Teredo's tunnels among them, and for documentation.
    let reserved = match first {
        0x2001 => second < 0x200 || second == 0xdb8,
        0x3fff => second < 0x1000,
        _ => false,
    };
    // Only a part of the space is given out to be routed; of what is left, nothing is worth reaching.
    match first & 0xe000 == 0x2000 && !reserved {
        true => Reach::Public,
        false => Reach::Never,
    }
}

/// The address of version 4 that one of version 6 stands for: mapped, compatible, translated (NAT64) or tunnelled (6to4).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(join(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(join(high, low)),
        [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: Reach) {
        assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn what_is_public_or_private_is_so_in_every_spelling() {
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "2002:0101:0101::1",
            "::ffff:1.1.1.1",
            "2001:4860:4860::8888",
            "2606:4700::5efe:1.1.1.1",
            "64:ff9b:1::8.8.8.8",
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
            "fd00:ec3::254",
            "fd12::5efe:10.0.0.1",
        ] {
            check(address, Reach::Private);
        }
        check("172.32.0.1", Reach::Public);
        check("100.128.0.1", Reach::Public);
    }

    #[test]
    fn no_spelling_of_an_address_hides_where_it_lies() {
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
            "fd00:ec2::23",
            "fd00:ec2:0:0:1::",
            "fd20:ce::254",
            "fd00:42::42",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::ffff:100.100.100.200",
            "::ffff:168.63.129.16",
            "::168.63.129.16",
            "::169.254.169.254",
            "64:ff9b::168.63.129.16",
            "64:ff9b::192.0.0.192",
            // A prefix for NAT64 of the operator's own: where the address lies in it depends on its length.
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:808:8:800::",
            "2002:a83f:8110::1",
            "2002:6464:64c8::",
            // Translated, tunnelled by Teredo, by ISATAP.
            "::ffff:0:169.254.169.254",
            "2001::a9fe:a9fe",
            "2001:0:a9fe:a9fe::1",
            "2001:0:102:304:0:ffff:5601:5601",
            "2606:4700::5efe:169.254.169.254",
            "fd12::200:5efe:168.63.129.16",
            "fec0::1",
            "febf::1",
            "5f00::1",
            "100::1",
            "3fff::1",
            "2001:db8::1",
            "192.88.99.1",
        ] {
            check(address, Reach::Never);
        }
    }
}
