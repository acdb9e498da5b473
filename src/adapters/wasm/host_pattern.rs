//! An entry of the lists of hosts that components may reach.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A host or all hosts below a domain, at one port or at any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    hosts: Hosts,
    port: Option<NonZeroU16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// The host of this name.
    Name(String),
    /// The host at this address.
    Address(IpAddr),
    /// Every host whose name ends in a dot and this domain.
    Below(String),
}

/// A text that names no hosts.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` names no host: expected a name such as `api.example.com`, `*.example.com` or an address, with a port after a colon where only that one is meant"
)]
pub struct InvalidHostPattern(String);

impl HostPattern {
    /// Returns whether it means this host, in lower case, by the host's own name or address.
    pub fn names(&self, host: &str) -> bool {
        match &self.hosts {
            Hosts::Name(name) => name == host,
            Hosts::Address(address) => host.parse() == Ok(*address),
            Hosts::Below(_) => false,
        }
    }

    /// Returns whether it means this host, in lower case.
    pub fn covers(&self, host: &str) -> bool {
        match &self.hosts {
            Hosts::Name(_) | Hosts::Address(_) => self.names(host),
            Hosts::Below(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    /// Returns whether it means this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own.get() == port)
    }
}

impl Hosts {
    fn read(text: &str) -> Option<Self> {
        let named = |name: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
        };
        if let Some(domain) = text.strip_prefix("*.") {
            return named(domain).then(|| Self::Below(domain.to_owned()));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(text).parse() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => named(text).then(|| Self::Name(text.to_owned())),
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        if let Some(hosts) = Hosts::read(&lower) {
            return Ok(Self { hosts, port: None });
        }
        let with_port = || {
            let (host, port) = lower.rsplit_once(':')?;
            // An address of version 6 has its port after brackets only.
            let hosts = Hosts::read(host).filter(|_| !host.contains(':') || host.ends_with(']'))?;
            let is_number = port.bytes().all(|b| b.is_ascii_digit());
            let port = Some(port.parse().ok().filter(|_| is_number)?);
            Some(Self { hosts, port })
        };
        with_port().ok_or_else(|| InvalidHostPattern(text.to_owned()))
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHostPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.hosts, self.port) {
            (Hosts::Name(name), _) => f.write_str(name)?,
            (Hosts::Address(IpAddr::V6(address)), Some(_)) => write!(f, "[{address}]")?,
            (Hosts::Address(address), _) => write!(f, "{address}")?,
            (Hosts::Below(domain), _) => write!(f, "*.{domain}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_names_and_nothing_else() {
        #[track_caller]
        fn check(pattern: &str, host: &str, covers: bool) {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.covers(host), covers, "{pattern} and {host}");
        }
        check("api.example.com", "api.example.com", true);
        check("API.example.com", "api.example.com", true);
        check("api.example.com", "xapi.example.com", false);
        check("example.com", "api.example.com", false);
        check("*.example.com", "api.example.com", true);
        check("*.example.com", "a.b.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "evilexample.com", false);
        check("*.example.com", ".example.com", false);
        check("[::1]", "::1", true);
        check("::ffff:1.2.3.4", "::ffff:102:304", true);
        check("127.0.0.1", "127.0.0.1", true);
        for wrong in [
            "", "*", "*.", "a b", "http://a", "a/b", "*.*.a", ".a", "a:", ":80", "a:0", "a:65536",
            "a:b", "a:1:2", "[::1", "[a]:80", "a:+80",
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_port_is_the_only_one_and_none_is_any() {
        #[track_caller]
        fn check(text: &str, host: &str, port: Option<u16>) {
            let pattern: HostPattern = text.parse().unwrap();
            assert!(pattern.covers(host), "{text}");
            for asked in [80, 443, 8443] {
                let expected = port.is_none_or(|port| port == asked);
                assert_eq!(pattern.has_port(asked), expected, "{text} {asked}");
            }
            assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern);
        }
        check("a.example", "a.example", None);
        check("a.example:8443", "a.example", Some(8443));
        check("*.example:443", "a.example", Some(443));
        check("10.0.0.1:80", "10.0.0.1", Some(80));
        check("[fd12::1]:80", "fd12::1", Some(80));
        check("fd12::1", "fd12::1", None);
        check("[fd12::1]", "fd12::1", None);
    }
}
